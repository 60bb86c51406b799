//! Which keys are over: those whose deadline has passed, and those whose session is over.
//!
//! One question for both, so that no call can ask only half of it. The two tables say what the log says: [`Expiring`] has deadlines on
//! the wall clock, [`Sessions`] has sessions, whose deadlines are on the clock of a machine. A [`Times`] is one look at both clocks.
//!
//! A session is over if its END is in the log, if it has no record there, or if its deadline has passed and can be compared. A writer
//! that has the file's lock can find out more: see `Turn::is_session_over`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::expiring::Expiring;
use super::sessions::{Newest, Sessions};
use crate::format::Owner;

/// What the clocks showed at one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Times {
    /// Milliseconds since 1970 by the wall clock.
    pub(crate) wall: u64,
    /// `None` if the system does not say which machine this is.
    pub(crate) machine: Option<MachineTime>,
}

/// A moment of one boot of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MachineTime {
    pub(crate) boot: [u8; 16],
    /// Milliseconds by the monotonic clock.
    pub(crate) ms: u64,
}

/// The keys that are over some day, and the sessions. A store without deadlines and sessions pays a look at empty tables.
#[derive(Default)]
pub(crate) struct Lifetimes {
    pub(crate) expiring: Expiring,
    pub(crate) sessions: Sessions,
}

