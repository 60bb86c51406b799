//! Mapped bytes, and nearly all of the crate's `unsafe`.
//!
//! A map shows a file that other processes write to and may even cut. Three things follow.
//!
//! - *No references.* A `&[u8]` promises that its bytes do not change; here they may, at any moment. Safe code gets
//!   copies, made through raw pointers, and judges (checksum, comparison) the copy. A copy can be a mixture of old and
//!   new bytes; it cannot change once it is made.
//! - *Bounds are the map's own.* Every method panics rather than touch an address outside `0..len()`, so no argument
//!   can reach memory that is not mapped.
//! - *The file may be shorter than its map.* Touching a page beyond the end of the file is SIGBUS, which ends the
//!   process; it is not undefined behaviour, and no check here could prevent it. Callers touch only ranges that they
//!   know the file to cover.

use std::cmp::Ordering;
use std::fmt;
use std::sync::atomic::{self, compiler_fence, fence};

use memmap2::MmapRaw;
#[cfg(target_os = "linux")]
use memmap2::RemapOptions;

use crate::prefetch::prefetch;

/// How many bytes are compared at a time.
const WORD: usize = size_of::<u64>();

/// How many bytes a checksum takes in at a time, if it does not have many before it.
const STEP: usize = 16;

/// Up to this length copies are made in steps.
const IN_STEPS: usize = 256;

/// A disk's own idea of a map, for disks that are not the operating system's.
#[allow(clippy::len_without_is_empty, reason = "nobody asks whether a map is empty")]
pub trait MappedBytes: Send + Sync {
    /// How many bytes are mapped.
    fn len(&self) -> u64;

    /// Copies the bytes at `offset` into `out`. [`Map`] has checked that the range is mapped; it may still lie beyond
    /// the end of the file, where a real map would raise SIGBUS.
    fn read(&self, offset: u64, out: &mut [u8]);
}

/// The first bytes of a file, readable without system calls.
///
/// It stays readable when the file is closed, renamed or removed, and shows what is written to the file after it was
/// made. Ranges beyond the end of the file must not be touched: see the module's documentation.
pub struct Map {
    memory: Memory,
}

enum Memory {
    /// Readable for `len()` bytes while the value lives, and never written through.
    Mapped(MmapRaw),
    #[cfg_attr(not(any(test, feature = "testing")), allow(dead_code, reason = "for disks of tests"))]
    Foreign(Box<dyn MappedBytes>),
}

#[allow(clippy::len_without_is_empty, reason = "nobody asks whether a map is empty")]
impl Map {
    /// Wraps memory that was mapped for reading.
    pub(super) fn from_mmap(memory: MmapRaw) -> Map {
        Map { memory: Memory::Mapped(memory) }
    }

    /// Makes a map of bytes that a disk of one's own provides.
    #[cfg_attr(not(any(test, feature = "testing")), allow(dead_code, reason = "for disks of tests"))]
    pub fn from_bytes(bytes: Box<dyn MappedBytes>) -> Map {
        Map { memory: Memory::Foreign(bytes) }
    }

    /// How many bytes are mapped; the file may be shorter or longer.
    #[inline]
    pub fn len(&self) -> u64 {
        match &self.memory {
            Memory::Mapped(memory) => memory.len() as u64,
            Memory::Foreign(bytes) => bytes.len(),
        }
    }

    /// Maps the first `len` bytes instead; `false` if that cannot be done, and the map is as it was. The pages in use stay in
    /// use, where another map of the same file would have to find each of them again: to let go of a gigabyte's took 15 ms.
    pub fn resize(&mut self, len: u64) -> bool {
        match (&mut self.memory, usize::try_from(len)) {
            #[cfg(target_os = "linux")]
            (Memory::Mapped(memory), Ok(len)) => {
                // SAFETY: the bytes may come to lie at another address, and nobody has the old one: every pointer into the
                // map is made from a borrow of `self` and lives as long at most, and here it is borrowed exclusively. That
                // the file may be shorter than its map is as true as of every map: see the module's documentation.
                unsafe { memory.remap(len, RemapOptions::new().may_move(true)) }.is_ok()
            }
            _ => false,
        }
    }

