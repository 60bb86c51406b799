//! All small groups of requests on two keys, with failing calls to the disk, against a model of the allowed outcomes.
//!
//! There must be one order of the requests that explains all outcomes and the pairs that the log holds afterwards, for this
//! handle, for another process and for a new one. A request that failed has changed nothing, unless the handle is poisoned.
//! Only some of the groups are tried, unless `CASKFILE_GROUPS=all` is set.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::disk::sim::{Choices, Fault, Repeat, SimDisk, Verb, When};
use crate::engine::Engine;
use crate::engine::write::outcome::Failure;
use crate::engine::write::request::Condition;
use crate::{Config, ReadMode};

const KEYS: [&[u8]; 2] = [b"\0a", b"\0b"];

/// What one operation of a request does to the key with this number.
#[derive(Debug, Clone, Copy)]
enum Op {
    Put(usize),
    Delete(usize),
    /// Expects the sequence number that the key had before the group.
    First(usize),
    /// Expects a sequence number that no key has.
    Other(usize),
    /// Expects that the key does not exist.
    Absent(usize),
}

use Op::{Absent, Delete, First, Other, Put};

/// Before the group, key 0 exists and key 1 does not.
const REQUESTS: [&[Op]; 18] = [
    &[Put(0)],
    &[Put(1)],
    &[Delete(0)],
    &[Delete(1)],
    &[Absent(0), Put(0)],
    &[First(0), Put(0)],
    &[Other(0), Put(0)],
    &[Absent(1), Put(1)],
    &[Other(1), Put(1)],
    &[First(0), Delete(0)],
    &[Other(1), Delete(1)],
    &[First(0)],
    &[Absent(0), Absent(1)],
    &[First(0), Absent(1)],
    &[Put(0), Delete(1)],
    &[Put(1), Delete(0)],
    &[Put(1), Delete(1)],
    &[Delete(0), Delete(0), Put(1)],
];

/// The put that made each key's value; 0 is the one before the group.
type State = [Option<u8>; 2];

const START: State = [Some(0), None];

/// The value that an operation of a request puts.
fn value(request: usize, op: usize) -> u8 {
    (1 + request * 4 + op) as u8
}

/// Why a condition does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Exists,
    Absent,
    Modified,
}

/// The effect of a request on a state: how many records it writes, how many keys it removes, and the state after it; or the
/// condition that refuses it.
fn predict(request: usize, ops: &[Op], state: State) -> std::result::Result<(u64, u64, State), (usize, Refusal)> {
    for (op, condition) in ops.iter().enumerate() {
        let refusal = match *condition {
            Put(_) | Delete(_) => None,
            Absent(key) => state[key].map(|_| Refusal::Exists),
            First(key) | Other(key) => match state[key] {
                None => Some(Refusal::Absent),
                Some(0) if matches!(condition, First(_)) => None,
                Some(_) => Some(Refusal::Modified),
            },
        };
        if let Some(refusal) = refusal {
            return Err((op, refusal));
        }
    }
    let (mut writes, mut deleted, mut after) = (0, 0, state);
    for (op, action) in ops.iter().enumerate() {
        match *action {
            Put(key) => {
                writes += 1;
                after[key] = Some(value(request, op));
            }
            Delete(key) if after[key].take().is_some() => {
                writes += 1;
                deleted += 1;
            }
            _ => {}
        }
    }
    Ok((writes, deleted, after))
}

/// The answer that a request got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Done {
        last_index: Option<u64>,
        deleted: u64,
    },
    Refused(usize, Refusal),
    /// The request has changed nothing.
    Failed,
    /// The outcome is unknown.
    Poisoned,
}

impl Answer {
    fn of(outcome: &Outcome) -> Answer {
        match outcome {
            Ok(written) => Answer::Done { last_index: written.last_index, deleted: written.deleted },
            Err(Failure::Condition { op, cause }) => {
                let refusal = match cause {
                    Error::KeyExists => Refusal::Exists,
                    Error::KeyNotFound => Refusal::Absent,
                    Error::KeyModified => Refusal::Modified,
                    other => panic!("no condition is refused by {other}"),
                };
                Answer::Refused(*op, refusal)
            }
            Err(Failure::Error(Error::Poisoned { .. })) => Answer::Poisoned,
            Err(Failure::Error(_)) => Answer::Failed,
        }
    }
}

/// Returns whether some order of the requests explains the answers and the state that was found.
fn is_legal(group: &[&[Op]], answers: &[Answer], state: State, found: State) -> bool {
    fn search(group: &[&[Op]], answers: &[Answer], left: u32, state: State, found: State) -> bool {
        if left == 0 {
            return state == found;
        }
        (0..group.len()).filter(|request| left & 1 << request != 0).any(|request| {
            let go_on = |state| search(group, answers, left & !(1 << request), state, found);
            let predicted = predict(request, group[request], state);
            match (answers[request], predicted) {
                (Answer::Done { last_index, deleted }, Ok((writes, removed, after))) => {
                    last_index.is_some() == (writes > 0) && deleted == removed && go_on(after)
                }
                (Answer::Refused(op, refusal), Err(predicted)) => predicted == (op, refusal) && go_on(state),
                (Answer::Failed, _) => go_on(state),
                (Answer::Poisoned, Ok((_, _, after))) => go_on(state) || go_on(after),
                (Answer::Poisoned, Err(_)) => go_on(state),
                _ => false,
            }
        })
    }
    search(group, answers, (1 << group.len()) - 1, state, found)
}

