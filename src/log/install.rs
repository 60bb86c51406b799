//! A copy of a store under a name of its own. It appears there complete and synced, or it does not appear.

use std::io;
use std::sync::Arc;

use crate::disk::{Disk, cannot_link};
use crate::format::MAX_SEQ;
use crate::limits::Shared;
use crate::log::leftovers::{Look, remove_leftovers_of};
use crate::log::owner::{PRIVATE, give_to_owner};
use crate::log::path::sync_name;
use crate::log::temp_file::TempFile;
use crate::log::{COPY_SEQS, LogFile};
use crate::progress::Copying;
use crate::{Error, Result};

/// Makes a temporary file beside the copy's name, calls `fill` and syncs it, and links it to the copy's name. The copy
/// gets owner and mode of `source`, or stays private (see [`give_to_owner`]). The first call of the watch comes before
/// the file is made.
///
/// # Errors
///
/// [`Error::Io`] with [`io::ErrorKind::AlreadyExists`] if the copy's name is taken (checked before the work, decided
/// after it), and with [`io::ErrorKind::StorageFull`] if there is not enough room. [`Error::CopyCancelled`]; then
/// nothing is left.
pub(crate) fn install<T>(
    disk: &dyn Disk,
    mut copying: Copying<'_, '_>,
    source: &LogFile,
    base_seq: u64,
    fill: impl FnOnce(&TempFile<'_>, &mut Copying<'_, '_>) -> Result<T>,
) -> Result<T> {
    copying.tell(0)?;
    let to = copying.to;
    if disk.stat(to).is_ok() {
        return Err(Error::io("create", to, taken()));
    }
    // Leftovers of earlier copies: no other process opens this name to clean up.
    remove_leftovers_of(disk, to, None, Look::Quick);
    let next = TempFile::new(disk, to, PRIVATE, base_seq)?;
    next.expect_room(copying.total)?;
    give_to_owner(&*next.file, &*source.file).map_err(|e| next.io("set the owner", e))?;
    let filled = fill(&next, &mut copying)?;
    next.sync()?;
    copying.tell_all()?;
    // Linked, not renamed: an existing file is never replaced.
    let file = Arc::clone(&next.file);
    next.link_to(to).map_err(|e| Error::io("create", to, explain(e)))?;
    sync_name(disk, to, &*file).map_err(|e| Error::io("sync the directory", to, e))?;
    Ok(filled)
}

fn taken() -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, "the file exists, and is not replaced")
}

/// Says what a taken name means, and adds advice if the file system can only replace, and not create, a name.
fn explain(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::AlreadyExists {
        return taken();
    }
    if !cannot_link(&error) {
        return error;
    }
    let reason = format!("{error}; if files here can have no hard links, copy to another file system, or to a stream");
    io::Error::new(error.kind(), reason)
}

/// A `base_seq` for a copy of a store with this highest sequence number. At least one number is left above it, for the
/// closing mark.
pub(crate) fn above_all_seqs(highest: u64, limits: Shared) -> u64 {
    highest.max((highest + COPY_SEQS).min(MAX_SEQ - limits.block_len())).min(MAX_SEQ - 1)
}
