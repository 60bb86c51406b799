//! Maintenance: compaction, its throttle, and backups.

pub(crate) mod automatic;
mod backup;
pub(crate) mod compact;
pub(crate) mod throttle;
mod verify;

pub use backup::Backup;
pub use compact::Compaction;