/// Which calls fail while a group is committed, and how.
type Faults = Vec<(When, Fault, Repeat)>;

/// A store with key 0 in it, and another process that has it open.
struct Case {
    disk: SimDisk,
    ours: Engine,
    theirs: Engine,
    durability: Durability,
    /// The sequence number of key 0.
    first: u64,
}

fn open(disk: SimDisk, durability: Durability) -> Result<Engine> {
    let config = Config::new().durability(durability).read_mode(ReadMode::Pread);
    Engine::open(Arc::new(disk), Path::new("/store"), &config)
}

fn put(key: &[u8], value: u8) -> Request<'static> {
    let mut request = Request::default();
    request.push(key, Action::Put(&[value; 8]));
    request
}

fn expect(request: &mut Request, key: usize, condition: Condition) {
    request.push_if(KEYS[key], Some(condition), Action::Keep);
}

/// The values and sequence numbers of the two keys.
fn read(engine: &Engine) -> [Option<(u8, u64)>; 2] {
    let view = engine.reading.current().unwrap();
    KEYS.map(|key| {
        let position = view.find(key).unwrap()?;
        let mut value = Vec::new();
        let start = view.reader.start(position).unwrap();
        let seq = view.reader.value_into(&start, key, &mut value, true).unwrap();
        assert_eq!(value, [value[0]; 8]);
        Some((value[0], seq))
    })
}

fn values(found: [Option<(u8, u64)>; 2]) -> State {
    found.map(|pair| pair.map(|(value, _)| value))
}

impl Case {
    /// `unsynced`: the other process has written the last record and not synced it.
    fn new(durability: Durability, unsynced: bool) -> Case {
        let disk = SimDisk::new();
        let ours = open(disk.process(), durability).unwrap();
        let theirs = open(disk.process(), Durability::Os).unwrap();
        ours.commit(put(KEYS[0], 0)).unwrap();
        if unsynced {
            theirs.commit(put(KEYS[0], 0)).unwrap();
        }
        let first = read(&ours)[0].unwrap().1;
        Case { disk, ours, theirs, durability, first }
    }

    fn requests(&self, group: &[&[Op]]) -> Vec<Request<'static>> {
        let requests = group.iter().enumerate().map(|(number, ops)| {
            let mut request = Request::default();
            for (op, action) in ops.iter().enumerate() {
                let bytes = [value(number, op); 8];
                match *action {
                    Put(key) => request.push(KEYS[key], Action::Put(&bytes)),
                    Delete(key) => request.push(KEYS[key], Action::Delete),
                    First(key) => expect(&mut request, key, Condition::Seq(self.first)),
                    Other(key) => expect(&mut request, key, Condition::Seq(1)),
                    Absent(key) => expect(&mut request, key, Condition::Absent),
                }
            }
            request
        });
        requests.collect()
    }

    /// Commits a group in one turn. Returns the answers, and how many calls and how many writes there were.
    fn commit(&self, group: &[&[Op]], faults: &Faults) -> (Vec<Answer>, u64, u64) {
        let requests = self.requests(group);
        let (outcomes, calls, writes) = self
            .ours
            .writing
            .solo(self.ours.context.deadline(), |turn| {
                let before = (self.disk.calls(), self.disk.calls_of(Verb::WriteAt));
                faults.iter().for_each(|&(when, fault, repeat)| self.disk.fail(when, fault, repeat));
                let outcomes = turn.commit(&requests);
                self.disk.clear_faults();
                Ok((outcomes, self.disk.calls() - before.0, self.disk.calls_of(Verb::WriteAt) - before.1))
            })
            .unwrap();
        (outcomes.iter().map(Answer::of).collect(), calls, writes)
    }

    /// Compares the answers with what the log holds.
    fn check(self, group: &[&[Op]], answers: &[Answer]) -> std::result::Result<(), String> {
        let found = read(&self.ours);
        if !is_legal(group, answers, START, values(found)) {
            return Err(format!("the log holds {found:?}"));
        }
        for (value, seq) in found.into_iter().flatten().filter(|(value, _)| *value > 0) {
            let (request, op) = (usize::from(value - 1) / 4, usize::from(value - 1) % 4);
            let Answer::Done { last_index: Some(last_index), .. } = answers[request] else { continue };
            let lowest = last_index - (group[request].len() - 1 - op) as u64;
            if seq <= self.first || seq > last_index || seq < lowest {
                return Err(format!("request {request} got the last_index {last_index}, and the log holds {found:?}"));
            }
        }
        for other in [&self.theirs, &open(self.disk.process(), Durability::Os).unwrap()] {
            if read(other) != found {
                return Err(format!("this handle shows {found:?}, another one {:?}", read(other)));
            }
        }
        let done = answers.iter().any(|answer| matches!(answer, Answer::Done { .. }));
        let poisoned = self.ours.writing.syncs.check_poison().is_err();
        if poisoned && done || !poisoned && answers.contains(&Answer::Poisoned) {
            return Err(format!("poisoned is {poisoned}"));
        }
        if done && self.durability == Durability::Sync {
            let rebooted = self.disk.reboot(&mut Choices::keep_nothing());
            let left = read(&open(rebooted, Durability::Os).unwrap());
            if left != found {
                return Err(format!("the log holds {found:?}, and after a power cut {left:?}"));
            }
        }
        if poisoned {
            self.ours.reopen().map_err(|error| format!("it cannot be reopened: {error}"))?;
            if read(&self.ours) != found {
                return Err(format!("the log holds {found:?}, and after reopening {:?}", read(&self.ours)));
            }
        }
        self.ours.commit(put(KEYS[1], 99)).map_err(|failure| format!("afterwards: {}", failure.error()))?;
        let after = values(read(&self.theirs));
        if after != [values(found)[0], Some(99)] {
            return Err(format!("the log holds {found:?}, and after another put {after:?}"));
        }
        Ok(())
    }
}

