//! A simulated file's bytes.

use std::hash::{Hash, Hasher};
use std::ops::Range;

/// Bytes up to the last one that was ever written, and a length. The zeros between the two take no memory or time: the
/// engine extends its files far beyond their logs, and tests copy them by the million.
#[derive(Debug, Clone, Default)]
pub(super) struct Contents {
    data: Vec<u8>,
    len: u64,
}

impl Contents {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Returns the offset after which there are only zeros.
    pub(super) fn data_len(&self) -> u64 {
        self.data.len() as u64
    }

    /// Copies the bytes from `offset` on and returns their number.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        let count = self.len.saturating_sub(offset).min(out.len() as u64) as usize;
        let data = self.data.get(offset as usize..).unwrap_or_default();
        let copied = data.len().min(count);
        out[..copied].copy_from_slice(&data[..copied]);
        out[copied..count].fill(0);
        count
    }

    /// Puts bytes into the file, and makes it longer if need be.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.data[start..end].copy_from_slice(bytes);
        self.len = self.len.max(end as u64);
    }

    /// Fills a range with zeros, as far as the file reaches.
    pub(super) fn zero(&mut self, range: Range<u64>) {
        let end = self.data_len().min(range.end);
        if range.start < end {
            self.data[range.start as usize..end as usize].fill(0);
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.data.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        self.len = len;
    }

    /// Returns the offset of the first byte at or after `offset` that is not zero.
    pub(super) fn next_data(&self, offset: u64) -> Option<u64> {
        let rest = self.data.get(usize::try_from(offset).ok()?..)?;
        rest.iter().position(|&byte| byte != 0).map(|at| offset + at as u64)
    }

    /// Returns the bytes up to the last one that is not zero.
    fn written(&self) -> &[u8] {
        let end = self.data.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        &self.data[..end]
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = self.data.clone();
        bytes.resize(self.len as usize, 0);
        bytes
    }
}

impl From<Vec<u8>> for Contents {
    fn from(data: Vec<u8>) -> Contents {
        let len = data.len() as u64;
        Contents { data, len }
    }
}

/// Equal bytes are equal, and have equal hashes, no matter how many zeros at their end were written.
impl PartialEq for Contents {
    fn eq(&self, other: &Contents) -> bool {
        (self.len, self.written()) == (other.len, other.written())
    }
}

impl Hash for Contents {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.written());
        state.write_u64(self.len);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;

    use quickcheck::quickcheck;

    use super::*;

    fn number(contents: &Contents) -> u64 {
        let mut hasher = DefaultHasher::new();
        contents.hash(&mut hasher);
        hasher.finish()
    }

    quickcheck! {
        /// After any changes, the contents are those of a plain vector.
        fn zeros_without_memory_read_as_zeros(steps: Vec<(u8, u8, u8)>) -> bool {
            let (mut contents, mut plain) = (Contents::default(), Vec::new());
            for (what, at, len) in steps {
                let (start, end) = (usize::from(at), usize::from(at) + usize::from(len));
                match what % 4 {
                    0 => {
                        contents.set_len(start as u64);
                        plain.resize(start, 0);
                    }
                    1 => {
                        contents.zero(start as u64..end as u64);
                        plain.iter_mut().take(end).skip(start).for_each(|byte| *byte = 0);
                    }
                    // Zeros, too, are written.
                    _ => {
                        contents.write(start as u64, &vec![what / 4 % 2; end - start]);
                        if len > 0 && plain.len() < end {
                            plain.resize(end, 0);
                        }
                        plain.iter_mut().take(end).skip(start).for_each(|byte| *byte = what / 4 % 2);
                    }
                }
            }
            let mut read = vec![7; 600];
            let count = contents.read(3, &mut read);
            let first = plain.iter().skip(3).position(|&byte| byte != 0);
            contents.to_vec() == plain
                && contents.len() == plain.len() as u64
                && read[..count] == *plain.get(3..).unwrap_or_default()
                && contents.next_data(3) == first.map(|at| at as u64 + 3)
                && number(&contents) == number(&plain.into())
        }
    }
}
