//! Promises about calls in any order: what the other groups do not think of.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Fixture, ok};
use crate::{Error, KvPair, OptionalExt, Result, Store};

/// Random calls on few keys, each compared with what a map of the pairs says. The same calls in every run.
pub fn random_calls_agree_with_a_map(fixture: &dyn Fixture) {
    Game::new(0x5eed).play(fixture, 1);
}

/// Keys that are close to each other in every order that a backend may think of.
const KEYS: &[&[u8]] =
    &[b"a", b"a\0", b"a/", b"a/b", b"A", b"ab", b"a\xff", b"b", b"\0", b"\xff", b"\xff\xff", "\u{e4}".as_bytes()];

const CALLS: usize = 500;

/// One sequence of calls, and what the store must have after each.
pub(super) struct Game {
    random: u64,
    reopening: bool,
    pairs: BTreeMap<Vec<u8>, KvPair>,
    /// Pairs that were there once.
    old: Vec<KvPair>,
    highest: u64,
    /// The last calls, for the message.
    calls: Vec<String>,
}

impl Game {
    pub(super) fn new(seed: u64) -> Game {
        Game { random: seed, reopening: false, pairs: BTreeMap::new(), old: Vec::new(), highest: 0, calls: Vec::new() }
    }

    /// Closes or drops the handles now and then, and opens the store again.
    pub(super) fn reopening(self) -> Game {
        Game { reopening: true, ..self }
    }

    pub(super) fn play(mut self, fixture: &dyn Fixture, handles: usize) {
        let mut open: Vec<Arc<dyn Store>> = (0..handles).map(|_| fixture.open()).collect();
        for _ in 0..CALLS {
            if self.reopening && self.below(40) == 0 {
                let close = self.below(2) == 0;
                self.calls.push((if close { "close, open" } else { "drop, open" }).to_owned());
                for store in open.drain(..) {
                    if close {
                        ok(store.close(), "close");
                    }
                }
                open.extend((0..handles).map(|_| fixture.open()));
                self.compare_all(&*open[0]);
            }
            let store = Arc::clone(&open[self.below(handles)]);
            self.call(&*store);
        }
        open.iter().for_each(|store| self.compare_all(&**store));
    }

    /// xorshift64*
    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn call(&mut self, store: &dyn Store) {
        let key = KEYS[self.below(KEYS.len())];
        let value = self.value();
        let name = key.escape_ascii();
        let there = self.pairs.get(key).cloned();
        match self.below(12) {
            0 | 1 => {
                self.calls.push(format!("put(\"{name}\", {} bytes)", value.len()));
                let result = store.put(key, &value);
                self.expect(&result, &Ok(()));
                let set = self.expect_ok(store.get(key));
                self.set(key, &value, set);
            }
            2 => {
                self.calls.push(format!("delete(\"{name}\")"));
                let result = store.delete(key);
                self.expect(&result, &Ok(()));
                self.remove(key);
            }
            3..=5 => {
                let previous = self.previous(there.as_ref());
                self.calls.push(format!(
                    "atomic_put(\"{name}\", {} bytes, {})",
                    value.len(),
                    index_of(previous.as_ref())
                ));
                let expected = match (&previous, &there) {
                    (None, None) => None,
                    (None, Some(_)) => Some(Error::KeyExists),
                    (Some(_), None) => Some(Error::KeyNotFound),
                    (Some(previous), Some(there)) if previous.last_index != there.last_index => {
                        Some(Error::KeyModified)
                    }
                    (Some(_), Some(_)) => None,
                };
                let result = store.atomic_put(key, &value, previous.as_ref());
                if let Some(error) = expected {
                    self.expect(&result.map(drop), &Err(error));
                } else {
                    let set = self.expect_ok(result);
                    self.set(key, &value, set);
                }
            }
            6 => {
                let previous = self.previous(there.as_ref());
                self.calls.push(format!("atomic_delete(\"{name}\", {})", index_of(previous.as_ref())));
                let expected = match (&previous, &there) {
                    (None, _) => Err(Error::PreviousNotSpecified),
                    (Some(_), None) => Err(Error::KeyNotFound),
                    (Some(previous), Some(there)) if previous.last_index != there.last_index => Err(Error::KeyModified),
                    (Some(_), Some(_)) => Ok(()),
                };
                let result = store.atomic_delete(key, previous.as_ref());
                self.expect(&result, &expected);
                if expected.is_ok() {
                    self.remove(key);
                }
            }
            7 | 8 => {
                self.calls.push(format!("get(\"{name}\")"));
                let result = store.get(key).optional();
                self.expect(&result, &Ok(there));
            }
            9 => {
                self.calls.push(format!("exists(\"{name}\")"));
                let result = store.exists(key);
                self.expect(&result, &Ok(there.is_some()));
            }
            _ => {
                let prefix = &key[..self.below(key.len() + 1)];
                self.calls.push(format!("list(\"{}\")", prefix.escape_ascii()));
                let with_prefix = self.pairs.values().filter(|pair| pair.key.starts_with(prefix));
                let expected: Vec<KvPair> = with_prefix.cloned().collect();
                let result = store.list(prefix);
                self.expect(&result, &Ok(expected));
            }
        }
        if self.below(8) == 0 {
            self.compare_all(store);
        }
    }

