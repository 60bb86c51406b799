//! Records: a 24-byte header, the full key, the value, zeros up to the next multiple of 8.

use std::ops::Range;

use byteorder::{ByteOrder, LittleEndian};

use super::checksum::{FileSeed, body_crc};
use super::expiry::{EXPIRY_LEN, Expiry};
use super::fields::RawRecordHeader;
use super::kind::{Flags, Kind};
use super::sequence::SeqBound;
use super::{ALIGNMENT, Damage, END_MARK_LEN};

pub(super) const AT_HEADER_CRC: Range<usize> = 0..4;
pub(super) const AT_BODY_CRC: Range<usize> = AT_HEADER_CRC.end..AT_HEADER_CRC.end + 4;
pub(super) const AT_FLAGS: usize = AT_BODY_CRC.end;
pub(super) const AT_KIND: usize = AT_FLAGS + 1;
pub(super) const AT_KEY_LEN: Range<usize> = AT_KIND + 1..AT_KIND + 3;
pub(super) const AT_VALUE_LEN: Range<usize> = AT_KEY_LEN.end..AT_KEY_LEN.end + 4;
pub(super) const AT_SEQ: Range<usize> = AT_VALUE_LEN.end..AT_VALUE_LEN.end + 8;

/// The length of a record's header.
pub(crate) const RECORD_HEADER_LEN: usize = AT_SEQ.end;

/// The longest full key: the largest number in its length field.
pub(crate) const MAX_FULL_KEY_LEN: usize = u16::MAX as usize;

/// The longest value, in bytes (1 GiB). A record of this length fits into one write: Linux writes at most 2 GiB less
/// one page at a time.
pub const MAX_VALUE_LEN: usize = 1 << 30;

/// The longest file (8 TiB). The index holds offsets, divided by 8, in 40 bits.
pub(crate) const MAX_FILE_LEN: u64 = 1 << 43;

/// The next offset, not before `offset`, at which a record may start.
pub(crate) const fn padded(offset: u64) -> u64 {
    offset.next_multiple_of(ALIGNMENT)
}

/// A record's header, with both checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) header_crc: u32,
    pub(crate) body_crc: u32,
    pub(crate) flags: Flags,
    pub(crate) kind: Kind,
    pub(crate) key_len: u16,
    pub(crate) value_len: u32,
    pub(crate) seq: u64,
}

/// The place of a header. The same bytes are a true header in one place only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) seed: FileSeed,
    pub(crate) offset: u64,
    pub(crate) file_len: u64,
    pub(crate) after: SeqBound,
}

/// The meaning of 24 bytes in the place of a record header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The log ends here.
    End,
    True(RecordHeader),
    /// True, but with a kind or flag that this version must not skip.
    Unsupported {
        kind: u8,
        flags: u8,
    },
    False(Damage),
}

impl RecordHeader {
    /// The offset, in a record, of the bytes that `body_crc` covers.
    pub(crate) const AT_MEANING: usize = AT_KIND;

    /// The header of a new record at this place, with both checksums.
    pub(crate) fn new(
        seed: FileSeed,
        offset: u64,
        flags: Flags,
        kind: Kind,
        seq: u64,
        key: &[u8],
        value: &[u8],
    ) -> RecordHeader {
        let mut header = RecordHeader::unsealed(flags, kind, seq, key.len(), value.len());
        header.body_crc = body_crc(&header.encode()[AT_KIND..], key, value);
        header.header_crc = header.computed_header_crc(seed, offset);
        header
    }

    /// A header without its checksums.
    fn unsealed(flags: Flags, kind: Kind, seq: u64, key_len: usize, value_len: usize) -> RecordHeader {
        let (key_len, value_len) = (key_len as u16, value_len as u32);
        RecordHeader { header_crc: 0, body_crc: 0, flags, kind, key_len, value_len, seq }
    }

