//! The keys in etcd: root, one byte with the length of the bucket's name, the name, the key.
//!
//! This is the order of caskfile's own keys, so the keys of a bucket are neighbours, in the order of their bytes.

use caskfile::{Error, KvPair, MAX_BUCKET_LEN, Result, max_key_len};

use crate::EtcdError;

/// The most that a request may have, in bytes: the default of etcd's `--max-request-bytes`.
pub const MAX_REQUEST_BYTES: usize = 1_572_864;

/// What a request has beside keys, values and the user's name, rounded up: tags, lengths, and the header that the server adds.
const OVERHEAD: usize = 1_024;

/// A conditional write names its key in the condition, the write and the read that answers if the condition does not hold.
const KEYS_IN_A_REQUEST: usize = 3;

/// The longest root.
const MAX_ROOT_LEN: usize = 1_024;

/// The keys of one bucket below one root.
#[derive(Debug, Clone)]
pub(crate) struct Keyspace {
    /// What all of its keys begin with.
    prefix: Vec<u8>,
    max_key_len: usize,
    user_len: usize,
}

/// The keys from `key`, below `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    pub key: Vec<u8>,
    /// Empty for the single key.
    pub end: Vec<u8>,
}

impl Keyspace {
    pub(crate) fn new(root: &[u8], bucket: &[u8], user_len: usize) -> Result<Keyspace> {
        if root.is_empty() || root.len() > MAX_ROOT_LEN {
            let what = format!("the root must have 1 to {MAX_ROOT_LEN} bytes, not {}", root.len());
            return Err(Error::other(EtcdError::Config { what }));
        }
        let too_long = |_| Error::BucketTooLong { len: bucket.len(), max: MAX_BUCKET_LEN };
        let bucket_len = u8::try_from(bucket.len()).map_err(too_long)?;
        let prefix = [root, &[bucket_len], bucket].concat();
        Ok(Keyspace { prefix, max_key_len: max_key_len(bucket.len()), user_len })
    }

    /// The key in etcd.
    pub(crate) fn full(&self, key: &[u8]) -> Result<Vec<u8>> {
        if key.is_empty() || key.len() > self.max_key_len {
            return Err(Error::KeyLength { len: key.len(), max: self.max_key_len });
        }
        Ok([&self.prefix[..], key].concat())
    }

    /// The range of one key.
    pub(crate) fn one(&self, key: &[u8]) -> Result<Range> {
        Ok(Range { key: self.full(key)?, end: Vec::new() })
    }

    /// The range of all keys with a prefix. A prefix that is longer than all keys is cut, so that it fits into a request: the rest of it is
    /// longer than all keys too.
    pub(crate) fn tree(&self, prefix: &[u8]) -> Range {
        let prefix = &prefix[..prefix.len().min(self.max_key_len + 1)];
        let key = [&self.prefix[..], prefix].concat();
        let end = after_all_with_prefix(&key);
        Range { key, end }
    }

    /// Checks that a write of this value fits into a request, whatever its condition.
    pub(crate) fn check_value(&self, full: &[u8], value: &[u8]) -> Result<()> {
        // The user's name can be of any length.
        let max = MAX_REQUEST_BYTES.saturating_sub(OVERHEAD + self.user_len + KEYS_IN_A_REQUEST * full.len());
        if value.len() > max {
            return Err(Error::ValueTooLong { len: value.len(), max });
        }
        Ok(())
    }

    /// The key without root and bucket.
    pub(crate) fn short(&self, full: &[u8]) -> Vec<u8> {
        full[self.prefix.len()..].to_vec()
    }

    pub(crate) fn pair(&self, found: &etcd_client::KeyValue) -> KvPair {
        KvPair::new(self.short(found.key()), found.value(), found.mod_revision() as u64)
    }
}

/// The lowest key above all that begin with these bytes. `\0` means "without an end" to etcd: no key is above those of 0xff bytes alone.
fn after_all_with_prefix(prefix: &[u8]) -> Vec<u8> {
    let Some(last) = prefix.iter().rposition(|byte| *byte != u8::MAX) else { return vec![0] };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyspace(root: &[u8], bucket: &[u8]) -> Keyspace {
        Keyspace::new(root, bucket, 0).unwrap()
    }

    #[test]
    fn a_tree_is_all_keys_with_its_prefix_and_no_others() {
        for (prefix, end) in [
            (&b"r/\0a"[..], &b"r/\0b"[..]),
            (b"r/\0a\xff", b"r/\0b"),
            (b"r/\0\xff\xff", b"r/\x01"),
            (b"r\xff", b"s"),
            (b"\xff\xff", b"\0"),
        ] {
            assert_eq!(after_all_with_prefix(prefix), end, "{}", prefix.escape_ascii());
        }
    }

    #[test]
    fn buckets_do_not_overlap_whatever_their_names_are() {
        let names = [&b""[..], b"\0", b"a", b"ab", &[0xff; 255], &[0xff; 254], b"\x01a"];
        for one in names {
            let tree = keyspace(b"caskfile/", one).tree(b"");
            for other in names.iter().filter(|other| **other != one) {
                for key in [&b"\0"[..], b"\xff", b"a", &[0xff; 300]] {
                    let full = keyspace(b"caskfile/", other).full(key).unwrap();
                    assert!(
                        full < tree.key || full >= tree.end,
                        "{:?} is in {:?}",
                        full.escape_ascii().to_string(),
                        tree
                    );
                }
            }
            let own = keyspace(b"caskfile/", one);
            for key in [&b"\0"[..], b"\xff", b"a", &[0xff; 300]] {
                let full = own.full(key).unwrap();
                assert!(tree.key < full && full < tree.end);
                assert_eq!(own.short(&full), key);
            }
        }
    }

    #[test]
    fn limits_are_those_of_caskfile_and_of_a_request() {
        let keys = keyspace(b"caskfile/", b"");
        let longest = keys.full(&vec![b'k'; 65_534]).unwrap();
        assert!(matches!(keys.full(&vec![b'k'; 65_535]), Err(Error::KeyLength { len: 65_535, max: 65_534 })));
        assert!(matches!(keys.full(b""), Err(Error::KeyLength { len: 0, .. })));
        for full in [longest, keys.full(b"k").unwrap()] {
            let max = match keys.check_value(&full, &vec![0; MAX_REQUEST_BYTES]) {
                Err(Error::ValueTooLong { len: MAX_REQUEST_BYTES, max }) => max,
                other => panic!("{other:?}"),
            };
            assert!(keys.check_value(&full, &vec![0; max]).is_ok());
            assert!(keys.check_value(&full, &vec![0; max + 1]).is_err());
            assert!(max > 1 << 20);
        }
        let long_name = Keyspace::new(b"caskfile/", b"", MAX_REQUEST_BYTES).unwrap();
        assert!(matches!(long_name.check_value(b"k", b"v"), Err(Error::ValueTooLong { len: 1, max: 0 })));
        assert!(matches!(Keyspace::new(b"caskfile/", &[0; 256], 0), Err(Error::BucketTooLong { len: 256, max: 255 })));
        for root in [&b""[..], &[b'r'; 1025]] {
            let error = Keyspace::new(root, b"", 0).unwrap_err();
            assert!(matches!(EtcdError::of(&error), Some(EtcdError::Config { .. })), "{error:?}");
        }
    }
}
