//! Whether a history of calls, of any number of processes, is one that a store could have had: linearizability of each
//! key, and listings of one moment.
//!
//! # One key
//!
//! A key is a register with compare-and-swap: it is absent or has a value and the index of the write that set it.
//! [`check_key`] asks whether each call can be given one moment between its beginning and its end so that, in the
//! order of these moments, every call says what such a register says, and indexes grow. A call that was under way when
//! its process was killed may have happened at any moment after it began, or not at all.
//!
//! The check walks through the beginnings and ends in the order of time with the set of all *possibilities*: what the
//! key may be, and which of the calls under way have had their moment already. Where a call ends, every possibility is
//! replaced by all those to which it can lead by giving some of the calls under way, the ending one included, their
//! moments in any order, the ending one last: what comes after it can as well come later. If none is left, the history
//! is not linearizable.
//!
//! That is *sound*, nothing linearizable is refused, and *complete*, nothing else passes, since at each end every order
//! of the calls under way is tried, except where trying can make no difference:
//!
//! - A call that changes nothing gets its moment as soon as what it says is true: from then on the possibility allows
//!   all that it allowed before, and has one call less to place.
//! - A write whose index is known, because it was returned or because a read saw its value (no two writes set the
//!   same value), can only have its moment after all those with a lower one and before all those with a higher one:
//!   indexes grow in the order of the log, which is what the contract says of them and what is checked here.
//! - Of two possibilities with the same register, of which one has placed all writes of killed processes that the
//!   other has and more, the latter can do whatever the former can: it never has to place them.
//!
//! The known indexes leave one order of most writes, so there are few possibilities at any time, and the whole takes
//! not much more than one look at each call. (Without them this is an NP-complete problem.)
//!
//! # All keys
//!
//! Linearizability is local: a history is linearizable if that of each key is. Of calls that are about several keys
//! that says too little, so [`check_listings`] also compares listings and batches: what a listing shows must be what
//! all keys were between two units of the log.

use std::collections::{BTreeMap, BTreeSet};

/// Beginning and end of a call, in nanoseconds of a clock that all processes share. A killed process's last call has
/// no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub began: u64,
    pub ended: Option<u64>,
}

/// What a call has to do with one key, and what it said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// It returned this value and its index, or that there is none.
    Saw(Option<(u64, u64)>),
    SawPresence(bool),
    /// Set a value under this condition. The index, if it was returned.
    Put {
        value: u64,
        only_if: Condition,
        index: Option<u64>,
    },
    Delete {
        only_if: Condition,
        index: Deleted,
    },
    /// Was refused, because the condition did not hold in this way.
    Refused(Condition, Refusal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Always,
    Absent,
    Index(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Exists,
    NotFound,
    Modified,
}

/// What a deletion returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// Only that the key is gone now.
    Nothing,
    /// That there was nothing to delete.
    WasAbsent,
    Index(u64),
}

/// A call, as far as it is about one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    pub span: Span,
    pub act: Act,
}

/// What a key may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Register {
    Absent,
    /// Set by a write with this index.
    Index(u64),
    /// Set by this call, whose index is unknown.
    Unseen(usize),
}

/// What may have become of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Possibility {
    register: Register,
    /// The highest known index of a write that has had its moment.
    upto: u64,
    /// The calls that have begun, have not ended, and have had their moment.
    placed: BTreeSet<usize>,
}

/// One key's history, made ready to be checked.
struct Key<'c> {
    calls: &'c [Call],
    /// The known indexes of writes, and whose they are.
    writes: BTreeMap<u64, usize>,
    /// The other way round.
    index: Vec<Option<u64>>,
}

