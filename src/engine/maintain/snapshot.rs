//! Snapshots of the index: writing an image of it to the log, so that the next opening need not read the log before.
//!
//! It works while readers and writers, in this process and others, go on:
//!
//! 1. [`Draft::begin`], in a turn: shares the index as it is, which costs one pointer for each of its sub-tables; a writer
//!    that changes one copies it first. So the image is of one moment, and the log's end at that moment is its `covered_to`.
//! 2. [`Draft::write_piece`]: pieces of the image, each in a turn of its own.
//! 3. A sync, without a turn; then the record `SNAPSHOT`, which says where the parts are; then another sync.
//! 4. [`Turn::lead_root_to`]: only now does the root lead to the snapshot. It states more than the snapshot's end.
//!
//! | state | after a crash here |
//! | --- | --- |
//! | before the root is written | the records count for nothing; the root leads to the snapshot before, or to none |
//! | root written, not synced | the root is there, or the one before it; both are true |
//!
//! A draft is given up if the log was cut or exchanged, if another handle seems to be writing an image, or if there is not room
//! for two. Nothing depends on it: no put and no close fails since a snapshot could not be written.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Maintenance;
use super::compact::Caller;
use crate::config::SnapshotPolicy;
use crate::engine::deadline::Patience;
use crate::engine::read::view::View;
use crate::engine::write::sync_state::Position;
use crate::engine::write::turn::Turn;
use crate::engine::write::writer::Phase;
use crate::events::event;
use crate::format::RECORD_HEADER_LEN;
use crate::format::order::{ORDER_ENTRY_LEN, StoredLeaf, StoredOrder, encode_directory, order_len};
use crate::format::snapshot::{
    Covered, IMAGE, KeyHasher, MOST_LIFETIME_BYTES, MOST_LIFETIMES, SNAPSHOT, Snapshot, StoredLifetime, StoredPart,
    encode_part, image_len, part_bits_for, part_len, tables_in_part,
};
use crate::index::{Frozen, Index, SortedIndex};
use crate::limits::Shared;
use crate::log::LogFile;
use crate::log::path::{directory, too_little_room};
use crate::log::read::Reader;
use crate::{Error, Result};

/// While a store is open, a snapshot is due when replaying the log after the last one costs this many times its length. So
/// snapshots add at most a quarter to what is written.
const WHILE_OPEN: u64 = 4;

/// At a close it may cost less: it spares each process that opens the store from now on. Either the log after the last snapshot is as
/// long as an image, or what the handle itself has written: a load of many keys is then covered to its end.
const AT_CLOSE: u64 = 1;

/// While a piece is written, other calls of the handle wait some milliseconds. Those of a handle with less patience would fail.
const PATIENCE: Duration = Duration::from_secs(1);

/// The delay after a failure.
const DELAY: Duration = Duration::from_secs(10);

/// When a snapshot may be tried again that could not be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    not_before: Instant,
    /// The reading of the log that `least_cost` is about. Another log, as a compaction leaves it, may never cost that much.
    epoch: u64,
    least_cost: u64,
}

impl Retry {
    pub(super) fn is_due(&self, view: &View, now: Instant) -> bool {
        now >= self.not_before && (view.epoch != self.epoch || view.tail.images.cost >= self.least_cost)
    }
}

/// A snapshot that is being written.
struct Draft {
    log: Arc<LogFile>,
    epoch: u64,
    covered: Covered,
    part_bits: u32,
    /// The length of the image.
    len: u64,
    frozen: Frozen,
    /// The order of the keys is to be stored too.
    is_ordered: bool,
    /// The order of this moment; made when it is needed, if the keys were not listed.
    sorted: Option<SortedIndex>,
    reader: Reader,
    /// The parts that are written.
    parts: Vec<StoredPart>,
    /// The leaves that are written, then their directory.
    leaves: Vec<StoredLeaf>,
    order: Option<StoredOrder>,
    /// `None` in a log that has had no record with a lifetime.
    lifetimes: Option<Vec<StoredLifetime>>,
    /// The end of what is written, for the next sync.
    written: Position,
}

