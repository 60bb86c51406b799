//! The view: the log of one file as far as this handle has read it, and the index over it.
//!
//! A read makes no system call and takes no lock that is held during a write or a sync. It looks through the map at the eight
//! bytes where the log ends: while they are zero, nothing was appended since the view was made.

use std::sync::Arc;

use super::partial_tail::PartialTail;
use super::rescan::may_blame_snapshot;
use crate::config::{Config, ReadMode};
use crate::disk::Map;
use crate::engine::context::Context;
use crate::format::snapshot::{MOST_LIFETIME_BYTES, StoredLifetime};
use crate::format::{END_MARK_LEN, Root};
use crate::index::{Index, Keys};
use crate::log::LogFile;
use crate::log::read::Reader;
use crate::log::recover::{Decision, decide, has_end_mark};
use crate::log::run::Run;
use crate::log::scan::{Reason, Scanner, Stop, has_form};
use crate::log::tail::{Cursor, Tail};
use crate::replay::{KeySpace, Proven};
use crate::{Error, Result};

/// One file's log as far as it was replayed, and the index over it.
pub(crate) struct View {
    pub(crate) reader: Reader,
    pub(crate) tail: Tail,
    /// The keys that the log's records leave.
    pub(crate) keys: KeySpace,
    /// Counts the readings of the log; see [`Position`](crate::engine::write::sync_state::Position).
    pub(crate) epoch: u64,
    /// The file ends before an end mark could stand at the log's end, so the map must not be touched there.
    pub(super) mark_missing: bool,
    /// The incomplete record or batch after the log's end, if a reader has looked at it.
    pub(super) partial_tail: Option<PartialTail>,
    /// This handle has read a longer log in this file. Scans and mapped values of that time may still exist.
    pub(crate) was_cut: bool,
    /// The offset of the snapshot that this handle was opened through; 0 if it has read the whole log.
    pub(crate) snapshot: u64,
    /// Where the snapshot ends that this handle was opened through, and the last event before it.
    pub(crate) begin: Option<(Cursor, u64)>,
    /// The index misses a record that the tail has passed, because reading a key failed during replay. The log must be read
    /// again.
    broken: bool,
}

/// The result of a look at the log's end.
pub(super) enum Peek {
    Quiet,
    /// There are bytes after the end.
    More,
    /// The log is not the one that was replayed.
    Cut,
}

/// While a log is read, its index gets room for this many times the keys that were read so far. The surplus is given back at
/// the end.
const ROOM_AHEAD: u64 = 2;

impl View {
    #[inline]
    pub(crate) fn index(&self) -> &Index {
        &self.keys.index
    }

    /// Reads a log: from where its snapshot ends, if it has one that can be used, else from its start. Returns how the walk
    /// ended; the caller judges that.
    pub(crate) fn build(log: Arc<LogFile>, config: &Config, epoch: u64) -> Result<(View, Stop)> {
        let (root, file_len) = log.root_of_whole_file()?;
        if let Some(root) = root.filter(|_| !config.get_check_at_open()) {
            // A snapshot is never the reason for an error: the walk over the whole log meets whatever this has met.
            if let Ok(Some(read)) = View::through_snapshot(&log, &root, config, epoch, file_len) {
                return Ok(read);
            }
        }
        let led_to = root.filter(|_| config.get_check_at_open()).map_or(0, |root| root.snapshot);
        let (mut view, stop) = View::from_start(log, root, config, epoch, file_len)?;
        view.expect_last_snapshot(led_to, view.reader.log.start());
        Ok((view, stop))
    }

    /// Notes what an opening costs that reads the log from `from`, if the last snapshot in the log is not the one to which the root
    /// leads: a process that was killed has written it, or it cannot be used. Without that, no handle would write another one for
    /// a long time.
    fn expect_last_snapshot(&mut self, led_to: u64, from: u64) {
        let images = &mut self.tail.images;
        if images.last_at != led_to {
            images.restart(self.tail.end - from, self.reader.log.limits);
        }
    }

