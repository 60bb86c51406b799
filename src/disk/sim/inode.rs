//! One simulated file: what processes see, what the disk holds, and the changes in between.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use super::choices::{Choices, Random};
use super::contents::Contents;
use crate::disk::FileAttributes;

/// What a kernel caches, maps and punches holes by.
pub(super) const PAGE: u64 = 4096;

/// A file's contents and attributes. Cloning shares the contents until one side changes them.
#[derive(Clone)]
pub(super) struct Inode {
    /// What a read returns: the page cache.
    cache: Arc<Contents>,
    /// What is certain to survive a power cut.
    durable: Arc<Contents>,
    /// How `durable` becomes `cache`, oldest change first, except for what a failed sync dropped.
    unsynced: Vec<Change>,
    /// The pages that take up space: those that were written, or read through a map.
    allocated: Arc<BTreeSet<u64>>,
    attributes: FileAttributes,
    durable_attributes: FileAttributes,
    /// How many times writing back has failed; each open description reports each failure once.
    write_errors: u64,
    /// Whether any description has reported the last of them.
    last_error_was_told: bool,
    /// Pages that the disk cannot read.
    bad: BTreeSet<u64>,
    /// The description that has the advisory lock.
    pub(super) locked_by: Option<u64>,
}

/// How power cuts treat bytes.
#[derive(Clone, Copy)]
pub(super) struct Crash {
    /// The size of the pieces that survive whole or not at all.
    pub(super) sector: u64,
    /// Whether a sector that a file grew by, and that did not survive, can hold other things than zeros.
    pub(super) garbage: bool,
}

#[derive(Clone, Hash)]
enum Change {
    Write {
        offset: u64,
        bytes: Arc<[u8]>,
    },
    SetLen(u64),
    /// A hole is punched.
    Punch(Range<u64>),
    /// What remains of a write whose bytes a failed sync dropped: the length that it gave the file.
    Grow(u64),
}

impl Inode {
    /// An empty file, as it is when its creation survived and nothing else.
    pub(super) fn new(attributes: FileAttributes) -> Inode {
        Inode::with_contents(Arc::default(), attributes)
    }

    /// A file that is on the disk as it is here.
    pub(super) fn with_contents(contents: Arc<Contents>, attributes: FileAttributes) -> Inode {
        Inode {
            allocated: Arc::new((0..contents.data_len().div_ceil(PAGE)).collect()),
            cache: Arc::clone(&contents),
            durable: contents,
            unsynced: Vec::new(),
            durable_attributes: attributes.clone(),
            attributes,
            write_errors: 0,
            last_error_was_told: true,
            bad: BTreeSet::new(),
            locked_by: None,
        }
    }

    pub(super) fn contents(&self) -> &Contents {
        &self.cache
    }

    pub(super) fn len(&self) -> u64 {
        self.cache.len()
    }

    pub(super) fn attributes(&self) -> &FileAttributes {
        &self.attributes
    }

    pub(super) fn set_attributes(&mut self, attributes: FileAttributes) {
        self.attributes = attributes;
    }

    /// Puts other contents into the file and onto the disk, as damage or restoration from outside would.
    pub(super) fn replace_contents(&mut self, contents: Vec<u8>) {
        self.cache = Arc::new(contents.into());
        self.durable = Arc::clone(&self.cache);
        self.allocated = Arc::new((0..self.cache.data_len().div_ceil(PAGE)).collect());
        self.unsynced.clear();
    }