/// Checks one key's history. Every value must be set by one call at most.
///
/// # Errors
///
/// Which call cannot be placed, and what the key may have been at its end.
pub fn check_key(calls: &[Call]) -> Result<(), String> {
    let key = Key::new(calls)?;
    // At the same moment beginnings come first, for then the calls may have overlapped.
    let ends = calls.iter().enumerate().filter_map(|(at, call)| call.span.ended.map(|ended| (ended, 1, at)));
    let begins = calls.iter().enumerate().map(|(at, call)| (call.span.began, 0, at));
    let mut events: Vec<(u64, u8, usize)> = begins.chain(ends).collect();
    events.sort_unstable();

    let mut open = BTreeSet::new();
    let mut possible = vec![Possibility { register: Register::Absent, upto: 0, placed: BTreeSet::new() }];
    for (_, what, at) in events {
        if what == 0 {
            open.insert(at);
            continue;
        }
        let mut next = BTreeSet::new();
        for possibility in &possible {
            key.place(possibility, at, &open, &mut next);
        }
        open.remove(&at);
        if next.is_empty() {
            return Err(format!("{:?} cannot have happened: before it ended there was {possible:?}", calls[at]));
        }
        possible = key.without_idle(next.into_iter().map(|mut possibility| {
            possibility.placed.remove(&at);
            possibility
        }));
    }
    Ok(())
}

