//! Lines of fields with a separator between them: `--format tsv`, and the lines of `list`.

use std::borrow::Cow;
use std::io::{self, Write};

use crate::escape::{escape_into, escaped, unescape_into};
use crate::record::Record;

/// The form of a line.
#[derive(Debug, Clone, Copy)]
pub struct Delimited {
    pub separator: u8,
    /// Whether a backslash begins an escape. Without escapes, not every pair can be written.
    pub escapes: bool,
    /// Whether the bucket's name is the first field.
    pub bucket_column: bool,
    /// Which field is the key, counted from 0 after the bucket; the value is the line without it.
    pub key_field: usize,
}

impl Delimited {
    /// Key and value with a tab between them.
    pub const PLAIN: Delimited = Delimited { separator: b'\t', escapes: true, bucket_column: false, key_field: 0 };

    /// Reads a line, which is given without its newline.
    pub fn parse<'a>(&self, line: &'a [u8]) -> Result<Record<'a>, String> {
        let (bucket, rest) = if self.bucket_column {
            let (bucket, rest) = self.split(line).ok_or_else(|| self.lacks("bucket, key and value"))?;
            (Some(self.unescape(bucket)?), rest)
        } else {
            (None, line)
        };
        let mut start = 0;
        for _ in 0..self.key_field {
            let (field, _) =
                self.split(&rest[start..]).ok_or_else(|| self.lacks(&format!("{} fields", self.key_field + 1)))?;
            start += field.len() + 1;
        }
        let (key, value) = match self.split(&rest[start..]) {
            Some((key, after)) if start == 0 => (key, Cow::Borrowed(after)),
            Some((key, after)) => (key, Cow::Owned([&rest[..start], after].concat())),
            // The key is the last field: the separator before it goes with it.
            None if start > 0 => (&rest[start..], Cow::Borrowed(&rest[..start - 1])),
            None => return Err(self.lacks("key and value")),
        };
        let value = match value {
            Cow::Borrowed(value) => self.unescape(value)?,
            Cow::Owned(value) => Cow::Owned(self.unescape(&value)?.into_owned()),
        };
        Ok(Record { bucket, key: self.unescape(key)?, value, expires_at: None })
    }

    /// Whether a line can have these fields.
    pub fn check(&self, fields: &[&[u8]]) -> Result<(), String> {
        if self.escapes {
            return Ok(());
        }
        for (at, field) in fields.iter().enumerate() {
            // In the last field, separators belong to the value.
            let last = at + 1 == fields.len();
            if memchr::memchr(b'\n', field).is_some() || (!last && memchr::memchr(self.separator, field).is_some()) {
                let shown = escaped(&field[..field.len().min(40)]);
                return Err(format!(
                    "`{shown}` has a newline or a separator in it, and cannot be written without escapes"
                ));
            }
        }
        Ok(())
    }

    /// Writes a line with these fields, which were [checked](Delimited::check).
    pub fn write(&self, fields: &[&[u8]], out: &mut impl Write) -> io::Result<()> {
        for (at, field) in fields.iter().enumerate() {
            if at > 0 {
                out.write_all(&[self.separator])?;
            }
            if self.escapes {
                escape_into(field, Some(self.separator), out)?;
            } else {
                out.write_all(field)?;
            }
        }
        out.write_all(b"\n")
    }

    fn split<'a>(&self, line: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let at = memchr::memchr(self.separator, line)?;
        Some((&line[..at], &line[at + 1..]))
    }

    fn unescape<'a>(&self, field: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        if !self.escapes || memchr::memchr(b'\\', field).is_none() {
            return Ok(Cow::Borrowed(field));
        }
        let mut bytes = Vec::with_capacity(field.len());
        unescape_into(field, &mut bytes)?;
        Ok(Cow::Owned(bytes))
    }

    fn lacks(&self, what: &str) -> String {
        format!("the line does not have {what} with `{}` between them", escaped(&[self.separator]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(format: Delimited, line: &str) -> (Option<String>, String, String) {
        let record = format.parse(line.as_bytes()).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (record.bucket.as_deref().map(text), text(&record.key), text(&record.value))
    }

    #[test]
    fn any_bytes_survive_with_escapes() {
        let all: Vec<u8> = (0..=255).collect();
        for separator in [b'\t', b';', b','] {
            let format = Delimited { separator, bucket_column: true, ..Delimited::PLAIN };
            let mut line = Vec::new();
            format.write(&[&all, &all, &all], &mut line).unwrap();
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let record = format.parse(line.strip_suffix(b"\n").unwrap()).unwrap();
            assert_eq!((record.bucket.as_deref(), &*record.key, &*record.value), (Some(&all[..]), &all[..], &all[..]));
        }
    }

    #[test]
    fn the_key_may_be_any_field_and_the_value_is_the_rest() {
        let raw = |key_field| Delimited { separator: b';', escapes: false, key_field, ..Delimited::PLAIN };
        assert_eq!(parsed(raw(0), "a;b;c"), (None, "a".into(), "b;c".into()));
        assert_eq!(parsed(raw(1), "a;b;c"), (None, "b".into(), "a;c".into()));
        assert_eq!(parsed(raw(2), "a;b;c"), (None, "c".into(), "a;b".into()));
        assert!(raw(3).parse(b"a;b;c").is_err());
        assert!(raw(0).parse(b"abc").is_err());
        assert_eq!(parsed(raw(0), "a;"), (None, "a".into(), "".into()));
    }

    #[test]
    fn without_escapes_a_backslash_is_a_byte() {
        let raw = Delimited { escapes: false, ..Delimited::PLAIN };
        assert_eq!(parsed(raw, "C:\\new\tx\ty"), (None, "C:\\new".into(), "x\ty".into()));
        let mut line = Vec::new();
        raw.check(&[b"C:\\new", b"x\ty"]).unwrap();
        raw.write(&[b"C:\\new", b"x\ty"], &mut line).unwrap();
        assert_eq!(line, b"C:\\new\tx\ty\n");
        assert!(raw.check(&[b"a\tb", b"c"]).is_err());
        assert!(raw.check(&[b"a", b"b\nc"]).is_err());
    }
}
