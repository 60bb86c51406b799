//! The part of a key that the sorted index holds, and the order of such parts.
//!
//! An entry has 24 bytes: the first 18 bytes of the key, its length up to 19, and the position. So keys of up to 18
//! bytes, and longer ones that differ within 18 bytes, are ordered without reading the log.

use std::cmp::Ordering;

use super::packed;
use crate::format::order::ORDER_ENTRY_LEN;

/// The number of bytes of a key in a [`Prefix`].
const INLINE: usize = 18;

/// The first bytes of a key, and its length if it is short.
///
/// Prefixes compare as their keys do, except that long keys with the same first 18 bytes have equal prefixes. Short
/// keys that zeros pad to the same bytes differ in length: the shorter is less, and both are less than any long key
/// that starts with the padded bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    /// Bytes 0..16 of the key, zeros after its end. Big-endian, so that the numbers compare as the bytes do.
    head: u128,
    /// Bytes 16 and 17, then the key's length (or [`INLINE`]` + 1` if it is longer), the most significant first. An
    /// [`Entry`] keeps these 24 bits beside the position.
    tag: u64,
}

impl Prefix {
    /// The prefix of `key`.
    pub(super) fn of(key: &[u8]) -> Self {
        let mut bytes = [0; 16 + 8];
        let held = key.len().min(INLINE);
        bytes[..held].copy_from_slice(&key[..held]);
        bytes[INLINE] = key.len().min(INLINE + 1) as u8;
        let (head, tag) = bytes.split_at(16);
        Self {
            head: u128::from_be_bytes(head.try_into().expect("16 bytes")),
            tag: u64::from_be_bytes(tag.try_into().expect("8 bytes")) >> (u64::BITS - packed::TAG_BITS),
        }
    }

    /// Whether the key goes on after the prefix, so that an equal prefix leaves the order open.
    pub(super) fn is_long(self) -> bool {
        usize::from(self.tag as u8) > INLINE
    }

    /// Whether some key has this prefix. Not all 19 bytes from a file are one.
    pub(super) fn is_of_a_key(self) -> bool {
        let (len, bytes) = (usize::from(self.tag as u8), self.first_bytes());
        len <= INLINE + 1 && bytes.iter().skip(len).all(|&byte| byte == 0)
    }

    /// Whether a key with this prefix may come before one with `next`. If both are long, their other bytes decide.
    pub(super) fn may_precede(self, next: Prefix) -> bool {
        self < next || (self == next && self.is_long())
    }

    fn first_bytes(self) -> [u8; INLINE] {
        let mut bytes = [0; INLINE];
        bytes[..16].copy_from_slice(&self.head.to_be_bytes());
        bytes[16..].copy_from_slice(&((self.tag >> 8) as u16).to_be_bytes());
        bytes
    }
}

impl Ord for Prefix {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.head, self.tag).cmp(&(other.head, other.tag))
    }
}

impl PartialOrd for Prefix {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }

    /// Without a branch, because the order of two random keys cannot be predicted. Sorting and searching use only this.
    fn lt(&self, other: &Self) -> bool {
        (self.head < other.head) | ((self.head == other.head) & (self.tag < other.tag))
    }
}

/// A key's entry in the sorted index: its prefix, and the position of its record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    /// The prefix's head in two words. A `u128` would be aligned to 16 bytes and make the entry 32 bytes long.
    head: [u64; 2],
    tail: u64,
}

impl Entry {
    /// An entry depends on this many bytes of its key, the last of which need not be known.
    pub(crate) const SHOWN: usize = INLINE + 1;

    /// The entry of `key`, whose record lies at `position`.
    ///
    /// # Panics
    ///
    /// If `position` is not a valid position: see [`POSITION_LIMIT`](super::POSITION_LIMIT).
    pub(crate) fn new(key: &[u8], position: u64) -> Self {
        Self::with_prefix(Prefix::of(key), position)
    }

    pub(super) fn with_prefix(prefix: Prefix, position: u64) -> Self {
        let head = [(prefix.head >> u64::BITS) as u64, prefix.head as u64];
        Self { head, tail: packed::pack(prefix.tag, position) }
    }

    /// The position of the key's record.
    pub(crate) fn position(&self) -> u64 {
        packed::position(self.tail)
    }

    /// The key's first bytes, with zeros after a shorter key.
    pub(crate) fn first_bytes(&self) -> [u8; INLINE] {
        self.prefix().first_bytes()
    }