    /// The header of a new put of a pair that counts as long as `expiry` says. Its value is the expiry, and `value` after it.
    pub(crate) fn with_expiry(
        seed: FileSeed,
        offset: u64,
        flags: Flags,
        seq: u64,
        key: &[u8],
        expiry: &Expiry,
        value: &[u8],
    ) -> RecordHeader {
        let mut header = RecordHeader::unsealed(flags, expiry.kind(), seq, key.len(), EXPIRY_LEN + value.len());
        let mut hasher = header.body_hasher();
        [key, &expiry.encode(), value].into_iter().for_each(|bytes| hasher.update(bytes));
        header.body_crc = hasher.finalize();
        header.header_crc = header.computed_header_crc(seed, offset);
        header
    }

    /// The header of the same record at another place, perhaps in another file. The body's checksum is kept, so it
    /// protects a value from the first put on.
    pub(crate) fn moved_to(&self, seed: FileSeed, offset: u64, flags: Flags) -> RecordHeader {
        let mut header = RecordHeader { flags, ..*self };
        header.header_crc = header.computed_header_crc(seed, offset);
        header
    }

    fn computed_header_crc(&self, seed: FileSeed, offset: u64) -> u32 {
        seed.header_crc(offset, &self.encode())
    }

    pub(crate) fn encode(&self) -> [u8; RECORD_HEADER_LEN] {
        let mut bytes = [0; RECORD_HEADER_LEN];
        LittleEndian::write_u32(&mut bytes[AT_HEADER_CRC], self.header_crc);
        LittleEndian::write_u32(&mut bytes[AT_BODY_CRC], self.body_crc);
        bytes[AT_FLAGS] = self.flags.encode();
        bytes[AT_KIND] = self.kind.encode();
        LittleEndian::write_u16(&mut bytes[AT_KEY_LEN], self.key_len);
        LittleEndian::write_u32(&mut bytes[AT_VALUE_LEN], self.value_len);
        LittleEndian::write_u64(&mut bytes[AT_SEQ], self.seq);
        bytes
    }

    /// Decodes a header without judging it: for bytes that were validated before, at a position from the index. `None`
    /// if the kind or a flag is unknown.
    #[inline]
    pub(crate) fn decode(bytes: &[u8; RECORD_HEADER_LEN]) -> Option<RecordHeader> {
        let raw = RawRecordHeader::read(bytes);
        Some(RecordHeader {
            header_crc: raw.header_crc,
            body_crc: raw.body_crc,
            flags: Flags::decode(raw.flags)?,
            kind: Kind::decode(raw.kind)?,
            key_len: raw.key_len,
            value_len: raw.value_len,
            seq: raw.seq,
        })
    }

    /// Judges the bytes in the place of a header.
    ///
    /// The checksum comes first: without it the other fields mean nothing. Then the lengths, before memory is allocated
    /// for them, and the sequence number. Kind and flags come last, because only a true header can be of a later
    /// version; a torn tail must not look like one.
    #[inline]
    pub(crate) fn judge(bytes: &[u8; RECORD_HEADER_LEN], place: Place) -> Verdict {
        if bytes[..END_MARK_LEN as usize] == [0; END_MARK_LEN as usize] {
            return Verdict::End;
        }
        let found = LittleEndian::read_u32(&bytes[AT_HEADER_CRC]);
        let computed = place.seed.header_crc(place.offset, bytes);
        if found != computed {
            return Verdict::False(Damage::Header { found, computed });
        }
        let key_len = LittleEndian::read_u16(&bytes[AT_KEY_LEN]);
        let value_len = LittleEndian::read_u32(&bytes[AT_VALUE_LEN]);
        if value_len as usize > MAX_VALUE_LEN {
            return Verdict::False(Damage::Lengths { key_len, value_len });
        }
        let end = place.offset + RECORD_HEADER_LEN as u64 + u64::from(key_len) + u64::from(value_len);
        if end > place.file_len.min(MAX_FILE_LEN) {
            return Verdict::False(Damage::BeyondFile { end, file_len: place.file_len });
        }
        let seq = LittleEndian::read_u64(&bytes[AT_SEQ]);
        if !place.after.admits(seq) {
            return Verdict::False(Damage::Sequence { found: seq, previous: place.after.previous });
        }
        match RecordHeader::decode(bytes) {
            Some(header) => Verdict::True(header),
            None => Verdict::Unsupported { kind: bytes[AT_KIND], flags: bytes[AT_FLAGS] },
        }
    }

