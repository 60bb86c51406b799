//! Keys that expire, beside everything else that happens to a store, and with a clock that is set forward and back at any call.
//!
//! Random lives of three processes on one store and one clock. The log's own state is found by a handle of its own, with the clock
//! set back before all deadlines: nothing is hidden then. From the state before a call and the time at which the call looked at
//! the clock follow its answer, what it changes, and what it may remove besides. A watch that only reads says which events it made:
//! the end of each pair comes once, as a delete by itself, and before a put that takes the key again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use caskfile::disk::Clock;
use caskfile::disk::sim::{Choices, Repeat, SimDisk, Verb, When};
use caskfile::{
    Batch, Cask, ChangeRef, CompactionPolicy, Config, Error, Limits, OptionalExt, PutOptions, ReadMode, SnapshotPolicy,
    Watch, WatchFrom, WatchOptions,
};

use crate::common::dice::Dice;
use crate::counts::{add, counts};
use crate::storm::{Story, setting};

const STORE: &str = "/store";
const COPY: &str = "/copy";
const BUCKETS: [&str; 3] = ["", "log", "other"];
const PROCESSES: usize = 3;
/// By this the clock is set back before all deadlines, in milliseconds.
const FAR: i64 = 1_700_000_000_000;

/// Bucket and key.
type Name = (String, String);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pair {
    value: Vec<u8>,
    /// Milliseconds since 1970.
    deadline: Option<u64>,
    index: u64,
}

impl Pair {
    fn is_over(&self, now: u64) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }
}

type State = BTreeMap<Name, Pair>;

/// A put or a delete that a watch has delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Event {
    name: Name,
    pair: Option<Pair>,
}

counts!(
    in_front,
    swept,
    shown_again,
    decided_late,
    refused,
    over_at_once,
    swept_by_a_watch,
    compacted,
    cuts,
    cut_between,
    stalled
);

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn milliseconds(time: Option<SystemTime>) -> Option<u64> {
    time.map(|time| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64)
}

fn shown(state: &State, now: u64) -> State {
    state.iter().filter(|(_, pair)| !pair.is_over(now)).map(|(name, pair)| (name.clone(), pair.clone())).collect()
}

/// The pairs that a handle shows now.
fn shown_by(cask: &Cask) -> State {
    let mut state = State::new();
    let mut scan = cask.scan_by_index().unwrap();
    let len = scan.len();
    while let Some(next) = scan.next_ref() {
        let (bucket, pair) = next.unwrap();
        let deadline = milliseconds(pair.expires_at);
        let name = (text(bucket), text(pair.key));
        state.insert(name, Pair { value: pair.value.to_vec(), deadline, index: pair.last_index });
    }
    assert_eq!(len, state.len());
    state
}

/// What one operation does and expects.
#[derive(Debug, Clone)]
enum Op {
    Put(Name, Vec<u8>, Option<Duration>),
    Delete(Name),
    ExpectAbsent(Name),
    ExpectIndex(Name, u64),
}

impl Op {
    fn name(&self) -> &Name {
        match self {
            Op::Put(name, ..) | Op::Delete(name) | Op::ExpectAbsent(name) | Op::ExpectIndex(name, _) => name,
        }
    }
}

/// Why a condition does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Exists,
    Absent,
    Modified,
}

fn refusal(error: &Error) -> Option<(usize, Refusal)> {
    match error {
        Error::BatchConflict { op, cause } => refusal(cause).map(|(_, refusal)| (*op, refusal)),
        Error::KeyExists => Some((0, Refusal::Exists)),
        Error::KeyNotFound => Some((0, Refusal::Absent)),
        Error::KeyModified => Some((0, Refusal::Modified)),
        _ => None,
    }
}

/// The first condition that does not hold for what is shown.
fn refused(ops: &[Op], shown: &State) -> Option<(usize, Refusal)> {
    ops.iter().enumerate().find_map(|(at, op)| {
        let refusal = match op {
            Op::Put(..) | Op::Delete(_) => None,
            Op::ExpectAbsent(name) => shown.contains_key(name).then_some(Refusal::Exists),
            Op::ExpectIndex(name, index) => match shown.get(name) {
                None => Some(Refusal::Absent),
                Some(pair) if pair.index != *index => Some(Refusal::Modified),
                Some(_) => None,
            },
        };
        refusal.map(|refusal| (at, refusal))
    })
}

