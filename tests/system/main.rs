//! What the operating system adds: names, links, permissions, mounts, file systems.

#[path = "../common/mod.rs"]
mod common;

mod file_systems;
mod mounted;
mod names;
mod neighbours;
mod permissions;
mod private_until_owned;
mod watches;
