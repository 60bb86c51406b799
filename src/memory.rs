//! Memory for values, keys and batches: what can be as large as a caller or a file wants it to be. A limit on memory is an
//! error there, and must not end the process.

use std::io;

/// From this many bytes on a buffer does not double, which takes, and keeps, twice what is needed. It grows by an eighth at
/// least.
const LARGE: usize = 1 << 20;

/// Makes room for `more` elements after those that the buffer holds.
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

/// A copy of these bytes.
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