struct Life {
    disk: SimDisk,
    clock: Clock,
    processes: Vec<SimDisk>,
    casks: Vec<Option<Cask>>,
    /// Reads only, and is never closed: it must know what all others do.
    observer: Option<(Cask, Watch)>,
    /// What the watch's events fold to.
    folded: State,
    /// The state of the log after the last call.
    log: State,
    /// Pairs that were removed since a sync, because they were over.
    removed: Vec<(Name, Pair)>,
    /// All indexes that were handed out.
    used: BTreeSet<u64>,
    values: u64,
    counts: Arc<Counts>,
}

fn config(dice: &mut Dice) -> Config {
    Config::new()
        .read_mode(dice.choose(&[ReadMode::Map, ReadMode::Pread]))
        .connection_timeout(Duration::ZERO)
        .compaction(CompactionPolicy::Manual)
        .snapshots(dice.choose(&[SnapshotPolicy::AtClose, SnapshotPolicy::Never]))
}

impl Life {
    fn new(dice: &mut Dice, counts: &Arc<Counts>) -> Life {
        let disk = SimDisk::from_seed(dice.roll());
        disk.set_limits(Limits { least_cost: dice.choose(&[1, 500]), ..Limits::mixed(dice.roll()) });
        let clock = disk.stop_clock();
        let cask = Cask::open_on(Arc::new(disk.process()), STORE, &Config::new()).unwrap();
        cask.sync().unwrap();
        cask.close().unwrap();
        let mut life = Life {
            processes: (0..PROCESSES).map(|_| disk.process()).collect(),
            disk,
            clock,
            casks: vec![None; PROCESSES],
            observer: None,
            folded: State::new(),
            log: State::new(),
            removed: Vec::new(),
            used: BTreeSet::new(),
            values: 0,
            counts: Arc::clone(counts),
        };
        life.observe();
        life
    }

    /// Opens the handle that observes, and a watch from here on.
    fn observe(&mut self) {
        let config = Config::new().read_only(true);
        let cask = Cask::open_on(Arc::new(self.disk.process()), STORE, &config).unwrap();
        let options = WatchOptions::new().all_buckets(true).lag(u64::MAX);
        let watch = cask.changes_with("", WatchFrom::Now, &options).unwrap();
        self.observer = Some((cask, watch));
        self.folded = self.state_of_log();
    }

    fn now(&self) -> u64 {
        self.clock.wall().as_millis() as u64
    }

    /// All pairs in the log, hidden or not.
    fn state_of_log(&self) -> State {
        self.clock.set_wall(-FAR);
        let state = shown_by(&self.observer.as_ref().unwrap().0);
        self.clock.set_wall(FAR);
        state
    }

    fn open(&mut self, n: usize, dice: &mut Dice) -> Cask {
        let (process, config) = (self.processes[n].clone(), config(dice));
        let open = || Cask::open_on(Arc::new(process.clone()), STORE, &config).unwrap();
        self.casks[n].get_or_insert_with(open).clone()
    }

    fn name(dice: &mut Dice) -> Name {
        (dice.choose(&BUCKETS).to_owned(), format!("key {}", dice.below(9)))
    }

    fn op(&mut self, dice: &mut Dice) -> Op {
        let name = Life::name(dice);
        match dice.below(10) {
            0..=5 => {
                self.values += 1;
                let mut value = self.values.to_le_bytes().to_vec();
                value.resize(8 + dice.choose(&[0, 3, 200]), 7);
                let ttl = dice.choose(&[0, 1, 5, 20, 20, 100, 1000]);
                Op::Put(name, value, (ttl > 0).then(|| Duration::from_millis(ttl)))
            }
            6 | 7 => Op::Delete(name),
            8 => Op::ExpectAbsent(name),
            _ => {
                // The pair that is there, or one of before.
                let index = self.log.get(&name).map(|pair| pair.index).filter(|_| !dice.one_in(4));
                let index = index.or_else(|| self.used.iter().next_back().copied()).unwrap_or(1);
                Op::ExpectIndex(name, index)
            }
        }
    }

