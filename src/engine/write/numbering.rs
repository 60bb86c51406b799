//! What the holder of the baton knows and does: indexes, claims about what is synced, and the append itself.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::config::{Durability, LockMode};
use crate::engine::read::view::{Ingest, View};
use crate::engine::write::file_lock::Deadline;
use crate::engine::write::sync::Position;
use crate::engine::write::turn::Turn;
use crate::format::Damage;
use crate::format::{
    Ancillary, BLOCK_LEN, FileSeed, Flags, Kind, MAX_FILE_LEN, MAX_SEQ, MAX_SEQ_STEP, RECORD_HEADER_LEN, block_of,
    block_start,
};
use crate::log::group::Group;
use crate::log::recover::{check_again, directory, whole_up_to, write_again};
use crate::log::scan::{Reason, Stop};
use crate::log::search::search;
use crate::log::tail::Tail;
use crate::log::{LogFile, append, create};
use crate::{Error, Result};

/// The writing side of a handle.
pub(crate) struct Writer {
    /// The file whose lock this handle has: during a turn, or always in `Exclusive` mode. It need not be the description
    /// that is written through, but it is the same file.
    pub(crate) locked: Option<Arc<LogFile>>,
    /// The reading of the log that all of the below is about.
    pub(crate) epoch: u64,
    /// The log's end was looked at under the lock, and mended if need be.
    pub(crate) vetted: bool,
    /// The directory was synced since this file was opened.
    pub(crate) directory_synced: bool,
    /// What no proof covered when this handle came to the log is written again and synced: from here on, a sync that
    /// succeeds speaks for everything before the log's end.
    pub(crate) vouched: bool,
    /// How much of that is done, before all of it is.
    rewritten: Rewritten,
    /// An index block of this handle's own is begun, above all indexes that others may have seen and lost.
    pub(crate) numbered: bool,
    /// Where the log ended after this handle's last write.
    pub(crate) last_end: u64,
    /// The file's length, as far as this handle knows.
    pub(crate) covered: u64,
    /// The highest index that this handle has ever used, in whatever became of the file.
    pub(crate) highest_used_seq: u64,
    /// What the disk was last told to begin with: in which step of [`WRITE_BACK_STEP`] indexes, and up to where in the log.
    begun: (u64, u64),
    pub(crate) identity_checked: Option<Instant>,
    /// When this handle last began to catch up, if it has no map.
    pub(crate) caught_up: Option<Instant>,
    /// It had to wait for the lock in this turn.
    pub(crate) contended: bool,
    pub(crate) rest_until: Option<Instant>,
    pub(crate) group: Group,
}

/// What a handle has written again, in this epoch, of the log that no proof covers.
#[derive(Clone, Copy, Default)]
struct Rewritten {
    /// Everything before this place is written again, or proven.
    to: u64,
    /// Everything before this place was read once more after that, and is whole. A record starts here.
    checked: u64,
    /// The index of the record before that.
    checked_after: u64,
}

impl Rewritten {
    /// The same, with what is proven by now.
    fn with_proof(mut self, tail: &Tail) -> Rewritten {
        self.to = self.to.max(tail.proven);
        if tail.proven > self.checked {
            (self.checked, self.checked_after) = (tail.proven, tail.proven_after);
        }
        self
    }
}

impl Default for Writer {
    fn default() -> Self {
        Writer {
            locked: None,
            epoch: 0,
            vetted: false,
            directory_synced: false,
            vouched: false,
            rewritten: Rewritten::default(),
            numbered: false,
            last_end: 0,
            covered: 0,
            highest_used_seq: 0,
            begun: (0, 0),
            identity_checked: None,
            caught_up: None,
            contended: false,
            rest_until: None,
            group: Group::new(FileSeed::new(&[0; 16]), 0),
        }
    }
}

impl Writer {
    /// The log was read anew: nothing that was known of it holds, except the indexes that this handle has used.
    pub(crate) fn start_over(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.vetted = false;
        self.directory_synced = false;
        self.vouched = false;
        self.rewritten = Rewritten::default();
        self.numbered = false;
        self.identity_checked = None;
        // No log ends there: how long the file is, is asked again.
        self.last_end = 0;
        self.begun = (0, 0);
    }

