//! The full key: bucket and key in one string of bytes, as it lies in a record's body.
//!
//! One byte with the length of the bucket's name, the name, the key. The index hashes, compares and sorts this string,
//! so the keys of a bucket are neighbours, in the order of the keys.

use super::record::MAX_FULL_KEY_LEN;

/// The longest name of a bucket, in bytes.
pub const MAX_BUCKET_LEN: usize = u8::MAX as usize;

/// The longest key in a bucket whose name has `bucket_len` bytes: bucket, key and one length byte share 65,535 bytes.
pub const fn max_key_len(bucket_len: usize) -> usize {
    MAX_FULL_KEY_LEN - 1 - bucket_len
}

/// The reason why a bucket's name or a key cannot be part of a full key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyFault {
    BucketTooLong { len: usize, max: usize },
    KeyLength { len: usize, max: usize },
}

/// The bytes that every full key of this bucket starts with, and no full key of another bucket.
pub(crate) fn prefix_of_bucket(bucket: &[u8]) -> Result<Vec<u8>, KeyFault> {
    let too_long = |_| KeyFault::BucketTooLong { len: bucket.len(), max: MAX_BUCKET_LEN };
    let len = u8::try_from(bucket.len()).map_err(too_long)?;
    let mut prefix = Vec::with_capacity(1 + bucket.len());
    prefix.push(len);
    prefix.extend_from_slice(bucket);
    Ok(prefix)
}

/// Bucket and key of a full key, or `None` if the bytes do not have that form.
pub(crate) fn split_full_key(full: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&bucket_len, rest) = full.split_first()?;
    let (bucket, key) = rest.split_at_checked(usize::from(bucket_len))?;
    if key.is_empty() { None } else { Some((bucket, key)) }
}

/// Full keys up to this length are built on the stack, so that usual look-ups do not allocate.
const INLINE_LEN: usize = 104;

/// A full key, built for a look-up.
#[derive(Clone)]
pub(crate) enum FullKey {
    Inline { bytes: [u8; INLINE_LEN], len: u8 },
    Heap(Vec<u8>),
}

impl FullKey {
    /// Joins a bucket's prefix and a key, after checking the key's length.
    #[inline]
    pub(crate) fn new(bucket_prefix: &[u8], key: &[u8]) -> Result<FullKey, KeyFault> {
        check_key_len(bucket_prefix, key)?;
        Ok(FullKey::prefix(bucket_prefix, key))
    }

    /// As [`FullKey::new`], for a prefix of keys, which may have any length and may be empty.
    #[inline]
    pub(crate) fn prefix(bucket_prefix: &[u8], prefix: &[u8]) -> FullKey {
        let len = bucket_prefix.len() + prefix.len();
        if len <= INLINE_LEN {
            let mut bytes = [0; INLINE_LEN];
            bytes[..bucket_prefix.len()].copy_from_slice(bucket_prefix);
            bytes[bucket_prefix.len()..len].copy_from_slice(prefix);
            FullKey::Inline { bytes, len: len as u8 }
        } else {
            FullKey::Heap([bucket_prefix, prefix].concat())
        }
    }
}

impl std::ops::Deref for FullKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            FullKey::Inline { bytes, len } => &bytes[..usize::from(*len)],
            FullKey::Heap(bytes) => bytes,
        }
    }
}

#[inline]
fn check_key_len(bucket_prefix: &[u8], key: &[u8]) -> Result<(), KeyFault> {
    let max = MAX_FULL_KEY_LEN - bucket_prefix.len();
    if key.is_empty() || key.len() > max {
        return Err(KeyFault::KeyLength { len: key.len(), max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_key_splits_into_what_it_was_made_of() {
        for bucket in [&b""[..], b"b", &[0xff; MAX_BUCKET_LEN]] {
            let prefix = prefix_of_bucket(bucket).unwrap();
            for key in [&b"k"[..], &[7; 200], &vec![0; max_key_len(bucket.len())]] {
                let full = FullKey::new(&prefix, key).unwrap();
                assert_eq!(split_full_key(&full), Some((bucket, key)));
            }
        }
    }

    #[test]
    fn keys_and_buckets_beyond_the_limits_are_refused() {
        let prefix = prefix_of_bucket(b"bucket").unwrap();
        let max = max_key_len(6);
        assert!(matches!(FullKey::new(&prefix, b""), Err(KeyFault::KeyLength { len: 0, max: m }) if m == max));
        assert!(
            matches!(FullKey::new(&prefix, &vec![1; max + 1]), Err(KeyFault::KeyLength { max: m, .. }) if m == max)
        );
        assert!(matches!(prefix_of_bucket(&[0; 256]), Err(KeyFault::BucketTooLong { len: 256, max: 255 })));
    }

    #[test]
    fn bytes_without_the_form_of_a_full_key_are_refused() {
        assert_eq!(split_full_key(b""), None);
        assert_eq!(split_full_key(b"\x00"), None);
        assert_eq!(split_full_key(b"\x02ab"), None);
        assert_eq!(split_full_key(b"\x05ab"), None);
    }
}
