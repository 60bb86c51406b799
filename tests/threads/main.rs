//! Many threads on one handle.

#[path = "../common/mod.rs"]
mod common;

mod held_up;
// Looks into /proc and sets limits that other systems name differently.
#[cfg(target_os = "linux")]
mod many_threads;
mod moments;
mod one_sync;