    /// Forgets the used indexes if they are far above those of the reopened file: it is another store or an old copy, and is
    /// continued as a new handle would.
    pub(crate) fn forget_far_seqs(&mut self, tail: &Tail) {
        if self.highest_used_seq > tail.highest_seq + MAX_CARRIED {
            self.highest_used_seq = 0;
        }
    }

    /// Nothing before `end` is left to be begun with.
    pub(crate) fn set_begun(&mut self, end: u64) {
        self.begun = (self.highest_used_seq / WRITE_BACK_STEP, end);
    }

    /// The part of the log that the disk is to begin with now, if there is one.
    fn due_write_back(&mut self) -> Option<Range<u64>> {
        let (step, from) = self.begun;
        if self.highest_used_seq / WRITE_BACK_STEP == step {
            return None;
        }
        // Without the page that the next record goes into: on some file systems it would wait until the disk has that page.
        let end = self.last_end - self.last_end % LARGEST_PAGE;
        self.set_begun(end);
        Some(from..end)
    }
}

/// After so many indexes, who does not sync has the disk begin with what was written since. At the end of an index block a
/// mark must be synced, with all that is before it, and to write a whole block of small records, 150 MB, took 80 to 130 ms.
/// Counted in indexes, so that it is a small part of what the block has cost, whatever the size of its records.
const WRITE_BACK_STEP: u64 = BLOCK_LEN / 64;

/// How much is written again before the lock is given up for a moment.
const REWRITTEN_AT_ONCE: u64 = 4 << 20;

/// So far above a file's indexes at most those may be that a handle has used in another one. Half of what readers admit:
/// records behind the gap are to be proof for what is before it.
const MAX_CARRIED: u64 = MAX_SEQ_STEP / 2;

/// No system keeps files in larger pages.
const LARGEST_PAGE: u64 = 64 << 10;

/// A group cannot hold more records than this: an index block, less the marks and statements in it.
pub(crate) const MAX_GROUP_RECORDS: u64 = BLOCK_LEN - 8;

