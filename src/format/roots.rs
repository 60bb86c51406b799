//! `ROOTS`: the record at the head of a file that says how much of the log has been on stable storage.
//!
//! A log that ends before that has lost its end. The record's body is two slots. The slot that holds, with the higher
//! generation, is the root. A writer writes the other slot, so a torn write leaves the root as it was. The root states
//! only what was on stable storage before it was written, and each later root states at least as much. So it does not
//! matter which of them survives a crash.

use std::ops::Range;

use byteorder::{ByteOrder, LittleEndian};

use super::checksum::FileSeed;
use super::header::FILE_HEADER_LEN;
use super::kind::{Ancillary, Flags, KIND_ROOTS, Kind};
use super::record::{MAX_FILE_LEN, RECORD_HEADER_LEN, RecordHeader};

pub(super) const AT_GENERATION: Range<usize> = 0..8;
pub(super) const AT_SYNCED_TO: Range<usize> = AT_GENERATION.end..AT_GENERATION.end + 8;
pub(super) const AT_SNAPSHOT: Range<usize> = AT_SYNCED_TO.end..AT_SYNCED_TO.end + 8;
pub(super) const AT_RESERVED: Range<usize> = AT_SNAPSHOT.end..AT_SNAPSHOT.end + 36;
pub(super) const AT_SLOT_CRC: Range<usize> = AT_RESERVED.end..AT_RESERVED.end + 4;

/// The bytes that a new root copies from the one before it. A later version has a meaning for them.
const CARRIED: Range<usize> = AT_RESERVED;

/// The length of a slot.
pub(crate) const SLOT_LEN: usize = AT_SLOT_CRC.end;

/// The record starts here.
pub(crate) const ROOTS_START: u64 = FILE_HEADER_LEN as u64;

/// The slots' offsets in the file.
pub(crate) const SLOTS: [u64; 2] = [FIRST_SLOT, FIRST_SLOT + SLOT_LEN as u64];
const FIRST_SLOT: u64 = ROOTS_START + RECORD_HEADER_LEN as u64;

/// The record ends here, and the log starts.
pub(crate) const ROOTS_END: u64 = FIRST_SLOT + 2 * SLOT_LEN as u64;

/// The record's sequence number. The log's first record does not follow it.
const ROOTS_SEQ: u64 = 1;

/// The header of the record. All of its bytes follow from the file's identity, since no checksum covers the slots.
pub(crate) fn roots_header(seed: FileSeed) -> RecordHeader {
    let unsealed = RecordHeader {
        header_crc: 0,
        body_crc: 0,
        flags: Flags::NONE,
        kind: Kind::Ancillary(Ancillary::Loose(KIND_ROOTS)),
        key_len: 0,
        value_len: 2 * SLOT_LEN as u32,
        seq: ROOTS_SEQ,
    };
    unsealed.moved_to(seed, ROOTS_START, Flags::NONE)
}

/// A statement about the log: everything before an offset was on stable storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Root {
    /// Above that of the root before.
    pub(crate) generation: u64,
    /// Everything before this offset was on stable storage when the root was written.
    pub(crate) synced_to: u64,
    /// The offset of a `SNAPSHOT`; 0 if there is none.
    pub(crate) snapshot: u64,
    carried: [u8; CARRIED.end - CARRIED.start],
    /// The slot that holds it.
    slot: usize,
}

impl Root {
    /// The generation of a file's first root.
    pub(crate) const FIRST_GENERATION: u64 = 1;

    /// The root in the bytes of both slots. `None` if neither slot holds.
    pub(crate) fn of(seed: FileSeed, slots: &[u8; 2 * SLOT_LEN]) -> Option<Root> {
        Root::in_slots(seed, slots).into_iter().flatten().max_by_key(|root| (root.generation, root.synced_to))
    }

    /// What each slot states. `None` for a slot that does not hold.
    pub(crate) fn in_slots(seed: FileSeed, slots: &[u8; 2 * SLOT_LEN]) -> [Option<Root>; 2] {
        let (first, second) = slots.split_at(SLOT_LEN);
        [Root::decode(seed, 0, first), Root::decode(seed, 1, second)]
    }

    /// The root that follows another one, or the first one.
    pub(crate) fn after(last: Option<Root>, synced_to: u64) -> Root {
        match last {
            Some(last) => Root {
                generation: last.generation + 1,
                synced_to: last.synced_to.max(synced_to),
                slot: 1 - last.slot,
                ..last
            },
            None => Root {
                generation: Root::FIRST_GENERATION,
                synced_to,
                snapshot: 0,
                carried: [0; CARRIED.end - CARRIED.start],
                slot: 0,
            },
        }
    }

    /// The same root, leading to a snapshot, or to none if the offset is 0.
    pub(crate) fn with_snapshot(self, snapshot: u64) -> Root {
        Root { snapshot, ..self }
    }

    /// The offset of its slot in the file.
    pub(crate) fn offset(&self) -> u64 {
        SLOTS[self.slot]
    }

    fn decode(seed: FileSeed, slot: usize, bytes: &[u8]) -> Option<Root> {
        let root = Root {
            generation: LittleEndian::read_u64(&bytes[AT_GENERATION]),
            synced_to: LittleEndian::read_u64(&bytes[AT_SYNCED_TO]),
            snapshot: LittleEndian::read_u64(&bytes[AT_SNAPSHOT]),
            carried: bytes[CARRIED].try_into().ok()?,
            slot,
        };
        let holds = LittleEndian::read_u32(&bytes[AT_SLOT_CRC]) == slot_crc(seed, slot, bytes)
            && (1..u64::MAX).contains(&root.generation)
            && (ROOTS_END..=MAX_FILE_LEN).contains(&root.synced_to);
        holds.then_some(root)
    }

