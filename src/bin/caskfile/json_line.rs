//! [`Line`]: an object of NDJSON as it is written.

use std::io::{self, Write};
use std::time::SystemTime;

use base64::engine::general_purpose::STANDARD;
use base64::write::EncoderWriter;

use crate::escape::as_text;
use crate::moment::milliseconds;

/// Writes an object field by field, so that a large value is in memory once only.
pub struct Line<'o, W: Write> {
    out: &'o mut W,
    /// The first error, which [`Line::end`] returns.
    written: io::Result<()>,
    empty: bool,
}

impl<'o, W: Write> Line<'o, W> {
    pub fn begin(out: &'o mut W) -> Line<'o, W> {
        let written = out.write_all(b"{");
        Line { out, written, empty: true }
    }

    pub fn bytes(mut self, name: &str, bytes: &[u8]) -> Line<'o, W> {
        self.name(name);
        match as_text(bytes) {
            Some(text) => {
                self.put(b"\":");
                return self.json(text);
            }
            None => {
                self.put(b"_base64\":\"");
                self.and_then(|out| {
                    let mut encoder = EncoderWriter::new(out, &STANDARD);
                    encoder.write_all(bytes)?;
                    encoder.finish().map(drop)
                });
                self.put(b"\"");
            }
        }
        self
    }

    pub fn number(mut self, name: &str, number: u64) -> Line<'o, W> {
        self.name(name);
        self.put(b"\":");
        self.put(number.to_string().as_bytes());
        self
    }

    /// When a pair expires, in milliseconds since 1970. Nothing if it stays.
    pub fn expiry(self, expires_at: Option<SystemTime>) -> Line<'o, W> {
        match expires_at {
            Some(moment) => self.number("expires_at", milliseconds(moment)),
            None => self,
        }
    }

    pub fn text(mut self, name: &str, text: &str) -> Line<'o, W> {
        self.name(name);
        self.put(b"\":");
        self.json(text)
    }

    pub fn texts(mut self, name: &str, texts: &[String]) -> Line<'o, W> {
        self.name(name);
        self.put(b"\":");
        self.json(texts)
    }

    pub fn objects(mut self, name: &str, objects: &[serde_json::Value]) -> Line<'o, W> {
        self.name(name);
        self.put(b"\":");
        self.json(objects)
    }

    /// `None` is null: unknown.
    pub fn boolean(mut self, name: &str, boolean: Option<bool>) -> Line<'o, W> {
        self.name(name);
        self.put(b"\":");
        self.json(&boolean)
    }

    /// A value that serde can always write.
    fn json<T: serde::Serialize + ?Sized>(mut self, value: &T) -> Line<'o, W> {
        self.and_then(|out| serde_json::to_writer(out, value).map_err(io::Error::from));
        self
    }

    pub fn end(mut self) -> io::Result<()> {
        self.put(b"}\n");
        self.written
    }

    fn put(&mut self, bytes: &[u8]) {
        self.and_then(|out| out.write_all(bytes));
    }

    fn and_then(&mut self, write: impl FnOnce(&mut W) -> io::Result<()>) {
        if self.written.is_ok() {
            self.written = write(self.out);
        }
    }

    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.empty) {
            self.put(b",");
        }
        self.put(b"\"");
        self.put(name.as_bytes());
    }
}
