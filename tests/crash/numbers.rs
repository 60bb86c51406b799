//! A sequence number is shown only after a record of its block is on stable storage. Otherwise a power cut takes the record
//! away, and the next writer, which begins above the blocks that it finds, gives the number again.
//!
//! [`check`] compares what is in the file with what no power cut takes away. It holds at every call, whatever was done
//! before, so every random world asks it at each of its power cuts.

use caskfile::disk::Disk;
use caskfile::disk::sim::{Choices, SimDisk};

use crate::life::STORE;

const FILE_HEADER: usize = 64;
const RECORD_HEADER: usize = 24;

/// Whether each put and delete in the file has a number of a block that a record on stable storage has too.
pub fn check(disk: &SimDisk) -> Result<(), String> {
    let Some(shown) = disk.contents(STORE) else { return Ok(()) };
    let Some(highest) = highest(&shown, |kind| kind == 1 || kind == 2) else { return Ok(()) };
    let durable = disk.reboot(&mut Choices::keep_nothing()).contents(STORE).unwrap_or_default();
    let reserved = self::highest(&durable, |_| true).unwrap_or(0).max(base_seq(&durable));
    // The file was compacted, and its name is not synced: its numbers are those of the old one.
    let reserved = reserved.max(base_seq(&shown));
    let block = |seq| seq / disk.limits().block_len;
    if block(highest) > block(reserved) {
        return Err(format!("number {highest} is in the file, and on stable storage is none of its block: {reserved}"));
    }
    Ok(())
}

fn base_seq(file: &[u8]) -> u64 {
    file.get(32..40).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
}

/// The highest number among the records of some kinds, as far as their headers lead. Checksums are not looked at: a torn
/// record too has a number that must have been reserved.
fn highest(file: &[u8], counts: impl Fn(u8) -> bool) -> Option<u64> {
    let (mut at, mut last, mut highest) = (FILE_HEADER, 0, None);
    while let Some(header) = file.get(at..at + RECORD_HEADER) {
        let kind = header[9];
        let key_len = usize::from(u16::from_le_bytes([header[10], header[11]]));
        let value_len = u32::from_le_bytes(header[12..16].try_into().unwrap()) as usize;
        let seq = u64::from_le_bytes(header[16..24].try_into().unwrap());
        let end = (at + RECORD_HEADER + key_len + value_len).next_multiple_of(8);
        if !matches!(kind, 1 | 2 | 0x80..=0x82)
            || seq <= last
            || seq > last.max(base_seq(file)) + (1 << 48)
            || end > file.len()
        {
            break;
        }
        if counts(kind) {
            highest = Some(seq);
        }
        (at, last) = (end, seq);
    }
    highest
}