    /// Copies the bytes at `offset` into `out`. If they are to be checked, do it from the first byte on: short copies are
    /// made so that a checksum need not wait for them.
    ///
    /// # Panics
    ///
    /// If the range reaches beyond [`Map::len`].
    #[inline]
    pub fn read(&self, offset: u64, out: &mut [u8]) {
        let start = self.checked(offset, out.len());
        match &self.memory {
            Memory::Mapped(memory) => {
                // SAFETY: `checked` found the range inside the map, which stays mapped while `self` is borrowed, and
                // `out` is exclusively ours, so the two do not overlap. The bytes may change under the copy, but only
                // by the hand of the kernel; they are bytes, of which every value is valid.
                unsafe { copy(memory.as_ptr().add(start), out) };
                // Keeps the compiler from reading the map again in place of `out`, as it may where it sees that
                // nothing in this program wrote to the map in between.
                compiler_fence(atomic::Ordering::AcqRel);
            }
            Memory::Foreign(bytes) => bytes.read(offset, out),
        }
    }

    /// The eight bytes at `offset` as a little-endian number, in one load. While a write to them is under way this can
    /// be a mixture of old and new, since kernels copy as they like; once it has returned it is the new number, and
    /// reads that follow see at least what this one saw.
    ///
    /// # Panics
    ///
    /// If `offset` is not a multiple of 8, or the range reaches beyond [`Map::len`].
    #[inline]
    pub fn word(&self, offset: u64) -> u64 {
        assert!(offset % WORD as u64 == 0, "a word of the map at {offset}, which is not a multiple of {WORD}");
        let start = self.checked(offset, WORD);
        match &self.memory {
            Memory::Mapped(memory) => {
                let word = memory.as_ptr().wrapping_add(start);
                // SAFETY: `checked` found the eight bytes inside the map, which stays mapped while `self` is borrowed.
                // A map starts at a page, so the address is as aligned as `start` is, which the assertion checked.
                let value = unsafe { load_relaxed(word) };
                // An acquire load by another name: only relaxed loads are promised to work on memory that is mapped
                // without the permission to write.
                fence(atomic::Ordering::Acquire);
                u64::from_le(value)
            }
            Memory::Foreign(bytes) => {
                let mut word = [0; WORD];
                bytes.read(offset, &mut word);
                u64::from_le_bytes(word)
            }
        }
    }

    /// Whether the bytes at `offset` are those of `other`.
    ///
    /// # Panics
    ///
    /// If the range reaches beyond [`Map::len`].
    #[inline]
    pub fn equals(&self, offset: u64, other: &[u8]) -> bool {
        self.first_difference(offset, other).is_none()
    }

    /// Compares the `len` bytes at `offset` with `other`, as byte strings.
    ///
    /// # Panics
    ///
    /// If the range reaches beyond [`Map::len`].
    #[inline]
    pub fn compare(&self, offset: u64, len: usize, other: &[u8]) -> Ordering {
        self.checked(offset, len);
        match self.first_difference(offset, &other[..len.min(other.len())]) {
            Some((mapped, wanted)) => mapped.cmp(&wanted),
            None => len.cmp(&other.len()),
        }
    }

    /// Lends the mapped bytes themselves, without a copy; `None` if this is not the operating system's map.
    ///
    /// # Safety
    ///
    /// While the slice lives, nobody changes these bytes, in any process, and the file covers them.
    ///
    /// # Panics
    ///
    /// If the range reaches beyond [`Map::len`].
    #[inline]
    pub unsafe fn slice(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let start = self.checked(offset, len);
        match &self.memory {
            // SAFETY: `checked` found the range inside the map, which stays mapped while `self` is borrowed; that the
            // bytes do not change is the caller's promise.
            Memory::Mapped(memory) => Some(unsafe { std::slice::from_raw_parts(memory.as_ptr().add(start), len) }),
            Memory::Foreign(_) => None,
        }
    }

    /// Has the processor fetch the bytes at `offset` while the caller does something else. Any offset will do: it need not
    /// be mapped, nothing is read and nothing can fail.
    #[inline]
    pub fn prefetch(&self, offset: u64) {
        if let (Memory::Mapped(memory), Ok(start)) = (&self.memory, usize::try_from(offset)) {
            prefetch(memory.as_ptr().wrapping_add(start));
        }
    }

