//! What a process writes down of its calls, so that it is there after it was killed.
//!
//! A line is written, with one system call, before a call begins and another when it has returned. A line that a kill
//! has cut short was not written: the call had not begun, or its outcome was never returned.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::str::{FromStr, SplitWhitespace};

use super::checker::{Act, Call, Condition, Deleted, Refusal, Span, Version};

/// A call on a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Get(usize),
    Exists(usize),
    /// Everything, by the call that has this number.
    List(u8),
    Put(usize, u64),
    Delete(usize),
    Swap(usize, u64, Condition),
    Remove(usize, u64),
    Batch(Vec<Part>),
}

/// A part of a batch; no key belongs to two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub key: usize,
    /// `None` deletes it.
    pub value: Option<u64>,
    pub only_if: Condition,
}

/// What the call returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Pair(Option<(u64, u64)>),
    Presence(bool),
    /// Keys, values and indexes.
    Pairs(Vec<(usize, u64, u64)>),
    Done,
    /// Of its last record, if it wrote any.
    Index(Option<u64>),
    Refused(Refusal),
    /// Which part of a batch.
    Conflict(usize, Refusal),
}

/// Nanoseconds of the clock that all processes of a machine share.
pub fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes to the one place that it is given, which is there.
    let got = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    assert_eq!(got, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

pub struct Journal(File);

impl Journal {
    pub fn create(path: &Path) -> Journal {
        Journal(OpenOptions::new().append(true).create_new(true).open(path).unwrap())
    }

    /// Makes a call and writes down what it was, when, and what came of it.
    pub fn record(&mut self, op: &Op, call: impl FnOnce(&Op) -> Outcome) -> Outcome {
        self.line(format_args!("? {} {}", now(), op.to_words()));
        let outcome = call(op);
        self.line(format_args!("! {} {}", now(), outcome.to_words()));
        outcome
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.0.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

/// A call as it was written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub op: Op,
    pub span: Span,
    pub outcome: Option<Outcome>,
}

pub fn read(path: &Path) -> Vec<Entry> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut entries = Vec::<Entry>::new();
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let mut words = line.split_whitespace();
        let (what, time) = (words.next().unwrap(), next(&mut words));
        if what == "?" {
            let span = Span { began: time, ended: None };
            entries.push(Entry { op: Op::from_words(&mut words), span, outcome: None });
        } else {
            let entry = entries.last_mut().unwrap();
            (entry.span.ended, entry.outcome) = (Some(time), Some(Outcome::from_words(&mut words)));
        }
    }
    entries
}

fn next<T: FromStr>(words: &mut SplitWhitespace<'_>) -> T {
    words.next().and_then(|word| word.parse().ok()).expect("another number")
}

fn words<T: ToString>(things: impl IntoIterator<Item = T>) -> String {
    things.into_iter().map(|thing| thing.to_string()).collect::<Vec<_>>().join(" ")
}

impl Condition {
    fn to_word(self) -> String {
        match self {
            Condition::Always => "always".to_owned(),
            Condition::Absent => "absent".to_owned(),
            Condition::Index(index) => index.to_string(),
        }
    }

    fn from_word(words: &mut SplitWhitespace<'_>) -> Condition {
        match words.next().unwrap() {
            "always" => Condition::Always,
            "absent" => Condition::Absent,
            index => Condition::Index(index.parse().unwrap()),
        }
    }
}

impl Refusal {
    fn from_word(words: &mut SplitWhitespace<'_>) -> Refusal {
        let all = [Refusal::Exists, Refusal::NotFound, Refusal::Modified];
        let word = words.next().unwrap();
        all.into_iter().find(|refusal| format!("{refusal:?}") == word).unwrap()
    }
}

impl Op {
    fn to_words(&self) -> String {
        match self {
            Op::Get(key) => format!("get {key}"),
            Op::Exists(key) => format!("exists {key}"),
            Op::List(how) => format!("list {how}"),
            Op::Put(key, value) => format!("put {key} {value}"),
            Op::Delete(key) => format!("delete {key}"),
            Op::Swap(key, value, condition) => format!("swap {key} {value} {}", condition.to_word()),
            Op::Remove(key, index) => format!("remove {key} {index}"),
            Op::Batch(parts) => {
                let word = |part: &Part| format!("{} {} {}", part.key, part.value.unwrap_or(0), part.only_if.to_word());
                format!("batch {} {}", parts.len(), words(parts.iter().map(word)))
            }
        }
    }

    fn from_words(words: &mut SplitWhitespace<'_>) -> Op {
        match words.next().unwrap() {
            "get" => Op::Get(next(words)),
            "exists" => Op::Exists(next(words)),
            "list" => Op::List(next(words)),
            "put" => Op::Put(next(words), next(words)),
            "delete" => Op::Delete(next(words)),
            "swap" => Op::Swap(next(words), next(words), Condition::from_word(words)),
            "remove" => Op::Remove(next(words), next(words)),
            "batch" => {
                let count: usize = next(words);
                let mut part = |_| {
                    let (key, value) = (next(words), next(words));
                    Part { key, value: (value != 0).then_some(value), only_if: Condition::from_word(words) }
                };
                let parts = (0..count).map(&mut part).collect();
                Op::Batch(parts)
            }
            other => panic!("{other}"),
        }
    }
}