impl<'c> Key<'c> {
    fn new(calls: &'c [Call]) -> Result<Key<'c>, String> {
        let mut setters = BTreeMap::new();
        let mut key = Key { calls, writes: BTreeMap::new(), index: vec![None; calls.len()] };
        for (at, call) in calls.iter().enumerate() {
            match call.act {
                Act::Put { value, index, .. } => {
                    if setters.insert(value, at).is_some() {
                        return Err(format!("value {value} is set twice: the history says nothing"));
                    }
                    key.know(at, index)?;
                }
                Act::Delete { index: Deleted::Index(index), .. } => key.know(at, Some(index))?,
                _ => {}
            }
        }
        for call in calls {
            if let Act::Saw(Some((value, index))) = call.act {
                let setter = setters.get(&value).ok_or_else(|| format!("{call:?}: that was never set"))?;
                key.know(*setter, Some(index))?;
            }
        }
        Ok(key)
    }

    fn know(&mut self, at: usize, index: Option<u64>) -> Result<(), String> {
        let Some(index) = index else { return Ok(()) };
        let known = *self.index[at].get_or_insert(index);
        let owner = *self.writes.entry(index).or_insert(at);
        if known != index || owner != at {
            return Err(format!("index {index} belongs to {:?} and to {:?}", self.calls[owner], self.calls[at]));
        }
        Ok(())
    }

    /// Adds everything that may have become of `from` when the call `at` has just had its moment.
    fn place(&self, from: &Possibility, at: usize, open: &BTreeSet<usize>, found: &mut BTreeSet<Possibility>) {
        // Those with the fewest writes of killed processes first, so that a state that has more of them and gains nothing by
        // it is recognised at once.
        let mut waiting = BTreeSet::from([(self.optional(&from.placed), from.clone())]);
        let mut tried = BTreeMap::<(Register, u64), Vec<BTreeSet<usize>>>::new();
        while let Some((_, mut possibility)) = waiting.pop_first() {
            self.place_reads(&mut possibility, open);
            let alike = tried.entry((possibility.register, possibility.upto)).or_default();
            if alike.iter().any(|placed| self.allows_all_that(placed, &possibility.placed)) {
                continue;
            }
            alike.push(possibility.placed.clone());
            if possibility.placed.contains(&at) {
                found.insert(possibility);
                continue;
            }
            for &other in open.difference(&possibility.placed) {
                if let Some((register, upto)) = self.step(&possibility, other) {
                    let placed: BTreeSet<usize> = possibility.placed.iter().copied().chain([other]).collect();
                    waiting.insert((self.optional(&placed), Possibility { register, upto, placed }));
                }
            }
        }
    }

    /// How many of these need not happen.
    fn optional(&self, placed: &BTreeSet<usize>) -> usize {
        placed.iter().filter(|at| self.calls[**at].span.ended.is_none()).count()
    }

    /// Whether a state that has placed these calls can do everything that the other can, if the register is the same.
    fn allows_all_that(&self, placed: &BTreeSet<usize>, other: &BTreeSet<usize>) -> bool {
        placed.is_subset(other) && other.difference(placed).all(|at| self.calls[*at].span.ended.is_none())
    }

    /// Gives every call under way that can only read, and says what is true now, its moment.
    fn place_reads(&self, possibility: &mut Possibility, open: &BTreeSet<usize>) {
        for &at in open {
            if only_reads(self.calls[at].act) && self.step(possibility, at).is_some() {
                possibility.placed.insert(at);
            }
        }
    }

    /// What the register and the highest known index are after a call that has its moment now, if it can have been
    /// acknowledged then what it was acknowledged.
    fn step(&self, possibility: &Possibility, at: usize) -> Option<(Register, u64)> {
        let register = possibility.register;
        let absent = register == Register::Absent;
        let after = |right: bool, register| right.then_some((register, possibility.upto));
        match self.calls[at].act {
            Act::Saw(None) => after(absent, register),
            Act::Saw(Some((_, index))) => after(register == Register::Index(index), register),
            Act::SawPresence(there) => after(there != absent, register),
            Act::Refused(condition, refusal) => after(refused(condition, register) == Some(refusal), register),
            Act::Put { only_if, .. } if refused(only_if, register).is_none() => self.write(possibility, at, true),
            Act::Delete { only_if, index } if refused(only_if, register).is_none() => match index {
                Deleted::WasAbsent => after(absent, register),
                Deleted::Nothing if absent => after(true, register),
                Deleted::Index(_) if absent => None,
                Deleted::Nothing | Deleted::Index(_) => self.write(possibility, at, false),
            },
            Act::Put { .. } | Act::Delete { .. } => None,
        }
    }

    /// A write is the next of those whose indexes are known, or its index is not known.
    fn write(&self, possibility: &Possibility, at: usize, puts: bool) -> Option<(Register, u64)> {
        let mut later = self.writes.range(possibility.upto + 1..);
        let (written, upto) = match self.index[at] {
            None => (Register::Unseen(at), possibility.upto),
            Some(index) if later.next().is_some_and(|(next, _)| *next == index) => (Register::Index(index), index),
            Some(_) => return None,
        };
        Some((if puts { written } else { Register::Absent }, upto))
    }

    /// Leaves out possibilities that allow nothing that another does not allow: see the module's text.
    fn without_idle(&self, possible: impl Iterator<Item = Possibility>) -> Vec<Possibility> {
        let all: BTreeSet<Possibility> = possible.collect();
        let allows_all_that = |one: &Possibility, other: &Possibility| {
            (one.register, one.upto) == (other.register, other.upto)
                && one != other
                && self.allows_all_that(&one.placed, &other.placed)
        };
        all.iter().filter(|other| !all.iter().any(|one| allows_all_that(one, other))).cloned().collect()
    }
}

/// Whether a call changes nothing, whenever it happens.
fn only_reads(act: Act) -> bool {
    match act {
        Act::Put { .. } => false,
        Act::Delete { index, .. } => index == Deleted::WasAbsent,
        Act::Saw(_) | Act::SawPresence(_) | Act::Refused(..) => true,
    }
}

/// How a condition is refused, if it is.
fn refused(condition: Condition, register: Register) -> Option<Refusal> {
    match (condition, register) {
        (Condition::Always, _) | (Condition::Absent, Register::Absent) => None,
        (Condition::Absent, _) => Some(Refusal::Exists),
        (Condition::Index(_), Register::Absent) => Some(Refusal::NotFound),
        (Condition::Index(expected), Register::Index(index)) if expected == index => None,
        (Condition::Index(_), _) => Some(Refusal::Modified),
    }
}

/// A version of a key: the index that it is seen with, and the last index of the batch that wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub key: usize,
    pub index: u64,
    pub unit: u64,
}