    /// A write. Returns its error, and the index of each operation.
    fn write(cask: &Cask, ops: &[Op], alone: bool) -> Result<Vec<Option<u64>>, Error> {
        let at = |name: &Name| cask.bucket(&name.0).unwrap();
        let options = |ttl: &Option<Duration>| PutOptions::new().ttl(*ttl);
        match ops {
            [Op::Put(name, value, None)] if alone => at(name).put(&name.1, value).map(|index| vec![Some(index)]),
            [Op::Put(name, value, ttl)] if alone => {
                let pair = at(name).put_with(&name.1, value, &options(ttl))?;
                assert_eq!(pair.value, *value);
                Ok(vec![Some(pair.last_index)])
            }
            [Op::Delete(name)] if alone => at(name).delete(&name.1).map(|()| vec![None]),
            [Op::ExpectAbsent(on), Op::Put(name, value, ttl)] if alone && on == name => {
                let pair = at(name).atomic_put_with(&name.1, value, None, &options(ttl))?;
                Ok(vec![None, Some(pair.last_index)])
            }
            [Op::ExpectIndex(on, index), Op::Put(name, value, ttl)] if alone && on == name => {
                let previous = caskfile::KvPair::new(&*name.1, "", *index);
                let pair = at(name).atomic_put_with(&name.1, value, Some(&previous), &options(ttl))?;
                Ok(vec![None, Some(pair.last_index)])
            }
            [Op::ExpectIndex(on, index), Op::Delete(name)] if alone && on == name => {
                at(name).delete_if(&name.1, *index).map(|()| vec![None, None])
            }
            ops => {
                let mut batch = Batch::new();
                for op in ops {
                    let (Op::Put(name, ..) | Op::Delete(name) | Op::ExpectAbsent(name) | Op::ExpectIndex(name, _)) = op;
                    batch.bucket(&name.0);
                    match op {
                        Op::Put(_, value, None) => batch.put(&name.1, value),
                        Op::Put(_, value, ttl) => batch.put_with(&name.1, value, &options(ttl)),
                        Op::Delete(_) => batch.delete(&name.1),
                        Op::ExpectAbsent(_) => batch.expect_absent(&name.1),
                        Op::ExpectIndex(_, index) => batch.expect_last_index(&name.1, *index),
                    };
                }
                let applied = cask.write(&batch)?;
                Ok((0..ops.len()).map(|op| applied.last_index_of(op)).collect())
            }
        }
    }

    /// Sets the clock before one of the next calls to the disk. The times by which a call may have looked follow.
    fn stall(&self, n: usize, dice: &mut Dice) -> Vec<u64> {
        let before = self.now();
        if !dice.one_in(3) {
            return vec![before];
        }
        add(&self.counts.stalled);
        let by = dice.choose(&[1, 5, 20, 1000, -1, -5, -1000]);
        let verb = dice.choose(&[Verb::WriteAt, Verb::ReadAt, Verb::SyncData, Verb::TryLock]);
        let (clock, process) = (self.clock.clone(), &self.processes[n]);
        let when = When::nth(1 + dice.below(3)).of(verb).by(process);
        process.before(when, Repeat::Once, move |_| clock.set_wall(by));
        vec![before, before.saturating_add_signed(by)]
    }

    /// Each look moves the clock, so that a second one would be noticed.
    fn look_once<T>(&self, dice: &mut Dice, call: impl FnOnce() -> T) -> (u64, T) {
        let (now, step) = (self.now(), dice.choose(&[0, 1, 7, 50, -1, -7, -50]));
        self.clock.set_wall_at_looks(step);
        let looks = self.clock.wall_looks();
        let result = call();
        let looks = self.clock.wall_looks() - looks;
        self.clock.set_wall_at_looks(0);
        self.clock.set_wall(-step * looks as i64);
        assert!(looks <= 1, "{looks} looks at the clock");
        (now, result)
    }