    /// Copies what is there from `offset` on and returns how much that was: up to a page that cannot be read, and
    /// `None` in it.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> Option<usize> {
        let mut upto = out.len() as u64;
        if let Some(&bad) = self.bad.range(offset / PAGE..).next() {
            upto = upto.min((bad * PAGE).saturating_sub(offset));
        }
        let is_bad = upto == 0 && !out.is_empty() && offset < self.len();
        (!is_bad).then(|| self.cache.read(offset, &mut out[..upto as usize]))
    }

    /// Whatever is in this page cannot be read from now on.
    pub(super) fn spoil(&mut self, page: u64) {
        self.bad.insert(page);
    }

    /// Takes space for the pages of a range, as long as there is some: `free` is how many pages are left, if the disk can
    /// run full. Returns where the range ends for which there was space.
    pub(super) fn allocate(&mut self, range: Range<u64>, free: Option<&mut u64>) -> u64 {
        let mut endless = u64::MAX;
        let free = free.unwrap_or(&mut endless);
        for page in range.start / PAGE..range.end.div_ceil(PAGE) {
            if self.allocated.contains(&page) {
                continue;
            }
            if *free == 0 {
                return range.start.max(page * PAGE);
            }
            *free -= 1;
            Arc::make_mut(&mut self.allocated).insert(page);
        }
        range.end
    }

    /// Gives back the space of all whole pages of a range, and returns how many those were.
    pub(super) fn release(&mut self, range: Range<u64>) -> u64 {
        let pages = range.start.div_ceil(PAGE)..range.end / PAGE;
        let before = self.allocated.len();
        if self.allocated.range(pages.start..pages.end.max(pages.start)).next().is_some() {
            Arc::make_mut(&mut self.allocated).retain(|page| !pages.contains(page));
        }
        (before - self.allocated.len()) as u64
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.change(Change::Write { offset, bytes: bytes.into() });
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.change(Change::SetLen(len));
    }

    /// Makes a range zeros, as far as the file reaches.
    pub(super) fn punch(&mut self, range: Range<u64>) {
        self.change(Change::Punch(range));
    }

    fn change(&mut self, change: Change) {
        change.apply(Arc::make_mut(&mut self.cache));
        self.unsynced.push(change);
    }

    /// The first page at or after `offset` that holds more than zeros, as if the others had never been written.
    pub(super) fn next_data(&self, offset: u64) -> Option<u64> {
        let data = self.cache.next_data(offset / PAGE * PAGE)?;
        Some(offset.max(data / PAGE * PAGE)).filter(|&found| found < self.len())
    }

    /// Brings contents and length to the disk, and with `attributes_too` the mode and owner.
    pub(super) fn sync(&mut self, attributes_too: bool) {
        if !self.unsynced.is_empty() {
            let durable = Arc::make_mut(&mut self.durable);
            for change in self.unsynced.drain(..) {
                change.apply(durable);
            }
        }
        if attributes_too {
            self.durable_attributes.clone_from(&self.attributes);
        }
    }

    /// What a sync that fails leaves: the pages look clean, so nothing will ever write them again, whatever syncs
    /// succeed later. `reached` says what had been written before the error. The file's length is not data and is
    /// still on its way.
    pub(super) fn fail_sync(&mut self, reached: &mut Choices, crash: Crash) {
        self.durable = self.after_power_cut(reached, crash);
        for change in &mut self.unsynced {
            if let Change::Write { offset, bytes } = change {
                *change = Change::Grow(*offset + bytes.len() as u64);
            }
        }
        self.write_errors += 1;
        self.last_error_was_told = false;
    }

    /// How many write errors a description does not hear of that is opened now: all but one that nobody was told of.
    pub(super) fn errors_before_opening(&self) -> u64 {
        if self.last_error_was_told { self.write_errors } else { self.write_errors - 1 }
    }

    /// Whether a description that has heard of so many write errors must be told of another; then it has been.
    pub(super) fn tell_errors(&mut self, heard: &mut u64) -> bool {
        let news = *heard < self.write_errors;
        if news {
            *heard = self.write_errors;
            self.last_error_was_told = true;
        }
        news
    }

    /// Everything of the file that a process or a power cut could find out, for comparison.
    pub(super) fn fingerprint(&self, hasher: &mut impl Hasher) {
        self.durable.hash(hasher);
        self.unsynced.hash(hasher);
        // Most of the time they are the same.
        let differs = !Arc::ptr_eq(&self.cache, &self.durable) && *self.cache != *self.durable;
        differs.then_some(&*self.cache).hash(hasher);
        (&self.attributes, &self.durable_attributes, self.write_errors, self.last_error_was_told).hash(hasher);
    }

    /// Forgets clean pages: what is read now comes from the disk, save for what is still to be written there. With the
    /// pages goes an error that nobody was told of: who opens the file from now on will not hear of it.
    pub(super) fn drop_cache(&mut self) {
        self.last_error_was_told = true;
        self.cache = Arc::clone(&self.durable);
        if !self.unsynced.is_empty() {
            let cache = Arc::make_mut(&mut self.cache);
            for change in &self.unsynced {
                change.apply(cache);
            }
        }
    }

    /// The file as it is found after a power cut.
    pub(super) fn crashed(&self, choices: &mut Choices, crash: Crash) -> Inode {
        choices.next_subject();
        let mut survivor = Inode::with_contents(self.after_power_cut(choices, crash), self.durable_attributes.clone());
        if self.attributes != self.durable_attributes && choices.pick(1) == 1 {
            survivor.attributes.clone_from(&self.attributes);
            survivor.durable_attributes.clone_from(&self.attributes);
        }
        survivor
    }

    /// Mixes the durable contents with some of the unsynced changes.
    ///
    /// Two things are chosen. The *length* is one that the file has had since the last sync, or in the middle of a write
    /// that made it longer. Each *sector* holds what it has held at some moment since the last sync: so a sector is
    /// never torn (ask for smaller sectors to have that), but any of them can be older or newer than its neighbour, and
    /// than the length. The one tie is that a sector which the chosen length had cut off, before it grew again, has
    /// lost what it held: journals see to that.
    fn after_power_cut(&self, choices: &mut Choices, crash: Crash) -> Arc<Contents> {
        if self.unsynced.is_empty() {
            return Arc::clone(&self.durable);
        }
        let mut contents = (*self.durable).clone();
        let kept_lengths = choices.pick(self.unsynced.len() as u64) as usize;
        let mut length = contents.len();
        let mut longest = length;
        for (at, change) in self.unsynced.iter().enumerate() {
            if at < kept_lengths {
                length = change.length_after(length);
            }
            longest = longest.max(change.length_after(0));
        }
        if let Some(write @ Change::Write { .. }) = self.unsynced.get(kept_lengths) {
            let whole_sectors = (write.length_after(length).max(1) - 1) / crash.sector;
            let already = length / crash.sector;
            match choices.pick(whole_sectors.saturating_sub(already)) {
                0 => {}
                more => length = (already + more) * crash.sector,
            }
        }
        contents.set_len(longest);
        for (start, history) in self.sector_histories(crash.sector) {
            if start >= length {
                // It makes no difference what such a sector holds.
                break;
            }
            let cut_off = |&at: &usize| at < kept_lengths && matches!(self.unsynced[at], Change::SetLen(_));
            let least = history.iter().rposition(cut_off).map_or(0, |last| last + 1);
            let kept = least + choices.pick((history.len() - least) as u64) as usize;
            if crash.garbage && kept == 0 && choices.pick(1) == 0 {
                let never_written = self.durable.len().max(start)..contents.len().min(start + crash.sector);
                let mut garbage = vec![0; never_written.end.saturating_sub(never_written.start) as usize];
                Random::from_seed(start).fill(&mut garbage);
                contents.write(never_written.start, &garbage);
            }
            for &at in &history[..kept] {
                self.unsynced[at].apply_within(&mut contents, start, start + crash.sector);
            }
        }
        contents.set_len(length);
        Arc::new(contents)
    }

    /// At most how many ways there are for the file to be found after a power cut without garbage.
    pub(super) fn outcomes(&self, crash: Crash) -> u64 {
        let attributes = if self.attributes == self.durable_attributes { 1 } else { 2 };
        if self.unsynced.is_empty() {
            return attributes;
        }
        let mut length = self.durable.len();
        let mut lengths = 1;
        for change in &self.unsynced {
            let already = length / crash.sector;
            length = change.length_after(length);
            // A write can have made the file longer by some of its sectors.
            let written = matches!(change, Change::Write { .. });
            lengths += 1 + if written { ((length.max(1) - 1) / crash.sector).saturating_sub(already) } else { 0 };
        }
        let sectors = self.sector_histories(crash.sector).into_values().map(|history| history.len() as u64 + 1);
        sectors.fold(attributes.saturating_mul(lengths), u64::saturating_mul)
    }

    /// For each sector, by its offset, the unsynced changes to its bytes, as positions in `unsynced`. A hole that was
    /// cut off is not changed by that: else the space that a file was extended by would raise a question a sector.
    fn sector_histories(&self, sector: u64) -> BTreeMap<u64, Vec<usize>> {
        let mut histories = BTreeMap::<u64, Vec<usize>>::new();
        let mut length = self.durable.len();
        for (at, change) in self.unsynced.iter().enumerate() {
            let changed = match change {
                Change::Write { offset, bytes } => *offset..*offset + bytes.len() as u64,
                Change::SetLen(len) => *len..length,
                Change::Punch(range) => range.start..range.end.min(length),
                Change::Grow(_) => 0..0,
            };
            length = change.length_after(length);
            if changed.is_empty() {
                continue;
            }
            let written = matches!(change, Change::Write { .. });
            // Behind everything that was ever written there are holes only.
            let data_end =
                histories.last_key_value().map_or(0, |(start, _)| start + sector).max(self.durable.data_len());
            let end = if written { changed.end } else { changed.end.min(data_end) };
            for number in changed.start / sector..end.div_ceil(sector) {
                let start = number * sector;
                if written || histories.contains_key(&start) || self.durable_holds_more_than_zeros(start, sector) {
                    histories.entry(start).or_default().push(at);
                }
            }
        }
        histories
    }

    fn durable_holds_more_than_zeros(&self, start: u64, len: u64) -> bool {
        self.durable.next_data(start).is_some_and(|data| data < start + len)
    }
}

