//! [`Verification`]: the whole file read again and compared with the index.

use std::sync::Arc;

use super::Engine;
use super::view::View;
use crate::index::Keys;
use crate::log::recover::Decision;
use crate::{Error, Result};

/// What [`Cask::verify`](crate::Cask::verify) has found to be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// Keys in all buckets.
    pub keys: u64,
    /// Records in the log, each read and its checksums verified.
    pub records: u64,
    /// Where the log ends.
    pub log_end: u64,
    /// Bytes behind the log's end that are no complete record or batch and that nothing proves to have been one:
    /// a torn tail, or a group that another process is just writing. The next writer cuts a torn tail off.
    pub torn_bytes: u64,
}

impl Engine {
    pub(crate) fn verify(&self) -> Result<Verification> {
        let log = Arc::clone(&self.current()?.reader.log);
        // Nobody waits for this: a writer of this process would wait with the file's lock.
        let reads = self.config.get_reads();
        let (fresh, stop) = View::build(Arc::clone(&log), reads, 0)?;
        let (mut fresh, decision) = fresh.judge(stop, reads)?;
        let torn_bytes = match decision {
            Decision::Whole => 0,
            Decision::Cut { at, data_end, .. } => data_end - at,
        };
        let (keys, records) = (fresh.index.len() as u64, fresh.tail.records);
        let verification = Verification { keys, records, log_end: fresh.tail.end, torn_bytes };

        // Now nobody in this process takes in anything, so the two views can be brought to the same place.
        let ingest = self.ingest();
        self.take_in(&ingest)?;
        fresh.go_on()?;
        let shown = self.shown()?;
        if Arc::ptr_eq(&shown.reader.log, &log) && shown.tail.end == fresh.tail.end {
            compare(&fresh, &shown)?;
        }
        Ok(verification)
    }
}

/// Whether both views point to the same records.
fn compare(fresh: &View, shown: &View) -> Result<()> {
    let disagree = |what: &str| {
        let message = format!("{}: {what}; please report this", fresh.reader.log.path.display());
        Err(Error::other(std::io::Error::other(message)))
    };
    if (fresh.index.len(), fresh.live_bytes) != (shown.index.len(), shown.live_bytes) {
        return disagree("the index in memory has other keys than the log");
    }
    let mut key = Vec::new();
    for position in fresh.index.positions() {
        key.clear();
        Keys::read(&fresh.reader, position, &mut key)?;
        if shown.find(&key)? != Some(position) {
            return disagree("the index in memory points elsewhere than the log");
        }
    }
    if let Some(sorted) = shown.index.sorted() {
        let rebuilt = fresh.index.build_sorted(&fresh.reader)?;
        if !rebuilt.holds_the_same_as(sorted) {
            return disagree("the sorted index in memory has another order than the log's keys");
        }
    }
    Ok(())
}