    /// Where a range starts, as an index into the map.
    #[inline]
    fn checked(&self, offset: u64, len: usize) -> usize {
        let mapped = self.len();
        match offset.checked_add(len as u64) {
            // The cast keeps the value: it is at most the length of a map, which is an address space's at most.
            Some(end) if end <= mapped => offset as usize,
            _ => out_of_bounds(offset, len, mapped),
        }
    }

    /// The first words in which the bytes at `offset` and `other` differ, as numbers that compare as their bytes do.
    #[inline]
    fn first_difference(&self, offset: u64, other: &[u8]) -> Option<(u64, u64)> {
        let start = self.checked(offset, other.len());
        let copy;
        let mapped = match &self.memory {
            Memory::Mapped(memory) => memory.as_ptr().wrapping_add(start),
            Memory::Foreign(bytes) => {
                let mut buffer = vec![0; other.len()];
                bytes.read(offset, &mut buffer);
                copy = buffer;
                copy.as_ptr()
            }
        };
        let differ = |at: usize, wanted: [u8; WORD]| {
            // SAFETY: `other` has eight bytes at `at`, as every caller below sees to, and as many bytes as `other` has
            // are readable at `mapped`: `checked` found them inside the map, or they are `copy`'s. As in `read`, the
            // bytes may change by the hand of the kernel, and every value of them is valid.
            let mapped = unsafe { mapped.add(at).cast::<[u8; WORD]>().read() };
            (mapped != wanted).then(|| (u64::from_be_bytes(mapped), u64::from_be_bytes(wanted)))
        };

        let Some(last) = other.last_chunk::<WORD>() else {
            // Shorter than a word. Byte by byte is faster than a copy of unknown length.
            return other.iter().enumerate().find_map(|(at, &wanted)| {
                // SAFETY: as above, with one byte in place of eight.
                let mapped = unsafe { mapped.add(at).read() };
                (mapped != wanted).then_some((mapped.into(), wanted.into()))
            });
        };
        let words = other.chunks_exact(WORD).zip((0..).step_by(WORD));
        let found = words.into_iter().find_map(|(chunk, at)| differ(at, chunk.try_into().ok()?));
        // The last word overlaps the one before it, of which all that matters is that it did not differ.
        found.or_else(|| differ(other.len() - WORD, *last))
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cold]
#[inline(never)]
fn out_of_bounds(offset: u64, len: usize, mapped: u64) -> ! {
    panic!("{len} bytes at {offset} of a map of {mapped} bytes")
}

/// Copies as many bytes as `out` has.
///
/// Records are checked right after they were copied, and a checksum takes in [`STEP`] bytes at a time. A processor hands
/// bytes that were just stored to the load that wants them if one store had all of them; else the load waits until
/// everything before it is done. So short pieces are stored in the steps in which they will be loaded.
///
/// # Safety
///
/// As many bytes as `out` has are readable at `from`, and are not among those of `out`.
#[inline]
unsafe fn copy(from: *const u8, out: &mut [u8]) {
    let (to, len) = (out.as_mut_ptr(), out.len());
    if !(STEP..=IN_STEPS).contains(&len) {
        // SAFETY: the caller's promise.
        unsafe { from.copy_to_nonoverlapping(to, len) };
        return;
    }
    let step = |at: usize| {
        // SAFETY: the caller's promise; no step goes beyond `len`.
        unsafe { from.add(at).copy_to_nonoverlapping(to.add(at), STEP) };
        // Keeps the compiler from making one copy of all again.
        compiler_fence(atomic::Ordering::AcqRel);
    };
    // It overlaps the one before, which therefore must be the later one.
    step(len - STEP);
    let mut at = 0;
    while at + STEP <= len {
        step(at);
        at += STEP;
    }
}

/// Loads eight bytes, in memory order, with one instruction.
///
/// # Safety
///
/// `word` points to eight readable bytes and is a multiple of 8.
#[cfg(target_pointer_width = "64")]
#[inline]
unsafe fn load_relaxed(word: *const u8) -> u64 {
    // SAFETY: the caller's promise. Not `from_ptr`, which asks for memory that can be written to; a reference to an
    // atomic is allowed to see changes, and is only loaded from.
    unsafe { &*word.cast::<atomic::AtomicU64>() }.load(atomic::Ordering::Relaxed)
}

/// Loads eight bytes, in memory order, in two halves: these processors promise no wider load of read-only memory.
///
/// # Safety
///
/// `word` points to eight readable bytes and is a multiple of 4.
#[cfg(not(target_pointer_width = "64"))]
#[inline]
unsafe fn load_relaxed(word: *const u8) -> u64 {
    let half = |at: usize| {
        // SAFETY: as in the function above.
        let half = unsafe { &*word.add(at).cast::<atomic::AtomicU32>() };
        half.load(atomic::Ordering::Relaxed).to_ne_bytes()
    };
    let (low, high) = (half(0), half(4));
    u64::from_ne_bytes([low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use memmap2::MmapMut;
    use quickcheck::quickcheck;

    struct Bytes(Vec<u8>);

    impl MappedBytes for Bytes {
        fn len(&self) -> u64 {
            self.0.len() as u64
        }

        fn read(&self, offset: u64, out: &mut [u8]) {
            out.copy_from_slice(&self.0[offset as usize..][..out.len()]);
        }
    }

    /// The same bytes as a map of either kind.
    fn maps_of(bytes: &[u8]) -> [Map; 2] {
        let mut memory = MmapMut::map_anon(bytes.len().max(1)).expect("map memory");
        memory[..bytes.len()].copy_from_slice(bytes);
        [Map::from_mmap(memory.into()), Map::from_bytes(Box::new(Bytes(bytes.to_vec())))]
    }

    quickcheck! {
        fn reading_and_comparing_do_what_they_do_to_slices(bytes: Vec<u8>, start: usize, len: usize, change: Vec<u8>) -> bool {
            let start = start % (bytes.len() + 1);
            let mapped = &bytes[start..][..len % (bytes.len() - start + 1)];
            // Mostly equal, so that the first difference can be anywhere.
            let mut other = mapped.to_vec();
            if let [at, to, ..] = change[..] {
                other.resize(mapped.len() + usize::from(at % 3) - usize::from(at % 2).min(mapped.len()), to);
                let place = usize::from(at) % other.len().max(1);
                if let Some(byte) = other.get_mut(place) {
                    *byte = to;
                }
            }
            maps_of(&bytes).iter().all(|map| {
                let offset = start as u64;
                let mut copy = vec![0; mapped.len()];
                map.read(offset, &mut copy);
                let fits = start + other.len() <= bytes.len();
                copy == mapped
                    && map.compare(offset, mapped.len(), &other) == mapped.cmp(&other)
                    && (!fits || map.equals(offset, &other) == (bytes[start..][..other.len()] == other[..]))
            })
        }
    }

    #[test]
    fn a_difference_is_found_in_every_place_of_every_short_string() {
        let bytes: Vec<u8> = (1..=40).collect();
        for map in maps_of(&bytes) {
            for len in 0..=32 {
                let mapped = &bytes[3..][..len];
                assert!(map.equals(3, mapped));
                assert_eq!(map.compare(3, len, mapped), Ordering::Equal);
                for place in 0..len {
                    for value in [0, 0xFF] {
                        let mut other = mapped.to_vec();
                        other[place] = value;
                        assert!(!map.equals(3, &other), "{len} bytes, the one at {place} differs");
                        assert_eq!(map.compare(3, len, &other), mapped.cmp(&other));
                        assert_eq!(map.compare(3, len, &other[..=place]), mapped.cmp(&other[..=place]));
                    }
                }
            }
        }
    }

    #[test]
    fn copies_of_every_length_have_every_byte_and_none_behind_it() {
        let bytes: Vec<u8> = (0..2 * IN_STEPS).map(|at| (at % 251) as u8 + 1).collect();
        for map in maps_of(&bytes) {
            for len in 0..=IN_STEPS + STEP {
                let mut out = vec![0; bytes.len()];
                map.read(3, &mut out[..len]);
                assert!(out[..len] == bytes[3..][..len] && out[len..].iter().all(|&byte| byte == 0), "{len} bytes");
            }
        }
    }

    #[test]
    fn a_word_is_little_endian() {
        for map in maps_of(&[0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0x80]) {
            assert_eq!(map.word(8), 0x8000_0000_0000_0201);
        }
    }

    #[test]
    fn only_real_memory_is_lent() {
        let [real, foreign] = maps_of(b"bytes");
        // SAFETY: nobody changes these bytes.
        unsafe {
            assert_eq!(real.slice(1, 3), Some(&b"yte"[..]));
            assert_eq!(foreign.slice(1, 3), None);
        }
    }
}
