//! [`KvPair`].

use std::fmt;

/// A key, its value, and the sequence number of the write that set it.
///
/// A compare-and-swap compares `last_index` only. So a program that has kept the number can construct the pair again.
///
/// ```
/// use caskfile::KvPair;
///
/// let pair = KvPair::new("colour", "blue", 7);
/// assert_eq!(pair, KvPair { key: b"colour".to_vec(), value: b"blue".to_vec(), last_index: 7 });
/// assert_eq!(format!("{pair:?}"), r#"KvPair { key: b"colour", value: b"blue", last_index: 7 }"#);
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KvPair {
    /// The key, without its bucket.
    pub key: Vec<u8>,
    /// The value; it may be empty.
    pub value: Vec<u8>,
    /// The sequence number of the write that set the value. It grows through the whole store, not for each key, and with
    /// gaps: each process that writes takes a block of 2^20 numbers, so the first write of the next process is about a million
    /// higher. A number that a reader has seen is never assigned again. So it fits where programs compare, as in an ETag, and
    /// not as a number that people read or count with.
    pub last_index: u64,
}

impl KvPair {
    /// Returns a pair of these parts.
    ///
    /// Cost: a copy of a slice; a `Vec<u8>` or a `String` is moved.
    ///
    /// ```
    /// let previous = caskfile::KvPair::new("colour", "", 7); // enough for a compare-and-swap
    /// assert_eq!(previous.last_index, 7);
    /// ```
    pub fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>, last_index: u64) -> KvPair {
        KvPair { key: key.into(), value: value.into(), last_index }
    }
}

/// Shows bytes as a byte string, since they are usually text, and cuts a long one, so that a failed assertion about a
/// large value fits on a screen.
impl fmt::Debug for KvPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvPair")
            .field("key", &ByteString(&self.key))
            .field("value", &ByteString(&self.value))
            .field("last_index", &self.last_index)
            .finish()
    }
}

/// Bytes whose `Debug` is a byte-string literal of at most [`ByteString::SHOWN`] bytes.
struct ByteString<'a>(&'a [u8]);

impl ByteString<'_> {
    const SHOWN: usize = 64;
}

impl fmt::Debug for ByteString<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_at_checked(Self::SHOWN) {
            Some((shown, rest)) if !rest.is_empty() => {
                write!(f, "b\"{}\"..({} bytes)", shown.escape_ascii(), self.0.len())
            }
            _ => write!(f, "b\"{}\"", self.0.escape_ascii()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_escapes_bytes_that_are_not_text() {
        let pair = KvPair::new("a\"b", [0, 0xff, b'\n'], 1);
        assert_eq!(format!("{pair:?}"), r#"KvPair { key: b"a\"b", value: b"\x00\xff\n", last_index: 1 }"#);
    }

    #[test]
    fn debug_cuts_a_long_value_and_shows_its_length() {
        let at_the_limit = format!("{:?}", KvPair::new("k", vec![b'x'; ByteString::SHOWN], 1));
        assert!(at_the_limit.contains(&format!("b\"{}\",", "x".repeat(ByteString::SHOWN))), "{at_the_limit}");

        let above_it = format!("{:?}", KvPair::new("k", vec![b'x'; ByteString::SHOWN + 1], 1));
        assert!(above_it.contains(&format!("b\"{}\"..(65 bytes)", "x".repeat(ByteString::SHOWN))), "{above_it}");
    }
}