impl Turn<'_> {
    /// The first of `count` indexes and one more for a statement, which may be written once this has returned. Writes
    /// and syncs a mark if no record of their block is known to be on stable storage yet; then nothing is left to state.
    pub(crate) fn reserve(&mut self, count: u64) -> Result<u64> {
        debug_assert!(count < BLOCK_LEN, "a block has a mark of its own too");
        self.prepare()?;
        let view = self.view()?;
        let mut next = self.next_seq(&view);
        if block_of(next + count) != block_of(next) {
            next = block_start(block_of(next) + 1);
        }
        if next + count > MAX_SEQ {
            return Err(Error::Full { path: self.engine.path.to_path_buf(), what: "all indexes are used up" });
        }
        let stable = view.tail.is_block_stable(block_of(next), self.engine.syncs.synced(view.epoch));
        drop(view);
        if !stable {
            self.append_mark(next)?;
            next += 1;
        }
        Ok(next)
    }

    fn next_seq(&self, view: &View) -> u64 {
        view.tail.highest_seq.max(self.writer.highest_used_seq) + 1
    }

    /// What must be done once before this handle acknowledges, claims or numbers anything.
    fn prepare(&mut self) -> Result<()> {
        if self.writer.vouched && self.writer.numbered {
            return Ok(());
        }
        self.sync_directory()?;
        let tail = self.view()?.tail.clone();
        if !self.writer.vouched && !tail.is_proven() {
            let done = self.writer.rewritten.with_proof(&tail);
            write_again(&self.log, done.to, tail.end)?;
            check_again(&self.log, done.checked, done.checked_after, tail.end)?;
            self.sync()?;
        }
        // Above everything that the file shows, and above everything that this handle has ever used: an index of
        // the file's last block may have been seen and then lost in a power cut.
        let block = block_of(self.next_seq(&*self.view()?) - 1) + 1;
        if block_start(block) >= MAX_SEQ - BLOCK_LEN {
            return Err(Error::Full { path: self.engine.path.to_path_buf(), what: "all indexes are used up" });
        }
        self.append_mark(block_start(block))?;
        (self.writer.vouched, self.writer.numbered) = (true, true);
        Ok(())
    }

    /// Writes most of what no proof covers again before [`Turn::prepare`] has to, in pieces, and gives the lock up after each
    /// piece and for the sync: others would wait for all of a long log. What they append meanwhile comes after what is
    /// written again, and is written again itself. If they cut the log, that is another epoch, and this begins again.
    ///
    /// The deadline's patience is for one wait: this handle has had a turn before each. There are as many as pieces at most.
    ///
    /// For the beginning of a turn only: what was decided in a turn does not hold after the lock was given up.
    pub(crate) fn rewrite_ahead(&mut self, deadline: &Deadline) -> Result<()> {
        if self.writer.vouched || self.engine.config.get_lock_mode() == LockMode::Exclusive {
            return Ok(());
        }
        let (mut budget, mut is_synced) = (None, true);
        loop {
            let tail = self.view()?.tail.clone();
            let done = self.writer.rewritten.with_proof(&tail);
            let left = if tail.is_proven() { 0 } else { tail.end.saturating_sub(done.to) };
            // A writer that appends faster than this goes on is stopped in the end, by the lock.
            let budget = budget.get_or_insert(left * 2);
            let is_done = left <= REWRITTEN_AT_ONCE || *budget < REWRITTEN_AT_ONCE;
            if is_done && is_synced {
                return Ok(());
            }
            let (log, epoch) = (Arc::clone(&self.log), self.writer.epoch);
            if is_done {
                self.release();
                // It proves nothing yet: not all is written again.
                self.engine.syncs.sync(&log, Position { epoch, offset: 0 })?;
                is_synced = true;
                let checked = whole_up_to(&log, done.checked, done.checked_after, done.to)?;
                self.catch_up(&deadline.renewed())?;
                if self.writer.epoch == epoch {
                    (self.writer.rewritten.checked, self.writer.rewritten.checked_after) = checked;
                }
                continue;
            }
            let to = done.to + REWRITTEN_AT_ONCE;
            write_again(&log, done.to, to)?;
            self.writer.rewritten = Rewritten { to, ..done };
            (*budget, is_synced) = (*budget - REWRITTEN_AT_ONCE, false);
            self.release();
            let begun = log.file.write_back(done.to..to, 0);
            begun.map_err(|e| self.engine.syncs.poison(&log, "write-back", e))?;
            self.catch_up(&deadline.renewed())?;
        }
    }

    /// A creation or a rename of the file that a power cut takes back would take acknowledged writes with it.
    fn sync_directory(&mut self) -> Result<()> {
        if !self.writer.directory_synced {
            let (disk, path) = (&*self.engine.disk, &self.engine.path);
            let synced = create::sync_name(disk, path, &*self.log.file);
            synced.map_err(|e| Error::io("sync the directory", directory(path), e))?;
            self.writer.directory_synced = true;
        }
        Ok(())
    }

    /// Appends a mark with the first index of a block, or with the flag that the log up to here is synced, or both,
    /// and syncs it.
    fn append_mark(&mut self, index: u64) -> Result<()> {
        let flags = self.begin_group()?;
        self.writer.group.push(flags, Kind::Ancillary(Ancillary::Mark), index, b"", b"");
        self.write_group()?;
        self.sync()
    }

    /// Begins a group at the log's end. Returns the flags of the first record, which say what this handle knows to
    /// be on stable storage.
    fn begin_group(&mut self) -> Result<Flags> {
        let view = self.view()?;
        Ok(self.begin_group_behind(&view.tail, self.engine.syncs.synced(view.epoch)))
    }

    fn begin_group_behind(&mut self, tail: &Tail, synced: u64) -> Flags {
        let group = &mut self.writer.group;
        group.reset(self.log.seed, tail.end);
        if synced >= tail.end {
            return Flags { synced: true, more: false };
        }
        if let Some(mark) = &tail.trailing_mark {
            // It counts as proven, but nobody has synced it. With its bytes in the same write it is at least no
            // worse off than what follows it.
            group.reset(self.log.seed, tail.end - RECORD_HEADER_LEN as u64);
            group.rewrite(mark);
        }
        Flags::NONE
    }

    /// Begins a group whose records' indexes start at `index`, which was reserved for them. Returns the flags of the first
    /// record and its index.
    pub(crate) fn begin_records(&mut self, index: u64) -> Result<(Flags, u64)> {
        let view = self.view()?;
        let synced = self.engine.syncs.synced(view.epoch);
        let flags = self.begin_group_behind(&view.tail, synced);
        if !flags.synced && synced > view.tail.proven {
            // Other processes have appended since this handle's last sync. No record in the file says yet what that
            // sync has brought to stable storage.
            self.writer.group.push_synced_to(index, synced);
            return Ok((flags, index + 1));
        }
        Ok((flags, index))
    }

    /// Appends the group and shows it to readers.
    ///
    /// # Errors
    ///
    /// If the write fails, whole units of the group that reached the file stay and are shown, and the rest is cut
    /// off: the caller compares the log's end with its records.
    pub(crate) fn write_group(&mut self) -> Result<()> {
        let engine = self.engine;
        let writer = &mut *self.writer;
        let end = writer.group.end();
        if end > MAX_FILE_LEN {
            return Err(Error::Full { path: engine.path.to_path_buf(), what: "the file has reached 8 TiB" });
        }
        // Whatever has poisoned the handle in this turn: what is known of the log's end may not hold any more.
        engine.syncs.check_poison()?;
        let ingest = engine.ingest();
        let view = engine.shown()?;
        let bound = self.log.seq_bound(view.tail.previous_seq);
        if writer.group.run.entries.first().is_some_and(|entry| !bound.admits(entry.header.seq)) {
            // No reader would take such a record for one.
            let what = "its indexes cannot go on so far above the last one; reopen the store";
            return Err(Error::Full { path: engine.path.to_path_buf(), what });
        }
        view.prove_replaced(&writer.group.run)?;
        drop(view);
        let start = writer.group.start();
        let first = writer.group.run.entries.first().map_or(end, |entry| entry.offset);
        writer.highest_used_seq = writer.group.run.entries.last().map_or(0, |entry| entry.header.seq);
        writer.last_end = end;
        let (bytes, records) = writer.group.finish_run();
        let len = bytes.len() as u64;
        let synced_from = (engine.config.get_durability() == Durability::Sync).then_some(first);
        let written = append::append(&self.log, &mut writer.covered, start, bytes, records.ends(), synced_from);
        engine.counters.groups.fetch_add(1, Ordering::Relaxed);
        engine.counters.written.fetch_add(len, Ordering::Relaxed);
        let Err(error) = written else {
            let shown = engine.change(&ingest, |view| view.apply(&writer.group.run));
            // It is in the file. If the index could not take it in, because a key of another record could not be
            // read, the log is read anew.
            return shown.or_else(|_| self.look_again(&ingest, end).map(drop));
        };
        let error = self.log.io("append", error);
        let stop = self.look_again(&ingest, first)?;
        // A disk or a limit that takes nothing at all takes no end mark either, and needs none.
        let clean = search(&self.log, &stop).is_ok_and(|beyond| beyond.data_end == stop.unit);
        if stop.reason != Reason::EndMark || !clean {
            self.cut(&ingest, stop.unit)?;
        }
        Err(error)
    }

    /// Takes in what this handle's own write has left in the file, where the log was whole up to `end` at least. If it
    /// cannot be read up to there any more, nobody can tell what became of the write, and nothing may be written or
    /// cut where the walk has stopped: that may be anywhere in the log.
    fn look_again(&mut self, ingest: &Ingest<'_>, end: u64) -> Result<Stop> {
        let found = self.engine.take_in(ingest).and_then(|(epoch, stop)| match stop.reason {
            _ if stop.unit >= end => Ok((epoch, stop)),
            Reason::Damaged(damage) => Err(self.log.corrupt(stop.at, damage)),
            Reason::EndMark | Reason::EndOfFile => Err(self.log.corrupt(stop.at, Damage::Zeros)),
        });
        match found {
            Ok((epoch, stop)) => {
                if epoch != self.writer.epoch {
                    self.writer.start_over(epoch);
                }
                Ok(stop)
            }
            Err(error) => {
                let cause = std::io::Error::other(error);
                Err(self.engine.syncs.poison(&self.log, "look at what a write has left", cause))
            }
        }
    }

    /// Brings everything in the log to stable storage.
    pub(crate) fn sync(&mut self) -> Result<()> {
        let sampled = self.position()?;
        self.engine.syncs.sync(&self.log, sampled)?;
        self.writer.set_begun(sampled.offset);
        Ok(())
    }

    /// Has the disk begin with what was written, if that is much, and does not wait for it: all others would wait as well.
    fn begin_write_back(&mut self) -> Result<()> {
        let Some(range) = self.writer.due_write_back() else { return Ok(()) };
        let begun = self.log.file.write_back(range, 0);
        begun.map_err(|e| self.engine.syncs.poison(&self.log, "write-back", e))
    }

    /// Does for durability what the configuration asks before a call returns.
    pub(crate) fn settle(&mut self) -> Result<()> {
        let durability = self.engine.config.get_durability();
        if durability == Durability::Sync {
            return self.make_durable();
        }
        // What this handle has not written is not its to claim: see `prepare`.
        if durability != Durability::Os && self.writer.vouched {
            if let Some(interval) = &*crate::engine::lock(&self.engine.interval) {
                interval.written(&self.log, self.position()?);
            }
        }
        self.begin_write_back()?;
        self.engine.syncs.check_poison()
    }

    /// Makes sure that the whole log as it is now is on stable storage.
    pub(crate) fn make_durable(&mut self) -> Result<()> {
        self.engine.syncs.check_poison()?;
        let view = self.view()?;
        let known = self.engine.syncs.synced(view.epoch) >= view.tail.end;
        let proven = view.tail.is_proven();
        drop(view);
        if known {
            return self.engine.syncs.check_poison();
        }
        if !self.writer.vouched {
            // Nothing was written here yet, so all there is to vouch for is what the file holds.
            return if proven { self.sync_directory() } else { self.prepare() };
        }
        self.sync()
    }

    /// Leaves the file as a clean close does: proven, if it is synced, and cut back to its log's end.
    pub(crate) fn tidy(&mut self) -> Result<()> {
        self.engine.syncs.check_poison()?;
        if self.writer.vouched {
            // Whatever the durability: the cut below syncs the file anyway, and a proven log opens faster.
            self.make_durable()?;
        }
        let view = self.view()?;
        let synced = self.engine.syncs.synced(view.epoch) >= view.tail.end;
        let proven = view.tail.is_proven();
        let index = self.next_seq(&view);
        let admitted = self.log.seq_bound(view.tail.previous_seq).admits(index);
        drop(view);
        // Without a mark, which no index may be left for, the next one to open the log just reads it as after a crash.
        if synced && !proven && admitted {
            // Nobody sees a mark's index, so its block need not be on stable storage first.
            let flags = self.begin_group()?;
            self.writer.group.push(flags, Kind::Ancillary(Ancillary::Mark), index, b"", b"");
            self.write_group()?;
        }
        self.trim()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Config;
    use crate::disk::sim::{Fault, Repeat, SimDisk, Verb, When};
    use crate::disk::{Access, Disk};
    use crate::engine::Engine;
    use crate::engine::batch::{Action, Request};
    use crate::engine::write::commit::Outcome;
    use crate::format::{FileHeader, MAJOR_VERSION, MINOR_VERSION, RecordHeader};
    use crate::log::scan::Scanner;

    fn open(disk: &SimDisk, durability: Durability) -> Arc<Engine> {
        let config = Config::new().durability(durability);
        Engine::open(Arc::new(disk.clone()), Path::new("/store"), &config).unwrap()
    }

    fn puts(count: usize) -> Request {
        let mut request = Request::default();
        (0..count).for_each(|n| request.push(format!("\0{n}").as_bytes(), Action::Put(b"value")));
        request
    }

    /// Commits as a handle does that has used all indexes up to this one, in whatever became of the file.
    fn commit_above(engine: &Engine, used: u64, request: Request) -> Outcome {
        let outcomes = engine.solo(engine.deadline(), |turn| {
            turn.writer.highest_used_seq = used;
            Ok(turn.commit(&[request]))
        });
        outcomes.unwrap().pop().unwrap()
    }

    fn records(engine: &Engine) -> Vec<RecordHeader> {
        let log = LogFile::open(Arc::clone(&engine.current().unwrap().reader.log.file), &engine.path).unwrap();
        let mut records = Vec::new();
        let stop = Scanner::from_start(&log).unwrap().walk(|unit| {
            records.extend(unit.entries.iter().map(|entry| entry.header));
            Ok(())
        });
        assert_eq!(stop.unwrap().reason, Reason::EndMark);
        records
    }

    fn is(record: &RecordHeader, kind: Ancillary) -> bool {
        record.kind == Kind::Ancillary(kind)
    }

    #[test]
    fn a_group_for_which_a_block_has_no_room_begins_in_the_next_one_behind_its_mark() {
        for others in [false, true] {
            for left in 0..8 {
                let disk = SimDisk::new();
                let ours = open(&disk, Durability::Sync);
                ours.commit(puts(1)).unwrap();
                if others {
                    // Then what this handle has synced is stated in a record of its own.
                    let theirs = open(&disk.process(), Durability::Os);
                    theirs.commit(puts(1)).unwrap();
                    ours.commit(puts(1)).unwrap();
                    theirs.commit(puts(1)).unwrap();
                }
                let before = records(&ours);
                let block = block_of(before.last().unwrap().seq);
                let used = block_start(block + 1) - 1 - left;
                let last_index = commit_above(&ours, used, puts(3)).unwrap().last_index.unwrap();

                let records = records(&ours);
                let group = &records[before.len()..];
                assert_eq!(group.last().unwrap().seq, last_index);
                let statements = group.iter().filter(|record| is(record, Ancillary::SyncedTo)).count() as u64;
                // With one for a statement.
                let fits = left > 3;
                assert_eq!(block_of(last_index), if fits { block } else { block + 1 }, "{left} left");
                assert_eq!(group[0].seq, if fits { used + 1 } else { block_start(block + 1) });
                assert_eq!(statements, u64::from(others && fits), "a mark is synced, and leaves nothing to be stated");
                assert_eq!(is(&group[0], Ancillary::Mark), !fits);
                assert!(group.iter().zip(group[0].seq..).all(|(record, index)| record.seq == index));
            }
        }
    }

    #[test]
    fn what_the_file_says_already_is_not_stated() {
        let disk = SimDisk::new();
        let engine = open(&disk, Durability::Os);
        for _ in 0..3 {
            engine.commit(puts(1)).unwrap();
        }
        let records = records(&engine);
        assert!(records[1].flags.synced && !records[2].flags.synced);
        assert!(!records.iter().any(|record| is(record, Ancillary::SyncedTo)));
    }

    #[test]
    fn who_does_not_sync_has_the_disk_begin_with_what_was_written_a_step_of_indexes_at_a_time() {
        for durability in [Durability::Os, Durability::Interval(std::time::Duration::MAX), Durability::Sync] {
            let disk = SimDisk::new();
            let engine = open(&disk, durability);
            let first = engine.commit(puts(1)).unwrap().last_index.unwrap();
            let calls = || disk.calls_of(Verb::BeginWriteBack);
            for step in 1..4 {
                let next = block_start(block_of(first)) + step * WRITE_BACK_STEP;
                let before = calls();
                commit_above(&engine, next - 2, puts(1)).unwrap();
                assert_eq!(calls(), before, "{durability:?}: a step ends only with {next}");
                assert_eq!(engine.commit(puts(1)).unwrap().last_index, Some(next));
                engine.commit(puts(1)).unwrap();
                assert_eq!(calls() - before, u64::from(durability != Durability::Sync), "{durability:?}");
            }
        }
    }

    #[test]
    fn what_is_written_back_adjoins_what_was_and_leaves_out_the_page_with_the_logs_end() {
        let mut writer = Writer::default();
        let page = LARGEST_PAGE;
        writer.set_begun(1000);
        let mut due = |steps, more, end| {
            (writer.highest_used_seq, writer.last_end) = (steps * WRITE_BACK_STEP + more, end);
            writer.due_write_back()
        };
        assert_eq!(due(0, WRITE_BACK_STEP - 1, 5 * page), None);
        assert_eq!(due(1, 0, 5 * page + 8), Some(1000..5 * page));
        assert_eq!(due(1, 1, 7 * page), None);
        assert_eq!(due(3, 7, 9 * page - 8), Some(5 * page..8 * page));
        assert!(due(4, 0, 3 * page).unwrap().is_empty(), "the log was cut");
        assert_eq!(due(5, 0, 10 * page), Some(3 * page..10 * page));
    }

    /// Whoever is told of it may be the only one.
    #[test]
    fn what_could_not_be_written_back_poisons_the_handle_as_a_failed_sync_does() {
        let disk = SimDisk::new();
        let engine = open(&disk, Durability::Os);
        let first = engine.commit(puts(1)).unwrap().last_index.unwrap();
        disk.fail(When::next().of(Verb::BeginWriteBack), Fault::Os(libc::EIO), Repeat::Once);
        let used = block_start(block_of(first)) + WRITE_BACK_STEP;
        for outcome in [commit_above(&engine, used, puts(1)), engine.commit(puts(1))] {
            let error = outcome.unwrap_err().error();
            assert!(matches!(error, Error::Poisoned { .. }), "{error}");
        }
        assert_eq!(records(&engine).last().unwrap().seq, used + 1, "the first is in the file, and in doubt");
    }

    /// Others may have seen what was cut off.
    #[test]
    fn after_a_cut_the_next_index_is_of_a_new_block() {
        let disk = SimDisk::new();
        let engine = open(&disk, Durability::Sync);
        engine.commit(puts(1)).unwrap();
        let before = records(&engine);
        disk.fail(When::next().of(Verb::WriteAt), Fault::Short(10), Repeat::Once);
        disk.fail(When::nth(2).of(Verb::WriteAt), Fault::Os(libc::ENOSPC), Repeat::Once);
        engine.commit(puts(1)).unwrap_err();
        assert_eq!(records(&engine).len(), before.len());
        let next = engine.commit(puts(1)).unwrap().last_index.unwrap();
        assert_eq!(block_of(next), block_of(before.last().unwrap().seq) + 1);
        assert!(is(&records(&engine)[before.len()], Ancillary::Mark));
    }

    /// What was proven before it is proven still, and its indexes nobody has seen.
    #[test]
    fn after_a_failed_write_that_has_left_nothing_the_next_one_goes_on_as_if_it_had_not_been() {
        let disk = SimDisk::new();
        let engine = open(&disk, Durability::Sync);
        engine.commit(puts(1)).unwrap();
        let before = records(&engine);
        disk.fail(When::next().of(Verb::WriteAt), Fault::Os(libc::ENOSPC), Repeat::Once);
        engine.commit(puts(1)).unwrap_err();
        let syncs = disk.calls_of(Verb::SyncData);
        let next = engine.commit(puts(1)).unwrap().last_index.unwrap();
        assert_eq!(disk.calls_of(Verb::SyncData), syncs + 1);
        assert_eq!(block_of(next), block_of(before.last().unwrap().seq));
        assert_eq!(records(&engine).len(), before.len() + 1, "there is no mark");
    }

    /// A disk need not write the parts of a group in their order.
    #[test]
    fn what_a_failed_write_has_left_is_cut_off_also_where_its_beginning_is_missing() {
        let disk = SimDisk::new();
        let (ours, system) = (disk.process(), disk.process());
        let engine = open(&ours, Durability::Sync);
        engine.commit(puts(1)).unwrap();
        let end = engine.current().unwrap().tail.end;
        disk.fail(When::next().of(Verb::WriteAt).by(&ours), Fault::Os(libc::EIO), Repeat::Once);
        disk.before(When::next().of(Verb::WriteAt).by(&ours), Repeat::Once, move |_| {
            let file = system.open("/store".as_ref(), Access::ReadWrite).unwrap();
            file.write_at(end + 16, &[7; 16]).unwrap();
        });
        engine.commit(puts(1)).unwrap_err();
        assert!(disk.contents("/store").unwrap()[end as usize..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn the_last_indexes_are_used_and_then_nothing_is_written_any_more() {
        let last_block = block_of(MAX_SEQ);
        for left in 0..8 {
            let disk = SimDisk::new();
            let base_seq = block_start(last_block - 2) - 1;
            let header =
                FileHeader { major: MAJOR_VERSION, minor: MINOR_VERSION, file_id: [5; 16], base_seq, created: 0 };
            disk.set_contents("/store", [&header.encode()[..], &[0; 8]].concat());
            let engine = open(&disk, Durability::Sync);
            engine.commit(puts(1)).unwrap();
            // The last block has its mark.
            commit_above(&engine, block_start(last_block) - 1, puts(1)).unwrap();
            let before = records(&engine).len();
            let outcome = commit_above(&engine, MAX_SEQ - left, puts(3));
            let records = records(&engine);
            if left > 3 {
                assert_eq!(outcome.unwrap().last_index, Some(MAX_SEQ - left + 3));
            } else {
                let error = outcome.unwrap_err().error();
                assert!(matches!(error, Error::Full { .. }), "{error}");
                assert_eq!(records.len(), before);
            }
            drop(engine);
            let other = open(&disk.process(), Durability::Sync);
            let error = other.commit(puts(1)).unwrap_err().error();
            assert!(matches!(error, Error::Full { .. }), "there is no block above: {error}");
            assert_eq!(self::records(&other).len(), records.len());
        }
    }

    #[test]
    fn no_record_is_written_whose_index_no_reader_takes() {
        let disk = SimDisk::new();
        let engine = open(&disk, Durability::Sync);
        engine.commit(puts(1)).unwrap();
        let before = records(&engine);
        let last = before.last().unwrap().seq;
        for used in [last + MAX_SEQ_STEP, MAX_SEQ / 2] {
            let error = commit_above(&engine, used, puts(1)).unwrap_err().error();
            assert!(matches!(error, Error::Full { .. }), "{used}: {error}");
            assert_eq!(records(&engine).len(), before.len());
        }
        // With the highest that they take, of a mark.
        let index = commit_above(&engine, last + MAX_SEQ_STEP - 1, puts(1)).unwrap().last_index;
        assert_eq!(index, Some(last + MAX_SEQ_STEP + 1));
        assert_eq!(records(&engine).last().unwrap().seq, last + MAX_SEQ_STEP + 1);
    }

    #[test]
    fn the_page_knows_how_large_a_batch_may_be() {
        assert!(include_str!("../../../README.md").contains("up to 1,048,568 operations"));
        assert_eq!(MAX_GROUP_RECORDS, 1_048_568);
    }

    #[test]
    fn no_group_is_written_beyond_the_largest_file() {
        let disk = SimDisk::new();
        let engine = open(&disk, Durability::Sync);
        let before = records(&engine).len();
        let error = engine.solo(engine.deadline(), |turn| {
            turn.writer.group.reset(turn.log.seed, MAX_FILE_LEN - 8);
            turn.writer.group.push(Flags::NONE, Kind::Put, 1, b"\0key", b"value");
            turn.write_group()
        });
        assert!(matches!(error, Err(Error::Full { .. })));
        assert_eq!(records(&engine).len(), before);
    }
}