    pub(crate) fn encode(&self, seed: FileSeed) -> [u8; SLOT_LEN] {
        let mut bytes = [0; SLOT_LEN];
        LittleEndian::write_u64(&mut bytes[AT_GENERATION], self.generation);
        LittleEndian::write_u64(&mut bytes[AT_SYNCED_TO], self.synced_to);
        LittleEndian::write_u64(&mut bytes[AT_SNAPSHOT], self.snapshot);
        bytes[CARRIED].copy_from_slice(&self.carried);
        let crc = slot_crc(seed, self.slot, &bytes);
        LittleEndian::write_u32(&mut bytes[AT_SLOT_CRC], crc);
        bytes
    }
}

/// A slot's checksum covers the file's identity and the slot's place, as a record header's does.
fn slot_crc(seed: FileSeed, slot: usize, bytes: &[u8]) -> u32 {
    seed.crc_at(SLOTS[slot], &bytes[..AT_SLOT_CRC.start])
}

#[cfg(test)]
mod tests {
    use super::super::record::{Place, Verdict};
    use super::super::sequence::SeqBound;
    use super::*;

    fn seed() -> FileSeed {
        FileSeed::new(&[3; 16])
    }

    fn slots(first: &[u8], second: &[u8]) -> [u8; 2 * SLOT_LEN] {
        [first, second].concat().try_into().unwrap()
    }

    #[test]
    fn the_record_and_its_slots_lie_where_the_page_says() {
        assert_eq!((ROOTS_START, SLOTS, ROOTS_END, SLOT_LEN), (64, [88, 152], 216, 64));
        let header = roots_header(seed());
        assert_eq!(ROOTS_START + header.padded_len(), ROOTS_END);
        let place =
            Place { seed: seed(), offset: ROOTS_START, file_len: ROOTS_END, after: SeqBound { previous: 0, base: 0 } };
        assert_eq!(RecordHeader::judge(&header.encode(), place), Verdict::True(header));
    }

    #[test]
    fn the_slot_that_holds_with_the_higher_generation_is_the_root() {
        let empty = [0; SLOT_LEN];
        assert_eq!(Root::of(seed(), &slots(&empty, &empty)), None);
        let first = Root::after(None, 300);
        let second = Root::after(Some(first), 400);
        let third = Root::after(Some(second), 500);
        assert_eq!([first, second, third].map(|root| root.offset()), [88, 152, 88]);
        let [first_bytes, second_bytes, third_bytes] = [first, second, third].map(|root| root.encode(seed()));
        assert_eq!(Root::of(seed(), &slots(&first_bytes, &empty)), Some(first));
        assert_eq!(Root::of(seed(), &slots(&first_bytes, &second_bytes)), Some(second));
        assert_eq!(Root::of(seed(), &slots(&third_bytes, &second_bytes)), Some(third));
        assert_eq!(Root::of(seed(), &slots(&second_bytes, &first_bytes)), None, "each in the other's place");
        assert_eq!(Root::of(FileSeed::new(&[4; 16]), &slots(&first_bytes, &second_bytes)), None, "of another file");
    }

    #[test]
    fn a_slot_with_a_flipped_bit_does_not_hold() {
        let first = Root::after(None, 300);
        let second = Root::after(Some(first), 400);
        let bytes = slots(&first.encode(seed()), &second.encode(seed()));
        for bit in 0..SLOT_LEN * 8 {
            let mut damaged = bytes;
            damaged[SLOT_LEN + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Root::of(seed(), &damaged), Some(first), "bit {bit}");
        }
    }

    #[test]
    fn a_root_never_states_less_and_carries_what_it_does_not_know() {
        let first = Root { carried: [7; CARRIED.end - CARRIED.start], ..Root::after(None, 300) }.with_snapshot(240);
        let second = Root::after(Some(first), 250);
        assert_eq!((second.synced_to, second.snapshot, second.carried), (300, 240, first.carried));
        let found = Root::of(seed(), &slots(&[0; SLOT_LEN], &second.encode(seed())));
        assert_eq!(found, Some(second));
    }

    #[test]
    fn a_root_that_states_no_more_replaces_the_one_before_from_either_slot() {
        // It may only have another snapshot. With equal generations, one of the slots would win for ever.
        let (mut last, mut bytes) = (None, slots(&[0; SLOT_LEN], &[0; SLOT_LEN]));
        for number in 1..=4 {
            let root = Root::after(last, 300).with_snapshot(240 + 8 * number);
            assert_eq!(root.generation, number);
            let slot = root.offset() as usize - SLOTS[0] as usize;
            bytes[slot..slot + SLOT_LEN].copy_from_slice(&root.encode(seed()));
            assert_eq!(Root::of(seed(), &bytes), Some(root));
            last = Some(root);
        }
    }

    #[test]
    fn a_statement_outside_of_every_log_does_not_hold() {
        for (synced_to, holds) in
            [(0, false), (64, false), (215, false), (216, true), (1 << 43, true), ((1 << 43) + 8, false)]
        {
            let root = Root { synced_to, ..Root::after(None, 300) };
            assert_eq!(Root::of(seed(), &slots(&root.encode(seed()), &[0; SLOT_LEN])).is_some(), holds, "{synced_to}");
        }
        for (generation, holds) in [(0, false), (1, true), (u64::MAX - 1, true), (u64::MAX, false)] {
            let root = Root { generation, ..Root::after(None, 300) };
            assert_eq!(Root::of(seed(), &slots(&root.encode(seed()), &[0; SLOT_LEN])).is_some(), holds, "{generation}");
        }
    }
}