    /// The events since the last call, in units.
    fn events(&mut self) -> Vec<Vec<Event>> {
        let (_, watch) = self.observer.as_mut().unwrap();
        let mut units = Vec::new();
        while let Some(mut unit) = watch.try_next().unwrap() {
            let mut events = Vec::new();
            while let Some(next) = unit.next_with_bucket() {
                let (bucket, change) = next.unwrap();
                let pair = match change {
                    ChangeRef::Put(pair) => Some(Pair {
                        value: pair.value.to_vec(),
                        deadline: milliseconds(pair.expires_at),
                        index: pair.last_index,
                    }),
                    ChangeRef::Delete { .. } => None,
                };
                events.push(Event { name: (text(bucket), text(change.key())), pair });
            }
            units.push(events);
        }
        for Event { name, pair } in units.iter().flatten() {
            match pair {
                Some(pair) => drop(self.folded.insert(name.clone(), pair.clone())),
                None => assert!(self.folded.remove(name).is_some(), "{name:?} is deleted a second time"),
            }
        }
        units
    }

    /// Writes, and finds a time of which answer, changes and events are right.
    fn write_some(&mut self, n: usize, dice: &mut Dice) {
        let (alone, mut ops) = (dice.one_in(2), vec![self.op(dice)]);
        for _ in 0..dice.choose(&[0, 0, 1, 1, 2, 5]) {
            let next = self.op(dice);
            // Often of the same key.
            let next = match (next, ops.last().unwrap().clone()) {
                (Op::Put(_, value, ttl), Op::ExpectAbsent(name) | Op::ExpectIndex(name, _)) => {
                    Op::Put(name, value, ttl)
                }
                (Op::Delete(_), Op::ExpectIndex(name, _)) => Op::Delete(name),
                (next, _) => next,
            };
            ops.push(next);
        }
        let cask = self.open(n, dice);
        let times = self.stall(n, dice);
        let cuts = if dice.one_in(6) { Some(self.cut_between(dice.roll())) } else { None };
        let answer = Life::write(&cask, &ops, alone);
        self.disk.clear_hooks();
        let answer = answer.map_err(|error| refusal(&error).unwrap_or_else(|| panic!("{error:?}")));
        let (units, after) = (self.events(), self.state_of_log());
        let judge = |now| self.judge(&ops, &answer, &units, &after, now);
        let verdicts: Vec<Result<(), String>> = times.iter().map(|&now| judge(now)).collect();
        let Some(at) = verdicts.iter().position(Result::is_ok) else {
            panic!("{ops:?}\n{answer:?}\n{units:?}\nbefore: {:?}\nafter: {after:?}\n{times:?}: {verdicts:?}", self.log)
        };
        if at == 1 && verdicts[0].is_err() {
            add(&self.counts.decided_late);
        }
        for left in cuts.iter().flat_map(|cuts| cuts.lock().unwrap().clone()) {
            add(&self.counts.cut_between);
            self.expect_before_or_after(&left, &after, times[at]);
        }
        if answer.is_err() {
            add(&self.counts.refused);
        }
        self.used.extend(answer.iter().flatten().flatten());
        self.take(after);
    }

    /// Finds out what the log has after power cuts before the next calls that change the disk.
    fn cut_between(&self, seed: u64) -> Arc<Mutex<Vec<State>>> {
        let left = Arc::new(Mutex::new(Vec::new()));
        let (found, dice, clock) = (Arc::clone(&left), Mutex::new(Dice::new(seed)), self.clock.clone());
        self.disk.before(When::next().of_any(&Verb::CHANGING), Repeat::Forever, move |disk| {
            let mut choices = Choices::from_seed(dice.lock().unwrap().roll());
            let after = disk.reboot(&mut choices);
            after.set_clock(&clock);
            // A writer cuts off what is torn. It removes nothing by the clock.
            let cask = Cask::open_on(Arc::new(after.process()), STORE, &Config::new()).unwrap();
            clock.set_wall(-FAR);
            let state = shown_by(&cask);
            clock.set_wall(FAR);
            cask.verify().unwrap();
            found.lock().unwrap().push(state);
        });
        left
    }

