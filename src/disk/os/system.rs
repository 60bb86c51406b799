//! The machine: randomness, time, and the processes that hold locks.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

#[cfg(target_os = "linux")]
use crate::disk::FileIdentity;
use crate::disk::{Boot, System};
use std::time::Duration;

/// The operating system's randomness, time and processes.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealSystem;

impl System for RealSystem {
    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()> {
        getrandom::fill(bytes).map_err(|error| match error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::other(error),
        })
    }

    fn unix_time(&self) -> u64 {
        // A clock set before 1970 is no reason to fail: the time is only a creation time.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    #[cfg(target_os = "linux")]
    fn boot(&self) -> io::Result<Boot> {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let id = boot_id(&id).ok_or_else(|| io::Error::other("the kernel's boot_id is no UUID"))?;
        let own = match std::fs::read_link("/proc/self/ns/time") {
            // Kernels before 5.6 have no time namespaces.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::read_link("/proc/self/ns/mnt")?;
                return Ok(Boot { id, offset: 0 });
            }
            own => own?,
        };
        if own != std::fs::read_link("/proc/self/ns/time_for_children")? {
            // The offsets that the system shows are those of the children.
            return Err(io::Error::other("the process and its children have different time namespaces"));
        }
        let offsets = std::fs::read_to_string("/proc/self/timens_offsets")?;
        let offset = monotonic_offset(&offsets).ok_or_else(|| io::Error::other("timens_offsets cannot be read"))?;
        Ok(Boot { id, offset })
    }

    #[cfg(target_os = "linux")]
    fn lock_holder(&self, file: &FileIdentity) -> Option<u32> {
        holder_in(&std::fs::read_to_string("/proc/locks").ok()?, file)
    }
}

/// Returns what `CLOCK_MONOTONIC` shows.
pub(in crate::disk) fn monotonic() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is ours to be written to.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    // Neither is negative.
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Reads a UUID as the kernel writes it.
#[cfg(target_os = "linux")]
fn boot_id(text: &str) -> Option<[u8; 16]> {
    let digits = text.trim_end().replace('-', "");
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)?;
    Some(number.to_be_bytes())
}

/// Reads the offset of the monotonic clock, in nanoseconds:
///
/// ```text
/// monotonic           0         0
/// boottime            0         0
/// ```
#[cfg(target_os = "linux")]
fn monotonic_offset(text: &str) -> Option<i64> {
    text.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        if fields.next() != Some("monotonic") {
            return None;
        }
        let (seconds, nanoseconds): (i64, i64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
    })
}

/// Returns the process that has the `flock` on a file, according to `/proc/locks`:
///
/// ```text
/// 1: FLOCK  ADVISORY  WRITE 4711 fe:01:1312081 0 EOF
/// ```
///
/// The device is in hexadecimal. Lines with `->` are waiting processes. A process that is invisible from here is 0.
#[cfg(target_os = "linux")]
fn holder_in(locks: &str, file: &FileIdentity) -> Option<u32> {
    let (major, minor) = (libc::major(file.device), libc::minor(file.device));
    let wanted = format!("{major:02x}:{minor:02x}:{}", file.inode);
    locks.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let is_lock = ["FLOCK", "ADVISORY", "WRITE"].iter().all(|&field| fields.next() == Some(field));
        let process = fields.next()?.parse().ok().filter(|&process| process > 0)?;
        (is_lock && fields.next() == Some(wanted.as_str())).then_some(process)
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_boot_and_the_offset_of_a_time_namespace_are_read() {
        let id = boot_id("6c1b2a90-0000-4000-8000-0000000000ff\n");
        assert_eq!(id, Some([0x6c, 0x1b, 0x2a, 0x90, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 0xff]));
        assert_eq!((boot_id(""), boot_id("6c1b2a90"), boot_id(&"x".repeat(32))), (None, None, None));
        let offsets = |line: &str| monotonic_offset(&format!("{line}\nboottime   7   8\n"));
        assert_eq!(offsets("monotonic           0         0"), Some(0));
        assert_eq!(offsets("monotonic   86400   500"), Some(86_400_000_000_500));
        assert_eq!(offsets("monotonic   -10   999999999"), Some(-9_000_000_001));
        assert_eq!((offsets("monotonic"), offsets("other 1 2")), (None, None));
        assert_eq!(RealSystem.boot().unwrap(), RealSystem.boot().unwrap());
        let (before, after) = (monotonic(), monotonic());
        assert!(before > Duration::ZERO && after >= before);
    }

    #[test]
    fn the_holder_of_a_lock_is_found_in_the_list_of_locks() {
        let file = FileIdentity { device: libc::makedev(0xfe, 1), inode: 77 };
        let lines = [
            "1: FLOCK  ADVISORY  WRITE 11 fe:01:7 0 EOF",
            "2: FLOCK  ADVISORY  WRITE 12 fe:02:77 0 EOF",
            "3: POSIX  ADVISORY  WRITE 13 fe:01:77 0 EOF",
            "4: OFDLCK ADVISORY  WRITE -1 fe:01:77 0 0",
            "5: FLOCK  ADVISORY  WRITE 0 fe:01:77 0 EOF",
            "6: -> FLOCK  ADVISORY  WRITE 16 fe:01:77 0 EOF",
            "7: FLOCK",
        ];
        assert_eq!(holder_in(&lines.join("\n"), &file), None);
        let found = "8: FLOCK  ADVISORY  WRITE 18 fe:01:77 0 EOF";
        assert_eq!(holder_in(&format!("{}\n{found}\n", lines.join("\n")), &file), Some(18));
    }
}
