//! The writer: what the leader knows about the file lock, the log and its own writes.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::linger::Burst;
use super::owner::{Owning, Seen};
use crate::format::{FileSeed, MAX_SEQ_STEP};
use crate::index::Place;
use crate::limits::Shared;
use crate::log::LogFile;
use crate::log::group::Group;
use crate::log::tail::Tail;
use crate::replay::Proven;

/// A handle that goes on in another file keeps its highest sequence number only if it is at most this far above the file's. Half
/// of what readers admit, so that records after the gap prove what is before it.
const MAX_CARRIED: u64 = MAX_SEQ_STEP / 2;

/// How far this handle is with the log whose lock it takes. Each phase includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// The log was read without the lock.
    Read,
    /// Its end was looked at under the lock, and a torn tail was cut off.
    Recovered,
    /// The file's name is on stable storage.
    NameSynced,
    /// The unproven tail was written again and synced. From here on, a sync that succeeds covers everything before the log's
    /// end.
    TailResynced,
    /// A block of sequence numbers is reserved for this handle, above all numbers that others may have seen and lost.
    BlockReserved,
}

/// The writing side of a handle. Its fields belong to the leader of the queue.
pub(crate) struct Writer {
    /// The file whose lock this handle has: during a turn, or always in `Exclusive` mode. After a reopening it can be another
    /// description of the file than the one that is written through.
    pub(crate) locked: Option<Arc<LogFile>>,
    /// The file whose lock the last turn has left to the next one. The disk may have released it since.
    pub(super) lingering: Option<Arc<LogFile>>,
    pub(super) burst: Burst,
    /// The reading of the log that the fields below are about.
    pub(crate) epoch: u64,
    pub(crate) phase: Phase,
    /// How much of the unproven tail is written again, before all of it is.
    pub(super) rewritten: Rewritten,
    /// Where the log ended after this handle's last write.
    pub(crate) log_end: u64,
    /// The file's length, as far as this handle knows.
    pub(crate) file_len: u64,
    /// What the file's root states at least, as far as this handle knows.
    pub(crate) stated: u64,
    /// The generation of the last root that this handle has written.
    pub(crate) root: u64,
    /// The highest sequence number that this handle has ever used, in whichever file.
    pub(crate) highest_used_seq: u64,
    /// The last write-back: the number of its step of sequence numbers, and where it ended in the log.
    write_back_from: (u64, u64),
    pub(super) identity_checked: Option<Instant>,
    /// When a handle without a map last looked for what others have written.
    pub(super) looked: Option<Instant>,
    /// This turn had to wait for the lock.
    pub(super) contended: bool,
    pub(super) rest_until: Option<Instant>,
    /// Where this epoch has records of keys that are over and that cannot be read. No turn tries them again.
    pub(super) unreadable: BTreeSet<u64>,
    /// Set once this handle has a session.
    pub(super) owning: Option<Owning>,
    /// What this handle has seen of sessions whose deadlines it cannot compare.
    pub(super) seen: RefCell<HashMap<u64, Seen>>,
    /// When this handle last asked for the bytes of other owners.
    pub(super) asked: Option<Instant>,
    /// The last of them in the order of the sessions. The next time, it goes on after this one.
    pub(super) asked_up_to: Place,
    pub(crate) group: Group,
    /// What the records of the group replace.
    pub(super) proven: Vec<Proven>,
}

/// How much of the log that no proof covers is written again, in this epoch.
#[derive(Clone, Copy, Default)]
pub(super) struct Rewritten {
    /// Everything before this offset is written again, or proven.
    pub(super) to: u64,
    /// Everything before this offset was read once more after that, and is whole. A record starts here.
    pub(super) checked: u64,
    /// The sequence number of the record before that.
    pub(super) checked_after: u64,
}

impl Rewritten {
    /// The same, with what is proven by now.
    pub(super) fn with_proof(mut self, tail: &Tail) -> Rewritten {
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
            lingering: None,
            burst: Burst::default(),
            epoch: 0,
            phase: Phase::Read,
            rewritten: Rewritten::default(),
            log_end: 0,
            file_len: 0,
            stated: 0,
            root: 0,
            highest_used_seq: 0,
            write_back_from: (0, 0),
            identity_checked: None,
            looked: None,
            contended: false,
            rest_until: None,
            unreadable: BTreeSet::new(),
            owning: None,
            seen: RefCell::default(),
            asked: None,
            asked_up_to: Place::default(),
            group: Group::new(FileSeed::new(&[0; 16]), 0),
            proven: Vec::new(),
        }
    }
}

impl Writer {
    /// The log was read again: nothing that was known of it holds, except the sequence numbers that this handle has used.
    pub(crate) fn start_over(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.phase = Phase::Read;
        self.rewritten = Rewritten::default();
        self.identity_checked = None;
        // No log ends at 0, so the next turn asks for the file's length.
        self.log_end = 0;
        (self.stated, self.root) = (0, 0);
        self.write_back_from = (0, 0);
        self.unreadable.clear();
        self.seen.get_mut().clear();
        self.asked = None;
    }

    /// Enters a phase, unless the handle is there already.
    pub(super) fn reach(&mut self, phase: Phase) {
        self.phase = self.phase.max(phase);
    }

    /// Releases the file's lock.
    pub(crate) fn release(&mut self) {
        self.stop_lingering();
        if let Some(locked) = self.locked.take() {
            // A lock that cannot be given up goes with the file description.
            let _ = locked.file.unlock();
        }
    }

    /// Forgets the used sequence numbers if they are far above those of the reopened file: it is another store or an old copy,
    /// and goes on as with a new handle.
    pub(super) fn forget_far_seqs(&mut self, tail: &Tail) {
        if self.highest_used_seq > tail.highest_seq + MAX_CARRIED {
            self.highest_used_seq = 0;
        }
    }

    /// Nothing before `end` needs write-back any more.
    pub(crate) fn set_written_back(&mut self, limits: Shared, end: u64) {
        self.write_back_from = (self.highest_used_seq / limits.write_back_step(), end);
    }

    /// The part of the log whose write-back is due, if there is one: after each step of sequence numbers, so that the sync at
    /// the end of a block of numbers stays short. Counted in numbers, so that it costs a small part of what the block costs,
    /// whatever the size of its records.
    pub(super) fn due_write_back(&mut self, limits: Shared) -> Option<Range<u64>> {
        let (step, from) = self.write_back_from;
        if self.highest_used_seq / limits.write_back_step() == step {
            return None;
        }
        // Without the page that the next record goes into: on some file systems that write would wait for the disk.
        let end = self.log_end - self.log_end % limits.largest_page();
        self.set_written_back(limits, end);
        Some(from..end)
    }
}
