//! A copy of a store under a name of its own: it appears there complete and synced, or not at all.

use std::io;
use std::sync::Arc;

use crate::disk::{Disk, cannot_link};
use crate::format::{BLOCK_LEN, MAX_SEQ};
use crate::log::leftovers::{Look, remove_leftovers_of};
use crate::log::owner::{PRIVATE, give_to_owner};
use crate::log::path::sync_name;
use crate::log::temp_file::TempFile;
use crate::log::{COPY_SEQS, LogFile};
use crate::progress::Copying;
use crate::{Error, Result};

/// Makes a new file under a temporary name beside the copy's, has it filled and synced, and links it to that. It gets
/// owner and mode of `source`, or stays private (see [`give_to_owner`]). The watch is called for the first time when nothing
/// is made yet.
///
/// # Errors
///
/// [`Error::Io`] with [`io::ErrorKind::AlreadyExists`] if the copy's name is taken, looked at before the work is done,
/// and decided after it; with [`io::ErrorKind::StorageFull`] if there is no room for all of it.
/// [`Error::CopyCancelled`], when nothing is left.
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
        return Err(Error::io("create", to, io::ErrorKind::AlreadyExists.into()));
    }
    // What earlier ones left that were killed. Nobody else would ever open this name to clean up.
    remove_leftovers_of(disk, to, None, Look::Quick);
    let next = TempFile::new(disk, to, PRIVATE, base_seq)?;
    next.expect_room(copying.total)?;
    give_to_owner(&*next.file, &*source.file).map_err(|e| next.io("set the owner", e))?;
    let filled = fill(&next, &mut copying)?;
    next.sync()?;
    copying.tell_all()?;
    // Linked, not renamed: a file that stands there is never replaced.
    let file = Arc::clone(&next.file);
    next.link_to(to).map_err(|e| Error::io("create", to, explain(e)))?;
    sync_name(disk, to, &*file).map_err(|e| Error::io("sync the directory", to, e))?;
    Ok(filled)
}

/// Says what to do where a file system can give a finished file no name without replacing what has it.
fn explain(error: io::Error) -> io::Error {
    if !cannot_link(&error) {
        return error;
    }
    let reason = format!("{error}; if files here can have no hard links, copy to another file system, or to a stream");
    io::Error::new(error.kind(), reason)
}

/// A `base_seq` for a copy of a store whose highest index is this one.
pub(crate) fn above_all_seqs(highest: u64) -> u64 {
    highest.max((highest + COPY_SEQS).min(MAX_SEQ - BLOCK_LEN))
}
