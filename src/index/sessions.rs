//! The sessions of a log: the newest record of each that has no END, and which pairs belong to which session.
//!
//! This is what the log says. A session without a record here is over for good: its END is in the log, or a compaction has left it
//! out. Whether another one is over also depends on a clock, and on the lock that its owner holds, for which the engine asks.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::lifetimes::MachineTime;
use crate::format::{Owner, SessionRecord};

/// The sessions of a log. A store that uses none pays a look at an empty table.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    /// Those that have no END, by their numbers.
    live: HashMap<u64, Newest>,
    /// Their boots, deadlines and numbers.
    order: BTreeSet<Place>,
    /// The owner of each owned pair and the name of its bucket, by the position of its record.
    owners: HashMap<u64, (Owner, Arc<[u8]>)>,
    /// The positions of each session's pairs, also of sessions that are over. A session without pairs is not here.
    pairs: HashMap<u64, BTreeSet<u64>>,
    /// The sessions that have pairs and are over for good.
    ended: BTreeSet<u64>,
}

/// Where a session stands among all: its boot, its deadline and its number.
pub(crate) type Place = ([u8; 16], u64, u64);

/// The last record of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Newest {
    pub(crate) position: u64,
    pub(crate) seq: u64,
    pub(crate) record: SessionRecord,
}

