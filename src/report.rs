//! [`Report`]: what verification and salvage say of a file.

use std::fmt::{self, Display, Formatter, Write};
use std::ops::Range;

use crate::format::Damage;

/// What a file holds and what of it is lost: the answer of [`verify`](crate::verify), [`salvage`](crate::salvage) and
/// [`Cask::verify`](crate::Cask::verify).
///
/// `Display` is a text of some lines for people, [`Report::to_json`] says the same for programs. Both name keys and no
/// values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Report {
    /// The file's length in bytes.
    pub file_len: u64,
    /// Where the log ends, in bytes from the start of the file.
    pub log_end: u64,
    /// Keys that have a value, in all buckets: each with the newest of its values that verifies.
    pub keys: u64,
    /// Records that were read and verified, tombstones and ancillary ones included.
    pub records: u64,
    /// Bytes behind the log's end that are no complete record or batch, and that nothing proves to have been one: a torn
    /// tail, which the next writer cuts off, or a group that another process is just writing.
    pub torn_bytes: u64,
    /// The file was made as a copy of a store (by a backup, salvage or compaction), and the mark that closes the copy is
    /// missing: the file has lost its end, and is the store of an earlier moment. The file does not show how much is missing.
    pub cut_off: bool,
    /// What does not verify, in the order of the file.
    pub losses: Vec<Loss>,
    /// What the disk could not read. It was taken for zeros: if it held records, they are lost, and `losses` names where
    /// they stood if any follow.
    pub unreadable: Vec<Range<u64>>,
    /// How many keys of lost records are readable, but not listed with the losses, because there are too many.
    pub unlisted_keys: u64,
}

/// A range of the file that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loss {
    /// Where it starts, in bytes from the start of the file.
    pub start: u64,
    /// Where the next record that could be read starts, or the data ends.
    pub end: u64,
    /// What does not hold at its start.
    pub damage: Damage,
    /// Nothing proves that the range ever was on stable storage: it may be what a crash has left of a write that nobody
    /// was told of. It lies behind the log's end, where the next writer would cut it off.
    pub torn: bool,
    /// Where the batch starts, as far as it could be read, that the range takes a part of. Salvage keeps the other parts,
    /// but for the [`whole_records`](Loss::whole_records) of this range.
    pub batch: Option<u64>,
    /// How many whole records of that batch the range has at its start. They are left out, since the batch has no end and
    /// nothing proves that it ever had one; [`salvage_unfinished`](crate::salvage_unfinished) copies them.
    pub whole_records: u64,
    /// Keys of lost records, where they can still be read.
    pub keys: Vec<LostKey>,
}

/// The key of a record that is lost.
///
/// The checksum that covers the key does not hold, or nobody can tell: it is most likely right, since damage is mostly
/// smaller than what surrounds it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostKey {
    /// Where the record starts.
    pub offset: u64,
    /// The name of the key's bucket, empty for the default one.
    pub bucket: Vec<u8>,
    /// The key.
    pub key: Vec<u8>,
    /// The index of the lost record.
    pub last_index: u64,
    /// The record is a tombstone: the key was deleted here.
    pub deleted: bool,
    /// The index of the value that the key has without the lost record, if any. If it is the greater one, the record
    /// had been replaced, and nothing is lost with it; else the key is back at an older value.
    pub kept: Option<u64>,
}

impl Report {
    /// Whether nothing is lost that had been on stable storage, and all of the file could be read. A torn tail is no loss in
    /// this sense; the missing end of a copy is one.
    pub fn is_sound(&self) -> bool {
        !self.cut_off && !self.is_damaged()
    }

    /// Whether something that had been on stable storage does not verify, or could not be read.
    pub(crate) fn is_damaged(&self) -> bool {
        !self.unreadable.is_empty() || self.losses.iter().any(|loss| !loss.torn)
    }

    /// How many whole records are left out because their batch has no end: see [`Loss::whole_records`].
    pub fn unfinished_records(&self) -> u64 {
        self.losses.iter().map(|loss| loss.whole_records).sum()
    }

    /// How many bytes are lost, those of a torn tail included. What is [`unreadable`](Report::unreadable) counts where a loss
    /// covers it.
    pub fn lost_bytes(&self) -> u64 {
        self.losses.iter().map(|loss| loss.end - loss.start).sum()
    }