    /// A power cut within a write leaves all of it or nothing, and of what was over any part.
    fn expect_before_or_after(&self, left: &State, after: &State, now: u64) {
        let (before, mut done, mut undone) = (&self.log, 0, 0);
        let names: BTreeSet<&Name> = before.keys().chain(after.keys()).chain(left.keys()).collect();
        for name in names {
            let was_over = before.get(name).is_some_and(|pair| pair.is_over(now));
            let (old, new, found) = (before.get(name), after.get(name), left.get(name));
            let came_back = self.removed.iter().any(|(removed, pair)| removed == name && found == Some(pair));
            if found == new && new != old && !(new.is_none() && was_over) {
                done += 1;
            } else if new != old && !(new.is_none() && was_over) {
                undone += 1;
            }
            let is_right = found == old || found == new || found.is_none() && was_over || came_back;
            assert!(is_right, "{name:?} was {old:?}, is to be {new:?}, and is {found:?}");
        }
        assert!(done == 0 || undone == 0, "half a write: {before:?}\n{after:?}\n{left:?}");
    }

    /// Whether a write whose turn has looked at the clock at this time gives that answer and does that.
    fn judge(
        &self,
        ops: &[Op],
        answer: &Result<Vec<Option<u64>>, (usize, Refusal)>,
        units: &[Vec<Event>],
        after: &State,
        now: u64,
    ) -> Result<(), String> {
        let before = shown(&self.log, now);
        let (mut expected, mut written, mut own) = (before.clone(), BTreeSet::new(), Vec::new());
        let mut touched = BTreeSet::new();
        match (refused(ops, &before), answer) {
            (None, Ok(indexes)) => {
                for (op, index) in ops.iter().zip(indexes) {
                    touched.insert(op.name());
                    match op {
                        Op::Put(name, value, ttl) => {
                            let deadline = ttl.map(|ttl| now + ttl.as_millis() as u64);
                            let index = index.ok_or("a put without an index")?;
                            let pair = Pair { value: value.clone(), deadline, index };
                            own.push(Event { name: name.clone(), pair: Some(pair.clone()) });
                            expected.insert(name.clone(), pair);
                            written.insert(name.clone());
                        }
                        Op::Delete(name) => {
                            if expected.remove(name).is_some() {
                                own.push(Event { name: name.clone(), pair: None });
                                written.insert(name.clone());
                            }
                        }
                        Op::ExpectAbsent(_) | Op::ExpectIndex(..) => {}
                    }
                }
            }
            (Some(refusal), Err(found)) if refusal == *found => {}
            (refusal, _) => return Err(format!("expected {refusal:?}")),
        }
        self.changed(&expected, &written, after, now)?;
        // The events: deletes of keys that were over and that the call names, the caller's own unit, deletes of others that are over.
        let mut units = units.iter();
        let is_over = |name: &&Name| self.log.get(*name).is_some_and(|pair| pair.is_over(now));
        let in_front: BTreeSet<&Name> = touched.into_iter().filter(is_over).collect();
        let mut removed = BTreeSet::new();
        for _ in &in_front {
            match units.next().map(Vec::as_slice) {
                Some([Event { name, pair: None }]) if in_front.contains(name) => drop(removed.insert(name)),
                other => return Err(format!("instead of a delete in front: {other:?}")),
            }
        }
        if removed != in_front {
            return Err(format!("{removed:?} were removed in front, instead of {in_front:?}"));
        }
        if !own.is_empty() && units.next() != Some(&own) {
            return Err("the write is not there as a unit".to_owned());
        }
        for unit in units {
            match unit.as_slice() {
                [Event { name, pair: None }] if !written.contains(name) && own.iter().len() > 0 => {
                    if !self.log.get(name).is_some_and(|pair| pair.is_over(now)) {
                        return Err(format!("{name:?} is removed, and is not over"));
                    }
                    add(&self.counts.swept);
                }
                // A pair that has lived for no time: it was over when the turn looked... which cannot be, since it lives longer.
                other => return Err(format!("not expected: {other:?}")),
            }
        }
        self.counts.in_front.fetch_add(in_front.len() as u64, Relaxed);
        Ok(())
    }