    /// Whether a key has the bytes of this entry, and its length as far as the entry has it. The key's first
    /// [`Entry::SHOWN`] bytes are enough.
    pub(crate) fn is_of(&self, key: &[u8]) -> bool {
        self.prefix() == Prefix::of(key)
    }

    /// The entry as a snapshot has it.
    pub(crate) fn to_bytes(self) -> [u8; ORDER_ENTRY_LEN] {
        let words = [self.head[0].to_be_bytes(), self.head[1].to_be_bytes(), self.tail.to_le_bytes()];
        words.as_flattened().try_into().expect("three words")
    }

    /// The entry in bytes of a snapshot, which may be any bytes.
    pub(super) fn from_bytes(bytes: &[u8; ORDER_ENTRY_LEN]) -> Self {
        let word = |at: usize| bytes[at..at + 8].try_into().expect("8 bytes");
        let head = [u64::from_be_bytes(word(0)), u64::from_be_bytes(word(8))];
        Self { head, tail: u64::from_le_bytes(word(16)) }
    }

    pub(super) fn prefix(&self) -> Prefix {
        let head = u128::from(self.head[0]) << u64::BITS | u128::from(self.head[1]);
        Prefix { head, tag: packed::tag(self.tail) }
    }
}

/// Sorts entries by their keys.
///
/// `read` appends the key of the record at a position to a buffer. It is called once for each long key that shares its
/// prefix with another. Keys with the same prefix are held in memory while they are sorted: if they were compared in
/// the log, a file that changes meanwhile could give a contradictory order, and the sort could panic.
///
/// # Errors
///
/// The first error of `read`. The entries are all there then, in some order.
pub(crate) fn sort_entries<E>(
    entries: &mut [Entry],
    mut read: impl FnMut(u64, &mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    entries.sort_unstable_by_key(Entry::prefix);
    entries
        .chunk_by_mut(|a, b| a.prefix() == b.prefix())
        .filter(|run| run.len() > 1 && run[0].prefix().is_long())
        .try_for_each(|run| sort_run(run, &mut read))
}

/// Sorts entries that have the same prefix.
fn sort_run<E>(run: &mut [Entry], read: &mut impl FnMut(u64, &mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
    // Reads the keys in the order of the log, which is fastest for disks and caches.
    run.sort_unstable_by_key(Entry::position);
    let mut bytes = Vec::new();
    let mut ends = Vec::with_capacity(run.len());
    for entry in &*run {
        read(entry.position(), &mut bytes)?;
        ends.push(bytes.len());
    }
    let key_at = |at: usize| &bytes[at.checked_sub(1).map_or(0, |before| ends[before])..ends[at]];

    // Long keys that start alike often go on alike (a bucket's name, a path). Prefixes of the bytes after the shared
    // part decide most comparisons without the keys.
    let first = key_at(0);
    let shared = (1..run.len()).fold(first.len(), |shared, at| shared_len(&first[..shared], key_at(at)));
    let mut sorted: Vec<(Prefix, usize, Entry)> =
        run.iter().enumerate().map(|(at, &entry)| (Prefix::of(&key_at(at)[shared..]), at, entry)).collect();
    sorted.sort_unstable_by(|(a, i, _), (b, j, _)| a.cmp(b).then_with(|| key_at(*i).cmp(key_at(*j))));
    run.iter_mut().zip(sorted).for_each(|(entry, (_, _, next))| *entry = next);
    Ok(())
}

/// The number of bytes that two keys share at the start.
fn shared_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The smallest byte string above every one that starts with `prefix`. `None` if `prefix` is empty or consists of
/// `0xFF` only.
pub(crate) fn prefix_successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut successor = prefix[..=last].to_vec();
    successor[last] += 1;
    Some(successor)
}

#[cfg(test)]
mod tests {
    use super::super::Keys;
    use super::super::testing::{Failed, Log, TestKey};
    use super::*;
    use quickcheck::quickcheck;
    use std::collections::BTreeSet;

    fn entries_of(keys: &[TestKey]) -> (Log, Vec<Entry>) {
        let mut log = Log::default();
        let distinct: BTreeSet<&Vec<u8>> = keys.iter().map(|TestKey(key)| key).collect();
        let entries = distinct.into_iter().rev().map(|key| Entry::new(key, log.append(key))).collect();
        (log, entries)
    }

    #[test]
    fn an_entry_takes_24_bytes() {
        assert_eq!(size_of::<Entry>(), 24);
    }

    #[test]
    fn a_key_of_18_bytes_is_held_whole_and_19_are_not() {
        assert!(!Prefix::of(&[7; 18]).is_long());
        assert!(Prefix::of(&[7; 19]).is_long());
        assert_eq!(Prefix::of(&[7; 19]), Prefix::of(&[7; 60_000]));
    }

    #[test]
    fn zeros_at_the_end_of_a_key_are_not_taken_for_padding() {
        let keys: Vec<Vec<u8>> = (0..30).map(|zeros| [b"a".as_slice(), &vec![0; zeros]].concat()).collect();
        assert!(keys[..=18].is_sorted_by(|a, b| Prefix::of(a) < Prefix::of(b)));
    }

    #[test]
    fn short_keys_are_sorted_without_being_read() {
        let (log, mut entries) = entries_of(&[b"b".to_vec(), b"a\0".to_vec(), b"a".to_vec(), vec![9; 18]].map(TestKey));
        log.fail_after(0);
        assert_eq!(sort_entries(&mut entries, |at, out| log.read(at, out)), Ok(()));
        assert!(entries.is_sorted_by_key(|entry| log.key(entry.position())));
    }

    #[test]
    fn long_keys_are_read_once_and_only_if_they_start_alike() {
        let (mut log, mut entries) = entries_of(&[b'a', b'b', b'c'].map(|byte| TestKey(vec![byte; 50])));
        let pair = [1, 2].map(|last| [[b'p'; 30].as_slice(), &[last]].concat());
        entries.extend(pair.iter().rev().map(|key| Entry::new(key, log.append(key))));
        log.fail_after(2);
        assert_eq!(sort_entries(&mut entries, |at, out| log.read(at, out)), Ok(()));
        assert!(entries.is_sorted_by_key(|entry| log.key(entry.position())));
    }

    #[test]
    fn every_key_that_starts_with_a_prefix_is_below_its_successor() {
        assert_eq!(prefix_successor(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_successor(b"a\xFF\xFF"), Some(b"b".to_vec()));
        assert_eq!(prefix_successor(b"\xFF"), None);
        assert_eq!(prefix_successor(b""), None);
    }

    quickcheck! {
        fn an_entry_gives_back_its_prefix_and_position(key: TestKey, position: u32) -> bool {
            let position = (u64::from(position) + 1) * 8;
            let entry = Entry::new(&key.0, position);
            let mut first = key.0.clone();
            first.resize(INLINE, 0);
            entry.prefix() == Prefix::of(&key.0) && entry.position() == position && entry.first_bytes() == first[..]
        }

        fn an_entry_reads_back_as_written(key: TestKey, position: u32) -> bool {
            let entry = Entry::new(&key.0, (u64::from(position) + 1) * 8);
            let read = Entry::from_bytes(&entry.to_bytes());
            let mut bytes = key.0.clone();
            bytes.resize(INLINE, 0);
            (read.prefix(), read.position()) == (entry.prefix(), entry.position())
                && entry.to_bytes()[..16] == bytes[..16]
                && read.prefix().is_of_a_key()
                && read.is_of(&key.0)
        }

        fn prefixes_compare_as_their_keys_unless_long_ones_are_alike(a: TestKey, b: TestKey) -> bool {
            let (first, second) = (Prefix::of(&a.0), Prefix::of(&b.0));
            let alike = first.is_long() && second.is_long() && a.0[..INLINE] == b.0[..INLINE];
            if alike { first == second } else { first.cmp(&second) == a.0.cmp(&b.0) }
        }

        fn sorted_entries_are_in_the_order_of_their_keys(keys: Vec<TestKey>) -> bool {
            let (log, mut entries) = entries_of(&keys);
            let before = entries.len();
            sort_entries(&mut entries, |at, out| log.read(at, out)).unwrap();
            before == entries.len() && entries.is_sorted_by(|a, b| log.key(a.position()) < log.key(b.position()))
        }

        fn sorting_that_fails_loses_no_entry(keys: Vec<TestKey>, answers: u8) -> bool {
            let (log, mut entries) = entries_of(&keys);
            let positions = |entries: &[Entry]| entries.iter().map(Entry::position).collect::<BTreeSet<_>>();
            let before = positions(&entries);
            log.fail_after(u64::from(answers % 16));
            let result = sort_entries(&mut entries, |at, out| log.read(at, out));
            positions(&entries) == before && matches!(result, Ok(()) | Err(Failed))
        }

        fn a_prefix_and_its_successor_enclose_its_keys(prefix: TestKey, key: TestKey) -> bool {
            let (prefix, key) = (prefix.0, key.0);
            let below = prefix_successor(&prefix).is_none_or(|end| key < end);
            (prefix <= key && below) == key.starts_with(&prefix)
        }
    }
}