    /// The report as one JSON object on one line.
    ///
    /// Its members are the fields of this type, of [`Loss`] and of [`LostKey`], by the same names, and `sound`. `damage`
    /// is a word ([`Damage::name`]), with `detail` beside it for people. Keys and buckets that are not UTF-8 are given
    /// in hexadecimal, as `key_hex` and `bucket_hex`.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-json-{}", std::process::id()));
    /// # caskfile::Cask::open(&path)?.close()?;
    /// assert!(caskfile::verify(&path)?.to_json().contains(r#""sound":true,"losses":[]"#));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn to_json(&self) -> String {
        let Report { file_len, log_end, keys, records, torn_bytes, cut_off, unlisted_keys, .. } = self;
        let losses = list(&self.losses, Loss::to_json);
        let unreadable = list(&self.unreadable, |at| format!(r#"{{"start":{},"end":{}}}"#, at.start, at.end));
        format!(
            r#"{{"file_len":{file_len},"log_end":{log_end},"keys":{keys},"records":{records},"torn_bytes":{torn_bytes},"cut_off":{cut_off},"sound":{},"losses":{losses},"unreadable":{unreadable},"unlisted_keys":{unlisted_keys}}}"#,
            self.is_sound(),
        )
    }
}

impl Loss {
    fn to_json(&self) -> String {
        let Loss { start, end, damage, torn, whole_records, .. } = self;
        format!(
            r#"{{"start":{start},"end":{end},"damage":"{}","detail":{},"torn":{torn},"batch":{},"whole_records":{whole_records},"keys":{}}}"#,
            damage.name(),
            text(&damage.to_string()),
            number(self.batch),
            list(&self.keys, LostKey::to_json),
        )
    }
}

impl LostKey {
    fn to_json(&self) -> String {
        let LostKey { offset, last_index, deleted, .. } = self;
        format!(
            r#"{{"offset":{offset},{},{},"last_index":{last_index},"deleted":{deleted},"kept":{}}}"#,
            bytes("bucket", &self.bucket),
            bytes("key", &self.key),
            number(self.kept),
        )
    }
}

fn list<T>(items: &[T], to_json: impl Fn(&T) -> String) -> String {
    let items: Vec<String> = items.iter().map(to_json).collect();
    format!("[{}]", items.join(","))
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(|| "null".to_owned(), |number| number.to_string())
}

fn bytes(name: &str, bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(plain) => format!(r#""{name}":{}"#, text(plain)),
        Err(_) => {
            let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            format!(r#""{name}_hex":"{hex}""#)
        }
    }
}

/// A JSON string.
fn text(plain: &str) -> String {
    let mut json = String::from('"');
    for char in plain.chars() {
        match char {
            '"' | '\\' => json.extend(['\\', char]),
            '\0'..='\x1f' => {
                let _ = write!(json, "\\u{:04x}", u32::from(char));
            }
            _ => json.push(char),
        }
    }
    json.push('"');
    json
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Report { file_len, log_end, keys, records, .. } = self;
        write!(f, "{records} records verify and give {keys} keys; the log ends at {log_end} of {file_len} bytes")?;
        if self.torn_bytes > 0 {
            write!(f, ", {} bytes behind it are a torn tail", self.torn_bytes)?;
        }
        if self.cut_off {
            write!(f, "\nit is a copy whose end is missing")?;
        }
        for Range { start, end } in &self.unreadable {
            write!(f, "\nbytes {start} to {end} cannot be read from the disk")?;
        }
        if self.losses.is_empty() {
            let else_ = if self.unreadable.is_empty() { "" } else { " else" };
            let known = if self.cut_off { " known to be" } else { "" };
            return write!(f, "\nnothing{else_} is{known} lost");
        }
        let (bytes, ranges) = (self.lost_bytes(), self.losses.len());
        write!(f, "\n{bytes} bytes are lost, in {ranges} {}:", if ranges == 1 { "range" } else { "ranges" })?;
        self.losses.iter().try_for_each(|loss| write!(f, "\n{loss}"))?;
        match self.unlisted_keys {
            0 => Ok(()),
            more => write!(f, "\nand {more} more keys of lost records can be read"),
        }
    }
}

impl Display for Loss {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "  bytes {} to {}: {}", self.start, self.end, self.damage)?;
        if self.torn {
            write!(f, " (a torn tail: nothing proves that it was ever whole)")?;
        }
        if let Some(start) = self.batch {
            write!(f, "\n    cuts the batch that starts at {start} in two")?;
        }
        if self.whole_records > 0 {
            let s = if self.whole_records == 1 { "" } else { "s" };
            write!(f, "\n    has {} whole record{s} of a batch that has no end", self.whole_records)?;
        }
        self.keys.iter().try_for_each(|key| write!(f, "\n    {key}"))
    }
}

