//! Locks on bytes far beyond the end of a file, which tell other processes four things: the place of a description in the line
//! for the file's lock, that it has mapped the file, its place in the line for a lock that the log has, and that an owner of
//! sessions lives.
//!
//! They belong to the open file description, as the `flock` does. The system releases them when the description is closed,
//! however the process ends. None of them protects anything.
//!
//! | bytes | |
//! | --- | --- |
//! | from 2^62 on | places in the line for the file's lock |
//! | 2^62 - 1 | the file is mapped |
//! | 2^60 to 3 * 2^60 | owners of sessions |
//! | 2^59 to 2^60 | places in the lines for locks: 2^20 lines of 2^39 places |

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use super::retry_interrupted;
use crate::disk::{PLACES, WaitingLine};

/// The byte of place 0. The others follow.
const FIRST_PLACE: libc::off_t = libc::off_t::MAX - PLACES as libc::off_t;

/// The byte of owner 0. The others follow.
const FIRST_OWNER: libc::off_t = 1 << 60;

/// The byte of place 0 in the first line for a lock. The other lines follow.
const FIRST_LINE: libc::off_t = 1 << 59;

/// How many lines for locks there are. Locks whose names have the same hash wait in the same line.
const LINES: u32 = 1 << 20;

/// The places of a line for a lock.
const LINE_LEN: u64 = 1 << 39;

const _: () = assert!(FIRST_LINE as u64 + LINES as u64 * LINE_LEN == FIRST_OWNER as u64);
const _: () = assert!(FIRST_OWNER + ((1 << 61) - 1) < MAPPED && MAPPED < FIRST_PLACE);

/// A description that has mapped its file has a read lock on this byte, until the description is closed and its last map
/// is gone.
const MAPPED: libc::off_t = libc::off_t::MAX / 2;

/// A line of waiting descriptions: a range of bytes, one for each place.
pub(super) struct Line<'f> {
    file: &'f File,
    first: libc::off_t,
    places: u64,
}

impl<'f> Line<'f> {
    /// The line for the file's lock.
    pub(super) fn of_file(file: &'f File) -> Line<'f> {
        Line { file, first: FIRST_PLACE, places: PLACES }
    }

    /// One of the lines for locks that the log has.
    pub(super) fn of_lock(file: &'f File, line: u32) -> Line<'f> {
        let first = FIRST_LINE + libc::off_t::from(line % LINES) * LINE_LEN as libc::off_t;
        Line { file, first, places: LINE_LEN }
    }

    /// The start and the length of a range of places.
    fn bytes_of(&self, places: Range<u64>) -> (libc::off_t, libc::off_t) {
        (self.first + places.start as libc::off_t, (places.end - places.start) as libc::off_t)
    }
}

impl WaitingLine for Line<'_> {
    fn try_place(&self, place: u64) -> io::Result<bool> {
        if place >= self.places {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let (start, len) = self.bytes_of(place..place + 1);
        match byte_lock(self.file, libc::F_OFD_SETLK, libc::F_WRLCK, start, len) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn leave_place(&self, place: u64) {
        let (start, len) = self.bytes_of(place..place + 1);
        // If this fails, closing the description gives it up.
        let _ = byte_lock(self.file, libc::F_OFD_SETLK, libc::F_UNLCK, start, len);
    }

    fn place_of_another(&self, among: Range<u64>) -> Option<u64> {
        let among = among.start..among.end.min(self.places);
        if among.is_empty() {
            // For the system, a length of 0 means everything from there on.
            return None;
        }
        let (start, len) = self.bytes_of(among);
        let lock = byte_lock(self.file, libc::F_OFD_GETLK, libc::F_WRLCK, start, len).ok()?;
        let found = lock.l_type != libc::F_UNLCK as libc::c_short;
        // A foreign program's lock on more than one place, the whole file for example, says nothing about the line.
        let is_place = lock.l_start >= self.first && lock.l_len == 1;
        (found && is_place).then(|| (lock.l_start - self.first) as u64)
    }
}

/// Holds the byte of an owner of sessions.
pub(super) fn hold_owner(file: &File, owner: u64) -> io::Result<()> {
    byte_lock(file, libc::F_OFD_SETLK, libc::F_RDLCK, byte_of(owner)?, 1).map(drop)
}

pub(super) fn release_owner(file: &File, owner: u64) {
    if let Ok(byte) = byte_of(owner) {
        // If this fails, closing the description gives it up.
        let _ = byte_lock(file, libc::F_OFD_SETLK, libc::F_UNLCK, byte, 1);
    }
}

/// Returns whether another description holds the byte. A foreign program's lock on more bytes says nothing about it, and counts as
/// one: the caller then waits for a deadline.
pub(super) fn is_owner_held(file: &File, owner: u64) -> io::Result<bool> {
    let found = byte_lock(file, libc::F_OFD_GETLK, libc::F_WRLCK, byte_of(owner)?, 1)?;
    Ok(found.l_type != libc::F_UNLCK as libc::c_short)
}

fn byte_of(owner: u64) -> io::Result<libc::off_t> {
    let owner = libc::off_t::try_from(owner).ok().filter(|&owner| owner < 1 << 61);
    owner.map(|owner| FIRST_OWNER + owner).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Returns whether the system knows lines: a description that waits is seen by the others.
pub(super) fn knows_lines(file: &File) -> bool {
    byte_lock(file, libc::F_OFD_GETLK, libc::F_WRLCK, FIRST_PLACE, 1).is_ok()
}

/// Tells other processes that this description has a map. Where the system does not know such locks, [`is_mapped_elsewhere`]
/// is an error for all of them.
pub(super) fn note_map(file: &File) {
    let _ = byte_lock(file, libc::F_OFD_SETLK, libc::F_RDLCK, MAPPED, 1);
}

pub(super) fn is_mapped_elsewhere(file: &File) -> io::Result<bool> {
    let found = byte_lock(file, libc::F_OFD_GETLK, libc::F_WRLCK, MAPPED, 1)?;
    Ok(found.l_type != libc::F_UNLCK as libc::c_short)
}

/// Locks, unlocks or asks for a range of bytes, and returns the system's answer.
fn byte_lock(
    file: &File,
    command: libc::c_int,
    kind: libc::c_int,
    start: libc::off_t,
    len: libc::off_t,
) -> io::Result<libc::flock> {
    // SAFETY: all fields are numbers, of which zero is one.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    (lock.l_start, lock.l_len) = (start, len);
    // SAFETY: the descriptor is open while `file` is borrowed, and `lock` is ours to be written to.
    retry_interrupted(|| match unsafe { libc::fcntl(file.as_raw_fd(), command, &mut lock) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    })?;
    Ok(lock)
}
