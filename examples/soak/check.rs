//! Whether a store, or a copy of it, holds what it must.

use std::collections::HashMap;

use caskfile::{Cask, KvPair};

use crate::plan::{ACCOUNTS, COUNTER, ENDOWMENT, Model, WRITERS, sequence_key, sequence_of, value};
use crate::tally::{Slot, Tally};
use crate::{Place, Result};

/// What was acknowledged before a look began: it must be seen.
pub struct Floor {
    sequences: Vec<u64>,
    incremented: u64,
    pub last_index: u64,
}

/// Follows the store from look to look. Each must be of a moment later than the one before.
pub struct Checker {
    writers: Vec<Tally>,
    models: Vec<Model>,
    /// The index of each key when it was last seen.
    indexes: HashMap<Vec<u8>, u64>,
}

impl Checker {
    pub fn new(place: &Place) -> Result<Checker> {
        let models = (0..WRITERS).map(Model::new).collect();
        Ok(Checker { writers: place.tallies("writer")?, models, indexes: HashMap::new() })
    }

    pub fn floor(&self) -> Result<Floor> {
        let numbers = |slot| self.writers.iter().map(|tally| Ok(tally.get(slot)?)).collect::<Result<Vec<u64>>>();
        Ok(Floor {
            sequences: numbers(Slot::Sequence)?,
            incremented: numbers(Slot::Incremented)?.iter().sum(),
            last_index: numbers(Slot::LastIndex)?.into_iter().max().unwrap_or(0),
        })
    }

    /// Looks at everything, at one moment.
    pub fn check(&mut self, cask: &Cask, floor: &Floor) -> Result<()> {
        let pairs = cask.list("")?;
        let highest = cask.stats()?.last_index;
        if highest < floor.last_index {
            return Err(format!("the highest index is {highest}, {} was acknowledged", floor.last_index).into());
        }
        self.check_indexes(&pairs)?;
        for writer in 0..WRITERS {
            self.check_writer(writer, &pairs, floor.sequences[writer as usize])?;
        }
        let sum: u64 = with_prefix(&pairs, "shared/account/").map(number).sum();
        if sum != ACCOUNTS * ENDOWMENT {
            return Err(format!("{sum} in all accounts: half a batch").into());
        }
        let counter = with_prefix(&pairs, COUNTER).map(number).sum::<u64>();
        let begun: u64 =
            self.writers.iter().map(|tally| tally.get(Slot::Incrementing)).sum::<std::io::Result<u64>>()?;
        if !(floor.incremented..=begun).contains(&counter) {
            let incremented = floor.incremented;
            return Err(format!("{counter} increments: {incremented} were acknowledged, {begun} were begun").into());
        }
        Ok(())
    }

    fn check_indexes(&mut self, pairs: &[KvPair]) -> Result<()> {
        for pair in pairs {
            let seen = self.indexes.entry(pair.key.clone()).or_default();
            if pair.last_index < *seen {
                let (key, now) = (pair.key.escape_ascii(), pair.last_index);
                return Err(format!("the index of {key} went back from {seen} to {now}").into());
            }
            *seen = pair.last_index;
        }
        Ok(())
    }

    fn check_writer(&mut self, writer: u64, pairs: &[KvPair], acknowledged: u64) -> Result<()> {
        let key = sequence_key(writer);
        let sequence = match with_prefix(pairs, &key).next() {
            None => 0,
            Some(pair) => sequence_of(&pair.value)
                .filter(|sequence| pair.value == value(writer, *sequence, &key))
                .ok_or_else(|| format!("{key} has a value that was never written"))?,
        };
        let model = &mut self.models[writer as usize];
        let floor = acknowledged.max(model.sequence);
        if sequence < floor {
            return Err(format!("writer {writer} is at {sequence}, {floor} was acknowledged or seen").into());
        }
        model.advance_to(sequence);
        let expected: Vec<_> = model.pairs().collect();
        let found: Vec<_> = with_prefix(pairs, &format!("writer/{writer}/key/")).collect();
        let same = |(found, (key, value)): (&&KvPair, &(String, Vec<u8>))| {
            found.key == key.as_bytes() && found.value == *value
        };
        if found.len() != expected.len() || !found.iter().zip(&expected).all(same) {
            return Err(format!("writer {writer}: not what is there after operation {sequence}").into());
        }
        Ok(())
    }
}

fn with_prefix<'p>(pairs: &'p [KvPair], prefix: &str) -> impl Iterator<Item = &'p KvPair> + use<'p> {
    let start = pairs.partition_point(|pair| pair.key.as_slice() < prefix.as_bytes());
    let prefix = prefix.as_bytes().to_vec();
    pairs[start..].iter().take_while(move |pair| pair.key.starts_with(&prefix))
}

fn number(pair: &KvPair) -> u64 {
    std::str::from_utf8(&pair.value).ok().and_then(|digits| digits.parse().ok()).unwrap_or(u64::MAX / 64)
}
