//! What the operating system knows of this process.

use crate::engine::Result;

/// In bytes.
pub struct Memory {
    /// All pages, those of mapped files included.
    pub resident: u64,
    /// Those that no file is behind: what the process has allocated.
    pub anonymous: u64,
    /// The most that ever was resident.
    pub peak: u64,
}

pub fn memory() -> Result<Memory> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = |name: &str| field(&status, name).map(|kib| kib * 1024);
    Ok(Memory { resident: kib("VmRSS:")?, anonymous: kib("RssAnon:")?, peak: kib("VmHWM:")? })
}

/// How many bytes of pages this process has caused to be written to a disk, at once or some day.
pub fn written_bytes() -> Result<u64> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    field(&io, "write_bytes:")
}

fn field(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| format!("the kernel does not tell {name}").into())
}