    /// Whether bytes could be a true header of a known kind somewhere after a place. Computes no checksum, so that a
    /// search over many places is fast.
    pub(crate) fn plausible(bytes: &[u8; RECORD_HEADER_LEN], after: SeqBound) -> bool {
        Kind::decode(bytes[AT_KIND]).is_some_and(Kind::is_known)
            && Flags::decode(bytes[AT_FLAGS]).is_some()
            && LittleEndian::read_u32(&bytes[AT_VALUE_LEN]) as usize <= MAX_VALUE_LEN
            && after.admits(LittleEndian::read_u64(&bytes[AT_SEQ]))
    }

    /// The seed of the file in which this header is true at this place.
    pub(crate) fn seed_at(&self, offset: u64) -> FileSeed {
        FileSeed::of_header(offset, &self.encode())
    }

    pub(crate) fn body_len(&self) -> u64 {
        u64::from(self.key_len) + u64::from(self.value_len)
    }

    /// The length of header and body, without padding.
    pub(crate) fn record_len(&self) -> u64 {
        RECORD_HEADER_LEN as u64 + self.body_len()
    }

    /// The distance to the next record.
    pub(crate) fn padded_len(&self) -> u64 {
        padded(self.record_len())
    }

    /// The length of the value that users see.
    #[inline]
    pub(crate) fn user_len(&self) -> usize {
        (self.value_len as usize).saturating_sub(self.kind.expiry_len())
    }

    /// Whether the value has room for the expiry that its kind demands.
    #[inline]
    pub(crate) fn has_room_for_expiry(&self) -> bool {
        self.value_len as usize >= self.kind.expiry_len()
    }

    /// Splits the value that the record holds into its expiry, if its kind has one, and the value that users see.
    ///
    /// A stored value may be too short for its expiry. A validated record never has one. Returns neither then.
    #[inline]
    pub(crate) fn split_value<'a>(&self, stored: &'a [u8]) -> (Option<Expiry>, &'a [u8]) {
        if self.kind.expiry_len() == 0 {
            return (None, stored);
        }
        match stored.split_first_chunk() {
            Some((expiry, value)) => (Some(Expiry::decode(self.kind, expiry)), value),
            None => (None, b""),
        }
    }

    /// The checksum that this header and this body should have.
    #[inline]
    pub(crate) fn computed_body_crc(&self, key: &[u8], value: &[u8]) -> u32 {
        body_crc(&self.encode()[AT_KIND..], key, value)
    }

    /// The part of a record that `body_crc` covers.
    pub(crate) fn meaning_and_body(record: &[u8]) -> &[u8] {
        &record[RecordHeader::AT_MEANING..]
    }

    /// A hasher over the part of the header that `body_crc` covers. The body follows.
    pub(crate) fn body_hasher(&self) -> crc32fast::Hasher {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.encode()[AT_KIND..]);
        hasher
    }

    /// The first 8 bytes. A handle recognises its last record by them.
    pub(crate) fn fingerprint(&self) -> u64 {
        u64::from(self.header_crc) | u64::from(self.body_crc) << 32
    }
}

#[cfg(test)]
mod tests {
    use super::super::expiry::Owner;
    use super::super::kind::{Ancillary, FLAG_SYNCED};
    use super::super::sequence::{MAX_SEQ, MAX_SEQ_STEP};
    use super::*;

    const OFFSET: u64 = 4096;