    /// Whether the log has changed as expected: what was not shown may be gone.
    fn changed(&self, expected: &State, written: &BTreeSet<Name>, after: &State, now: u64) -> Result<(), String> {
        for (name, pair) in after {
            let was_hidden = || self.log.get(name).filter(|old| old.is_over(now) && !written.contains(name));
            if expected.get(name) != Some(pair) && was_hidden() != Some(pair) {
                return Err(format!("{name:?} is {pair:?}"));
            }
        }
        match expected.iter().find(|(name, _)| !after.contains_key(*name)) {
            Some((name, _)) => Err(format!("{name:?} is missing")),
            None => Ok(()),
        }
    }

    /// Goes on from a state of the log.
    fn take(&mut self, after: State) {
        assert_eq!(self.folded, after, "what the watch's events fold to");
        self.log = after;
    }

    /// A call that changes nothing that is shown, at a time between these.
    fn expect_only_removals(&mut self, times: &[u64], what: &str) -> usize {
        let (units, after) = (self.events(), self.state_of_log());
        let is_right = |&now: &u64| {
            let is_over = |name: &Name| self.log.get(name).is_some_and(|pair| pair.is_over(now));
            let removes = |unit: &Vec<Event>| matches!(&unit[..], [Event { name, pair: None }] if is_over(name));
            units.iter().all(removes) && self.changed(&shown(&self.log, now), &BTreeSet::new(), &after, now).is_ok()
        };
        assert!(times.iter().any(is_right), "{what}: {units:?}, {:?}, {after:?}", self.log);
        let gone = self.log.iter().filter(|(name, _)| !after.contains_key(*name));
        let gone: Vec<_> = gone.map(|(name, pair)| (name.clone(), pair.clone())).collect();
        let removed = gone.len();
        self.removed.extend(gone);
        self.take(after);
        removed
    }

    /// Reads in every way, each with one look at the clock.
    fn read(&mut self, n: usize, dice: &mut Dice) {
        let cask = self.open(n, dice);
        let name = Life::name(dice);
        let bucket = cask.bucket(&name.0).unwrap();
        let of_bucket = |state: &State| -> State {
            state.iter().filter(|((bucket, _), _)| *bucket == name.0).map(|(n, p)| (n.clone(), p.clone())).collect()
        };
        let state_of = |pairs: Vec<caskfile::KvPair>| -> Vec<(String, Vec<u8>, u64)> {
            pairs.into_iter().map(|pair| (text(&pair.key), pair.value, pair.last_index)).collect()
        };
        let listed = |state: &State| -> Vec<(String, Vec<u8>, u64)> {
            state.iter().map(|((_, key), pair)| (key.clone(), pair.value.clone(), pair.index)).collect()
        };
        match dice.below(9) {
            0 => {
                let (now, found) = self.look_once(dice, || bucket.get(&name.1).optional().unwrap());
                let found = found.map(|pair| (pair.value, pair.last_index));
                let expected = shown(&self.log, now).get(&name).map(|pair| (pair.value.clone(), pair.index));
                assert_eq!(found, expected, "{name:?} at {now}");
            }
            1 => {
                let (now, found) = self.look_once(dice, || bucket.exists(&name.1).unwrap());
                assert_eq!(found, shown(&self.log, now).contains_key(&name), "{name:?} at {now}");
            }
            2 => {
                let (now, found) = self.look_once(dice, || bucket.expires_at(&name.1).optional().unwrap());
                let expected = shown(&self.log, now).get(&name).map(|pair| pair.deadline);
                assert_eq!(found.map(milliseconds), expected, "{name:?} at {now}");
            }
            3 => {
                let (now, found) = self.look_once(dice, || (bucket.len().unwrap(), ()));
                assert_eq!(found.0 as usize, of_bucket(&shown(&self.log, now)).len(), "{} at {now}", name.0);
            }
            4 => {
                let prefix = dice.choose(&["", "key ", "key 3", "none"]);
                let (now, found) = self.look_once(dice, || bucket.list(prefix).unwrap());
                let mut expected = listed(&of_bucket(&shown(&self.log, now)));
                expected.retain(|(key, ..)| key.starts_with(prefix));
                assert_eq!(state_of(found), expected, "{} at {now}", name.0);
            }
            5 => {
                // The clock goes on while the scan does.
                let (from, to) = (format!("key {}", dice.below(9)), format!("key {}", dice.below(10)));
                let (now, mut scan) = self.look_once(dice, || bucket.range(from.as_str()..to.as_str()).unwrap());
                let mut expected = listed(&of_bucket(&shown(&self.log, now)));
                expected.retain(|(key, ..)| *key >= from && *key < to);
                self.clock.set_wall(1000);
                let mut left: std::collections::VecDeque<_> = expected.into();
                while !left.is_empty() {
                    assert_eq!(scan.len(), left.len());
                    let (next, expected) = match dice.one_in(2) {
                        true => (scan.next(), left.pop_front()),
                        false => (scan.next_back(), left.pop_back()),
                    };
                    assert_eq!(state_of(vec![next.unwrap().unwrap()]), [expected.unwrap()]);
                }
                assert!(scan.next().is_none() && scan.next_back().is_none());
                assert_eq!(scan.len(), 0);
                self.clock.set_wall(-1000);
            }
            6 => {
                let (now, stats) = self.look_once(dice, || cask.stats().unwrap());
                let now_shown = shown(&self.log, now);
                let buckets: BTreeSet<&String> = now_shown.keys().map(|(bucket, _)| bucket).collect();
                let expiring = now_shown.values().filter(|pair| pair.deadline.is_some()).count();
                let hidden = self.log.len() - now_shown.len();
                let found = [stats.keys, stats.buckets, stats.expiring, stats.hidden].map(|n| n as usize);
                assert_eq!(found, [now_shown.len(), buckets.len(), expiring, hidden], "at {now}");
            }
            7 => {
                let (now, scans) = self.look_once(dice, || cask.scan_buckets().unwrap());
                let mut found = BTreeMap::new();
                for scan in scans {
                    let (bucket, pairs) = scan.unwrap();
                    let (len, pairs) = (pairs.len(), pairs.collect::<Result<Vec<_>, _>>().unwrap());
                    assert_eq!(pairs.len(), len);
                    found.insert(text(&bucket), state_of(pairs));
                }
                let mut expected = BTreeMap::<String, Vec<_>>::new();
                for ((bucket, key), pair) in shown(&self.log, now) {
                    expected.entry(bucket).or_default().push((key, pair.value, pair.index));
                }
                assert_eq!(found, expected, "at {now}");
            }
            _ => {
                let (now, found) = self.look_once(dice, || shown_by(&cask));
                assert_eq!(found, shown(&self.log, now), "at {now}");
            }
        }
        self.expect_only_removals(&[0], "a read");
    }

