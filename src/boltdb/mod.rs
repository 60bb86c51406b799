//! BoltDB files, read to import their pairs (feature `boltdb`).
//!
//! BoltDB, and bbolt, its successor, are Go libraries. libkv keeps its pairs in such a file, and so do many programs that may want to
//! move to caskfile. This module reads the file without them, and writes nothing to it.
//!
//! ```
//! # let directory = std::env::temp_dir().join(format!("caskfile-doc-boltdb-{}", std::process::id()));
//! # std::fs::create_dir_all(&directory)?;
//! # let (bolt, store) = ("tests/data/boltdb/small.db", directory.join("store"));
//! use std::ops::ControlFlow;
//!
//! use caskfile::Cask;
//! use caskfile::boltdb::{BoltFile, ImportOptions};
//!
//! let file = BoltFile::open(bolt)?;
//! let checked = file.check(&ImportOptions::new())?; // reads everything, writes nothing
//! println!("{} pairs in {} buckets", checked.contents().pairs, checked.contents().buckets);
//! let cask = Cask::open(store)?;
//! checked.import(&cask, |_progress| ControlFlow::Continue(()))?;
//! assert_eq!(cask.bucket("fruit")?.get("apple")?.value, b"red");
//! # cask.close()?;
//! # std::fs::remove_dir_all(directory)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What becomes of buckets
//!
//! A pair of the bucket `b` becomes a pair of caskfile's bucket `b`. BoltDB has buckets in buckets, and caskfile does not: the bucket
//! `c` in `b` becomes the bucket `b/c`. If the file has a bucket with that name as well, or if a name gets longer than
//! [`MAX_BUCKET_LEN`](crate::MAX_BUCKET_LEN), the import is refused before it writes anything. A bucket without pairs leaves no trace,
//! and neither do the sequence numbers of buckets.
//!
//! # What is checked
//!
//! BoltDB has checksums of its two meta pages only. A changed byte in a key or a value cannot be found. Everything that says where keys
//! and values are is checked: page numbers, kinds, counts, positions and lengths, the order of all keys, that no page is used twice, and
//! that no page has more pages than its bytes need. So each page is read once. In memory are the pages on the way to the current pair, a
//! copy of the small bucket that has it, and about 40 bytes for each bucket in a bucket: no more than three times the file.
//!
//! The newer of the two meta pages counts, or the one that is whole. A meta page with the checksum 0 is whole: the Go libraries take it
//! for one without a checksum. The file must have as many pages as it says.
//!
//! # Locks
//!
//! A program that has a BoltDB file open for writing holds a lock on all of it. [`BoltFile`] holds the lock of readers, so no program
//! writes to the file meanwhile, and many can read it.

mod error;
mod file;
mod import;
mod meta;
mod page;
mod walk;

pub use error::BoltError;
pub use file::BoltFile;
pub use import::{Checked, ImportOptions};
pub use walk::{BoltPair, Contents};
