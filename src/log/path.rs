//! What a path names, and how a name becomes durable.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::disk::{Disk, DiskFile, FileIdentity, SyncScope};
use crate::{Error, Result};

/// The directory that holds the store.
pub(crate) fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Brings the name of a file to stable storage.
///
/// A directory that may be searched and not read cannot be opened to be synced. Then the whole file system is synced, which
/// takes longer and keeps the same promise.
pub(crate) fn sync_name(disk: &dyn Disk, path: &Path, file: &dyn DiskFile) -> io::Result<()> {
    match disk.sync_dir(directory(path)) {
        Err(refused) if refused.kind() == io::ErrorKind::PermissionDenied => match file.sync(SyncScope::FileSystem) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Err(refused),
            synced_or_failed => synced_or_failed,
        },
        synced_or_failed => synced_or_failed,
    }
}

/// What a path says of a file that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// It names the file.
    This,
    /// It names another file.
    Another,
    /// It names nothing.
    Nothing,
    /// It leads to the file, but no directory has a name for it any more. A mount of this one file (`mount --bind`, or a
    /// single file that a container was given) stays as it is when another file takes the name that was mounted.
    Orphan,
}

/// A rename takes the last link of the file that it replaces a little before the path leads to the new one. `named` waits up
/// to this long for the path to lead to the new file.
const RENAME_LOOKS: u32 = 100;
const RENAME_PAUSE: Duration = Duration::from_millis(1);

/// Compares what `path` names now with an open file of this identity.
pub(crate) fn named(disk: &dyn Disk, path: &Path, identity: FileIdentity) -> Result<Named> {
    for _ in 0..RENAME_LOOKS {
        match disk.stat(path) {
            Ok(now) if now.identity != identity => return Ok(Named::Another),
            Ok(now) if now.links > 0 => return Ok(Named::This),
            Ok(now) if now.mount_point => return Ok(Named::Orphan),
            Ok(_) => disk.system().pause(RENAME_PAUSE),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Named::Nothing),
            Err(e) => return Err(Error::io("stat", path, e)),
        }
    }
    Ok(Named::Orphan)
}
