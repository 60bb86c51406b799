//! Mapped bytes, and nearly all of the crate's `unsafe`.
//!
//! A map shows a file that other processes write to and may even cut. Three things follow.
//!
//! - *No references.* A `&[u8]` promises that its bytes do not change; these may change at any moment. So safe code
//!   gets copies, made through raw pointers, and checks the copy (checksum, comparison). A copy can mix old and new
//!   bytes, but it does not change once it is made.
//! - *The map checks all bounds.* Every method panics rather than touch an address outside `0..len()`, so no argument
//!   can reach memory that is not mapped.
//! - *The file may be shorter than its map.* Touching a page beyond the end of the file is SIGBUS, which ends the
//!   process. That is no undefined behaviour, and no check here can prevent it. Callers touch only ranges that the file
//!   covers.

use std::cmp::Ordering;
use std::fmt;
use std::sync::atomic::{self, compiler_fence, fence};

use memmap2::MmapRaw;
#[cfg(target_os = "linux")]
use memmap2::RemapOptions;

use crate::prefetch::prefetch;

/// Number of bytes that are compared at a time.
const WORD: usize = size_of::<u64>();

/// Number of bytes that a checksum of a short string takes in at a time.
const STEP: usize = 16;

/// Copies up to this length are made in steps.
const IN_STEPS: usize = 256;

/// The bytes of a [`Map`] on a disk that is not the operating system's.
#[allow(clippy::len_without_is_empty, reason = "no caller asks whether a map is empty")]
pub trait MappedBytes: Send + Sync {
    /// Returns the number of mapped bytes.
    fn len(&self) -> u64;

    /// Copies the bytes at `offset` into `out`. The caller, [`Map`], has checked that the range is mapped. It may still
    /// lie beyond the end of the file, where a real map would raise SIGBUS.
    fn read(&self, offset: u64, out: &mut [u8]);
}

/// The first bytes of a file, readable without system calls.
///
/// A map stays readable when the file is closed, renamed or removed, and shows what is written to the file later.
/// Callers must not touch ranges beyond the end of the file, where the operating system raises SIGBUS.
pub struct Map {
    memory: Memory,
}

enum Memory {
    /// Readable for `len()` bytes while the value lives, and never written through.
    Mapped(MmapRaw),
    #[cfg_attr(not(any(test, feature = "testing")), allow(dead_code, reason = "for disks of tests"))]
    Foreign(Box<dyn MappedBytes>),
}

#[allow(clippy::len_without_is_empty, reason = "no caller asks whether a map is empty")]
impl Map {
    /// Wraps memory that was mapped for reading.
    pub(super) fn from_mmap(memory: MmapRaw) -> Map {
        Map { memory: Memory::Mapped(memory) }
    }

    /// Makes a map of bytes that a disk provides.
    #[cfg_attr(not(any(test, feature = "testing")), allow(dead_code, reason = "for disks of tests"))]
    pub fn from_bytes(bytes: Box<dyn MappedBytes>) -> Map {
        Map { memory: Memory::Foreign(bytes) }
    }

    /// Returns the number of mapped bytes. The file may be shorter or longer.
    #[inline]
    pub fn len(&self) -> u64 {
        match &self.memory {
            Memory::Mapped(memory) => memory.len() as u64,
            Memory::Foreign(bytes) => bytes.len(),
        }
    }

    /// Maps the first `len` bytes instead and returns `true`; returns `false` and changes nothing if that fails. The
    /// map keeps the pages that are in use. A new map would have to find each of them again, and unmapping a gigabyte
    /// took 15 ms.
    pub fn resize(&mut self, len: u64) -> bool {
        match (&mut self.memory, usize::try_from(len)) {
            #[cfg(target_os = "linux")]
            (Memory::Mapped(memory), Ok(len)) => {
                // SAFETY: the bytes may move to another address, and no pointer to the old one exists: every pointer
                // into the map comes from a borrow of `self` and lives no longer than it, and here `self` is borrowed
                // exclusively. The file may be shorter than its map, as with every map: see the module's documentation.
                unsafe { memory.remap(len, RemapOptions::new().may_move(true)) }.is_ok()
            }
            _ => false,
        }
    }

