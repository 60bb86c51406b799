//! The machine: randomness, time, and the processes that hold locks.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

#[cfg(target_os = "linux")]
use crate::disk::FileIdentity;
use crate::disk::System;

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
    fn lock_holder(&self, file: &FileIdentity) -> Option<u32> {
        holder_in(&std::fs::read_to_string("/proc/locks").ok()?, file)
    }
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