impl Lifetimes {
    /// Whether no key can ever be over.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.expiring.is_empty() && self.sessions.has_no_pairs()
    }

    /// Adds the pair whose record, in this bucket, is at `position`.
    pub(crate) fn add(&mut self, position: u64, bucket: &[u8], deadline: u64, owner: Option<Owner>) {
        if deadline > 0 {
            self.expiring.add(position, bucket, deadline);
        }
        if let Some(owner) = owner {
            self.sessions.add(position, bucket, owner);
        }
    }

    /// Removes the pair whose record is at `position`, if it is here: the record was replaced or removed.
    #[inline]
    pub(crate) fn remove(&mut self, position: u64) {
        self.expiring.remove(position);
        self.sessions.remove(position);
    }

    /// Whether the record at `position` is over. The clocks are looked at only if it has a deadline or an owner.
    #[inline]
    pub(crate) fn is_over(&self, position: u64, times: impl FnOnce() -> Times) -> bool {
        !self.is_empty() && self.is_one_over(position, times)
    }

    fn is_one_over(&self, position: u64, times: impl FnOnce() -> Times) -> bool {
        let (deadline, owner) = (self.expiring.deadline(position), self.sessions.owner(position));
        if deadline.is_none() && owner.is_none() {
            return false;
        }
        let times = times();
        deadline.is_some_and(|deadline| times.wall >= deadline)
            || owner.is_some_and(|owner| self.sessions.is_over(owner.session, times.machine))
    }

    /// Whether a key is over, or a session whose END is not in the log yet.
    pub(crate) fn has_over(&self, times: Times) -> bool {
        self.expiring.has_over(times.wall) || self.sessions.has_over(times.machine)
    }

    /// Whether the log has something to be over: a key with a deadline or an owner, or a session without END.
    #[inline]
    pub(crate) fn can_be_over(&self) -> bool {
        !self.expiring.is_empty() || !self.sessions.is_empty()
    }

    /// The positions of the records that are over.
    pub(crate) fn over(&self, times: Times) -> impl Iterator<Item = u64> + '_ {
        self.expiring.over(times.wall).chain(self.of_sessions(times).map(|(position, _)| position))
    }

    /// Those of them that are in a bucket, in any order.
    pub(crate) fn over_in(&self, bucket: &[u8], times: Times) -> Vec<u64> {
        let mut over = self.expiring.over_in(bucket, times.wall);
        over.extend(self.of_sessions(times).filter(|(_, of)| ***of == *bucket).map(|(position, _)| position));
        over
    }

    /// The pairs whose session is over and whose deadline has not passed, and their buckets.
    fn of_sessions(&self, times: Times) -> impl Iterator<Item = (u64, &Arc<[u8]>)> {
        let is_counted = move |position| self.expiring.is_over(position, || times.wall);
        self.sessions.pairs_over(times.machine).filter(move |&(position, _)| !is_counted(position))
    }

    /// How many keys are over. Costs a look at each key of the sessions that are over.
    pub(crate) fn hidden(&self, times: Times) -> u64 {
        self.expiring.hidden(times.wall) + self.of_sessions(times).count() as u64
    }

    /// How many keys of the bucket are over.
    pub(crate) fn hidden_in(&self, bucket: &[u8], times: Times) -> u64 {
        let of_sessions = self.of_sessions(times).filter(|(_, of)| ***of == *bucket).count();
        self.expiring.hidden_in(bucket, times.wall) + of_sessions as u64
    }

    /// How many keys are over in each bucket that has such keys.
    pub(crate) fn hidden_by_bucket(&self, times: Times) -> HashMap<Arc<[u8]>, u64> {
        let mut hidden = self.expiring.hidden_by_bucket(times.wall);
        for (_, bucket) in self.of_sessions(times) {
            *hidden.entry(Arc::clone(bucket)).or_default() += 1;
        }
        hidden
    }

    /// How many keys have a deadline or belong to a session, hidden ones included. Costs a look at each key that has both.
    pub(crate) fn len(&self) -> u64 {
        let both = self.sessions.owned().filter(|&position| self.expiring.deadline(position).is_some()).count();
        self.expiring.len() + self.sessions.owned().count() as u64 - both as u64
    }

    /// How long after this look the next key or session is over, if nothing changes. `None` if none is, or if it cannot be known.
    pub(crate) fn until_next(&self, times: Times) -> Option<Duration> {
        let expires = self.expiring.next_deadline(times.wall).map(|deadline| deadline - times.wall);
        let ends = times.machine.and_then(|now| self.sessions.next_deadline(now).map(|deadline| deadline - now.ms));
        expires.into_iter().chain(ends).min().map(Duration::from_millis)
    }

    /// The last record of a session, unless the session is over at this look.
    pub(crate) fn living(&self, session: u64, times: Times) -> Option<&Newest> {
        self.sessions.newest(session).filter(|_| !self.sessions.is_over(session, times.machine))
    }

    /// The positions of the records that all this comes from, in the order of the log: the pairs, and the last record of each session
    /// without END.
    pub(crate) fn positions(&self) -> BTreeSet<u64> {
        self.expiring.positions().chain(self.sessions.owned()).chain(self.sessions.positions()).collect()
    }

    /// At least as many as these records.
    pub(crate) fn most_records(&self) -> u64 {
        self.expiring.len() + self.sessions.records()
    }

    /// Bytes allocated, about.
    pub(crate) fn memory(&self) -> usize {
        self.expiring.memory() + self.sessions.memory()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::format::SessionRecord;

    const HERE: [u8; 16] = [1; 16];

    fn at(wall: u64, ms: u64) -> Times {
        Times { wall, machine: Some(MachineTime { boot: HERE, ms }) }
    }

    fn record(session: u64, deadline: u64, boot: [u8; 16]) -> SessionRecord {
        SessionRecord { session, owner: 1, nonce: 2, ttl: 3, deadline, boot, base_seq: 0 }
    }

    fn owner(session: u64) -> Option<Owner> {
        Some(Owner { session, acquired: 0 })
    }

    #[test]
    fn a_key_is_over_by_its_deadline_or_with_its_session_and_counted_once() {
        let mut lifetimes = Lifetimes::default();
        assert!(!lifetimes.is_over(64, || panic!("without lifetimes no clock is needed")));
        lifetimes.sessions.replay(8, 1, record(1, 100, HERE));
        lifetimes.add(64, b"", 0, owner(1));
        lifetimes.add(128, b"log", 50, owner(1));
        lifetimes.add(192, b"log", 50, None);
        assert_eq!(lifetimes.len(), 3);
        let counts =
            |times| (lifetimes.hidden(times), lifetimes.hidden_in(b"", times), lifetimes.hidden_in(b"log", times));
        for (times, found) in [
            (at(49, 99), (0, 0, 0)),
            (at(50, 99), (2, 0, 2)),
            (at(49, 100), (2, 1, 1)),
            (at(50, 100), (3, 1, 2)),
            (Times { wall: 50, machine: None }, (2, 0, 2)),
        ] {
            assert_eq!(counts(times), found, "{times:?}");
            assert_eq!(lifetimes.has_over(times), found.0 > 0);
            assert_eq!(lifetimes.hidden_by_bucket(times).values().sum::<u64>(), found.0);
            let over = [64, 128, 192].iter().filter(|&&position| lifetimes.is_over(position, || times)).count();
            assert_eq!((over as u64, lifetimes.over_in(b"log", times).len() as u64), (found.0, found.2));
        }
        assert_eq!(lifetimes.until_next(at(20, 98)), Some(Duration::from_millis(2)));
        assert_eq!(lifetimes.until_next(at(20, 100)), Some(Duration::from_millis(30)));
        assert!(lifetimes.living(1, at(0, 99)).is_some() && lifetimes.living(1, at(0, 100)).is_none());
    }

    #[test]
    fn the_deadline_of_another_boot_cannot_be_compared_and_end_needs_no_clock() {
        let mut lifetimes = Lifetimes::default();
        lifetimes.sessions.replay(8, 1, record(1, 100, [9; 16]));
        lifetimes.add(64, b"", 0, owner(1));
        assert!(!lifetimes.is_over(64, || at(0, 1000)) && !lifetimes.has_over(at(0, 1000)));
        assert_eq!(lifetimes.until_next(at(0, 0)), None);
        lifetimes.sessions.replay(160, 3, record(1, 0, [9; 16]));
        assert!(lifetimes.is_over(64, Times::default) && lifetimes.has_over(Times::default()));
        lifetimes.remove(64);
        assert!(!lifetimes.can_be_over() && !lifetimes.has_over(at(0, 1000)));
    }
}