/// Bytes of the image for one record.
struct Piece {
    bytes: Vec<u8>,
    contents: Contents,
}

/// What a piece holds.
enum Contents {
    /// Parts with these numbers of keys.
    Parts(Vec<u32>),
    /// Leaves with these lengths in bytes.
    Leaves(Vec<usize>),
    Directory,
}

/// The length of an image, with the order of the keys or without it.
fn len_of(index: &Index, limits: Shared) -> u64 {
    let keys = index.len() as u64;
    let order = if index.is_ordered() { order_len(keys, limits.leaf_entries()) } else { 0 };
    image_len(keys, part_bits_for(keys, limits.least_part())) + order
}

/// Whether a snapshot can say all about this log, and spares the next opening most of it. With very many deadlines or sessions, it
/// would have to read too many records.
fn may_have_snapshot(view: &View) -> bool {
    view.reader.log.header.has_roots && view.keys.lifetimes.most_records() <= MOST_LIFETIMES as u64
}

/// The records with a lifetime of this moment. `None` if they are too long to be read by each opening.
fn lifetimes_of(view: &View) -> Result<Option<Vec<StoredLifetime>>> {
    let (mut stored, mut bytes) = (Vec::new(), 0);
    for offset in view.keys.lifetimes.positions() {
        let header = view.reader.header(offset)?;
        bytes += header.padded_len();
        if bytes > MOST_LIFETIME_BYTES {
            return Ok(None);
        }
        stored.push(StoredLifetime { offset, header_crc: header.header_crc });
    }
    Ok(Some(stored))
}

impl Draft {
    /// Takes the index of this moment. `None` if no snapshot should be written now. `own_end` is the end of the last piece that
    /// this handle has written.
    fn begin(turn: &mut Turn<'_>, own_end: u64) -> Result<Option<Draft>> {
        let view = turn.view()?;
        let keys = view.index().len() as u64;
        let len = len_of(view.index(), turn.log.limits);
        let images = turn.tail.images;
        let is_own = images.unfinished_end == own_end;
        let another_writes_one = images.unfinished > 0 && !is_own && turn.tail.end - images.unfinished_end < len;
        // A handle that has written nothing in this file knows less of it than it needs.
        let may_write = turn.writer.phase == Phase::BlockReserved && !turn.tail.moved && may_have_snapshot(&view);
        let context = &*turn.writing.context;
        let has_room = too_little_room(&*context.disk, directory(&context.path), 2 * len).is_none();
        if !may_write || another_writes_one || !view.index().is_loaded() || !has_room {
            return Ok(None);
        }
        let lifetimes = if view.tail.has_lifetimes {
            let Some(lifetimes) = lifetimes_of(&view)? else { return Ok(None) };
            Some(lifetimes)
        } else {
            None
        };
        let part_bits = part_bits_for(keys, turn.log.limits.least_part());
        Ok(Some(Draft {
            log: Arc::clone(&turn.log),
            epoch: view.epoch,
            covered: Covered {
                end: view.tail.end,
                previous_seq: view.tail.previous_seq,
                last_event: view.tail.last_event,
                records: view.tail.records,
                keys,
                live_bytes: view.keys.live_bytes(),
            },
            part_bits,
            len,
            frozen: view.index().freeze(),
            is_ordered: view.index().is_ordered(),
            sorted: view.index().sorted().map(SortedIndex::snapshot),
            reader: view.reader.clone(),
            parts: Vec::with_capacity(1 << part_bits),
            leaves: Vec::new(),
            order: None,
            lifetimes,
            written: turn.position(),
        }))
    }

