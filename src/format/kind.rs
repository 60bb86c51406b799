//! The meaning of a record: its kind and its flags.

use super::expiry::EXPIRY_LEN;
use super::session::SESSION_LEN;

/// The kind of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Sets the key's value.
    Put,
    /// Removes the key: a tombstone.
    Delete,
    /// Sets the key's value, with an [`Expiry`](super::Expiry) in front of it.
    PutWith,
    /// Says how long a session lives, or that it has ended: see [`SessionRecord`](super::SessionRecord).
    Session,
    /// Sets the key's value, with an [`Expiry`](super::Expiry) in front of it that names the session to which the pair belongs.
    PutOwned,
    /// Says something about the log, and nothing about keys.
    Ancillary(Ancillary),
}

/// Records that a reader of keys and values may skip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ancillary {
    /// Carries a sequence number (a new block's first one) or the flag `SYNCED`. Has no body.
    Mark,
    /// Its value is an offset (8 bytes). Everything before that was on stable storage when this was written.
    SyncedTo,
    /// The log was compacted into another file. The path names that file now, unless the compaction died at this point.
    Moved,
    /// From a later version.
    Unknown(u8),
    /// A record whose body does not concern the walk, and may change: `ROOTS`, `IMAGE`, `SNAPSHOT`, or one of a later version.
    Loose(u8),
}

pub(super) const KIND_PUT: u8 = 1;
pub(super) const KIND_DELETE: u8 = 2;
/// 3 stays free: tests use it as a kind of a later version.
pub(super) const KIND_PUT_WITH: u8 = 4;
pub(super) const KIND_SESSION: u8 = 5;
pub(super) const KIND_PUT_OWNED: u8 = 6;
/// Kinds from here on are ancillary.
const FIRST_ANCILLARY: u8 = 0x80;
pub(super) const KIND_MARK: u8 = FIRST_ANCILLARY;
pub(super) const KIND_SYNCED_TO: u8 = FIRST_ANCILLARY + 1;
pub(super) const KIND_MOVED: u8 = FIRST_ANCILLARY + 2;
/// Kinds from here on are loose.
const FIRST_LOOSE: u8 = 0xc0;
pub(super) const KIND_ROOTS: u8 = FIRST_LOOSE;
pub(super) const KIND_IMAGE: u8 = FIRST_LOOSE + 1;
pub(super) const KIND_SNAPSHOT: u8 = FIRST_LOOSE + 2;

impl Kind {
    #[inline]
    pub(super) fn decode(byte: u8) -> Option<Kind> {
        match byte {
            KIND_PUT => Some(Kind::Put),
            KIND_DELETE => Some(Kind::Delete),
            KIND_PUT_WITH => Some(Kind::PutWith),
            KIND_SESSION => Some(Kind::Session),
            KIND_PUT_OWNED => Some(Kind::PutOwned),
            KIND_MARK => Some(Kind::Ancillary(Ancillary::Mark)),
            KIND_SYNCED_TO => Some(Kind::Ancillary(Ancillary::SyncedTo)),
            KIND_MOVED => Some(Kind::Ancillary(Ancillary::Moved)),
            _ if byte >= FIRST_LOOSE => Some(Kind::Ancillary(Ancillary::Loose(byte))),
            _ if byte >= FIRST_ANCILLARY => Some(Kind::Ancillary(Ancillary::Unknown(byte))),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn encode(self) -> u8 {
        match self {
            Kind::Put => KIND_PUT,
            Kind::Delete => KIND_DELETE,
            Kind::PutWith => KIND_PUT_WITH,
            Kind::Session => KIND_SESSION,
            Kind::PutOwned => KIND_PUT_OWNED,
            Kind::Ancillary(Ancillary::Mark) => KIND_MARK,
            Kind::Ancillary(Ancillary::SyncedTo) => KIND_SYNCED_TO,
            Kind::Ancillary(Ancillary::Moved) => KIND_MOVED,
            Kind::Ancillary(Ancillary::Unknown(byte) | Ancillary::Loose(byte)) => byte,
        }
    }

    /// Whether a record of this kind changes a key. All others have none.
    #[inline]
    pub(crate) fn is_event(self) -> bool {
        matches!(self, Kind::Put | Kind::Delete | Kind::PutWith | Kind::PutOwned)
    }

    /// Whether a record of this kind sets the value of its key.
    #[inline]
    pub(crate) fn is_put(self) -> bool {
        matches!(self, Kind::Put | Kind::PutWith | Kind::PutOwned)
    }

    /// Whether a record of this kind says how long something counts: a pair with a deadline or an owner, or a session.
    #[inline]
    pub(crate) fn has_lifetime(self) -> bool {
        matches!(self, Kind::PutWith | Kind::Session | Kind::PutOwned)
    }

    /// The number of bytes in front of the value that users see.
    #[inline]
    pub(crate) fn expiry_len(self) -> usize {
        if matches!(self, Kind::PutWith | Kind::PutOwned) { EXPIRY_LEN } else { 0 }
    }

    /// The number of bytes at the beginning of the stored value that replay needs.
    #[inline]
    pub(crate) fn replayed_len(self) -> usize {
        if self == Kind::Session { SESSION_LEN } else { self.expiry_len() }
    }

    /// Whether a record of this kind says something about the records before it, or about a key: it can be a witness.
    #[inline]
    pub(crate) fn is_known(self) -> bool {
        !matches!(self, Kind::Ancillary(Ancillary::Unknown(_) | Ancillary::Loose(_)))
    }

    /// Whether the body does not concern the walk.
    #[inline]
    pub(crate) fn is_loose(self) -> bool {
        matches!(self, Kind::Ancillary(Ancillary::Loose(_)))
    }
}

/// A record's flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags {
    /// Everything before this record was on stable storage when it was written.
    pub(crate) synced: bool,
    /// The batch goes on in the next record.
    pub(crate) more: bool,
}

pub(super) const FLAG_SYNCED: u8 = 1;
pub(super) const FLAG_MORE: u8 = 2;

impl Flags {
    pub(crate) const NONE: Flags = Flags { synced: false, more: false };

    #[inline]
    pub(super) fn decode(byte: u8) -> Option<Flags> {
        let known = FLAG_SYNCED | FLAG_MORE;
        (byte & !known == 0).then_some(Flags { synced: byte & FLAG_SYNCED != 0, more: byte & FLAG_MORE != 0 })
    }

    #[inline]
    pub(super) fn encode(self) -> u8 {
        let bit = |set, flag| if set { flag } else { 0 };
        bit(self.synced, FLAG_SYNCED) | bit(self.more, FLAG_MORE)
    }
}
