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
//! // Compare-and-swap: refused if anybody, in any process, has changed the key since it was read.
//! let pair = cask.get("config/port")?;
//! cask.atomic_put("config/port", "9090", Some(&pair))?;
//! assert!(matches!(cask.atomic_put("config/port", "7070", Some(&pair)), Err(Error::KeyModified)));
//!
//! // Several changes at once, under conditions, over several buckets.
//! let mut batch = Batch::new();
//! batch.expect_absent("leader").put("leader", "node-1").bucket("log").put("0001", "node-1 leads");
//! cask.write(&batch)?;
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
//! - [`Cask`] is an open store, seen through one of its [buckets](Cask::bucket). It is cheap to clone and is used from
//!   any number of threads. Besides the calls above there are [`scan`](Cask::scan), [`range`](Cask::range) and
//!   [`visit`](Cask::visit) to go through many pairs, [`update`](Cask::update) for the usual compare-and-swap loop,
//!   [`delete_prefix`](Cask::delete_prefix), [`compact`](Cask::compact), [`verify`](Cask::verify) and
//!   [`stats`](Cask::stats); [`mapped`](Cask::mapped) reads without copying.
//! - [`Store`] is the contract that `Cask` fulfils: a small object-safe trait, known from the Go library libkv, with
//!   [`KvPair`], [`Error`] and [`new_store`], which opens a [`Backend`] by name. Other implementations are welcome; the
//!   feature `testing` has a `conformance` suite for them.
//! - [`Config`] says how a store is opened: [`Durability`], [`LockMode`], how long to wait for other writers,
//!   [when to compact](CompactionPolicy).
//! - [`verify`] reports every damaged range of a file, [`salvage`] copies what can still be read of it to a new one.
//! - [`inspect`] tells of every byte of a file what it is, for those who debug or study one.
//! - [`disk`] is the seam between the engine and the operating system. With the feature `testing` there is a simulated
//!   disk behind it, on which a test can cut the power at any call.
//!
//! # What is promised
//!
//! - A write that was acknowledged survives the death of the process, and with [`Durability::Sync`], the default, a
//!   power cut. What survives is always the beginning of the history: no write is lost while a later one stays, and no
//!   batch is there in part.
//! - A read that starts after a write has returned sees it, in whichever process either happens.
//! - An index that anybody has seen is never given to another write, so a compare-and-swap with a stale pair is refused
//!   after deletion, compaction, reopening and power cuts, too.
//! - Damage to what had been stored is [`Error::Corrupt`], never a wrong value; a damaged or foreign file is not
//!   changed.
//!
//! The limits are in the README, the bytes in `docs/FORMAT.md`.
//!
//! # Features
//!
//! None is on by default. `log`: events through the crate of that name, with the target `caskfile`: a failed sync or
//! cut is an error; a torn tail that was cut off, a warning; compaction, backups, salvage and reopening are information;
//! opening and closing are for debugging. No message has a key or a value in it. `cli`: the command `caskfile`, see `docs/CLI.md`. `testing`: the conformance suite and the
//! simulated disk.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(not(unix))]
compile_error!("caskfile needs flock, mmap and fsync as Unix has them; Linux is what it is tested on");

// Offsets reach 2^43. With a 32-bit `off_t` the search for data, the bytes of the line and the length would end at 2 GiB,
// so that what a file states beyond that would not be found; and a map of a larger file has no room in the address space.
#[cfg(not(target_pointer_width = "64"))]
compile_error!("caskfile needs a 64-bit target: on others, files over 2 GiB would be read wrong");

mod backend;
mod config;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
pub mod disk;
mod engine;
mod error;
mod events;
mod fork;
mod format;
mod index;
pub mod inspect;
mod log;
mod memory;
mod prefetch;
mod progress;
mod replay;
mod report;
mod store;
mod sync;

pub use backend::{Backend, new_store};
pub use config::{CompactionPolicy, Config, Durability, LockMode, ReadMode};
pub use engine::{
    Backup, Batch, BucketScans, Cask, Compaction, IndexScan, MAX_BATCH_BYTES, MAX_BATCH_OPS, Mapped, PairRef, Scan,
    Slice, Stats,
};
pub use error::{Error, Result};
#[cfg(any(test, feature = "testing"))]
pub use format::decode;
pub use format::{Damage, MAJOR_VERSION, MAX_BUCKET_LEN, MAX_VALUE_LEN, MINOR_VERSION, max_key_len};
pub use inspect::{salvage, salvage_on, salvage_unfinished, salvage_with, verify, verify_on};
pub use progress::Progress;
pub use report::{Loss, LostKey, Report};
pub use store::{KvPair, OptionalExt, Store};
