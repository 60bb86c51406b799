//! Locks on bytes far beyond the end of a file, which tell other processes two things: the place of a description in the
//! waiting line, and that it has mapped the file.
//!
//! They belong to the open file description, as the `flock` does. The system releases them when the description is closed,
//! however the process ends. Neither protects anything.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use super::retry_interrupted;
use crate::disk::PLACES;

/// The byte of place 0. The others follow.
const FIRST_PLACE: libc::off_t = libc::off_t::MAX - PLACES as libc::off_t;

/// A description that has mapped its file has a read lock on this byte, until the description is closed and its last map
/// is gone.
const MAPPED: libc::off_t = libc::off_t::MAX / 2;

/// Takes a place and returns `true`, unless another description has it.
pub(super) fn try_place(file: &File, place: u64) -> io::Result<bool> {
    let (start, len) = bytes_of(place..place + 1);
    match byte_lock(file, libc::F_OFD_SETLK, libc::F_WRLCK, start, len) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn leave_place(file: &File, place: u64) {
    let (start, len) = bytes_of(place..place + 1);
    // If this fails, closing the description gives it up.
    let _ = byte_lock(file, libc::F_OFD_SETLK, libc::F_UNLCK, start, len);
}

/// Returns a place that another description has, any of those in the range.
pub(super) fn place_of_another(file: &File, among: Range<u64>) -> Option<u64> {
    if among.is_empty() {
        // For the system, a length of 0 means everything from there on.
        return None;
    }
    let (start, len) = bytes_of(among);
    let lock = byte_lock(file, libc::F_OFD_GETLK, libc::F_WRLCK, start, len).ok()?;
    let found = lock.l_type != libc::F_UNLCK as libc::c_short;
    // A foreign program's lock on more than one place, the whole file for example, says nothing about the line.
    let is_place = lock.l_start >= FIRST_PLACE && lock.l_len == 1;
    (found && is_place).then(|| (lock.l_start - FIRST_PLACE) as u64)
}

fn bytes_of(places: Range<u64>) -> (libc::off_t, libc::off_t) {
    (FIRST_PLACE + places.start as libc::off_t, (places.end - places.start) as libc::off_t)
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
