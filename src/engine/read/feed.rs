//! A feed: one reader's place in the log, and the puts and deletes after it.
//!
//! The log is the buffer. A feed keeps no event in memory, only a file and a place in it: an offset, the sequence number of the
//! last event that it has passed (the *position*), and the landmark of the record before. It reads up to the end of the handle's
//! view, so the feed is never ahead of the reads of its handle. An old file it reads up to where a scan of it ends.
//!
//! | the handle's view shows | the feed |
//! | --- | --- |
//! | the same reading of the same file | goes on at its offset |
//! | another reading of it (the log was cut) | goes on if its landmark is where it was, otherwise `Undone` |
//! | another file, and its own ends with `MOVED` | reads its own to the end, then enters the other one by its position |
//! | another file, and its own does not | `Replaced` |
//!
//! A place in a file is found by a position alone if the file holds the event with exactly this number, or if the number is the
//! file's floor (see [`FileHeader::floor`](crate::format::FileHeader::floor)). A compaction states the last event of the old file
//! as the floor of the new one, so a feed that has read all of the old file always finds its place. Nothing less is enough:
//! numbers say nothing about gaps, since marks have some, and blocks of them are skipped.

use std::sync::Arc;

use super::Reading;
use super::view::View;
use super::watchers::{LeftAt, Watcher};
use crate::format::{RecordHeader, prefix_of_bucket, split_full_key};
use crate::log::LogFile;
use crate::log::scan::Scanner;
use crate::log::tail::Cursor;
use crate::log::units::{Unit, Units};
use crate::log::window::Window;
use crate::{Error, Result};

/// Which events a feed finds.
#[derive(Debug, Clone)]
pub(crate) enum Filter {
    /// Those of full keys that start with these bytes.
    FullKey(Vec<u8>),
    /// Those of keys that start with these bytes, in any bucket.
    AnyBucket(Vec<u8>),
}

/// A reader's place in the log.
pub(crate) struct Feed {
    /// Has the file that this reads, unless it was given up.
    watcher: Arc<Watcher>,
    /// The reading of the log in which the cursor was right.
    epoch: u64,
    place: Place,
    /// The place before the unit that was found last.
    before: Place,
    /// The end of the log in an old file, once it was looked for.
    old_end: Option<u64>,
    window: Window,
    /// How many units with events were passed of which none was wanted.
    pub(crate) passed: u64,
}

/// A unit with an event that a filter admits.
pub(crate) struct FoundUnit {
    pub(crate) log: Arc<LogFile>,
    pub(crate) unit: Unit,
    pub(crate) before: Place,
}

/// A place in a file, and what is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    cursor: Cursor,
    position: u64,
    moved: bool,
}

impl Filter {
    /// Keys of one bucket, given as the bytes with which its full keys start.
    pub(crate) fn in_bucket(bucket: &[u8], prefix: &[u8]) -> Filter {
        debug_assert_eq!(prefix_of_bucket(&bucket[1..]).as_deref(), Ok(bucket));
        Filter::FullKey([bucket, prefix].concat())
    }

    pub(crate) fn admits(&self, full_key: &[u8]) -> bool {
        match self {
            Filter::FullKey(prefix) => full_key.starts_with(prefix),
            Filter::AnyBucket(prefix) => split_full_key(full_key).is_some_and(|(_, key)| key.starts_with(prefix)),
        }
    }
}

impl Place {
    pub(crate) fn offset(&self) -> u64 {
        self.cursor.offset
    }

    /// The sequence number of the last event before it, or the file's floor.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The place before all records of a log.
    fn before(log: &LogFile) -> Place {
        Place { cursor: Cursor::at_start(log), position: log.header.floor(), moved: false }
    }

    /// Whether the log was not cut before this place.
    fn landmark_is_in(&self, log: &LogFile) -> Result<bool> {
        let (landmark, mut word) = (self.cursor.landmark, [0; 8]);
        let is_whole = log.read_up_to(landmark.offset, &mut word)? == word.len();
        Ok(is_whole && u64::from_le_bytes(word) == landmark.word)
    }