    /// A call of a process. What it has done is compared with what it may do.
    fn act(&mut self, n: usize, dice: &mut Dice) {
        match dice.below(30) {
            0..=13 => self.write_some(n, dice),
            14..=22 => self.read(n, dice),
            23 => {
                let cask = self.open(n, dice);
                let (bucket, prefix) = (dice.choose(&BUCKETS), dice.choose(&["", "key 3"]));
                let bucket_of = cask.bucket(bucket).unwrap();
                let (now, deleted) = self.look_once(dice, || bucket_of.delete_prefix(prefix).unwrap());
                let is_deleted = |(in_bucket, key): &Name| in_bucket == bucket && key.starts_with(prefix);
                let mut expected = shown(&self.log, now);
                let before = expected.len();
                expected.retain(|name, _| !is_deleted(name));
                assert_eq!(deleted as usize, before - expected.len(), "what was shown is counted");
                self.events();
                let after = self.state_of_log();
                let written = shown(&self.log, now).into_keys().filter(is_deleted).collect();
                self.changed(&expected, &written, &after, now).unwrap();
                self.take(after);
            }
            24 => {
                let cask = self.open(n, dice);
                let times = self.stall(n, dice);
                cask.compact().unwrap();
                self.disk.clear_hooks();
                add(&self.counts.compacted);
                // It knows no clock.
                let _ = times;
                assert_eq!(self.state_of_log(), self.log);
                self.expect_only_removals(&[0], "a compaction");
                cask.verify().unwrap();
            }
            25 => {
                let cask = self.open(n, dice);
                let outsider = self.disk.process();
                let _ = caskfile::disk::Disk::remove(&outsider, COPY.as_ref());
                if dice.one_in(2) {
                    cask.backup(COPY).unwrap()
                } else {
                    cask.compact_to(COPY).unwrap()
                };
                let copy = Cask::open_on(Arc::new(self.disk.process()), COPY, &Config::new().read_only(true)).unwrap();
                self.clock.set_wall(-FAR);
                assert_eq!(shown_by(&copy), self.log, "a copy has what the log has");
                self.clock.set_wall(FAR);
            }
            26 => {
                // A watch of a handle that can write removes what is over.
                let cask = self.open(n, dice);
                let times = self.stall(n, dice);
                let mut watch = cask.changes("", WatchFrom::Now).unwrap();
                for _ in 0..dice.below(4) {
                    while watch.try_next().unwrap().is_some() {}
                }
                self.disk.clear_hooks();
                let times = [times, vec![self.now()]].concat();
                if self.expect_only_removals(&times, "a watch") > 0 {
                    add(&self.counts.swept_by_a_watch);
                }
            }
            27 => {
                let cask = self.open(n, dice);
                match dice.below(3) {
                    0 => cask.reopen().unwrap(),
                    1 => drop(cask.write_snapshot().unwrap()),
                    _ => cask.sync().unwrap(),
                }
                self.expect_only_removals(&[0], "a call that knows no keys");
            }
            28 => {
                if let Some(cask) = self.casks[n].take() {
                    cask.verify().unwrap();
                    cask.close().unwrap();
                }
                self.expect_only_removals(&[0], "a close");
            }
            _ => {
                self.processes[n].kill();
                self.casks[n] = None;
                self.processes[n] = self.disk.process();
                self.expect_only_removals(&[0], "a kill");
            }
        }
    }