    /// Copies the bytes at `offset` into `out`. Short copies are made so that a checksum of `out` need not wait for
    /// them, if it starts at the first byte.
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
                // `out` is exclusively ours, so the two do not overlap. Only the kernel can change the bytes under the
                // copy; they are bytes, for which every value is valid.
                unsafe { copy(memory.as_ptr().add(start), out) };
                // Keeps the compiler from reading the map again in place of `out`. It may do that where it sees that
                // nothing in this program wrote to the map in between.
                compiler_fence(atomic::Ordering::AcqRel);
            }
            Memory::Foreign(bytes) => bytes.read(offset, out),
        }
    }

    /// Returns the eight bytes at `offset` as a little-endian number, in one load. During a write to them the number
    /// can mix old and new bytes, since kernels copy in any order. After the write it is the new number, and reads that
    /// follow see at least what this one saw.
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
                // This makes it an acquire load. Only relaxed loads are promised to work on memory that is mapped
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

    /// Returns whether the bytes at `offset` are those of `other`.
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

    /// Returns the mapped bytes themselves, without a copy; `None` if this is not the operating system's map.
    ///
    /// # Safety
    ///
    /// While the slice lives, no process changes these bytes, and the file covers them.
    ///
    /// # Panics
    ///
    /// If the range reaches beyond [`Map::len`].
    #[inline]
    pub unsafe fn slice(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let start = self.checked(offset, len);
        match &self.memory {
            // SAFETY: `checked` found the range inside the map, which stays mapped while `self` is borrowed. The caller
            // promises that the bytes do not change.
            Memory::Mapped(memory) => Some(unsafe { std::slice::from_raw_parts(memory.as_ptr().add(start), len) }),
            Memory::Foreign(_) => None,
        }
    }

    /// Tells the processor to fetch the bytes at `offset` while the caller does something else. Any offset is allowed:
    /// nothing is read, and nothing can fail.
    #[inline]
    pub fn prefetch(&self, offset: u64) {
        if let (Memory::Mapped(memory), Ok(start)) = (&self.memory, usize::try_from(offset)) {
            prefetch(memory.as_ptr().wrapping_add(start));
        }
    }

    /// Returns the start of a range, as an index into the map. Panics if the range is not inside the map.
    #[inline]
    fn checked(&self, offset: u64, len: usize) -> usize {
        let mapped = self.len();
        match offset.checked_add(len as u64) {
            // The cast keeps the value, which is at most the length of a map.
            Some(end) if end <= mapped => offset as usize,
            _ => out_of_bounds(offset, len, mapped),
        }
    }

    /// Returns the first words in which the bytes at `offset` and `other` differ, as numbers that compare as their
    /// bytes do.
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
            // SAFETY: `other` has eight bytes at `at`, which every caller below ensures. As many bytes as `other` has
            // are readable at `mapped`: `checked` found them inside the map, or they are `copy`'s. As in `read`, only
            // the kernel can change the bytes, and every value of them is valid.
            let mapped = unsafe { mapped.add(at).cast::<[u8; WORD]>().read() };
            (mapped != wanted).then(|| (u64::from_be_bytes(mapped), u64::from_be_bytes(wanted)))
        };

        let Some(last) = other.last_chunk::<WORD>() else {
            // Shorter than a word. Comparing single bytes is faster than a copy of unknown length.
            return other.iter().enumerate().find_map(|(at, &wanted)| {
                // SAFETY: as above, with one byte in place of eight.
                let mapped = unsafe { mapped.add(at).read() };
                (mapped != wanted).then_some((mapped.into(), wanted.into()))
            });
        };
        let words = other.chunks_exact(WORD).zip((0..).step_by(WORD));
        let found = words.into_iter().find_map(|(chunk, at)| differ(at, chunk.try_into().ok()?));
        // The last word overlaps the one before it, in which there was no difference.
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

/// Fills `out` with the bytes at `from`.
///
/// The engine checks records right after it copied them, and a checksum takes in [`STEP`] bytes at a time. A processor
/// can forward bytes that were just stored to a load only if a single store wrote all of them; else the load waits
/// until everything before it is done. So short pieces are stored in the steps in which they will be loaded.
///
/// # Safety
///
/// As many bytes as `out` has are readable at `from`, and they do not overlap `out`.
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
        // Keeps the compiler from merging the steps into one copy.
        compiler_fence(atomic::Ordering::AcqRel);
    };
    // The last step overlaps the one before it, so that one must be stored later.
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
    // SAFETY: the caller's promise. Not `from_ptr`, which requires memory that can be written to. A reference to an
    // atomic may see changes, and this one is only loaded from.
    unsafe { &*word.cast::<atomic::AtomicU64>() }.load(atomic::Ordering::Relaxed)
}

/// Loads eight bytes, in memory order, in two halves: this processor promises no wider load of read-only memory.
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

    /// The same bytes as a map of each kind.
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
    fn every_difference_is_found() {
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
    fn a_copy_has_exactly_its_bytes() {
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
        // SAFETY: nothing changes these bytes.
        unsafe {
            assert_eq!(real.slice(1, 3), Some(&b"yte"[..]));
            assert_eq!(foreign.slice(1, 3), None);
        }
    }
}
