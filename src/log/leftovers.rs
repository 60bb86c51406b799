//! Leftovers: the temporary files of killed processes.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::LogFile;
use super::names::{TEMPORARY, first_siblings, is_sibling_suffix, sibling_prefix};
use super::path::{Named, directory, named};
use crate::disk::{Access, Disk, FileIdentity};
use crate::events::event;

/// How to look for leftovers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Look up the names that makers try first. List the directory only if one is taken.
    Quick,
    /// List the directory. The time depends on the number of its files.
    Thorough,
}

/// Removes the files that killed creators and compactions have left. The caller holds the store's lock. Returns whether
/// a living process is making such a file now.
pub(crate) fn remove_leftovers(disk: &dyn Disk, log: &LogFile, look: Look) -> bool {
    remove_leftovers_of(disk, &log.path, Some(log.identity), look)
}

/// The same for a path that need not name a store; `own` is the store's identity if it does.
///
/// A living maker holds its file's lock. So a file is removed only under its lock, and only if the name is still the
/// file's: the maker may have finished, and another maker may have taken the name. A second name of the store itself,
/// which a killed creator left, is removed too. Failures are passed over: a leftover does no harm.
pub(crate) fn remove_leftovers_of(disk: &dyn Disk, path: &Path, own: Option<FileIdentity>, look: Look) -> bool {
    let is_there = |path: &PathBuf| !disk.stat(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
    let mut first = first_siblings(path, TEMPORARY).filter(is_there).peekable();
    if look == Look::Quick && first.peek().is_none() {
        return false;
    }
    let prefix = sibling_prefix(path, TEMPORARY);
    // The directory may allow searching and not listing.
    let candidates = disk
        .list(directory(path), &prefix)
        .unwrap_or_else(|_| first.filter_map(|path| path.file_name().map(Into::into)).collect());
    let mut at_work = false;
    for name in candidates {
        if !is_sibling_suffix(&name.as_bytes()[prefix.len()..]) {
            continue;
        }
        let path = path.with_file_name(name);
        let Ok(stat) = disk.stat(&path) else { continue };
        if Some(stat.identity) == own {
            let _ = disk.remove(&path);
        } else if let Ok(file) = disk.open(&path, Access::ReadWrite) {
            match file.try_lock() {
                Ok(true) => {
                    let is_leftover =
                        file.stat().is_ok_and(|stat| matches!(named(disk, &path, stat.identity), Ok(Named::This)));
                    if is_leftover && disk.remove(&path).is_ok() {
                        event!(info, "{}: removed, the process that was making it was killed", path.display());
                    }
                }
                Ok(false) => at_work = true,
                Err(_) => {}
            }
        }
    }
    at_work
}
