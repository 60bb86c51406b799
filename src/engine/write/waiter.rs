//! Waiters: a queued thread sleeps until a leader has done its work, or until it leads itself.

use std::hint;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::deadline::Deadline;
use crate::sync::{AtomicBool, Condvar, Mutex, MutexGuard, lock};

/// How many waiters a group takes. Without a limit, a queue that is never empty would use one group for ever.
pub(super) const GROUP_SIZE: usize = 128;

/// A place in the queue: one slot of a group.
pub(super) struct Waiter<W, O> {
    pub(super) group: Arc<WaitGroup<W, O>>,
    slot: usize,
}

/// Waiters that one system call wakes together. Waking each one alone costs a call each, and on few cores every woken thread
/// interrupts the leader. The first waiter in the queue has a group of its own.
pub(super) struct WaitGroup<W, O> {
    /// Locked after the queue's state, where both are needed.
    slots: Mutex<Slots<W, O>>,
    changed: Condvar,
    /// Whether a slot has changed. A spinning waiter reads this first, and then looks at its slot.
    notified: AtomicBool,
}

struct Slots<W, O> {
    stages: Vec<Stage<W, O>>,
    /// How many waiters sleep. With none, no system call is made to wake them.
    asleep: usize,
}

/// The state of one waiter. It leaves `Waiting` under the queue's lock only.
pub(super) enum Stage<W, O> {
    /// `None` for a waiter that wants to lead alone.
    Waiting(Option<W>),
    /// The waiter leads, and gets its work back.
    Leading(Option<W>),
    /// A leader has the work. The waiter must wait for the outcome, however long that takes.
    Taken,
    Done(O),
    /// The waiter has got its result.
    Over,
}

impl<W, O> Default for WaitGroup<W, O> {
    fn default() -> Self {
        let slots = Slots { stages: Vec::new(), asleep: 0 };
        WaitGroup { slots: Mutex::new(slots), changed: Condvar::new(), notified: AtomicBool::new(false) }
    }
}

impl<W, O> WaitGroup<W, O> {
    pub(super) fn is_full(&self) -> bool {
        lock(&self.slots).stages.len() >= GROUP_SIZE
    }

    /// Wakes the waiters of this group to look at their slots.
    fn notify(&self, slots: MutexGuard<'_, Slots<W, O>>) {
        let is_asleep = slots.asleep != 0;
        // First, or the woken threads would wait for this lock.
        drop(slots);
        self.notified.store(true, Ordering::Release);
        if is_asleep {
            self.changed.notify_all();
        }
    }
}

impl<W, O> Waiter<W, O> {
    /// A new waiter in this group: one value for the queue, one for the thread.
    pub(super) fn join(group: Arc<WaitGroup<W, O>>, work: Option<W>) -> [Waiter<W, O>; 2] {
        let mut slots = lock(&group.slots);
        let slot = slots.stages.len();
        slots.stages.push(Stage::Waiting(work));
        drop(slots);
        [Waiter { group: Arc::clone(&group), slot }, Waiter { group, slot }]
    }

    pub(super) fn is(&self, other: &Waiter<W, O>) -> bool {
        self.slot == other.slot && Arc::ptr_eq(&self.group, &other.group)
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(lock(&self.group.slots).stages[self.slot], Stage::Waiting(_))
    }

    /// Makes this waiter the leader.
    pub(super) fn lead(&self) {
        let mut slots = lock(&self.group.slots);
        if let Stage::Waiting(work) = &mut slots.stages[self.slot] {
            slots.stages[self.slot] = Stage::Leading(work.take());
        }
        self.group.notify(slots);
    }

    /// Takes the work, if there is any and `room_for` says yes.
    pub(super) fn take(&self, room_for: impl FnOnce(&W) -> bool) -> Option<W> {
        let stage = &mut lock(&self.group.slots).stages[self.slot];
        let Stage::Waiting(work) = stage else { return None };
        let work = work.take_if(|work| room_for(work))?;
        *stage = Stage::Taken;
        Some(work)
    }

    /// Spins until a slot of the group has changed, or the time is over.
    pub(super) fn spin(&self, time: Duration) {
        let began = Instant::now();
        while !time.is_zero() && !self.group.notified.load(Ordering::Acquire) && began.elapsed() < time {
            if cfg!(all(test, any(loom, shuttle))) {
                // A checker of threads has no clock. One look is enough, since it tries that look at different moments.
                return;
            }
            hint::spin_loop();
        }
    }

    /// Sleeps until this waiter leads or is done; `None` if its time is over before a leader has taken its work.
    pub(super) fn wait(&self, deadline: &Deadline) -> Option<Stage<W, O>> {
        let WaitGroup { slots, changed, .. } = &*self.group;
        let mut slots = lock(slots);
        loop {
            let left = match &mut slots.stages[self.slot] {
                stage @ (Stage::Leading(_) | Stage::Done(_)) => return Some(std::mem::replace(stage, Stage::Over)),
                Stage::Waiting(_) => deadline.left(),
                Stage::Taken | Stage::Over => None,
            };
            if left == Some(Duration::ZERO) {
                return None;
            }
            slots.asleep += 1;
            slots = match left {
                None => changed.wait(slots).unwrap_or_else(PoisonError::into_inner),
                Some(left) => deadline.wait(changed, slots, left),
            };
            slots.asleep -= 1;
        }
    }
}

/// Gives each waiter whose work was taken its outcome, and wakes them group by group.
pub(super) fn finish<W, O>(taken: &[Waiter<W, O>], mut outcome: impl FnMut() -> O) {
    for together in taken.chunk_by(|one, next| Arc::ptr_eq(&one.group, &next.group)) {
        let group = &together[0].group;
        let mut slots = lock(&group.slots);
        for waiter in together {
            slots.stages[waiter.slot] = Stage::Done(outcome());
        }
        group.notify(slots);
    }
}