    /// Cuts the power. All writes were synced; a sweep by a watch need not be.
    fn cut(&mut self, dice: &mut Dice) {
        add(&self.counts.cuts);
        let mut choices = match dice.below(3) {
            0 => Choices::keep_nothing(),
            1 => Choices::keep_all(),
            _ => Choices::from_seed(dice.roll()),
        };
        let after = self.disk.reboot(&mut choices);
        self.disk.cut();
        (self.casks, self.observer) = (vec![None; PROCESSES], None);
        self.disk = after;
        self.disk.set_clock(&self.clock);
        self.processes = (0..PROCESSES).map(|_| self.disk.process()).collect();
        // A writer cuts the tail off first.
        drop(self.open(0, dice));
        self.observe();
        let after = self.state_of_log();
        for (name, pair) in &after {
            let came_back = self.removed.iter().any(|(old, removed)| old == name && removed == pair);
            assert!(self.log.get(name) == Some(pair) || came_back, "{name:?} is {pair:?}");
        }
        assert!(self.log.keys().all(|name| after.contains_key(name)), "{after:?} instead of {:?}", self.log);
        self.log = after;
    }
}

/// `CASKFILE_EXPIRY` is the number of lives (400).
#[test]
fn every_call_takes_a_key_that_is_over_for_absent_and_each_end_is_seen_once() {
    let lives = setting("CASKFILE_EXPIRY").unwrap_or(400);
    let first = setting("CASKFILE_CRASH_SEED").unwrap_or(0);
    let counts = Arc::new(Counts::default());
    for seed in first..first + lives {
        let mut dice = Dice::new(seed ^ 0xe9_0123);
        let mut life = Life::new(&mut dice, &counts);
        let story = Story(seed, 0.into());
        for step in 0..80 {
            story.1.set(step);
            let by = dice.choose(&[0, 0, 1, 1, 3, 10, 30, 200, -1, -10, -300]);
            let before = shown(&life.log, life.now());
            life.clock.set_wall(by);
            let after = shown(&life.log, life.now());
            if by < 0 && after.len() > before.len() {
                add(&counts.shown_again);
            }
            counts.over_at_once.fetch_add(u64::from(before.len() > after.len() + 1), Relaxed);
            if dice.one_in(30) {
                life.cut(&mut dice);
            } else {
                life.act(dice.below(PROCESSES as u64) as usize, &mut dice);
            }
        }
        for n in 0..PROCESSES {
            life.open(n, &mut dice).verify().unwrap();
        }
        std::mem::forget(story);
    }
    println!("{lives} lives: {counts:?}");
    if lives >= 400 {
        counts.expect_all(5);
    }
}
