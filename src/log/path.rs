//! Comparing a path with an open file, and making a name durable.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::disk::{Disk, DiskFile, FileIdentity, SyncScope};
use crate::{Error, Result};

/// The directory that holds the store.
pub(crate) fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// The room in a directory's file system, if the system says that it is less than `bytes`.
pub(crate) fn too_little_room(disk: &dyn Disk, directory: &Path, bytes: u64) -> Option<u64> {
    disk.room(directory).ok().flatten().filter(|&room| room < bytes)
}

/// Brings the name of a file to stable storage.
///
/// A directory that allows searching and not reading cannot be opened and synced. Then the whole file system is synced,
/// which takes longer.
pub(crate) fn sync_name(disk: &dyn Disk, path: &Path, file: &dyn DiskFile) -> io::Result<()> {
    match disk.sync_dir(directory(path)) {
        Err(refused) if refused.kind() == io::ErrorKind::PermissionDenied => match file.sync(SyncScope::FileSystem) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Err(refused),
            synced_or_failed => synced_or_failed,
        },
        synced_or_failed => synced_or_failed,
    }
}

/// The relation between a path and an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// The path names the file.
    This,
    /// The path names another file.
    Another,
    /// The path names nothing.
    Nothing,
    /// The path leads to the file, but no directory has a name for it. A mount of this one file (`mount --bind`, or a
    /// single file in a container) stays when another file takes the name that was mounted.
    Orphan,
}

/// During a rename, the replaced file loses its last link shortly before the path leads to the new one. [`named`] waits
/// up to this long for that.
const RENAME_LOOKS: u32 = 100;
const RENAME_PAUSE: Duration = Duration::from_millis(1);

/// Compares the file that `path` names now with an open file of this identity.
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