    /// What follows the written pieces, as much as one record takes. `None` if all is written.
    fn next_piece(&mut self) -> Result<Option<Piece>> {
        let limits = self.log.limits;
        let most = limits.image_bytes().max(self.len / limits.image_records());
        if self.parts.len() < 1 << self.part_bits {
            return Ok(Some(self.next_parts(most)));
        }
        if !self.is_ordered || self.covered.keys == 0 || self.order.is_some() {
            return Ok(None);
        }
        let sort = |draft: &Draft| draft.frozen.sort(KeyHasher::new(&draft.log.header), &draft.reader);
        let sorted = match self.sorted.take().filter(|sorted| sorted.len() as u64 == self.covered.keys) {
            Some(sorted) => sorted,
            None => sort(self)?,
        };
        let piece = match self.next_leaves(&sorted, most) {
            // A leaf of the last snapshot is bad. This one is made from the keys in the log.
            Err(Error::Corrupt { .. }) if sorted.is_stored() => {
                self.leaves.clear();
                self.sorted = Some(sort(self)?);
                return self.next_piece();
            }
            piece => piece?,
        };
        self.sorted = Some(sorted);
        Ok(Some(piece))
    }

    fn next_parts(&self, most: u64) -> Piece {
        let (tables, mut bytes, mut counts) = (tables_in_part(self.part_bits), Vec::new(), Vec::new());
        for part in self.parts.len()..1 << self.part_bits {
            let words = (part * tables..(part + 1) * tables).map(|table| self.frozen.sorted_words(table));
            let words: Vec<Vec<u64>> = words.collect();
            let count = words.iter().map(Vec::len).sum::<usize>() as u32;
            counts.push(count);
            if count > 0 {
                encode_part(words.iter().map(Vec::as_slice), &mut bytes);
            }
            if bytes.len() as u64 >= most {
                break;
            }
        }
        Piece { bytes, contents: Contents::Parts(counts) }
    }

    /// Leaves, or the directory once all are written.
    fn next_leaves(&self, sorted: &SortedIndex, most: u64) -> Result<Piece> {
        let (mut bytes, mut lens, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        let leaf_len = self.log.limits.leaf_entries() as usize;
        let mut first = self.leaves.len() * leaf_len;
        while first < sorted.len() && (bytes.len() as u64) < most {
            entries.clear();
            sorted.entries(first..first + leaf_len, &self.reader, &mut entries)?;
            entries.iter().for_each(|entry| bytes.extend_from_slice(&entry.to_bytes()));
            lens.push(entries.len() * ORDER_ENTRY_LEN);
            first += leaf_len;
        }
        if lens.is_empty() {
            return Ok(Piece { bytes: encode_directory(&self.leaves), contents: Contents::Directory });
        }
        Ok(Piece { bytes, contents: Contents::Leaves(lens) })
    }

    /// Whether the log is the one of which the draft is.
    fn is_of(&self, turn: &Turn<'_>) -> bool {
        turn.writer.epoch == self.epoch && !turn.tail.moved
    }

    /// Writes a piece. Returns `false` if the draft has to be given up.
    fn write_piece(&mut self, turn: &mut Turn<'_>, piece: &Piece) -> Result<bool> {
        if !self.is_of(turn) {
            return Ok(false);
        }
        let mut offset = 0;
        if !piece.bytes.is_empty() {
            offset = turn.append_loose(IMAGE, &piece.bytes)? + RECORD_HEADER_LEN as u64;
        }
        let (seed, mut bytes) = (self.log.seed, &piece.bytes[..]);
        let mut next = |len| {
            let (own, rest) = bytes.split_at(len);
            let at = offset;
            (bytes, offset) = (rest, at + len as u64);
            (at, own)
        };
        match &piece.contents {
            Contents::Parts(counts) => self.parts.extend(counts.iter().map(|&count| {
                let (at, bytes) = next(part_len(count, self.part_bits));
                StoredPart::new(seed, at, count, bytes)
            })),
            Contents::Leaves(lens) => self.leaves.extend(lens.iter().map(|&len| {
                let (at, bytes) = next(len);
                StoredLeaf::new(seed, at, bytes)
            })),
            Contents::Directory => {
                let (at, bytes) = next(piece.bytes.len());
                self.order = Some(StoredOrder::new(seed, at, bytes));
            }
        }
        self.written = turn.position();
        Ok(true)
    }

    /// Writes the record that says where the parts are. Returns its offset and its end.
    fn write_snapshot(&mut self, turn: &mut Turn<'_>) -> Result<Option<(u64, u64)>> {
        if !self.is_of(turn) {
            return Ok(None);
        }
        let parts = std::mem::take(&mut self.parts);
        let (part_bits, lifetimes) = (self.part_bits, self.lifetimes.take());
        let snapshot = Snapshot { covered: self.covered, part_bits, parts, order: self.order, lifetimes };
        let value = snapshot.encode(&KeyHasher::new(&self.log.header));
        let at = turn.append_loose(SNAPSHOT, &value)?;
        self.written = turn.position();
        Ok(Some((at, at + (RECORD_HEADER_LEN + value.len()) as u64)))
    }
}

impl Maintenance {
    /// Whether a snapshot is due in a store that stays open.
    pub(super) fn snapshot_is_due(&self, view: &View) -> bool {
        view.tail.images.replayed(self.context.limits) >= self.context.limits.least_running_cost()
            && self.context.config.get_snapshots() == SnapshotPolicy::Automatic
            && self.context.config.get_connection_timeout().is_none_or(|timeout| timeout >= PATIENCE)
            && self.is_worth_it(view, view.tail.images.cost, WHILE_OPEN)
            && self.automatic.may_retry_snapshot(view, &self.context.clock)
    }