impl Sessions {
    /// Whether the log has neither a session without END nor an owned pair.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.live.is_empty() && self.owners.is_empty()
    }

    /// Whether no pair is owned.
    #[inline]
    pub(crate) fn has_no_pairs(&self) -> bool {
        self.owners.is_empty()
    }

    /// Whether no session is without END.
    #[inline]
    pub(crate) fn has_no_live(&self) -> bool {
        self.live.is_empty()
    }

    /// Replays a session's record, which follows all before. The last record of a session counts.
    pub(crate) fn replay(&mut self, position: u64, seq: u64, record: SessionRecord) {
        let before = if record.is_end() {
            self.live.remove(&record.session)
        } else {
            self.order.insert(in_order(&record));
            self.live.insert(record.session, Newest { position, seq, record })
        };
        if let Some(before) = before.filter(|before| record.is_end() || in_order(&before.record) != in_order(&record)) {
            self.order.remove(&in_order(&before.record));
        }
        if !record.is_end() {
            self.ended.remove(&record.session);
        } else if self.pairs.contains_key(&record.session) {
            self.ended.insert(record.session);
        }
    }

    /// Adds the owned pair whose record, in this bucket, is at `position`.
    pub(crate) fn add(&mut self, position: u64, bucket: &[u8], owner: Owner) {
        self.owners.insert(position, (owner, Arc::from(bucket)));
        self.pairs.entry(owner.session).or_default().insert(position);
        if !self.live.contains_key(&owner.session) {
            self.ended.insert(owner.session);
        }
    }

    /// Removes the pair whose record is at `position`, if it is here: the record was replaced or removed.
    #[inline]
    pub(crate) fn remove(&mut self, position: u64) {
        if !self.owners.is_empty() {
            self.remove_one(position);
        }
    }

    fn remove_one(&mut self, position: u64) {
        let Some((Owner { session, .. }, _)) = self.owners.remove(&position) else { return };
        if let Entry::Occupied(mut pairs) = self.pairs.entry(session) {
            pairs.get_mut().remove(&position);
            if pairs.get().is_empty() {
                pairs.remove();
                self.ended.remove(&session);
            }
        }
    }

    /// The last record of a session. `None` if the session is over for good.
    #[inline]
    pub(crate) fn newest(&self, session: u64) -> Option<&Newest> {
        self.live.get(&session)
    }

    /// The owner of the pair whose record is at `position`, if it has one.
    #[inline]
    pub(crate) fn owner(&self, position: u64) -> Option<Owner> {
        if self.owners.is_empty() { None } else { self.owners.get(&position).map(|&(owner, _)| owner) }
    }

    /// The sessions that have no END, in any order.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Newest> + '_ {
        self.live.values()
    }

    /// The positions of the records that a copy of the log needs, in any order: the last one of each session without END.
    pub(crate) fn positions(&self) -> impl Iterator<Item = u64> + '_ {
        self.live().map(|newest| newest.position)
    }

    /// The number of owned pairs, and of sessions that have no END.
    pub(crate) fn records(&self) -> u64 {
        (self.owners.len() + self.live.len()) as u64
    }

    /// The positions of a session's pairs, in the order of the log.
    pub(crate) fn pairs_of(&self, session: u64) -> impl Iterator<Item = u64> + '_ {
        self.pairs.get(&session).into_iter().flatten().copied()
    }

    /// The positions of all owned pairs, in any order.
    pub(crate) fn owned(&self) -> impl Iterator<Item = u64> + '_ {
        self.owners.keys().copied()
    }

    /// The sessions that have pairs and are over for good.
    pub(crate) fn ended(&self) -> impl Iterator<Item = u64> + '_ {
        self.ended.iter().copied()
    }

    /// The sessions without END whose deadline has passed, in the order of their deadlines. Those of other boots are left out: their
    /// deadlines cannot be compared.
    pub(crate) fn past_deadline(&self, now: Option<MachineTime>) -> impl Iterator<Item = u64> + '_ {
        let range = now.map(|MachineTime { boot, ms }| (boot, 0, 0)..=(boot, ms, u64::MAX));
        range.into_iter().flat_map(|range| self.order.range(range)).map(|&(_, _, session)| session)
    }

    /// The sessions without END, those of one boot together, in the order of their deadlines: first those after a place in this order, then
    /// the others.
    pub(crate) fn places_after(&self, after: Place) -> impl Iterator<Item = Place> + '_ {
        let rest = self.order.range((Bound::Excluded(after), Bound::Unbounded));
        rest.chain(self.order.range(..=after)).copied()
    }

    /// Whether a session is over: it has no record, or its deadline has passed and can be compared.
    pub(crate) fn is_over(&self, session: u64, now: Option<MachineTime>) -> bool {
        self.newest(session).is_none_or(|Newest { record, .. }| {
            now.is_some_and(|now| now.boot == record.boot && now.ms >= record.deadline)
        })
    }

    /// Whether a session that is over has pairs, or no END.
    pub(crate) fn has_over(&self, now: Option<MachineTime>) -> bool {
        !self.ended.is_empty() || self.past_deadline(now).next().is_some()
    }

    /// The pairs of the sessions that are over, and the names of their buckets.
    pub(crate) fn pairs_over(&self, now: Option<MachineTime>) -> impl Iterator<Item = (u64, &Arc<[u8]>)> {
        let over = self.ended().chain(self.past_deadline(now));
        let bucket = |position| self.owners.get(&position).map(|(_, bucket)| (position, bucket));
        over.flat_map(|session| self.pairs_of(session)).filter_map(bucket)
    }

    /// The first deadline of this boot after this moment.
    pub(crate) fn next_deadline(&self, now: MachineTime) -> Option<u64> {
        let after = self.order.range((now.boot, now.ms.saturating_add(1), 0)..=(now.boot, u64::MAX, u64::MAX)).next();
        after.map(|&(_, deadline, _)| deadline)
    }

    /// Whether both have the same records at the same positions.
    pub(crate) fn is_same(&self, other: &Sessions) -> bool {
        self.live == other.live && self.owners == other.owners
    }

    /// Whether a copy of the log says the same, at positions of its own.
    pub(crate) fn is_copied_by(&self, copy: &Sessions) -> bool {
        let has = |newest: &Newest| {
            let found = copy.newest(newest.record.session);
            found.is_some_and(|found| (found.seq, found.record) == (newest.seq, newest.record))
        };
        self.live.len() == copy.live.len()
            && self.live().all(has)
            && self.pairs.len() == copy.pairs.len()
            && self.pairs.iter().all(|(session, pairs)| copy.pairs.get(session).map(BTreeSet::len) == Some(pairs.len()))
    }

    /// Bytes allocated, about: how full the nodes of the sets are is not known.
    pub(crate) fn memory(&self) -> usize {
        self.live.capacity() * (size_of::<(u64, Newest)>() + 1)
            + self.live.len() * size_of::<([u8; 16], u64, u64)>() * 3 / 2
            + self.owners.capacity() * (size_of::<(u64, (Owner, Arc<[u8]>))>() + 1)
            + self.pairs.capacity() * (size_of::<(u64, BTreeSet<u64>)>() + 1)
            + self.owners.len() * size_of::<u64>() * 3 / 2
    }
}