impl Change {
    fn length_after(&self, length: u64) -> u64 {
        match self {
            Change::Write { offset, bytes } => length.max(offset + bytes.len() as u64),
            Change::SetLen(len) => *len,
            Change::Punch(_) => length,
            Change::Grow(end) => length.max(*end),
        }
    }

    fn apply(&self, contents: &mut Contents) {
        contents.set_len(self.length_after(contents.len()));
        match self {
            Change::Write { offset, bytes } => contents.write(*offset, bytes),
            Change::Punch(range) => contents.zero(range.clone()),
            Change::SetLen(_) | Change::Grow(_) => {}
        }
    }

    /// Does to the bytes from `start` to `end` what the change does to them, and nothing to any other.
    fn apply_within(&self, contents: &mut Contents, start: u64, end: u64) {
        let end = end.min(contents.len());
        match self {
            Change::Write { offset, bytes } => {
                let (from, to) = (start.max(*offset), end.min(offset + bytes.len() as u64));
                contents.write(from, &bytes[(from - offset) as usize..(to - offset) as usize]);
            }
            Change::SetLen(len) => contents.zero(start.max(*len)..end),
            Change::Punch(range) => contents.zero(start.max(range.start)..end.min(range.end)),
            Change::Grow(_) => {}
        }
    }
}
