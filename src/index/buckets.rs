//! The number of buckets that have keys, and of the keys in each.

use std::collections::HashMap;

use crate::format::split_full_key;

/// Counts of keys per bucket, kept up to date.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    /// The counts of buckets with a name. The bucket without a name, the only one in most stores, has the other keys.
    named: HashMap<Box<[u8]>, u64>,
    in_named: u64,
}

impl Buckets {
    /// Counts a new key.
    pub(crate) fn add(&mut self, full_key: &[u8]) {
        let Some(bucket) = named_bucket(full_key) else { return };
        self.in_named += 1;
        match self.named.get_mut(bucket) {
            Some(keys) => *keys += 1,
            None => drop(self.named.insert(bucket.into(), 1)),
        }
    }

    /// Counts a removed key.
    pub(crate) fn remove(&mut self, full_key: &[u8]) {
        let Some(bucket) = named_bucket(full_key) else { return };
        self.in_named -= 1;
        if let Some(keys) = self.named.get_mut(bucket) {
            *keys -= 1;
            if *keys == 0 {
                self.named.remove(bucket);
            }
        }
    }

    /// The number of buckets with keys, in a store that has `keys` keys.
    pub(crate) fn count(&self, keys: u64) -> u64 {
        self.named.len() as u64 + u64::from(keys > self.in_named)
    }

    /// The number of keys in the bucket of this name, in a store that has `keys` keys.
    pub(crate) fn keys_in(&self, bucket: &[u8], keys: u64) -> u64 {
        match bucket {
            [] => keys - self.in_named,
            name => self.named.get(name).copied().unwrap_or(0),
        }
    }
}

fn named_bucket(full_key: &[u8]) -> Option<&[u8]> {
    split_full_key(full_key).map(|(bucket, _)| bucket).filter(|bucket| !bucket.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_come_with_their_first_key_and_go_with_their_last() {
        let mut buckets = Buckets::default();
        assert_eq!((buckets.count(0), buckets.count(1)), (0, 1));
        for (full_key, count) in [(&b"\x01ak"[..], 1), (b"\x01al", 1), (b"\x02abk", 2)] {
            buckets.add(full_key);
            assert_eq!(buckets.count(buckets.in_named), count);
        }
        buckets.add(b"\0k");
        assert_eq!(buckets.count(4), 3, "the bucket without a name has the fourth");
        assert_eq!([&b""[..], b"a", b"ab", b"b"].map(|bucket| buckets.keys_in(bucket, 4)), [1, 2, 1, 0]);
        for (full_key, count) in [(&b"\x01ak"[..], 2), (b"\x02abk", 1), (b"\x01al", 0)] {
            buckets.remove(full_key);
            assert_eq!(buckets.count(buckets.in_named), count);
        }
    }
}
