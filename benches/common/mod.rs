//! Shared by the benchmarks: options, temporary directories, keys.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The value of every pair.
pub const VALUE: [u8; 100] = [b'v'; 100];

/// The length of a record with a key of 16 bytes and that value: header, bucket length, key, value, padding.
pub const RECORD_LEN: usize = (24 + 1 + 16 + VALUE.len()).next_multiple_of(8);

/// Returns the numbers after these options on the command line, or the given ones for absent options. Any other argument
/// prints the usage and ends the program.
pub fn numbers<T: FromStr, const N: usize>(bench: &str, options: [(&str, T); N]) -> [T; N] {
    let (names, mut numbers): (Vec<_>, Vec<_>) = options.into_iter().unzip();
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    for pair in arguments.chunks(2) {
        let number = pair.get(1).and_then(|number| number.parse().ok());
        match (names.iter().position(|name| *name == pair[0]), number) {
            (Some(at), Some(number)) => numbers[at] = number,
            _ => {
                let options: String = names.iter().map(|name| format!(" [{name} N]")).collect();
                eprintln!("usage: {bench}{options}");
                std::process::exit(2);
            }
        }
    }
    numbers.try_into().unwrap_or_else(|_| unreachable!("there are as many as there were"))
}

/// A directory in the system's temporary directory. Dropping it removes it with its contents.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new(bench: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("caskfile-{bench}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Directory(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Returns a different key for each number. Keys of successive numbers are spread over the whole range.
pub fn spread_key(number: u64) -> [u8; 16] {
    let text = format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    text.as_bytes().try_into().unwrap()
}

/// An endless iterator of random numbers below `below`. The same `seed`, which is not 0, gives the same numbers.
pub fn random(seed: u64, below: u64) -> impl Iterator<Item = u64> {
    let mut state = seed.wrapping_mul(0x2545_f491_4f6c_dd1d);
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    })
}