    /// Small and empty values, long ones, and those of another key.
    fn value(&mut self) -> Vec<u8> {
        match self.below(6) {
            0 => Vec::new(),
            1 => KEYS[self.below(KEYS.len())].to_vec(),
            2 => vec![self.below(256) as u8; self.below(5_000)],
            _ => vec![self.below(256) as u8; self.below(20)],
        }
    }

    /// The right pair half of the time, else none, an old one, one of another key, or one that never was.
    fn previous(&mut self, there: Option<&KvPair>) -> Option<KvPair> {
        match self.below(8) {
            0..4 => there.cloned(),
            4 => None,
            5 if !self.old.is_empty() => {
                let at = self.below(self.old.len());
                Some(self.old[at].clone())
            }
            6 if !self.pairs.is_empty() => {
                let at = self.below(self.pairs.len());
                self.pairs.values().nth(at).cloned()
            }
            _ => Some(KvPair::new("", "", self.highest + self.below(3) as u64)),
        }
    }

    fn set(&mut self, key: &[u8], value: &[u8], set: KvPair) {
        self.expect(&Ok((set.key.clone(), set.value.clone())), &Ok((key.to_vec(), value.to_vec())));
        let (index, highest) = (set.last_index, self.highest);
        assert!(index > highest, "last_index must grow, but {highest} was followed by {index}, after {}", self.story());
        self.highest = index;
        self.old.extend(self.pairs.insert(key.to_vec(), set));
    }

    fn remove(&mut self, key: &[u8]) {
        self.old.extend(self.pairs.remove(key));
    }

    fn compare_all(&self, store: &dyn Store) {
        let expected: Vec<KvPair> = self.pairs.values().cloned().collect();
        self.expect(&store.list(b""), &Ok(expected));
        for key in KEYS {
            self.expect(&store.get(key).optional(), &Ok(self.pairs.get(*key).cloned()));
        }
    }

    #[track_caller]
    fn expect_ok<T>(&self, result: Result<T>) -> T {
        result.unwrap_or_else(|error| panic!("{} must succeed, but gave Err({error:?})", self.story()))
    }

    /// Errors are compared by their kind: those of the contract have no fields.
    #[track_caller]
    fn expect<T: std::fmt::Debug + PartialEq>(&self, result: &Result<T>, expected: &Result<T>) {
        let same = match (result, expected) {
            (Ok(result), Ok(expected)) => result == expected,
            (Err(result), Err(expected)) => std::mem::discriminant(result) == std::mem::discriminant(expected),
            _ => false,
        };
        assert!(same, "{} must give {expected:?}, but gave {result:?}", self.story());
    }

    fn story(&self) -> String {
        let last = self.calls.len().saturating_sub(8);
        format!("call {} of [... {}]", self.calls.len(), self.calls[last..].join(", "))
    }
}

fn index_of(previous: Option<&KvPair>) -> String {
    previous.map_or("None".to_owned(), |pair| format!("last_index {}", pair.last_index))
}