    /// The place after the next unit.
    fn after(&self, unit: &Unit) -> Place {
        // Copied records have numbers up to the floor. The position never falls below it.
        let position = unit.last_event.map_or(self.position, |last| last.max(self.position));
        Place { cursor: unit.end, position, moved: unit.moved }
    }
}

impl Feed {
    /// A feed of the events after a place in a file that the handle shows.
    pub(crate) fn new(watcher: Arc<Watcher>, found: Found) -> Feed {
        let Found { log, epoch, place } = found;
        let window = Window::new(&log);
        let feed = Feed { watcher, epoch, place, before: place, old_end: None, window, passed: 0 };
        feed.watcher.enter(log, place.cursor.offset);
        feed
    }

    /// The sequence number of the last event that this has passed.
    pub(crate) fn position(&self) -> u64 {
        self.place.position
    }

    /// The reading of the log in which the place is right.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The next unit with an event that the filter admits; this has passed it then. `None` if there is none yet.
    ///
    /// # Errors
    ///
    /// [`Error::Undone`], [`Error::Compacted`], [`Error::Replaced`], and those of every read. The place stays.
    pub(crate) fn next(&mut self, reading: &Reading, filter: &Filter) -> Result<Option<FoundUnit>> {
        loop {
            let view = reading.current()?;
            let (now, epoch, end) = (Arc::clone(&view.reader.log), view.epoch, view.tail.end);
            drop(view);
            let Some(log) = self.watcher.log() else {
                self.enter(reading)?;
                continue;
            };
            // Not by their headers: a copy that another program makes has the same.
            let is_old = log.identity != now.identity;
            let is_reread = is_old || epoch != self.epoch;
            let is_beyond = !is_old && self.place.cursor.offset > end;
            if is_reread && (is_beyond || !self.place.landmark_is_in(&log)?) {
                // The log was cut before this place. The last event may be there still: marks have landmarks too.
                self.enter(reading)?;
                continue;
            }
            if is_old {
                let (start, end) = (self.place, self.end_of_old(&log)?);
                match self.walk(&log, end, filter).inspect_err(|_| self.back_to(start))? {
                    Some(unit) => return Ok(Some(FoundUnit { log, unit, before: self.before })),
                    None if !self.place.moved => return Err(Error::Replaced { path: log.path.to_path_buf() }),
                    None => self.enter(reading)?,
                }
                continue;
            }
            if epoch != self.epoch {
                (self.epoch, self.old_end) = (epoch, None);
                self.watcher.enter(Arc::clone(&now), self.place.cursor.offset);
            }
            let start = self.place;
            match self.walk(&now, end, filter) {
                Err(error) => {
                    self.back_to(start);
                    let may_be_cut = matches!(error, Error::Corrupt { .. } | Error::Io { .. });
                    if !may_be_cut || reading.current()?.epoch == epoch {
                        return Err(error);
                    }
                }
                Ok(_) if self.place != start && !start.landmark_is_in(&now).inspect_err(|_| self.back_to(start))? => {
                    // The log was cut before this place. What the walk has read may be other records.
                    self.back_to(start);
                    if reading.current()?.epoch == epoch {
                        // The cut is under way, or its process was killed. The next look tries again.
                        return Ok(None);
                    }
                }
                Ok(found) => {
                    let before = self.before;
                    return Ok(found.map(|unit| FoundUnit { log: now, unit, before }));
                }
            }
        }
    }

    /// Goes back to before the unit that [`Feed::next`] has returned last.
    pub(crate) fn back_to(&mut self, before: Place) {
        self.place = before;
        self.watcher.passed(before.cursor.offset);
    }

    /// Whether the log was cut since this has found a unit in it: then what it read is no damage.
    pub(crate) fn is_cut(&self, reading: &Reading, log: &LogFile) -> bool {
        reading.current().is_ok_and(|view| view.reader.log.identity == log.identity && view.epoch != self.epoch)
    }

    /// The place that this has come to.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// Goes to a place that was found.
    pub(crate) fn go_to(&mut self, found: Found) {
        (self.epoch, self.place, self.old_end) = (found.epoch, found.place, None);
        self.watcher.enter(found.log, found.place.cursor.offset);
    }

    /// Reads records of a file.
    pub(crate) fn units<'u>(&'u mut self, log: &'u LogFile) -> Units<'u> {
        Units { log, window: &mut self.window }
    }

