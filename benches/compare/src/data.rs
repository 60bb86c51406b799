//! Keys and values that differ from one another: a key follows from its number, and a value from the number and a version, so
//! every value that is read can be checked.

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

/// Key numbers come in groups that have a prefix in common: these many share the first four bytes of 16, ...
pub const WIDE: usize = 10_000;
/// ... these many the first eight, ...
pub const NARROW: usize = 100;
/// ... and these many the first twelve.
pub const FEW: usize = 10;

/// Makes keys in a buffer of its own; threads have one each.
#[derive(Clone)]
pub struct Keys {
    bytes: Vec<u8>,
    /// The number of bytes at the beginning that all keys share.
    common: usize,
}

impl Keys {
    /// Of 16 bytes.
    pub fn short() -> Keys {
        Keys::long(0)
    }

    pub fn long(common: usize) -> Keys {
        let bytes = (0..common + 16).map(|at| b'a' + (at % 26) as u8).collect();
        Keys { bytes, common }
    }

    pub fn key(&mut self, number: usize) -> &[u8] {
        let own = &mut self.bytes[self.common..];
        own[..4].copy_from_slice(&spread(number / WIDE).to_be_bytes());
        own[4..8].copy_from_slice(&spread(number / NARROW).to_be_bytes());
        own[8..12].copy_from_slice(&spread(number / FEW).to_be_bytes());
        own[12..].copy_from_slice(&spread(number).to_be_bytes());
        &self.bytes
    }

    /// Returns an absent key, between the others in order.
    pub fn absent(&mut self, number: usize) -> &[u8] {
        self.key(number);
        let last = self.bytes.len() - 4;
        self.bytes[last..].copy_from_slice(&spread(!number).to_be_bytes());
        &self.bytes
    }

    /// Returns the prefix that the keys of this group share.
    pub fn prefix(&mut self, number: usize, group: usize) -> &[u8] {
        let len = match group {
            WIDE => 4,
            NARROW => 8,
            _ => 12,
        };
        let common = self.common;
        &self.key(number)[..common + len]
    }
}

/// One to one on 32 bits, and without any visible order.
fn spread(number: usize) -> u32 {
    let mut word = number as u32;
    word = (word ^ (word >> 16)).wrapping_mul(0x7feb_352d);
    word = (word ^ (word >> 15)).wrapping_mul(0x846c_a68b);
    word ^ (word >> 16)
}

/// Appends the value of that number and version: both of them, then words that follow from them and do not compress.
pub fn value_into(number: usize, version: u64, len: usize, out: &mut Vec<u8>) {
    assert!(len >= 16, "a value holds its number and its version");
    let end = out.len() + len;
    out.extend_from_slice(&(number as u64).to_le_bytes());
    out.extend_from_slice(&version.to_le_bytes());
    let mut words = Words::new(number as u64, version);
    while end - out.len() >= 8 {
        out.extend_from_slice(&words.next_word().to_le_bytes());
    }
    let rest = end - out.len();
    out.extend_from_slice(&words.next_word().to_le_bytes()[..rest]);
}

pub fn value(number: usize, version: u64, len: usize) -> Vec<u8> {
    let mut value = Vec::with_capacity(len);
    value_into(number, version, len, &mut value);
    value
}

/// # Panics
///
/// If this is not, byte for byte, a value of that number with a version among those.
pub fn check(number: usize, versions: std::ops::RangeInclusive<u64>, len: usize, value: &[u8]) {
    let found = version_of(number, len, value).filter(|version| versions.contains(version));
    let Some(version) = found else {
        panic!("key {number}: a value of {} bytes that is none of its versions {versions:?}", value.len())
    };
    let mut words = Words::new(number as u64, version);
    let (whole, rest) = value[16..].as_chunks::<8>();
    let mut wrong = 0;
    for word in whole {
        wrong |= u64::from_le_bytes(*word) ^ words.next_word();
    }
    let is_right = wrong == 0 && *rest == words.next_word().to_le_bytes()[..rest.len()];
    assert!(is_right, "key {number}: the value of version {version} is damaged");
}

/// Sums up every byte of a large value. This is quicker than [`check`], so it costs less than reading.
pub fn sum(value: &[u8]) -> u64 {
    let (words, rest) = value.as_chunks::<8>();
    let words = words.iter().fold(0, |sum: u64, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    rest.iter().fold(words, |sum, &byte| sum.wrapping_add(byte.into()))
}

fn version_of(number: usize, len: usize, value: &[u8]) -> Option<u64> {
    let (first, rest) = value.split_first_chunk()?;
    let (second, _) = rest.split_first_chunk()?;
    (value.len() == len && u64::from_le_bytes(*first) == number as u64).then_some(u64::from_le_bytes(*second))
}

struct Words(u64);

impl Words {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    fn new(number: u64, version: u64) -> Words {
        Words(number.wrapping_mul(0xd134_2543_de82_ef95) ^ version.rotate_left(32))
    }

    fn next_word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(Words::STEP);
        self.0 ^ (self.0 >> 29)
    }
}

/// All numbers below `count`, once each.
pub fn shuffled(count: usize, seed: u64) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..count as u32).collect();
    numbers.shuffle(&mut SmallRng::seed_from_u64(seed));
    numbers
}

/// `draws` numbers below `count`, evenly.
pub fn uniform(count: usize, draws: usize, seed: u64) -> Vec<u32> {
    let mut random = SmallRng::seed_from_u64(seed);
    (0..draws).map(|_| random.random_range(0..count as u32)).collect()
}

/// `draws` numbers below `count`, few of them often, with YCSB's exponent. The frequent ones are spread over
/// the order of the keys.
pub fn zipf(count: usize, draws: usize, seed: u64) -> Vec<u32> {
    let mut random = SmallRng::seed_from_u64(seed);
    let ranks = rand_distr::Zipf::new(count as f64, 0.99).expect("a valid distribution");
    let numbers = shuffled(count, seed + 1);
    (0..draws).map(|_| numbers[random.sample(ranks) as usize - 1]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_recognised_and_every_changed_byte_is_noticed() {
        for len in [16, 23, 24, 100] {
            let value = value(7, 3, len);
            check(7, 1..=3, len, &value);
            for at in 0..len {
                let mut changed = value.clone();
                changed[at] ^= 1;
                assert!(std::panic::catch_unwind(|| check(7, 3..=3, len, &changed)).is_err(), "byte {at} of {len}");
            }
        }
    }

    #[test]
    fn keys_differ_and_prefixes_hold_as_many_as_they_should() {
        let mut keys = Keys::long(5);
        let all: std::collections::BTreeSet<Vec<u8>> = (0..20_000).map(|number| keys.key(number).to_vec()).collect();
        assert_eq!(all.len(), 20_000);
        for group in [WIDE, NARROW, FEW] {
            let prefix = keys.prefix(11_111, group);
            assert_eq!(all.iter().filter(|key| key.starts_with(prefix)).count(), group);
        }
        assert!((0..20_000).all(|number| !all.contains(keys.absent(number))));
    }
}
