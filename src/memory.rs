//! Memory for values, keys and batches, whose size depends on a caller or a file. Here a limit on memory is an error,
//! and does not end the process.

use std::io;

/// A buffer of this many bytes no longer doubles when it grows, since it would keep twice the memory that it needs. It
/// grows by an eighth, or more if that is asked for.
const LARGE: usize = 1 << 20;

/// A buffer with more bytes than this is given back after use.
const KEPT_CAPACITY: usize = 4 << 20;

/// Makes room for `more` elements at the end of the buffer.
///
/// # Errors
///
/// [`io::ErrorKind::OutOfMemory`].
#[inline]
pub(crate) fn make_room<T>(buffer: &mut Vec<T>, more: usize) -> io::Result<()> {
    let large = LARGE / size_of::<T>().max(1);
    let made = if more < large && buffer.len() < large {
        buffer.try_reserve(more)
    } else if buffer.capacity() - buffer.len() < more {
        buffer.try_reserve_exact(more.max(buffer.len() / 8))
    } else {
        Ok(())
    };
    made.or_else(|_| buffer.try_reserve_exact(more)).map_err(|_| io::ErrorKind::OutOfMemory.into())
}

/// Empties a buffer that is used again, and gives its memory back if that is more than [`KEPT_CAPACITY`].
#[inline]
pub(crate) fn empty<T>(buffer: &mut Vec<T>) {
    buffer.clear();
    if buffer.capacity() > KEPT_CAPACITY / size_of::<T>().max(1) {
        *buffer = Vec::new();
    }
}

/// Returns a copy of these bytes.
///
/// # Errors
///
/// [`io::ErrorKind::OutOfMemory`].
pub(crate) fn copied(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}
