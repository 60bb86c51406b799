//! The bytes of a caskfile, as pure functions without input or output.
//!
//! `docs/FORMAT.md` is the specification. This module has the file header ([`header`]), records ([`record`]) with their
//! kinds ([`kind`]), sequence numbers ([`sequence`]), deadlines and owners ([`expiry`]) and sessions ([`session`]), the roots at the file's head ([`roots`]), snapshots of the index
//! ([`snapshot`]) with the order of the keys ([`order`]), the full key in a record's body ([`key`]), the checksums ([`checksum`]) and the names of all fields
//! ([`fields`]). All numbers are little-endian.

mod checksum;
mod damage;
#[cfg(any(test, feature = "testing"))]
pub mod decode;
mod expiry;
mod fields;
mod header;
mod key;
mod kind;
pub(crate) mod order;
mod record;
mod roots;
mod sequence;
mod session;
pub(crate) mod snapshot;

pub(crate) use checksum::FileSeed;
pub use damage::Damage;
pub use expiry::MAX_EXPIRING_VALUE_LEN;
pub(crate) use expiry::{EXPIRY_LEN, Expiry, Owner};
pub(crate) use fields::{
    EXPIRY_FIELDS, FILE_HEADER_FIELDS, FLAG_NAMES, Named, PART_FIELDS, RECORD_HEADER_FIELDS, RawRecordHeader,
    SESSION_FIELDS, SLOT_FIELDS, SNAPSHOT_FIELDS, expiry_len, expiry_of, is_session_kind, is_snapshot_kind, kind_name,
};
pub(crate) use header::{FILE_HEADER_LEN, FileHeader, HeaderFault};
pub use header::{MAJOR_VERSION, MINOR_VERSION};
pub(crate) use key::{FullKey, KeyFault, prefix_of_bucket, split_full_key};
pub use key::{MAX_BUCKET_LEN, max_key_len};
pub(crate) use kind::{Ancillary, Flags, Kind};
pub use record::MAX_VALUE_LEN;
pub(crate) use record::{MAX_FILE_LEN, Place, RECORD_HEADER_LEN, RecordHeader, Verdict, padded};
pub(crate) use roots::{ROOTS_END, ROOTS_START, Root, SLOT_LEN, SLOTS, roots_header};
#[cfg(test)]
pub(crate) use sequence::{BLOCK_LEN, block_of, block_start};
pub(crate) use sequence::{MAX_SEQ, MAX_SEQ_STEP, SeqBound};
pub(crate) use session::{MAX_OWNER, SESSION_LEN, SessionRecord};

/// Every record starts at a multiple of this many bytes.
pub(crate) const ALIGNMENT: u64 = 8;

/// The log ends where this many zero bytes stand in the place of a record header.
pub(crate) const END_MARK_LEN: u64 = 8;
