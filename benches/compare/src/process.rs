//! Figures of the operating system about this process and its disk.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::engine::Result;

/// In bytes.
pub struct Memory {
    /// All pages, those of mapped files included.
    pub resident: u64,
    /// Pages without a file: memory that the process has allocated.
    pub anonymous: u64,
    /// The largest resident size up to now.
    pub peak: u64,
}

pub fn memory() -> Result<Memory> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = |name: &str| field(&status, name).map(|kib| kib * 1024);
    Ok(Memory { resident: kib("VmRSS:")?, anonymous: kib("RssAnon:")?, peak: kib("VmHWM:")? })
}

/// Returns how many bytes the kernel has sent to the disk under a directory since the machine was started, for all processes.
///
/// `/proc/self/io` counts one process, but whole folios of the page cache for one changed block: twenty times the written
/// bytes for small appends to a mapped file.
pub fn written_bytes(directory: &Path) -> Result<u64> {
    sync(directory)?;
    let device = std::fs::metadata(directory)?.dev();
    let path = format!("/sys/dev/block/{}:{}/stat", libc::major(device), libc::minor(device));
    let stat = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let sectors: u64 = stat.split_whitespace().nth(6).ok_or("the kernel does not tell sectors written")?.parse()?;
    Ok(sectors * 512)
}

/// Syncs the whole file system of a directory.
pub fn sync(directory: &Path) -> Result<()> {
    let directory = File::open(directory)?;
    // SAFETY: the descriptor is open.
    match unsafe { libc::syncfs(directory.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}

fn field(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| format!("the kernel does not tell {name}").into())
}