/// Checks that each listing shows one moment: a place between two units of the log at which every key had the version
/// that the listing shows, or was not there if it shows none.
///
/// `versions` are all that are known. An unknown one may make a listing wrong that passes.
///
/// # Errors
///
/// The listing, and the two versions that it cannot show or miss together.
pub fn check_listings(versions: &[Version], listings: &[Vec<(usize, u64)>]) -> Result<(), String> {
    let mut of_key = BTreeMap::<usize, Vec<Version>>::new();
    for version in versions {
        of_key.entry(version.key).or_default().push(*version);
    }
    of_key.values_mut().for_each(|versions| versions.sort_unstable_by_key(|version| version.index));
    for listing in listings {
        // Units after which the moment lies, and before which.
        let (mut after, mut before) = (0, u64::MAX);
        for (key, index) in listing {
            let versions = of_key.get(key).map_or(&[][..], Vec::as_slice);
            let at = versions.binary_search_by_key(index, |version| version.index);
            let at = at.map_err(|_| format!("no call has written index {index} of key {key}"))?;
            after = after.max(versions[at].unit);
            before = before.min(versions.get(at + 1).map_or(u64::MAX, |next| next.unit));
        }
        if after >= before {
            return Err(format!("{listing:?} shows what unit {after} has written, and not what unit {before} has"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(began: u64, ended: u64, act: Act) -> Call {
        Call { span: Span { began, ended: Some(ended) }, act }
    }

    fn killed(began: u64, act: Act) -> Call {
        Call { span: Span { began, ended: None }, act }
    }

    fn put(value: u64) -> Act {
        Act::Put { value, only_if: Condition::Always, index: None }
    }

    fn acknowledged(value: u64, index: u64) -> Act {
        Act::Put { value, only_if: Condition::Always, index: Some(index) }
    }

    fn swap(value: u64, from: u64, index: u64) -> Act {
        Act::Put { value, only_if: Condition::Index(from), index: Some(index) }
    }

    fn create(value: u64, index: u64) -> Act {
        Act::Put { value, only_if: Condition::Absent, index: Some(index) }
    }

    fn saw(value: u64, index: u64) -> Act {
        Act::Saw(Some((value, index)))
    }

    const NOTHING: Act = Act::Saw(None);
    const DELETE: Act = Act::Delete { only_if: Condition::Always, index: Deleted::Nothing };

    fn deleted(index: u64) -> Act {
        Act::Delete { only_if: Condition::Always, index: Deleted::Index(index) }
    }

    /// Calls one after the other.
    fn in_turn(acts: &[Act]) -> Vec<Call> {
        acts.iter().enumerate().map(|(at, act)| call(10 * at as u64, 10 * at as u64 + 5, *act)).collect()
    }

    #[track_caller]
    fn good(calls: &[Call]) {
        check_key(calls).unwrap();
    }

    #[track_caller]
    fn bad(calls: &[Call]) {
        check_key(calls).expect_err("no store says this");
    }

    #[test]
    fn a_history_without_overlaps_passes() {
        good(&in_turn(&[NOTHING, put(1), saw(1, 5), DELETE, NOTHING, create(2, 9), swap(3, 9, 11), saw(3, 11)]));
        good(&in_turn(&[create(1, 3), Act::Refused(Condition::Absent, Refusal::Exists), saw(1, 3)]));
        good(&in_turn(&[acknowledged(1, 3), Act::Refused(Condition::Index(2), Refusal::Modified), deleted(4)]));
        good(&in_turn(&[Act::Refused(Condition::Index(2), Refusal::NotFound), Act::SawPresence(false)]));
        good(&in_turn(&[acknowledged(1, 3), Act::SawPresence(true), DELETE, DELETE, Act::SawPresence(false)]));
    }

    #[test]
    fn a_read_of_an_overwritten_value_is_found() {
        bad(&in_turn(&[acknowledged(1, 1), acknowledged(2, 2), saw(1, 1)]));
        bad(&in_turn(&[acknowledged(1, 1), put(2), saw(1, 1)]));
        bad(&in_turn(&[acknowledged(1, 1), DELETE, saw(1, 1)]));
    }

    #[test]
    fn an_acknowledged_write_that_is_lost_is_found() {
        bad(&in_turn(&[put(1), NOTHING]));
        bad(&in_turn(&[put(1), Act::SawPresence(false)]));
        bad(&in_turn(&[acknowledged(1, 1), Act::Refused(Condition::Index(1), Refusal::NotFound)]));
        bad(&in_turn(&[acknowledged(1, 1), create(2, 2)]));
    }

    #[test]
    fn a_deleted_key_that_comes_back_is_found() {
        bad(&in_turn(&[put(1), DELETE, Act::SawPresence(true)]));
        bad(&in_turn(&[acknowledged(1, 1), deleted(2), Act::Refused(Condition::Absent, Refusal::Exists)]));
    }

    #[test]
    fn two_reads_that_order_two_writes_differently_are_found() {
        // Both writes overlap everything.
        let writes = [call(0, 100, put(1)), call(0, 100, put(2))];
        let reads = |acts: [Act; 4]| {
            let spans = [(10, 20), (30, 40), (10, 20), (30, 40)];
            spans.into_iter().zip(acts).map(|((began, ended), act)| call(began, ended, act)).collect::<Vec<_>>()
        };
        good(&[&writes[..], &reads([saw(1, 1), saw(2, 2), saw(1, 1), saw(2, 2)])].concat());
        bad(&[&writes[..], &reads([saw(1, 1), saw(2, 2), saw(2, 2), saw(1, 1)])].concat());
    }

    #[test]
    fn a_read_that_goes_back_in_time_is_found() {
        let under_way = call(0, 100, put(2));
        let before = call(0, 1, acknowledged(1, 1));
        good(&[before, under_way, call(10, 20, saw(1, 1)), call(30, 40, saw(2, 2))]);
        bad(&[before, under_way, call(10, 20, saw(2, 2)), call(30, 40, saw(1, 1))]);
    }

    #[test]
    fn two_swaps_from_the_same_version_are_found() {
        bad(&[call(0, 1, acknowledged(1, 1)), call(2, 9, swap(2, 1, 2)), call(2, 9, swap(3, 1, 3))]);
        good(&[
            call(0, 1, acknowledged(1, 1)),
            call(2, 9, swap(2, 1, 2)),
            call(2, 9, Act::Refused(Condition::Index(1), Refusal::Modified)),
        ]);
    }

    #[test]
    fn a_swap_refused_without_a_change_is_found() {
        bad(&in_turn(&[acknowledged(1, 1), Act::Refused(Condition::Index(1), Refusal::Modified), saw(1, 1)]));
        bad(&in_turn(&[acknowledged(1, 1), DELETE, Act::Refused(Condition::Absent, Refusal::Exists)]));
    }

    #[test]
    fn an_index_that_repeats_or_goes_back_is_found() {
        bad(&in_turn(&[acknowledged(1, 5), acknowledged(2, 5)]));
        bad(&in_turn(&[acknowledged(1, 5), acknowledged(2, 4)]));
        bad(&in_turn(&[acknowledged(1, 5), saw(1, 6)]));
        bad(&in_turn(&[acknowledged(1, 5), deleted(5)]));
    }

    #[test]
    fn a_value_without_a_write_is_found() {
        bad(&in_turn(&[saw(1, 1)]));
    }

    #[test]
    fn a_killed_processs_last_call_may_happen_or_not() {
        let pending = killed(20, put(2));
        let before = call(0, 10, acknowledged(1, 1));
        good(&[before, pending, call(30, 40, saw(1, 1))]);
        good(&[before, pending, call(30, 40, saw(2, 2))]);
        good(&[before, pending, call(30, 40, saw(1, 1)), call(50, 60, saw(2, 2))]);
        // But not before it began, not twice, and not be taken back.
        bad(&[before, pending, call(12, 15, saw(2, 2))]);
        bad(&[before, pending, call(30, 40, saw(2, 2)), call(50, 60, saw(1, 1))]);
        let gone = killed(20, DELETE);
        good(&[before, gone, call(30, 40, saw(1, 1)), call(50, 60, NOTHING)]);
        bad(&[before, gone, call(30, 40, NOTHING), call(50, 60, saw(1, 1))]);
    }

    #[test]
    fn an_unfinished_write_may_explain_what_others_saw() {
        let hidden = killed(5, put(2));
        good(&[
            call(0, 1, acknowledged(1, 1)),
            hidden,
            call(10, 20, Act::Refused(Condition::Index(1), Refusal::Modified)),
            call(30, 40, acknowledged(3, 9)),
            call(50, 60, saw(3, 9)),
        ]);
        // Once: it cannot explain both.
        bad(&[
            call(0, 1, acknowledged(1, 1)),
            hidden,
            call(10, 20, Act::Refused(Condition::Index(1), Refusal::Modified)),
            call(30, 40, acknowledged(3, 9)),
            call(50, 60, Act::Refused(Condition::Index(9), Refusal::Modified)),
        ]);
    }

    #[test]
    fn a_pending_swap_needs_its_version_to_be_there() {
        let pending = killed(20, swap(2, 1, 3));
        let pending = Call { act: Act::Put { value: 2, only_if: Condition::Index(1), index: None }, ..pending };
        good(&[call(0, 10, acknowledged(1, 1)), pending, call(30, 40, saw(2, 3))]);
        bad(&[call(0, 10, acknowledged(1, 1)), call(12, 14, acknowledged(4, 2)), pending, call(30, 40, saw(2, 3))]);
    }

    /// Short histories, checked once more by brute force: all orders that time allows, of all or some of what is pending.
    #[test]
    fn the_verdict_is_that_of_trying_all_orders() {
        let acts = [
            put(1),
            acknowledged(2, 2),
            acknowledged(3, 3),
            saw(1, 1),
            saw(2, 2),
            saw(3, 3),
            NOTHING,
            DELETE,
            deleted(4),
            swap(5, 2, 5),
            Act::SawPresence(true),
            Act::Refused(Condition::Index(2), Refusal::Modified),
            create(6, 6),
        ];
        // Each call overlaps the others or not, in all the ways in which four may; or is pending.
        let spans = [(0, 10), (5, 15), (11, 20), (16, 30), (0, 40), (12, u64::MAX)];
        let (mut verdicts, mut seed) = ([0u32; 2], 1u64);
        for _ in 0..60_000 {
            let mut draw = |below: usize| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 33) as usize % below
            };
            let mut calls = Vec::new();
            for _ in 0..4 {
                let ((began, ended), act) = (spans[draw(spans.len())], acts[draw(acts.len())]);
                calls.push(Call { span: Span { began, ended: (ended < u64::MAX).then_some(ended) }, act });
            }
            let Ok(key) = Key::new(&calls) else { continue };
            let possible = try_all(&key, &Possibility { register: Register::Absent, upto: 0, placed: BTreeSet::new() });
            assert_eq!(check_key(&calls).is_ok(), possible, "{calls:#?}");
            verdicts[usize::from(possible)] += 1;
        }
        assert!(verdicts.iter().all(|times| *times > 100), "{verdicts:?}");
    }

    /// Whether the calls that have no place yet can be placed one after the other.
    fn try_all(key: &Key<'_>, from: &Possibility) -> bool {
        let rest: Vec<usize> = (0..key.calls.len()).filter(|at| !from.placed.contains(at)).collect();
        if rest.iter().all(|at| key.calls[*at].span.ended.is_none()) {
            return true;
        }
        // The next one must have begun before any of the others has ended.
        let first_end = rest.iter().filter_map(|at| key.calls[*at].span.ended).min().unwrap();
        rest.iter().any(|&at| {
            let placed = from.placed.iter().copied().chain([at]).collect();
            let next = key.step(from, at).map(|(register, upto)| Possibility { register, upto, placed });
            key.calls[at].span.began <= first_end && next.is_some_and(|next| try_all(key, &next))
        })
    }

    #[test]
    fn a_pending_delete_may_delete_a_later_put() {
        let delete = call(0, 100, DELETE);
        good(&[delete, call(1, 2, NOTHING), call(10, 20, acknowledged(1, 1)), call(30, 40, NOTHING)]);
    }

    #[test]
    fn a_listing_that_mixes_two_moments_is_found() {
        let version = |key, index, unit| Version { key, index, unit };
        let versions = [version(0, 1, 1), version(1, 2, 2), version(0, 4, 5), version(1, 5, 5), version(0, 6, 6)];
        let listing = |a, b| vec![vec![(0, a), (1, b)]];
        check_listings(&versions, &listing(1, 2)).unwrap();
        check_listings(&versions, &listing(4, 5)).unwrap();
        check_listings(&versions, &listing(6, 5)).unwrap();
        check_listings(&versions, &listing(4, 2)).expect_err("half a batch");
        check_listings(&versions, &listing(1, 5)).expect_err("the other half");
        check_listings(&versions, &listing(6, 2)).expect_err("an old moment and a new one");
        check_listings(&versions, &listing(1, 3)).expect_err("what was never written");
    }
}