impl Outcome {
    fn to_words(&self) -> String {
        match self {
            Outcome::Pair(None) => "none".to_owned(),
            Outcome::Pair(Some((value, index))) => format!("pair {value} {index}"),
            Outcome::Presence(there) => format!("presence {there}"),
            Outcome::Pairs(pairs) => {
                let word = |(key, value, index): &(usize, u64, u64)| format!("{key} {value} {index}");
                format!("pairs {} {}", pairs.len(), words(pairs.iter().map(word)))
            }
            Outcome::Done => "done".to_owned(),
            Outcome::Index(None) => "nothing".to_owned(),
            Outcome::Index(Some(index)) => format!("index {index}"),
            Outcome::Refused(refusal) => format!("refused {refusal:?}"),
            Outcome::Conflict(op, refusal) => format!("conflict {op} {refusal:?}"),
        }
    }

    fn from_words(words: &mut SplitWhitespace<'_>) -> Outcome {
        match words.next().unwrap() {
            "none" => Outcome::Pair(None),
            "pair" => Outcome::Pair(Some((next(words), next(words)))),
            "presence" => Outcome::Presence(next(words)),
            "pairs" => {
                let count = next(words);
                Outcome::Pairs((0..count).map(|_| (next(words), next(words), next(words))).collect())
            }
            "done" => Outcome::Done,
            "nothing" => Outcome::Index(None),
            "index" => Outcome::Index(Some(next(words))),
            "refused" => Outcome::Refused(Refusal::from_word(words)),
            "conflict" => Outcome::Conflict(next(words), Refusal::from_word(words)),
            other => panic!("{other}"),
        }
    }
}

impl Entry {
    /// What it was about, key by key, of `keys` keys.
    pub fn calls(&self, keys: usize) -> Vec<(usize, Call)> {
        let acts: Vec<(usize, Act)> = match (&self.op, &self.outcome) {
            (Op::Get(key), Some(Outcome::Pair(pair))) => vec![(*key, Act::Saw(*pair))],
            (Op::Exists(key), Some(Outcome::Presence(there))) => vec![(*key, Act::SawPresence(*there))],
            (Op::List(_), Some(Outcome::Pairs(pairs))) => (0..keys)
                .map(|key| {
                    let pair = pairs.iter().find(|(at, _, _)| *at == key);
                    (key, Act::Saw(pair.map(|(_, value, index)| (*value, *index))))
                })
                .collect(),
            // A read whose result was never returned says nothing.
            (Op::Get(_) | Op::Exists(_) | Op::List(_), None) => Vec::new(),
            (Op::Put(key, value), None | Some(Outcome::Done)) => {
                vec![(*key, Act::Put { value: *value, only_if: Condition::Always, index: None })]
            }
            (Op::Delete(key), None | Some(Outcome::Done)) => {
                vec![(*key, Act::Delete { only_if: Condition::Always, index: Deleted::Nothing })]
            }
            (Op::Swap(key, _, condition), Some(Outcome::Refused(refusal))) => {
                vec![(*key, Act::Refused(*condition, *refusal))]
            }
            (Op::Swap(key, value, condition), outcome) => {
                let index = match outcome {
                    Some(Outcome::Index(index)) => *index,
                    None => None,
                    other => panic!("{self:?}: {other:?}"),
                };
                vec![(*key, Act::Put { value: *value, only_if: *condition, index })]
            }
            (Op::Remove(key, index), Some(Outcome::Refused(refusal))) => {
                vec![(*key, Act::Refused(Condition::Index(*index), *refusal))]
            }
            (Op::Remove(key, index), None | Some(Outcome::Done)) => {
                vec![(*key, Act::Delete { only_if: Condition::Index(*index), index: Deleted::Nothing })]
            }
            (Op::Batch(parts), Some(Outcome::Conflict(op, refusal))) => {
                // Conditions are operations of their own, each before the change that depends on it.
                let mut ops = parts.iter().flat_map(|part| {
                    let condition = (part.only_if != Condition::Always).then_some((part.key, part.only_if));
                    condition.map(Some).into_iter().chain([None])
                });
                let (key, condition) = ops.nth(*op).flatten().expect("only a condition can be refused");
                vec![(key, Act::Refused(condition, *refusal))]
            }
            (Op::Batch(parts), None | Some(Outcome::Index(_))) => {
                let returned = match &self.outcome {
                    Some(Outcome::Index(index)) => Some(*index),
                    _ => None,
                };
                let last = parts.len() - 1;
                let act = |at: usize, part: &Part| match part.value {
                    // Deletions of what is not there are not written, so only of the last part it is known where the
                    // index belongs, and only if it is a put.
                    Some(value) => {
                        let index = returned.flatten().filter(|_| at == last);
                        Act::Put { value, only_if: part.only_if, index }
                    }
                    None if returned == Some(None) => Act::Delete { only_if: part.only_if, index: Deleted::WasAbsent },
                    None => Act::Delete { only_if: part.only_if, index: Deleted::Nothing },
                };
                parts.iter().enumerate().map(|(at, part)| (part.key, act(at, part))).collect()
            }
            (op, outcome) => panic!("{op:?} said {outcome:?}"),
        };
        acts.into_iter().map(|(key, act)| (key, Call { span: self.span, act })).collect()
    }