    fn seed() -> FileSeed {
        FileSeed::new(&[3; 16])
    }

    fn place() -> Place {
        Place { seed: seed(), offset: OFFSET, file_len: 1 << 20, after: SeqBound { previous: 41, base: 7 } }
    }

    fn sample() -> RecordHeader {
        RecordHeader::new(seed(), OFFSET, Flags { synced: true, more: false }, Kind::Put, 42, b"\0key", b"value")
    }

    /// Gives changed header bytes a valid checksum, to reach the checks after that.
    fn resealed(mut bytes: [u8; RECORD_HEADER_LEN]) -> [u8; RECORD_HEADER_LEN] {
        let crc = seed().header_crc(OFFSET, &bytes);
        LittleEndian::write_u32(&mut bytes[AT_HEADER_CRC], crc);
        bytes
    }

    #[test]
    fn the_header_is_24_bytes_and_reads_back_as_written() {
        assert_eq!(RECORD_HEADER_LEN, 24);
        assert_eq!(RecordHeader::judge(&sample().encode(), place()), Verdict::True(sample()));
    }

    #[test]
    fn every_flipped_bit_makes_a_header_false() {
        for bit in 0..RECORD_HEADER_LEN * 8 {
            let mut bytes = sample().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(RecordHeader::judge(&bytes, place()), Verdict::False(Damage::Header { .. })), "bit {bit}");
        }
    }

    #[test]
    fn eight_zero_bytes_end_the_log_whatever_follows() {
        let mut bytes = [0; RECORD_HEADER_LEN];
        bytes[8..].fill(0xff);
        assert_eq!(RecordHeader::judge(&bytes, place()), Verdict::End);
    }

    #[test]
    fn lengths_are_checked_before_memory_is_allocated() {
        let mut bytes = sample().encode();
        LittleEndian::write_u32(&mut bytes[AT_VALUE_LEN], u32::MAX);
        assert!(matches!(RecordHeader::judge(&resealed(bytes), place()), Verdict::False(Damage::Lengths { .. })));
        let mut bytes = sample().encode();
        LittleEndian::write_u32(&mut bytes[AT_VALUE_LEN], 1 << 29);
        assert!(matches!(RecordHeader::judge(&resealed(bytes), place()), Verdict::False(Damage::BeyondFile { .. })));

        // A value may have the full length, and a record may end where the file does.
        let longest = RecordHeader { key_len: 0, value_len: MAX_VALUE_LEN as u32, ..sample() };
        let bytes = resealed(longest.encode());
        let end = OFFSET + longest.record_len();
        let judged = |file_len| RecordHeader::judge(&bytes, Place { file_len, ..place() });
        assert!(matches!(judged(end), Verdict::True(_)));
        assert!(matches!(judged(end - 1), Verdict::False(Damage::BeyondFile { .. })));
    }

    #[test]
    fn a_sequence_number_follows_within_the_bound() {
        for (seq, follows) in [(0, false), (41, false), (42, true), (41 + MAX_SEQ_STEP, true)] {
            let bytes = resealed(RecordHeader { seq, ..sample() }.encode());
            assert_eq!(matches!(RecordHeader::judge(&bytes, place()), Verdict::True(_)), follows, "{seq}");
        }
        let bytes = resealed(RecordHeader { seq: 42 + MAX_SEQ_STEP, ..sample() }.encode());
        assert!(matches!(RecordHeader::judge(&bytes, place()), Verdict::False(Damage::Sequence { .. })));
        let last = SeqBound { previous: MAX_SEQ - 1, base: 0 };
        assert!(last.admits(MAX_SEQ) && !last.admits(MAX_SEQ + 1));
        // Records that compaction copied are below the base, and the next ones may be this much above it.
        let compacted = SeqBound { previous: 41, base: 1 << 50 };
        assert!(compacted.admits(42) && compacted.admits((1 << 50) + MAX_SEQ_STEP) && !compacted.admits(41));
    }

    #[test]
    fn an_unknown_kind_is_skipped_if_ancillary_and_unsupported_otherwise() {
        let mut bytes = sample().encode();
        bytes[AT_KIND] = 3;
        assert_eq!(
            RecordHeader::judge(&resealed(bytes), place()),
            Verdict::Unsupported { kind: 3, flags: FLAG_SYNCED }
        );
        for (byte, kind) in
            [(0xbf, Ancillary::Unknown(0xbf)), (0xc0, Ancillary::Loose(0xc0)), (0xff, Ancillary::Loose(0xff))]
        {
            bytes[AT_KIND] = byte;
            let Verdict::True(header) = RecordHeader::judge(&resealed(bytes), place()) else { panic!("{byte:#x}") };
            assert_eq!((header.kind, header.kind.is_known()), (Kind::Ancillary(kind), false));
        }
        bytes[AT_FLAGS] = 0x80;
        assert!(matches!(RecordHeader::judge(&resealed(bytes), place()), Verdict::Unsupported { .. }));
    }

    #[test]
    fn the_users_part_of_a_value_follows_its_expiry() {
        let of = |kind, stored: &[u8]| RecordHeader::new(seed(), OFFSET, Flags::NONE, kind, 42, b"\0key", stored);
        for expiry in [Expiry::at(5), Expiry { deadline: 5, owner: Some(Owner { session: 6, acquired: 7 }) }] {
            let (kind, stored) = (expiry.kind(), [&expiry.encode()[..], b"value"].concat());
            let header = of(kind, &stored);
            let made = RecordHeader::with_expiry(seed(), OFFSET, Flags::NONE, 42, b"\0key", &expiry, b"value");
            assert_eq!(made, header);
            assert!(header.kind.is_event() && header.kind.is_known());
            assert_eq!((header.value_len, header.user_len()), (29, 5));
            assert_eq!(header.split_value(&stored), (Some(expiry), &b"value"[..]));
            assert_eq!(of(kind, &stored[..24]).split_value(&stored[..24]), (Some(expiry), &b""[..]));
            // Nothing panics without verification.
            assert_eq!((of(kind, b"short").user_len(), header.split_value(b"short")), (0, (None, &b""[..])));
        }

        let stored = [7; 29];
        let plain = of(Kind::Put, &stored);
        assert_eq!((plain.user_len(), plain.split_value(&stored)), (29, (None, &stored[..])));
    }

    #[test]
    fn a_record_moved_elsewhere_keeps_its_body_checksum() {
        let seed = FileSeed::new(&[4; 16]);
        let moved = sample().moved_to(seed, 64, Flags::NONE);
        assert_eq!(moved.body_crc, sample().body_crc);
        // The claim of one file does not move to another.
        assert_eq!((sample().flags.synced, moved.flags), (true, Flags::NONE));
        let place = Place { seed, offset: 64, ..place() };
        assert_eq!(RecordHeader::judge(&moved.encode(), place), Verdict::True(moved));
        assert!(matches!(RecordHeader::judge(&sample().encode(), place), Verdict::False(_)));
    }

    #[test]
    fn the_body_checksum_covers_header_fields_key_and_value() {
        let sum = |h: RecordHeader, k: &[u8], v: &[u8]| h.computed_body_crc(k, v);
        let right = sample().body_crc;
        assert_eq!(sum(sample(), b"\0key", b"value"), right);
        assert_ne!(sum(sample(), b"\0kez", b"value"), right);
        assert_ne!(sum(sample(), b"\0key", b"valuf"), right);
        assert_ne!(sum(RecordHeader { seq: 43, ..sample() }, b"\0key", b"value"), right);
        assert_ne!(sum(RecordHeader { kind: Kind::Delete, ..sample() }, b"\0key", b"value"), right);
        assert_eq!(sum(RecordHeader { flags: Flags::NONE, ..sample() }, b"\0key", b"value"), right);
    }
}
