//! One simulated file: what processes see, what the disk holds, and the changes in between.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use super::choices::Choices;
use super::contents::Contents;
use crate::disk::FileAttributes;

mod crash;

/// The unit in which the kernel caches, maps and punches holes.
pub(super) const PAGE: u64 = 4096;

/// A file's contents and attributes. Cloning shares the contents until one side changes them.
#[derive(Clone)]
pub(super) struct Inode {
    /// What a read returns: the page cache.
    cache: Arc<Contents>,
    /// The contents that are certain to survive a power cut.
    durable: Arc<Contents>,
    /// The changes from `durable` to `cache`, oldest first, except what a failed sync dropped.
    unsynced: Vec<Change>,
    /// The pages that take up space: they were written, or read through a map.
    allocated: Arc<BTreeSet<u64>>,
    attributes: FileAttributes,
    durable_attributes: FileAttributes,
    /// How many times a write-back has failed. Each open description reports each failure once.
    write_errors: u64,
    /// Whether any description has reported the last failure.
    last_error_reported: bool,
    /// Pages that the disk cannot read.
    bad: BTreeSet<u64>,
    /// The description that has the advisory lock.
    pub(super) locked_by: Option<u64>,
    /// Whether any description has ever had it, since the machine was started.
    pub(super) was_locked: bool,
    /// Whether it has only the name that its maker gave it. Nothing waits for the lock of such a file.
    pub(super) is_new: bool,
}

/// How power cuts treat bytes.
#[derive(Clone, Copy)]
pub(super) struct Crash {
    /// The size of the pieces that survive whole or not at all.
    pub(super) sector: u64,
    /// Whether a lost sector in the part by which a file has grown can hold garbage instead of zeros.
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
    /// The rest of a write whose bytes a failed sync dropped: the length that it gave the file.
    Grow(u64),
}

impl Inode {
    /// Returns an empty file, as after a power cut that kept only its creation.
    pub(super) fn new(attributes: FileAttributes) -> Inode {
        Inode { is_new: true, ..Inode::with_contents(Arc::default(), attributes) }
    }

    /// Returns a file that is durable as it is.
    pub(super) fn with_contents(contents: Arc<Contents>, attributes: FileAttributes) -> Inode {
        Inode {
            allocated: Arc::new((0..contents.data_len().div_ceil(PAGE)).collect()),
            cache: Arc::clone(&contents),
            durable: contents,
            unsynced: Vec::new(),
            durable_attributes: attributes.clone(),
            attributes,
            write_errors: 0,
            last_error_reported: true,
            bad: BTreeSet::new(),
            locked_by: None,
            was_locked: false,
            is_new: false,
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

    /// Replaces the contents, durably, as damage or restoration from outside would.
    pub(super) fn replace_contents(&mut self, contents: Vec<u8>) {
        self.cache = Arc::new(contents.into());
        self.durable = Arc::clone(&self.cache);
        self.allocated = Arc::new((0..self.cache.data_len().div_ceil(PAGE)).collect());
        self.unsynced.clear();
    }

    /// Copies the bytes from `offset` on and returns their number. Stops before a page that cannot be read; `None` in
    /// such a page.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> Option<usize> {
        let mut upto = out.len() as u64;
        if let Some(&bad) = self.bad.range(offset / PAGE..).next() {
            upto = upto.min((bad * PAGE).saturating_sub(offset));
        }
        let is_bad = upto == 0 && !out.is_empty() && offset < self.len();
        (!is_bad).then(|| self.cache.read(offset, &mut out[..upto as usize]))
    }

    /// Makes a page unreadable.
    pub(super) fn spoil(&mut self, page: u64) {
        self.bad.insert(page);
    }

    /// Takes space for the pages of a range, until there is none left. `free` is the number of pages that are left, if
    /// the disk can run full. Returns the end of the range for which there was space.
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

    /// Gives back the space of all whole pages of a range, and returns their number.
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

    /// Makes a range zeros, up to the end of the file.
    pub(super) fn punch(&mut self, range: Range<u64>) {
        self.change(Change::Punch(range));
    }

    fn change(&mut self, change: Change) {
        change.apply(Arc::make_mut(&mut self.cache));
        self.unsynced.push(change);
    }

    /// Returns the first page at or after `offset` that holds more than zeros. Pages of zeros count as holes.
    pub(super) fn next_data(&self, offset: u64) -> Option<u64> {
        let data = self.cache.next_data(offset / PAGE * PAGE)?;
        Some(offset.max(data / PAGE * PAGE)).filter(|&found| found < self.len())
    }

    /// Returns the start of the first page after `offset` that holds only zeros, or the end of the file; `offset` itself if its page
    /// is one.
    pub(super) fn data_end(&self, offset: u64) -> u64 {
        let (mut page, len) = (offset / PAGE * PAGE, self.len());
        while page < len && self.cache.next_data(page).is_some_and(|data| data < page + PAGE) {
            page += PAGE;
        }
        page.min(len).max(offset)
    }

    /// Brings contents and length to the disk, and mode and owner if `attributes_too`.
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

    /// Does what a failed sync does: the pages look clean, so no later sync writes them again. `reached` says what was
    /// written before the error. The file's length is not data, and stays unsynced.
    pub(super) fn fail_sync(&mut self, reached: &mut Choices, crash: Crash) {
        self.durable = self.after_power_cut(reached, crash);
        for change in &mut self.unsynced {
            if let Change::Write { offset, bytes } = change {
                *change = Change::Grow(*offset + bytes.len() as u64);
            }
        }
        self.write_errors += 1;
        self.last_error_reported = false;
    }

    /// Returns how many write errors a new description counts as reported: all of them, except the last one if no
    /// description has reported that yet.
    pub(super) fn errors_before_opening(&self) -> u64 {
        if self.last_error_reported { self.write_errors } else { self.write_errors - 1 }
    }

    /// Returns whether a description that has reported this many write errors must report another, and counts it as
    /// reported.
    pub(super) fn report_errors(&mut self, reported: &mut u64) -> bool {
        let is_new = *reported < self.write_errors;
        if is_new {
            *reported = self.write_errors;
            self.last_error_reported = true;
        }
        is_new
    }

    /// Hashes everything of the file that a process or a power cut could find.
    pub(super) fn fingerprint(&self, hasher: &mut impl Hasher) {
        self.durable.hash(hasher);
        self.unsynced.hash(hasher);
        let differs = !Arc::ptr_eq(&self.cache, &self.durable) && *self.cache != *self.durable;
        differs.then_some(&*self.cache).hash(hasher);
        (&self.attributes, &self.durable_attributes, self.write_errors, self.last_error_reported).hash(hasher);
    }

    /// Drops clean pages: reads return what is on the disk, and what is still to be written there. An error that no
    /// description has reported is dropped with the pages.
    pub(super) fn drop_cache(&mut self) {
        self.last_error_reported = true;
        self.cache = Arc::clone(&self.durable);
        if !self.unsynced.is_empty() {
            let cache = Arc::make_mut(&mut self.cache);
            for change in &self.unsynced {
                change.apply(cache);
            }
        }
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

    /// Applies the change to the bytes from `start` to `end` only.
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