/// Lengths of short writes of records of 40 bytes: up to a header, a body, a record's end and an end mark.
const SHORT: [usize; 14] = [1, 8, 24, 32, 39, 40, 41, 64, 72, 80, 96, 112, 120, 128];

/// All faults to try with a group that makes this many calls and this many writes if none fails.
fn all_faults(calls: u64, writes: u64) -> Vec<Faults> {
    let (eio, enospc) = (Fault::Os(libc::EIO), Fault::Os(libc::ENOSPC));
    let write = |nth| When::nth(nth).of(Verb::WriteAt);
    let mut all = Vec::new();
    for repeat in [Repeat::Once, Repeat::Forever] {
        for nth in 1..=calls {
            all.push(vec![(When::nth(nth), eio, repeat)]);
        }
        for nth in 1..=writes {
            all.push(vec![(write(nth), enospc, repeat)]);
            for bytes in SHORT {
                all.push(vec![(write(nth), Fault::Short(bytes), Repeat::Once), (write(nth + 1), enospc, repeat)]);
            }
        }
    }
    // A write fails, and then another call, while the handle looks at what the write has left.
    for second in 2..calls + 12 {
        for bytes in [8, 40] {
            let short = (write(1), Fault::Short(bytes), Repeat::Once);
            all.push(vec![
                short,
                (write(2), Fault::Os(libc::EFBIG), Repeat::Once),
                (When::nth(second), eio, Repeat::Once),
            ]);
        }
    }
    all
}

/// Tries a group with all faults. Returns how many cases there were.
fn try_group(group: &[&[Op]], number: usize) -> usize {
    let durability = if number % 3 == 2 { Durability::Os } else { Durability::Sync };
    let case = || Case::new(durability, number % 2 == 1);
    let calm = case();
    let (answers, calls, writes) = calm.commit(group, &Vec::new());
    let failed = |answer: &Answer| matches!(answer, Answer::Failed | Answer::Poisoned);
    assert!(!answers.iter().any(failed), "{group:?}: {answers:?}");
    let all = all_faults(calls, writes);
    let tried = 1 + all.len();
    let judge = |case: Case, answers: &[Answer], faults: &Faults| {
        if let Err(error) = case.check(group, answers) {
            panic!("group {number}, {group:?}, {durability:?}\nwith {faults:?}\ngot {answers:?}\n{error}");
        }
    };
    judge(calm, &answers, &Vec::new());
    for faults in all {
        let case = case();
        let (answers, ..) = case.commit(group, &faults);
        judge(case, &answers, &faults);
    }
    tried
}

/// The groups of this many requests, by their numbers.
fn group(len: usize, mut number: usize) -> Vec<&'static [Op]> {
    let mut group = Vec::new();
    for _ in 0..len {
        group.push(REQUESTS[number % REQUESTS.len()]);
        number /= REQUESTS.len();
    }
    group
}

#[test]
fn every_outcome_of_a_group_with_failing_calls_fits_the_log() {
    let all = std::env::var_os("CASKFILE_GROUPS").is_some_and(|groups| groups == "all");
    for (len, one_in) in [(1, 1), (2, 5), (3, 307), (4, 9973)] {
        let one_in = if all { one_in.min(if len < 4 { 1 } else { 97 }) } else { one_in };
        let numbers = (0..REQUESTS.len().pow(len as u32)).step_by(one_in);
        let groups = numbers.len();
        let tried: usize = numbers.map(|number| try_group(&group(len, number), number)).sum();
        println!("{groups} groups of {len}: {tried} cases");
    }
}