    /// Whether what has this cost is worth a snapshot: as much as this many images.
    fn is_worth_it(&self, view: &View, cost: u64, times: u64) -> bool {
        may_have_snapshot(view) && cost >= times * len_of(view.index(), self.context.limits)
    }

    fn is_due_at_close(&self, view: &View) -> bool {
        let (limits, written) = (self.context.limits, self.context.counters.written.load(Ordering::Relaxed));
        view.tail.images.replayed(limits) >= limits.least_cost()
            && self.is_worth_it(view, view.tail.images.cost.max(written), AT_CLOSE)
    }

    /// Whether the keys were listed and the newest snapshot lacks their order, so that each process that lists sorts them again.
    ///
    /// The bytes written since are no condition. What bounds such snapshots is that later ones have the order too (see
    /// [`Maintenance::keep_order`]): each file gets one.
    fn lacks_order(&self, view: &View) -> bool {
        let limits = self.context.limits;
        may_have_snapshot(view)
            && view.index().is_ordered()
            && order_len(view.index().len() as u64, limits.leaf_entries()) >= limits.least_cost()
            && self.newest_has_order(view) == Some(false)
    }

    /// Whether the snapshot to which the root leads has the order of the keys. `None` if it leads to none that can be used.
    fn newest_has_order(&self, view: &View) -> Option<bool> {
        let log = &view.reader.log;
        let root = log.root().ok()??;
        let snapshot = log.snapshot(&root).ok()??;
        (root.snapshot != self.reading.distrusted()).then_some(snapshot.order.is_some())
    }

    /// Has the next snapshot store the order of the keys if the newest one does: another handle may have written that, or this one
    /// has read the log from its start. An order that was lost would be written once more after the next list.
    ///
    /// A snapshot with the order is longer, so it may not be due yet.
    fn keep_order(&self) -> Result<()> {
        let view = self.reading.shown()?;
        if view.index().is_ordered() || self.newest_has_order(&view) != Some(true) {
            return Ok(());
        }
        drop(view);
        let ingest = self.reading.ingest();
        self.reading.change(&ingest, |view| {
            view.keys.index.keep_ordered(true);
            Ok(())
        })
    }

    /// When a snapshot may be tried again after one that was not written.
    pub(super) fn retry_snapshot(&self) -> Option<Retry> {
        let (epoch, cost) = self.reading.shown().map_or((0, 0), |view| (view.epoch, view.tail.images.cost));
        let not_before = self.context.clock.now().checked_add(DELAY)?;
        Some(Retry { not_before, epoch, least_cost: cost.saturating_mul(2) })
    }