fn in_order(record: &SessionRecord) -> Place {
    (record.boot, record.deadline, record.session)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(session: u64, deadline: u64) -> SessionRecord {
        SessionRecord { session, owner: 1, nonce: 2, ttl: 3, deadline, boot: [4; 16], base_seq: 0 }
    }

    fn owner(session: u64) -> Owner {
        Owner { session, acquired: session + 1 }
    }

    #[test]
    fn the_last_record_of_a_session_counts_until_its_end() {
        let mut sessions = Sessions::default();
        assert!(sessions.is_empty() && sessions.newest(1).is_none());
        sessions.replay(64, 1, record(1, 10));
        sessions.replay(152, 2, record(2, 10));
        sessions.replay(240, 3, record(1, 20));
        assert_eq!(sessions.newest(1), Some(&Newest { position: 240, seq: 3, record: record(1, 20) }));
        let mut positions: Vec<u64> = sessions.positions().collect();
        positions.sort_unstable();
        assert_eq!(positions, [152, 240]);
        sessions.replay(328, 4, record(1, 0));
        assert!(sessions.newest(1).is_none());
        assert_eq!(sessions.live().map(|newest| newest.record.session).collect::<Vec<_>>(), [2]);
        sessions.replay(416, 5, record(2, 0));
        assert!(sessions.is_empty());
    }

    #[test]
    fn from_any_place_each_session_comes_once() {
        let mut sessions = Sessions::default();
        (1..=4).for_each(|session| sessions.replay(64 * session, session, record(session, 10 * session)));
        let from = |deadline| sessions.places_after(([4; 16], deadline, 0)).map(|place| place.2).collect::<Vec<_>>();
        assert_eq!((from(0), from(25), from(99)), (vec![1, 2, 3, 4], vec![3, 4, 1, 2], vec![1, 2, 3, 4]));
        let after = sessions.places_after(([4; 16], 20, 2)).next();
        assert_eq!(after, Some(([4; 16], 30, 3)), "the place itself comes last");
    }

    #[test]
    fn pairs_belong_to_their_session_until_they_are_removed() {
        let mut sessions = Sessions::default();
        sessions.replay(64, 1, record(1, 10));
        [160, 240, 320].into_iter().for_each(|position| sessions.add(position, b"", owner(1)));
        sessions.add(400, b"log", owner(7));
        assert_eq!(sessions.pairs_of(1).collect::<Vec<_>>(), [160, 240, 320]);
        assert_eq!((sessions.owner(240), sessions.owner(241)), (Some(owner(1)), None));
        assert_eq!(sessions.ended().collect::<Vec<_>>(), [7], "it has a pair and no record");
        sessions.replay(480, 9, record(1, 0));
        let mut ended: Vec<u64> = sessions.ended().collect();
        ended.sort_unstable();
        assert_eq!(ended, [1, 7]);
        [160, 161, 240, 320, 400].into_iter().for_each(|position| sessions.remove(position));
        assert!(sessions.is_empty() && sessions.has_no_pairs() && sessions.pairs.is_empty());
        assert!(sessions.ended.is_empty() && sessions.order.is_empty());
    }

    #[test]
    fn a_copy_has_the_same_sessions_elsewhere() {
        let build = |shift: u64, seq: u64, session: u64, pairs: u64| {
            let mut sessions = Sessions::default();
            sessions.replay(64 + shift, seq, record(1, 10));
            (0..pairs).for_each(|n| sessions.add(160 + 80 * n + shift, b"", owner(session)));
            sessions
        };
        let of = build(0, 5, 1, 2);
        assert!(of.is_same(&build(0, 5, 1, 2)) && !of.is_same(&build(8, 5, 1, 2)));
        assert!(of.is_copied_by(&build(8, 5, 1, 2)));
        for other in [build(8, 6, 1, 2), build(8, 5, 2, 2), build(8, 5, 1, 1), build(8, 5, 1, 3)] {
            assert!(!of.is_copied_by(&other));
        }
        let mut more = build(8, 5, 1, 2);
        more.replay(800, 9, record(2, 10));
        assert!(!of.is_copied_by(&more) && !more.is_copied_by(&of));
    }
}