    /// What it listed.
    pub fn listing(&self) -> Option<Vec<(usize, u64)>> {
        match &self.outcome {
            Some(Outcome::Pairs(pairs)) => Some(pairs.iter().map(|(key, _, index)| (*key, *index)).collect()),
            _ => None,
        }
    }

    /// The values that it may have set together, and its last index if it was returned.
    fn sets(&self) -> (Vec<(usize, u64)>, Option<u64>) {
        let values = match &self.op {
            Op::Put(key, value) | Op::Swap(key, value, _) => vec![(*key, *value)],
            Op::Batch(parts) => parts.iter().filter_map(|part| Some((part.key, part.value?))).collect(),
            _ => Vec::new(),
        };
        match self.outcome {
            Some(Outcome::Index(index)) => (values, index),
            _ => (values, None),
        }
    }
}

/// All versions of keys with known indexes.
pub fn versions(entries: &[Entry]) -> Vec<Version> {
    let mut seen = std::collections::BTreeMap::<(usize, u64), u64>::new();
    for entry in entries {
        match (&entry.op, &entry.outcome) {
            (Op::Get(key), Some(Outcome::Pair(Some((value, index))))) => drop(seen.insert((*key, *value), *index)),
            (Op::List(_), Some(Outcome::Pairs(pairs))) => {
                seen.extend(pairs.iter().map(|(key, value, index)| ((*key, *value), *index)));
            }
            (Op::Swap(key, value, _), Some(Outcome::Index(Some(index)))) => drop(seen.insert((*key, *value), *index)),
            _ => {}
        }
    }
    let mut versions = Vec::new();
    for entry in entries {
        let (values, returned) = entry.sets();
        let known: Vec<(usize, u64)> =
            values.iter().filter_map(|(key, value)| Some((*key, *seen.get(&(*key, *value))?))).collect();
        let unit = known.iter().map(|(_, index)| *index).chain(returned).max().unwrap_or(0);
        versions.extend(known.iter().map(|(key, index)| Version { key: *key, index: *index, unit }));
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_read_back_without_its_torn_line() {
        let path = std::env::temp_dir().join(format!("caskfile-journal-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let part = |key, value, only_if| Part { key, value, only_if };
        let calls = [
            (Op::Get(1), Outcome::Pair(Some((7, 8)))),
            (Op::Get(1), Outcome::Pair(None)),
            (Op::Exists(2), Outcome::Presence(true)),
            (Op::List(0), Outcome::Pairs(vec![(0, 1, 2), (3, 4, 5)])),
            (Op::List(3), Outcome::Pairs(Vec::new())),
            (Op::Put(1, 9), Outcome::Done),
            (Op::Delete(0), Outcome::Done),
            (Op::Swap(0, 3, Condition::Absent), Outcome::Refused(Refusal::Exists)),
            (Op::Swap(0, 3, Condition::Index(4)), Outcome::Index(Some(6))),
            (Op::Remove(0, 3), Outcome::Refused(Refusal::NotFound)),
            (
                Op::Batch(vec![part(1, Some(2), Condition::Always), part(2, None, Condition::Index(9))]),
                Outcome::Conflict(1, Refusal::Modified),
            ),
            (Op::Batch(vec![part(1, None, Condition::Always)]), Outcome::Index(None)),
        ];
        let mut journal = Journal::create(&path);
        for (op, outcome) in &calls {
            journal.record(op, |_| outcome.clone());
        }
        journal.line(format_args!("? 5 put 1 77"));
        journal.0.write_all(b"! 12 do").unwrap();
        let entries = read(&path);
        let found: Vec<_> = entries.iter().map(|entry| (entry.op.clone(), entry.outcome.clone())).collect();
        let expected = calls.map(|(op, outcome)| (op, Some(outcome))).into_iter();
        assert_eq!(found, expected.chain([(Op::Put(1, 77), None)]).collect::<Vec<_>>());
        let ended = entries.iter().filter(|entry| entry.span.ended.is_some_and(|ended| ended >= entry.span.began));
        assert_eq!(ended.count(), 12);
        std::fs::remove_file(&path).unwrap();
    }
}
