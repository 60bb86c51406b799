//! Placeholder.
#[cfg(not(unix))]
compile_error!("caskfile needs flock, mmap and fsync as Unix has them; Linux is what it is tested on");

mod backend;
mod config;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
pub mod disk;
mod engine;
mod error;
mod format;
mod index;
mod log;
mod store;

pub use backend::{Backend, new_store};
pub use config::{Config, Durability, LockMode, ReadMode};
pub use engine::{
    Batch, Cask, Compaction, Loss, MAX_BATCH_BYTES, MAX_BATCH_OPS, Mapped, PairRef, Salvage, Scan, Slice, Stats,
    Verification, salvage,
};
pub use error::{Damage, Error, Result};
pub use format::{MAJOR_VERSION, MAX_BUCKET_LEN, MAX_VALUE_LEN, MINOR_VERSION, max_key_len};
pub use store::{KvPair, OptionalExt, Store};