    /// Writes a snapshot that was due, unless it is not any more with the order of the keys.
    pub(super) fn write_due_snapshot(&self) -> Result<bool> {
        self.keep_order()?;
        let is_due = self.reading.shown().is_ok_and(|view| self.is_worth_it(&view, view.tail.images.cost, WHILE_OPEN));
        if is_due { self.write_snapshot_in_background() } else { Ok(false) }
    }

    pub(super) fn write_snapshot_in_background(&self) -> Result<bool> {
        self.write_snapshot(Caller::Background)
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn write_snapshot_now(&self) -> Result<bool> {
        let _alone = self.automatic.pause();
        self.keep_order()?;
        self.write_snapshot(Caller::User)
    }

    /// Writes a snapshot before the store is closed, if one is worth its cost. A failure here is no error of closing.
    ///
    /// Time that this waits for the lock is taken from `patience`.
    pub(crate) fn write_snapshot_at_close(&self, patience: &Patience) {
        let is_due = || {
            let view = self.reading.shown()?;
            if !self.is_due_at_close(&view) {
                return Ok(self.lacks_order(&view));
            }
            drop(view);
            self.keep_order()?;
            Ok::<_, Error>(self.is_due_at_close(&*self.reading.shown()?))
        };
        if self.context.config.get_snapshots() == SnapshotPolicy::Never
            || self.context.counters.written.load(Ordering::Relaxed) == 0
            || std::thread::panicking()
            || self.writing.check_writable().is_err()
            || !is_due().unwrap_or(false)
        {
            return;
        }
        if let Err(error) = self.write_snapshot(Caller::Closing(patience)) {
            event!(warn, "{}: writing a snapshot while closing: {error:#}", self.context.path.display());
        }
    }

    /// Writes a snapshot. `false` if none was written, for a reason that is no error.
    fn write_snapshot(&self, caller: Caller<'_>) -> Result<bool> {
        if !self.load_index(caller)? {
            return Ok(false);
        }
        let own_end = self.last_image.load(Ordering::Relaxed);
        let Some(mut draft) = self.turn_for(caller, |turn| Draft::begin(turn, own_end))? else { return Ok(false) };
        while let Some(piece) = draft.next_piece()? {
            let written = self.turn_for(caller, |turn| {
                let written = draft.write_piece(turn, &piece)?;
                self.last_image.store(turn.tail.images.unfinished_end, Ordering::Relaxed);
                Ok(written)
            })?;
            if !written || self.must_stop(caller) {
                return Ok(false);
            }
        }
        // The image must be on stable storage before anything leads to it, and the snapshot before the root does.
        self.writing.syncs.sync(&draft.log, draft.written)?;
        let written = self.turn_for(caller, |turn| draft.write_snapshot(turn))?;
        let Some((at, end)) = written else { return Ok(false) };
        self.writing.syncs.sync(&draft.log, draft.written)?;
        let led =
            self.turn_for(caller, |turn| if !draft.is_of(turn) { Ok(false) } else { turn.lead_root_to(at, end) })?;
        if led {
            self.context.counters.snapshots.fetch_add(1, Ordering::Relaxed);
            let Covered { keys, end, .. } = draft.covered;
            event!(debug, "{}: a snapshot of {keys} keys, of the log up to {end}", self.context.path.display());
        }
        Ok(led)
    }

    /// Loads what is missing of the last image. Not in a turn, and part by part: writers wait for the view. Returns `false` if the
    /// snapshot has to be given up.
    fn load_index(&self, caller: Caller<'_>) -> Result<bool> {
        let mut next = 0;
        while self.reading.answer(|view| view.index().load_next(&mut next, &view.reader))? {
            if self.must_stop(caller) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn must_stop(&self, caller: Caller<'_>) -> bool {
        matches!(caller, Caller::Background) && self.automatic.must_give_up_snapshot()
    }
}
