//! The verbs, one file each: its arguments and what it does.

pub mod backup;
pub mod batch;
pub mod buckets;
pub mod cas;
pub mod compact;
pub mod completions;
pub mod delete;
pub mod delete_prefix;
pub mod dump;
pub mod exists;
pub mod explore;
pub mod export;
pub mod get;
pub mod hex;
pub mod import;
pub mod list;
pub mod lock;
pub mod man;
pub mod map;
pub mod put;
pub mod salvage;
pub mod sessions;
pub mod stats;
pub mod verify;
pub mod wait;
pub mod watch;
