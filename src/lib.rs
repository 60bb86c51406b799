//! Keys and values in one append-only file that any number of processes on one machine read and write at the same
//! time, with compare-and-swap. There is no server, and no process that must be running.
//!
//! ```
//! # let path = std::env::temp_dir().join(format!("caskfile-doc-tour-{}", std::process::id()));
//! use caskfile::{Batch, Cask, Error, OptionalExt};
//!
//! let cask = Cask::open(&path)?;
//! cask.put("config/port", "8080")?;
//!
//! // Compare-and-swap: refused if any thread or process has changed the key since it was read.
//! let pair = cask.get("config/port")?;
//! cask.put_if("config/port", "9090", pair.last_index)?;
//! assert!(matches!(cask.put_if("config/port", "7070", pair.last_index), Err(Error::KeyModified)));
//!
//! // A batch changes several keys at once, under conditions, also in several buckets.
//! cask.write(Batch::new().put_new("leader", "node-1").bucket("log").put("0001", "node-1 leads"))?;
//!
//! assert_eq!(cask.list("config/")?.len(), 1);
//! assert!(cask.get("config/host").optional()?.is_none());
//! cask.close()?;
//! # std::fs::remove_file(path).unwrap();
//! # Ok::<(), Error>(())
//! ```
//!
//! # Tour
//!
//! - [`Cask`] is an open store, seen through one of its [buckets](Cask::bucket). A clone is cheap, and any number of
//!   threads use it. [`scan`](Cask::scan), [`range`](Cask::range) and [`visit`](Cask::visit) read many pairs,
//!   [`put_if`](Cask::put_if), [`put_new`](Cask::put_new) and [`delete_if`](Cask::delete_if) write under a condition,
//!   [`update`](Cask::update) is the usual compare-and-swap loop, [`delete_prefix`](Cask::delete_prefix) deletes many
//!   keys, and [`mapped`](Cask::mapped) reads without copying. [`compact`](Cask::compact), [`verify`](Cask::verify) and
//!   [`stats`](Cask::stats) work on the whole store.
//! - [`changes`](Cask::changes) returns a [`Watch`]: the puts and deletes of every process as they come.
//! - [`Store`] is the contract that `Cask` fulfils: a small object-safe trait, known from the Go library libkv, with
//!   [`KvPair`], [`Error`] and [`new_store`], which opens a [`Backend`] by name, or one that was [registered](register_backend). [`atomic_put`](Store::atomic_put) and
//!   [`atomic_delete`](Store::atomic_delete) are its calls: they do with a pair what `put_if`, `put_new` and `delete_if` do with
//!   its index. [`Feed`] and [`Lock`] are its watches and locks. The feature `testing` has a `conformance` suite that checks other implementations.
//! - [`Config`] says how a store is opened: [`Durability`], [`LockMode`], how long to wait for other writers,
//!   [when to compact](CompactionPolicy).
//! - [`verify()`] reports every damaged range of a file, [`salvage()`] copies what can still be read to a new file.
//! - [`inspect`] shows what each byte of a file is, for debugging and studying a store.
//! - The feature `testing` makes the module `disk` public: the seam between the engine and the operating system, and a
//!   simulated disk on which a test can cut the power at any call. Functions whose names end in `_on` use such a disk.
//!
//! # What is promised
//!
//! - An acknowledged write survives the death of the process, and, with [`Durability::Sync`], the default, a power cut.
//!   What survives is always the beginning of the history: no write is lost while a later one stays, and no batch
//!   survives in part.
//! - A read that starts after a write has returned sees it, in any process.
//! - A `last_index` that a reader has seen is never assigned to another write. So a compare-and-swap with an old pair is
//!   refused, also after deletion, compaction, reopening and power cuts.
//! - Damage to stored bytes is [`Error::Corrupt`], never a wrong value. A file that has lost what a clean close left in it
//!   is [`Error::Truncated`]. A damaged, cut or foreign file is not changed.
//!
//! The limits are in the README, the bytes in `docs/FORMAT.md`.
//!
//! # Features
//!
//! None is on by default.
//!
//! - `log`: events through the crate of that name, with the target `caskfile`. A failed sync or cut is an error; a torn
//!   tail that was cut off is a warning; compaction, backup, salvage and reopening are information; opening and closing
//!   are for debugging. No message contains a key or a value.
//! - `boltdb`: the module `boltdb`, which imports BoltDB files, such as those of libkv.
//! - `cli`: the command `caskfile`, see `docs/CLI.md`.
//! - `testing`: the conformance suite and the simulated disk.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(not(unix))]
compile_error!("caskfile needs flock, mmap and fsync as Unix has them; it is tested on Linux");

// Offsets reach 2^43. With a 32-bit `off_t`, reads, lengths and the lock's places in line would end at 2 GiB, and a map of
// a larger file has no room in the address space.
#[cfg(not(target_pointer_width = "64"))]
compile_error!("caskfile needs a 64-bit target: on others, files over 2 GiB would be read wrong");

mod backend;
#[cfg(feature = "boltdb")]
pub mod boltdb;
mod config;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
#[cfg(any(test, feature = "testing"))]
pub mod disk;
#[cfg(not(any(test, feature = "testing")))]
mod disk;
mod engine;
mod error;
mod events;
mod fork;
mod format;
mod index;
pub mod inspect;
mod limits;
mod log;
mod loss;
mod memory;
#[cfg(test)]
#[path = "../tests/common/patience.rs"]
mod patience;
mod prefetch;
mod progress;
mod replay;
mod report;
mod store;
mod sync;

pub use backend::{Backend, new_store, register_backend};
pub use config::{CompactionPolicy, Config, Durability, LockMode, ReadMode, SnapshotPolicy};
pub use engine::{
    Applied, Backup, Batch, BucketScans, Cask, CaskLock, ChangeRef, Compaction, IndexScan, Keys, MAX_BATCH_BYTES,
    MAX_BATCH_OPS, Mapped, PairRef, Scan, Session, SessionKey, SessionState, SessionStatus, Slice, Stats, Unit, Update,
    Watch, WatchFrom, WatchOptions,
};
pub use error::{Error, ErrorKind, Result};
#[cfg(any(test, feature = "testing"))]
pub use format::decode;
pub use format::{
    Damage, MAJOR_VERSION, MAX_BUCKET_LEN, MAX_EXPIRING_VALUE_LEN, MAX_VALUE_LEN, MINOR_VERSION, max_key_len,
};
pub use inspect::{salvage, salvage_unfinished, salvage_with, verify};
#[cfg(any(test, feature = "testing"))]
pub use inspect::{salvage_on, verify_on};
#[cfg(any(test, feature = "testing"))]
pub use limits::Limits;
pub use loss::{LockLoss, LossSender};
pub use progress::Progress;
pub use report::{Loss, LostKey, Report, WrongSnapshot};
pub use store::{Change, Feed, Held, KvPair, Lock, LockOptions, OptionalExt, PutOptions, Stopper, Store, TreeEvent};
