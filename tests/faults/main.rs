//! Calls that fail and resources that run out. Nothing acknowledged is lost, and when the fault is gone, the store goes on.

#[path = "../common/mod.rs"]
mod common;

// Looks into /proc and sets limits that other systems name differently.
#[cfg(target_os = "linux")]
mod exhaustion;
mod failing_writes;
mod fault_loops;
mod others;
mod reopened;
