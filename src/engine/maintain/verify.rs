//! Verification of an open store: the file is read again and compared with the index in memory.

use std::sync::Arc;

use super::Maintenance;
use crate::engine::read::view::View;
use crate::inspect::judged;
use crate::inspect::source::Source;
use crate::inspect::survey::{Scope, Survey};
use crate::report::Report;
use crate::{Error, Result};

impl Maintenance {
    pub(crate) fn verify(&self) -> Result<Report> {
        let log = Arc::clone(&self.reading.current()?.reader.log);
        // Without `ingest`: a writer of this process would wait for it with the file's lock held.
        let mut fresh = Survey::of(&Source::sound(Arc::clone(&log)), Scope::Log)?;
        let report = judged(&log, fresh.report.clone())?;

        // With `ingest`, no thread of this process changes the view, so both can catch up to the same end.
        let ingest = self.reading.ingest();
        drop(self.reading.catch_up(&ingest)?);
        fresh.catch_up()?;
        let shown = self.reading.shown()?;
        if Arc::ptr_eq(&shown.reader.log, &log) && shown.tail.end == fresh.reader.end {
            compare(&fresh, &shown)?;
        }
        Ok(report)
    }
}

/// Compares the index in memory with a new one that was built from the file.
fn compare(fresh: &Survey, shown: &View) -> Result<()> {
    let disagree = |what: &str| {
        let message = format!("{}: {what}; please report this", fresh.reader.log.path.display());
        Err(Error::internal(message))
    };
    if (fresh.keys.index.len(), fresh.keys.live_bytes) != (shown.index().len(), shown.keys.live_bytes) {
        return disagree("the index in memory and the log have different keys");
    }
    let mut key = Vec::new();
    for position in fresh.keys.index.positions() {
        key.clear();
        fresh.keys.index.key_at(position, &fresh.reader, &mut key)?;
        if shown.find(&key)? != Some(position) {
            return disagree("the index in memory points to other records than the log");
        }
    }
    if let Some(sorted) = shown.index().sorted() {
        let rebuilt = fresh.keys.index.build_sorted(&fresh.reader, || Ok(()))?;
        if !rebuilt.holds_the_same_as(sorted) {
            return disagree("the sorted index in memory and the log have different orders of keys");
        }
    }
    Ok(())
}
