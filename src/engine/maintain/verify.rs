//! Verification of an open store: the file is read again and compared with the index in memory.

use std::sync::Arc;

use super::Maintenance;
use crate::engine::read::view::View;
use crate::inspect::judged;
use crate::inspect::source::Source;
use crate::inspect::survey::{Scope, Survey};
use crate::log::tail::Tail;
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
            shown.index().load_all(&shown.reader)?;
            compare(&fresh, &shown)?;
        }
        Ok(report)
    }
}

/// Compares the index in memory, and what is counted with it, with new ones that were built from the file. Every kind of
/// difference has a message of its own.
fn compare(fresh: &Survey, shown: &View) -> Result<()> {
    let disagree = |what: String| {
        let message = format!("{}: {what}; please report this", fresh.reader.log.path.display());
        Err(Error::internal(message))
    };
    let mut live: Vec<u64> = fresh.keys.index.positions().collect();
    live.sort_unstable();
    // Before any of these positions is read: there may be no record.
    let mut seen = vec![false; live.len()];
    for position in shown.index().positions() {
        match live.binary_search(&position) {
            Ok(at) if !seen[at] => seen[at] = true,
            Ok(_) => return disagree(format!("the index in memory has the record at {position} twice")),
            Err(_) => return disagree(format!("the index in memory has {position}, where the log has no live record")),
        }
    }
    let mut key = Vec::new();
    for &position in &live {
        key.clear();
        fresh.keys.index.key_at(position, &fresh.reader, &mut key)?;
        let found = shown.find(&key)?;
        if found != Some(position) {
            let found = found.map_or("no record".to_owned(), |found| format!("the record at {found}"));
            let key = key.escape_ascii();
            return disagree(format!(
                "the index in memory leads \"{key}\" to {found}, and the log to that at {position}"
            ));
        }
    }
    let in_log = fresh.keys.buckets().unwrap_or_default();
    for (what, in_memory, in_log) in [
        ("keys", shown.index().len() as u64, live.len() as u64),
        ("live bytes", shown.keys.live_bytes(), fresh.keys.live_bytes()),
        ("buckets", shown.keys.buckets().unwrap_or(in_log), in_log),
        ("records", shown.tail.records, fresh.report.records),
    ] {
        if in_memory != in_log {
            return disagree(format!("{in_memory} {what} are counted in memory, and {in_log} in the log"));
        }
    }
    if !shown.keys.lifetimes.expiring.is_same(&fresh.keys.lifetimes.expiring) {
        return disagree("the deadlines in memory are not those in the log".to_owned());
    }
    if !shown.keys.lifetimes.sessions.is_same(&fresh.keys.lifetimes.sessions) {
        return disagree("the sessions in memory are not those in the log".to_owned());
    }
    let highest = fresh.last_seq.max(fresh.base_seq);
    if (shown.tail.previous_seq, shown.tail.highest_seq) != (fresh.last_seq, highest) {
        let Tail { previous_seq, highest_seq, .. } = shown.tail;
        return disagree(format!(
            "the last sequence numbers are {previous_seq} and {highest_seq} in memory, and {} and {highest} in the log",
            fresh.last_seq
        ));
    }
    if let Some(sorted) = shown.index().sorted() {
        let rebuilt = fresh.keys.index.build_sorted(&fresh.reader, || Ok(()))?;
        if let Some(rank) = rebuilt.first_difference(sorted, &shown.reader)? {
            return disagree(format!(
                "the sorted index in memory is not in the order of the log from key number {rank} on"
            ));
        }
        for (rank, position) in rebuilt.positions().enumerate() {
            key.clear();
            fresh.keys.index.key_at(position, &fresh.reader, &mut key)?;
            let found = sorted.lower_rank(&shown.index().sought(&key, &shown.reader))?;
            if found != rank {
                let key = key.escape_ascii();
                return disagree(format!(
                    "the sorted index in memory finds \"{key}\" at {found}, and has it at {rank}"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