    /// Reads a log from where its snapshot ends. `None` if it has none that can be used, or if the walk ends before what the
    /// root states: only a walk over the whole log says what is damaged.
    fn through_snapshot(
        log: &Arc<LogFile>,
        root: &Root,
        config: &Config,
        epoch: u64,
        file_len: u64,
    ) -> Result<Option<(View, Stop)>> {
        let Some(snapshot) = log.snapshot(root)? else { return Ok(None) };
        let (covered, keys) = (snapshot.covered, KeySpace::stored(&log.header, &snapshot));
        let mut view = View::new(log, Tail::after(log, root.synced_to, &snapshot), keys, config, epoch, file_len);
        (view.reader.unread, view.snapshot) = (covered.end, root.snapshot);
        view.begin = covered.last_event.map(|last_event| (view.tail.cursor(), last_event));
        if !view.load_lifetimes(snapshot.lifetimes.as_deref().unwrap_or_default())? {
            return Ok(None);
        }
        let stop =
            Scanner::resume(log, covered.end, covered.previous_seq)?.within_data().walk(|run| view.replay(run))?;
        view.stopped(&stop);
        view.expect_last_snapshot(root.snapshot, covered.end);
        Ok((stop.unit >= root.synced_to).then_some((view, stop)))
    }

    /// Replays the records with a lifetime to which a snapshot leads. Each is verified as a walk would do it: a deadline that was damaged
    /// since would hide a pair. `false` if one is not what the snapshot says; then only a walk says what is damaged.
    fn load_lifetimes(&mut self, lifetimes: &[StoredLifetime]) -> Result<bool> {
        let (mut buffer, mut bytes) = (Vec::new(), 0);
        for &StoredLifetime { offset, header_crc } in lifetimes {
            let header = match self.reader.header(offset) {
                Err(Error::Corrupt { .. }) => return Ok(false),
                header => header?,
            };
            bytes += header.padded_len();
            if bytes > MOST_LIFETIME_BYTES {
                return Ok(false);
            }
            let record = self.reader.record(offset, &mut buffer, true);
            let record = match record {
                Err(Error::Corrupt { .. }) => return Ok(false),
                record => record?,
            };
            let holds = record.header.header_crc == header_crc
                && has_form(&record.header, offset, record.key, record.stored)
                && self.keys.replay_lifetime(offset, &record);
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn new(log: &Arc<LogFile>, tail: Tail, keys: KeySpace, config: &Config, epoch: u64, file_len: u64) -> View {
        let mut view = View {
            reader: Reader { log: Arc::clone(log), map: None, end: tail.end, unread: 0 },
            mark_missing: !has_end_mark(file_len, tail.end),
            tail,
            keys,
            epoch,
            partial_tail: None,
            was_cut: false,
            snapshot: 0,
            begin: None,
            broken: false,
        };
        if config.get_read_mode() == ReadMode::Map {
            view.map(file_len);
        }
        view
    }

    /// Reads a log from its start.
    fn from_start(
        log: Arc<LogFile>,
        root: Option<Root>,
        config: &Config,
        epoch: u64,
        file_len: u64,
    ) -> Result<(View, Stop)> {
        let tail = Tail::new(&log, log.stated_by(root));
        let mut view = View::new(&log, tail, KeySpace::new(&log.header), config, epoch, file_len);
        let mut room_until = 0;
        let stop = Scanner::from_start(&log)?.within_data().walk(|run| {
            view.replay(run)?;
            let end = view.tail.end;
            if (room_until..file_len).contains(&end) {
                // Assumes that the rest of the log has as many keys per byte.
                room_until = file_len.min(end * ROOM_AHEAD);
                let keys = view.index().len() as u128 * u128::from(room_until) / u128::from(end);
                view.keys.index.reserve(keys as usize);
            }
            Ok(())
        })?;
        view.keys.index.shrink();
        view.stopped(&stop);
        Ok((view, stop))
    }

    /// Decides on a log that was read without the lock, up to `stop`.
    ///
    /// A record that looks damaged may have been half written when it was read, and the proof that it is damaged, or that the
    /// log has lost its end, may have been written after that. So the log is read once more after the proof was seen. The record is damaged only if it is
    /// unchanged.
    pub(crate) fn judge(mut self, mut stop: Stop, config: &Config) -> Result<(View, Decision)> {
        let log = Arc::clone(&self.reader.log);
        loop {
            let decision = decide(&log, &stop);
            if !matches!(decision, Err(Error::Corrupt { .. } | Error::Truncated { .. })) {
                return decision.map(|decision| (self, decision));
            }
            let again = match self.peek()? {
                Peek::Cut => {
                    let (view, again) = View::build(Arc::clone(&log), config, self.epoch)?;
                    self = view;
                    again
                }
                Peek::Quiet | Peek::More => match self.catch_up() {
                    // As in `Reading::catch_up`: the next look reads all of the log.
                    Err(error) if may_blame_snapshot(&error) && self.is_broken_by_snapshot() => continue,
                    stop => stop?,
                },
            };
            if again == stop {
                return decision.map(|decision| (self, decision));
            }
            stop = again;
        }
    }

    /// Replays what was appended since.
    pub(crate) fn catch_up(&mut self) -> Result<Stop> {
        let log = Arc::clone(&self.reader.log);
        let mut scanner = Scanner::resume(&log, self.tail.end, self.tail.previous_seq)?;
        let stop = scanner.walk(|run| self.replay(run))?;
        self.stopped(&stop);
        Ok(stop)
    }

    /// The stop of a walk that finds nothing after the view's end.
    pub(crate) fn stop_at_end(&self) -> Stop {
        let reason = if self.mark_missing { Reason::EndOfFile } else { Reason::EndMark };
        Stop { unit: self.tail.end, at: self.tail.end, previous_seq: self.tail.previous_seq, reason }
    }

    pub(super) fn stopped(&mut self, stop: &Stop) {
        self.mark_missing = stop.reason == Reason::EndOfFile;
        self.partial_tail = None;
    }

    /// Replays validated units that start at the log's end. Readers see all of them at once, or none.
    pub(crate) fn replay(&mut self, run: &Run) -> Result<()> {
        self.replay_by(run, |keys, reader| keys.replay(run, reader))
    }

    /// As [`View::replay`], for a run whose replaced records are known.
    pub(crate) fn replay_proven(&mut self, run: &Run, proven: &[Proven]) -> Result<()> {
        self.replay_by(run, |keys, reader| keys.replay_proven(run, proven, reader))
    }

    #[inline]
    fn replay_by(&mut self, run: &Run, replay: impl FnOnce(&mut KeySpace, &Reader) -> Result<()>) -> Result<()> {
        let Some(end) = run.end() else { return Ok(()) };
        self.reader.end = end;
        if self.reader.map.as_ref().is_some_and(|map| self.reader.end + END_MARK_LEN > map.len()) {
            self.map(self.reader.end + END_MARK_LEN);
        }
        // An error or a panic below leaves the index without a record that the tail has passed.
        self.broken = true;
        for entry in &run.entries {
            self.tail.advance(entry.offset, &entry.header, entry.proof);
        }
        replay(&mut self.keys, &self.reader)?;
        self.broken = false;
        Ok(())
    }

    /// Maps at least `len` bytes. Where the disk or a process limit does not allow that, plain reads are used.
    fn map(&mut self, len: u64) {
        // Larger than its file, so that not every append needs a new one.
        let smallest = self.reader.log.limits.smallest_map();
        let generous = (len * 2).max(smallest).next_multiple_of(smallest);
        if self.reader.map.as_mut().and_then(Arc::get_mut).is_some_and(|map| map.resize(generous)) {
            return;
        }
        // There is no map, or it cannot be resized, or a scan still reads from it.
        let file = &self.reader.log.file;
        let map = file.map(generous).or_else(|_| file.map(len)).unwrap_or(None);
        self.reader.map = map.map(Arc::<Map>::new);
    }

    /// Returns whether the log's end is as the view has it.
    pub(crate) fn is_quiet(&self) -> Result<bool> {
        Ok(matches!(self.peek()?, Peek::Quiet))
    }

    /// Compares the landmark and the eight bytes at the log's end with what they were.
    #[inline]
    pub(super) fn peek(&self) -> Result<Peek> {
        if self.is_quiet_in_map() { Ok(Peek::Quiet) } else { self.look() }
    }

    /// The common case: two loads from the map, and nothing that can fail.
    #[inline]
    fn is_quiet_in_map(&self) -> bool {
        let Some(map) = &self.reader.map else { return false };
        let (landmark, end) = (&self.tail.landmark, self.tail.end);
        !self.broken
            && !self.mark_missing
            && end + END_MARK_LEN <= map.len()
            && map.word(landmark.offset) == landmark.word
            && map.word(end) == 0
    }

    fn look(&self) -> Result<Peek> {
        if self.broken || self.word(self.tail.landmark.offset)? != Some(self.tail.landmark.word) {
            return Ok(Peek::Cut);
        }
        if self.mark_missing {
            let marked = has_end_mark(self.reader.log.len()?, self.tail.end);
            return Ok(if marked { Peek::More } else { Peek::Quiet });
        }
        Ok(match self.word(self.tail.end)? {
            Some(0) => Peek::Quiet,
            Some(_) => Peek::More,
            None => Peek::Cut,
        })
    }

    /// Eight bytes of the file; `None` if the file is read without a map and ends before them.
    fn word(&self, offset: u64) -> Result<Option<u64>> {
        match self.reader.word(offset) {
            Ok(word) => Ok(Some(word)),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns whether nothing complete was appended and nothing was cut.
    #[inline]
    pub(super) fn is_at_end(&self) -> Result<bool> {
        Ok(match self.peek()? {
            Peek::Quiet => true,
            Peek::More => self.partial_tail.as_ref().is_some_and(|seen| seen.is_unchanged(&self.reader.log)),
            Peek::Cut => false,
        })
    }

    /// The position of a key's record, if the key exists and is not over. The clocks are looked at only if the pair has a
    /// deadline or an owner.
    #[inline]
    pub(crate) fn find_shown(&self, full_key: &[u8], context: &Context) -> Result<Option<u64>> {
        Ok(self.shown(self.find(full_key)?, context))
    }

    /// As [`View::find_shown`], for a caller that reads the value next: its bytes are fetched while the key is compared. The processor
    /// does not look that far ahead by itself.
    #[inline]
    pub(crate) fn find_to_read(&self, full_key: &[u8], context: &Context) -> Result<Option<u64>> {
        let (index, reader) = (&self.keys.index, &self.reader);
        let found = index.find_where(index.hash(full_key), reader, |position| {
            reader.prefetch(position);
            reader.is_key(position, full_key)
        })?;
        Ok(self.shown(found, context))
    }

    /// The position, unless its pair is over.
    #[inline]
    fn shown(&self, found: Option<u64>, context: &Context) -> Option<u64> {
        found.filter(|&position| !self.keys.lifetimes.is_over(position, || context.times()))
    }

    /// Whether the index misses a record that the tail has passed.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether the log was replayed in part only, because a part of a snapshot could not be read.
    pub(super) fn is_broken_by_snapshot(&self) -> bool {
        self.broken && self.snapshot > 0
    }

    /// The position of a key's record, if the log has the key.
    #[inline]
    pub(crate) fn find(&self, full_key: &[u8]) -> Result<Option<u64>> {
        self.keys.index.find(full_key, &self.reader)
    }
}
