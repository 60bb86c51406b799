//! [`Source`]: a file that is opened for reading in whatever state it is, even without its header.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::{Access, AroundBadBlocks, Disk, DiskFile};
use crate::format::Damage;
use crate::log::{LogFile, lost_header};
use crate::{Error, Result};

/// A file whose header may be lost.
pub(crate) struct Source {
    pub(crate) log: Arc<LogFile>,
    pub(crate) header_damage: Option<Damage>,
    /// The damage to the header of `ROOTS`, in a file whose own header holds.
    pub(crate) roots_damage: Option<Damage>,
    /// The file, read around what the disk cannot read; `None` where a read error ends the work.
    around: Option<Arc<AroundBadBlocks>>,
}

impl Source {
    /// Opens a file for reading in whatever state it is. Bytes that the disk cannot read count as zeros.
    ///
    /// # Errors
    ///
    /// Those of [`LogFile::open`], if the records do not show the file's identity; `EIO` if the disk could not read
    /// them.
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<Source> {
        let (path, file) = open(disk, path)?;
        let around = Arc::new(AroundBadBlocks::new(file));
        let (source, refusal) = Source::of_file(around.clone(), &path)?;
        match refusal {
            None => Ok(Source { around: Some(around), ..source }),
            Some(refusal) if around.unreadable().is_empty() => Err(refusal),
            Some(_) => Err(Error::io("read", &path, std::io::Error::from_raw_os_error(libc::EIO))),
        }
    }

    /// Opens a file even if its records cannot be read: because it is of a later version, or because it has lost its
    /// header and has too few records to do without. The error says which.
    pub(crate) fn open_or_say_why(disk: &dyn Disk, path: &Path) -> Result<(Source, Option<Error>)> {
        let (path, file) = open(disk, path)?;
        Source::of_file(file, &path)
    }

    fn of_file(file: Arc<dyn DiskFile>, path: &Arc<Path>) -> Result<(Source, Option<Error>)> {
        let error = match LogFile::open_head(Arc::clone(&file), path) {
            Ok((log, roots)) => {
                let roots_damage = match roots {
                    Err(Error::Corrupt { damage, .. }) => Some(damage),
                    // Of a file that ends there, the survey says so.
                    Ok(()) | Err(Error::Truncated { .. }) => None,
                    Err(other) => return Err(other),
                };
                return Ok((Source { roots_damage, ..Source::sound(Arc::new(log)) }, None));
            }
            Err(error) => error,
        };
        let header_damage = match error {
            Error::Corrupt { damage, .. } => Some(damage),
            Error::NotCaskfile { .. } => Some(Damage::Magic),
            // The records of a later version may have another form, whatever they look like.
            Error::UnsupportedVersion { .. } => None,
            other => return Err(other),
        };
        let nameless = lost_header::without_header(file, path)?;
        let seed = if header_damage.is_some() { lost_header::find_seed(&nameless)? } else { None };
        let refusal = if seed.is_some() { None } else { Some(error) };
        let log = match seed {
            Some(seed) => lost_header::with_seed(nameless, seed)?,
            None => nameless,
        };
        Ok((Source::of_log(Arc::new(log), header_damage), refusal))
    }

    /// A log whose header holds.
    pub(crate) fn sound(log: Arc<LogFile>) -> Source {
        Source::of_log(log, None)
    }

    /// A log that is open already, and that may have lost its header.
    pub(crate) fn of_log(log: Arc<LogFile>, header_damage: Option<Damage>) -> Source {
        Source { log, header_damage, roots_damage: None, around: None }
    }

    /// The ranges that the disk has failed to read so far.
    pub(crate) fn unreadable(&self) -> Vec<Range<u64>> {
        self.around.as_ref().map_or_else(Vec::new, |around| around.unreadable())
    }
}

/// How often the opening of a file is tried on which another process has a lease, and the pause between two tries.
/// Together a little more than the 45 seconds after which Linux breaks a lease.
const LEASE_TRIES: u32 = 10_000;
const LEASE_PAUSE: Duration = Duration::from_millis(5);

fn open(disk: &dyn Disk, path: &Path) -> Result<(Arc<Path>, Arc<dyn DiskFile>)> {
    let path: Arc<Path> = disk.resolve(path).map_err(|e| Error::io("resolve", path, e))?.into();
    let mut tries = 0;
    loop {
        match disk.open(&path, Access::Read) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock && tries < LEASE_TRIES => {
                tries += 1;
                disk.system().pause(LEASE_PAUSE);
            }
            opened => return Ok((Arc::clone(&path), opened.map_err(|e| Error::io("open", &path, e))?)),
        }
    }
}