impl Display for LostKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let what = if self.deleted { "deletion of" } else { "value of" };
        write!(f, "{what} the key \"{}\"", self.key.escape_ascii())?;
        if !self.bucket.is_empty() {
            write!(f, " in the bucket \"{}\"", self.bucket.escape_ascii())?;
        }
        write!(f, " (unverified), index {}: ", self.last_index)?;
        match self.kept {
            Some(kept) if kept > self.last_index => write!(f, "replaced later, by index {kept}"),
            Some(kept) => write!(f, "the older value of index {kept} is there"),
            None => write!(f, "the key has no value now"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let key = |key: &[u8], kept| LostKey {
            offset: 64,
            bucket: b"b".to_vec(),
            key: key.to_vec(),
            last_index: 7,
            deleted: kept == Some(3),
            kept,
        };
        let keys = vec![key(b"quote\"back\\\n\x01", None), key(b"\xff\x00", Some(3)), key("grün".as_bytes(), Some(9))];
        let torn = Loss {
            start: 200,
            end: 208,
            damage: Damage::Zeros,
            torn: true,
            batch: Some(200),
            whole_records: 1,
            keys: Vec::new(),
        };
        let lost =
            Loss { start: 64, end: 128, damage: Damage::Form, torn: false, batch: Some(32), whole_records: 0, keys };
        Report {
            file_len: 300,
            log_end: 200,
            keys: 1,
            records: 2,
            torn_bytes: 8,
            cut_off: false,
            losses: vec![lost, torn],
            unreadable: vec![4096..12288, 20480..24576],
            unlisted_keys: 4,
        }
    }

    #[test]
    fn the_json_has_every_field_and_escapes_what_must_be_escaped() {
        assert_eq!(
            report().to_json(),
            concat!(
                r#"{"file_len":300,"log_end":200,"keys":1,"records":2,"torn_bytes":8,"cut_off":false,"sound":false,"losses":["#,
                r#"{"start":64,"end":128,"damage":"form","detail":"the body does not have the form that its kind demands","#,
                r#""torn":false,"batch":32,"whole_records":0,"keys":["#,
                r#"{"offset":64,"bucket":"b","key":"quote\"back\\\u000a\u0001","last_index":7,"deleted":false,"kept":null},"#,
                r#"{"offset":64,"bucket":"b","key_hex":"ff00","last_index":7,"deleted":true,"kept":3},"#,
                r#"{"offset":64,"bucket":"b","key":"grün","last_index":7,"deleted":false,"kept":9}]},"#,
                r#"{"start":200,"end":208,"damage":"zeros","detail":"zeros stand where a record should, and records follow","#,
                r#""torn":true,"batch":200,"whole_records":1,"keys":[]}],"unreadable":[{"start":4096,"end":12288},{"start":20480,"end":24576}],"unlisted_keys":4}"#
            )
        );
    }

    #[test]
    fn the_text_says_what_is_lost_where_and_what_is_left_of_it() {
        let text = report().to_string();
        for part in [
            "2 records verify and give 1 keys; the log ends at 200 of 300 bytes, 8 bytes behind it are a torn tail",
            "bytes 4096 to 12288 cannot be read from the disk\nbytes 20480 to",
            "72 bytes are lost, in 2 ranges:",
            "bytes 64 to 128: the body does not have",
            "cuts the batch that starts at 32 in two",
            r#"value of the key "quote\"back\\\n\x01" in the bucket "b" (unverified), index 7: the key has no value now"#,
            r#"deletion of the key "\xff\x00" in the bucket "b" (unverified), index 7: the older value of index 3 is there"#,
            "replaced later, by index 9",
            "bytes 200 to 208: zeros stand where a record should, and records follow (a torn tail",
            "has 1 whole record of a batch that has no end",
            "and 4 more keys of lost records can be read",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(Report::default().to_string().ends_with("nothing is lost"));
    }

    #[test]
    fn a_torn_tail_alone_leaves_the_store_sound() {
        let mut report = report();
        assert!(!report.is_sound());
        report.losses.remove(0);
        assert!(!report.is_sound());
        report.unreadable.clear();
        assert!(report.is_sound() && Report::default().is_sound());
        assert_eq!((report.unfinished_records(), Report::default().unfinished_records()), (1, 0));
        assert!(!Report { cut_off: true, ..report }.is_sound(), "how much is missing, nobody can tell");
    }
}