    /// Walks to the next unit that is wanted, or to `end`.
    fn walk(&mut self, log: &LogFile, end: u64, filter: &Filter) -> Result<Option<Unit>> {
        // What was read beyond the end of the last view may have changed.
        self.window.start_over(log.limits);
        let mut units = Units { log, window: &mut self.window };
        while let Some(unit) = units.next(&self.place.cursor, end, |_, full_key| filter.admits(full_key))? {
            self.before = self.place;
            self.place = self.place.after(&unit);
            self.watcher.passed(unit.end.offset);
            if unit.is_wanted {
                return Ok(Some(unit));
            }
            self.passed += u64::from(unit.last_event.is_some());
        }
        Ok(None)
    }

    /// The end of the log in a file that the handle has left. The handle may not have read all of it, and it may end within a
    /// write.
    fn end_of_old(&mut self, log: &LogFile) -> Result<u64> {
        if let Some(end) = self.old_end {
            return Ok(end);
        }
        let Cursor { offset, previous_seq, .. } = self.place.cursor;
        let left_at = self.watcher.left_at().filter(|left| left.offset > offset);
        let LeftAt { offset, previous_seq } = left_at.unwrap_or(LeftAt { offset, previous_seq });
        let end = Scanner::resume(log, offset, previous_seq)?.walk(|_| Ok(()))?.unit;
        self.old_end = Some(end);
        Ok(end)
    }

    /// Goes on in the file that the handle shows now, after everything that this has passed.
    fn enter(&mut self, reading: &Reading) -> Result<()> {
        self.go_to(find(reading, self.place.position)?);
        Ok(())
    }
}

/// A place in the file that the handle shows.
pub(crate) struct Found {
    pub(crate) log: Arc<LogFile>,
    pub(crate) epoch: u64,
    pub(crate) place: Place,
}

impl Found {
    /// The end of a view. `None` if the last event before it is not known.
    pub(crate) fn end_of(view: &View) -> Option<Found> {
        let place = Place { cursor: view.tail.cursor(), position: view.tail.last_event?, moved: view.tail.moved };
        Some(Found { log: Arc::clone(&view.reader.log), epoch: view.epoch, place })
    }
}

/// The end of the log.
///
/// # Errors
///
/// Those of every read.
pub(crate) fn find_end(reading: &Reading) -> Result<Found> {
    reading.answer_after_rescan(|view| Ok(Found::end_of(&view)))
}

/// The place after the event with this number.
///
/// # Errors
///
/// [`Error::Compacted`] if the number is below the file's floor, [`Error::Undone`] if the file holds no such event, and those of
/// every read.
pub(crate) fn find(reading: &Reading, number: u64) -> Result<Found> {
    reading.answer(|view| {
        let (log, epoch, end) = (Arc::clone(&view.reader.log), view.epoch, view.tail.end);
        // The events up to where a snapshot ends need not be read if they are all passed.
        let begin = view.begin.filter(|&(_, last_event)| number >= last_event);
        drop(view);
        let begin = begin.map(|(cursor, position)| Place { cursor, position, moved: false });
        let place = find_in(&log, begin.unwrap_or_else(|| Place::before(&log)), end, number)?;
        Ok(Found { log, epoch, place })
    })
}

/// As [`find`], from a place on, which is not after the one that is sought.
fn find_in(log: &LogFile, from: Place, end: u64, number: u64) -> Result<Place> {
    let floor = log.header.floor();
    if number < floor {
        return Err(Error::Compacted { path: log.path.to_path_buf(), position: number, oldest: floor });
    }
    let (mut window, mut place) = (Window::new(log), from);
    let mut is_found = number == place.position;
    let mut units = Units { log, window: &mut window };
    let is_it = |header: &RecordHeader, _: &[u8]| header.seq == number;
    while let Some(unit) = units.next(&place.cursor, end, is_it)? {
        if unit.first_event.is_some_and(|first| first > number) {
            break;
        }
        place = place.after(&unit);
        is_found |= unit.is_wanted;
    }
    if !is_found {
        return Err(Error::Undone { path: log.path.to_path_buf(), position: number, last: place.position });
    }
    Ok(place)
}
