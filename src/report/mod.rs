//! [`Report`]: what verification and salvage have found in a file.

mod json;
mod text;

use std::ops::Range;

use crate::format::Damage;

/// What a file holds and what is lost: the result of [`verify`](crate::verify), [`salvage`](crate::salvage) and
/// [`Cask::verify`](crate::Cask::verify).
///
/// `Display` gives a few lines for people, [`Report::to_json`] an object for programs. Both name keys, and no values.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-report-{}", std::process::id()));
/// # let cask = caskfile::Cask::open(&path)?;
/// # cask.put("key", "value")?;
/// # cask.close()?;
/// # let mut bytes = std::fs::read(&path).unwrap();
/// # let at = bytes.windows(5).position(|w| w == b"value").unwrap();
/// # bytes[at] = b'V';
/// # std::fs::write(&path, bytes).unwrap();
/// use caskfile::{Error, verify};
///
/// // After a bit of the only value has changed:
/// let Err(Error::Damaged { report, .. }) = verify(&path) else { panic!() };
/// assert_eq!((report.keys, report.losses.len()), (0, 1));
/// assert!(report.to_string().contains("value of the key \"key\""));
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Report {
    /// The file's length in bytes.
    pub file_len: u64,
    /// Where the log ends, in bytes from the start of the file.
    pub log_end: u64,
    /// How many keys have a value that verifies, in all buckets. No clock is looked at: a key whose deadline has passed counts as
    /// long as the log has it.
    pub keys: u64,
    /// How many records verify, tombstones and ancillary records included.
    pub records: u64,
    /// How many bytes after the log's end are no complete record or batch, without proof that they ever were: a torn tail,
    /// which the next writer cuts off, or a group that another process is just writing.
    pub torn_bytes: u64,
    /// How much of the log has been on stable storage at least, as the head of the file says, in bytes from the start of
    /// the file. `None` if it says nothing: a new store, a copy from [`Cask::backup_to`](crate::Cask::backup_to), or a
    /// file of an early build.
    pub synced_to: Option<u64>,
    /// Whether the file can say that at its head. A file of an early build cannot, so a lost end may go unseen;
    /// [`Cask::compact`](crate::Cask::compact) makes a file that can.
    pub has_roots: bool,
    /// Whether the end of the file is missing: the file, or what it has of the log, ends before
    /// [`synced_to`](Report::synced_to). It is then the store of an earlier moment.
    pub truncated: bool,
    /// Whether the end of a copy is missing: the file was made by a backup, salvage or compaction, and lacks the mark that
    /// closes the copy. It is then the store of an earlier moment. The file does not show how much is missing.
    pub cut_off: bool,
    /// The ranges that do not verify, in the order of the file.
    pub losses: Vec<Loss>,
    /// The ranges that the disk could not read. They count as zeros: records in them are lost, and `losses` has the range if
    /// other records follow.
    pub unreadable: Vec<Range<u64>>,
    /// How many keys of lost records are readable, but not listed with the losses, because the list would be too long.
    pub unlisted_keys: u64,
    /// What is wrong with the snapshot of the index, if the head of the file leads to one. No pair is lost by it.
    ///
    /// Only verification compares it with the log, and only if the log itself is sound: `None` in the reports of salvage, and of
    /// a file that has other damage or lacks its end.
    pub wrong_snapshot: Option<WrongSnapshot>,
}

/// A snapshot of the index that is damaged, or that differs from the log: see [`Report::wrong_snapshot`].
///
/// A damaged one costs time: whichever handle finds out reads the whole log. One that differs from the log, although its
/// checksums hold, can give wrong answers; only a fault in a program that writes the file makes one.
/// [`Cask::compact`](crate::Cask::compact) makes a file without it, from the log alone.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-wrong-snapshot-{}", std::process::id()));
/// # caskfile::Cask::open(&path)?.put("key", "value")?;
/// assert_eq!(caskfile::verify(&path)?.wrong_snapshot, None);
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WrongSnapshot {
    /// Where the head of the file says that the snapshot is, in bytes from the start of the file.
    pub offset: u64,
    /// What is wrong with it, in a few words for people.
    pub detail: String,
}

/// A range of the file that does not verify: an entry of [`Report::losses`].
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-loss-{}", std::process::id()));
/// # let cask = caskfile::Cask::open(&path)?;
/// # cask.put("key", "value")?;
/// # cask.close()?;
/// # let mut bytes = std::fs::read(&path).unwrap();
/// # let at = bytes.windows(5).position(|w| w == b"value").unwrap();
/// # bytes[at] = b'V';
/// # std::fs::write(&path, bytes).unwrap();
/// use caskfile::{Damage, Error, verify};
///
/// // After a bit of the only value has changed:
/// let Err(Error::Damaged { report, .. }) = verify(&path) else { panic!() };
/// let loss = &report.losses[0];
/// assert!(matches!(loss.damage, Damage::Body { .. }) && !loss.torn);
/// assert_eq!(loss.keys[0].offset, loss.start);
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loss {
    /// Where it starts, in bytes from the start of the file.
    pub start: u64,
    /// Where the next record that verifies starts, or where the data ends.
    pub end: u64,
    /// What does not hold at its start.
    pub damage: Damage,
    /// Whether there is no proof that the range ever was on stable storage: it may be the rest of a write that a crash has
    /// interrupted before it was acknowledged. It is after the log's end, and the next writer cuts it off.
    pub torn: bool,
    /// The offset of the batch that this range cuts into, if there is one. Salvage keeps the other parts of the batch, but
    /// not the [`whole_records`](Loss::whole_records) of this range.
    pub batch: Option<u64>,
    /// How many whole records of that batch the range starts with. They do not count, since there is no proof that the
    /// batch was ever complete. [`salvage_unfinished`](crate::salvage_unfinished) copies them.
    pub whole_records: u64,
    /// The keys of lost records, where they can still be read.
    pub keys: Vec<LostKey>,
}

/// The key of a lost record: an entry of [`Loss::keys`].
///
/// The key is not verified, since its checksum does not hold or cannot be checked. It is probably right: most damage is
/// smaller than the record that it hits.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-lost-key-{}", std::process::id()));
/// # let cask = caskfile::Cask::open(&path)?;
/// # cask.put("key", "old")?;
/// # let old = cask.get("key")?.last_index;
/// # cask.put("key", "new")?;
/// # cask.close()?;
/// # let mut bytes = std::fs::read(&path).unwrap();
/// # let at = bytes.windows(3).position(|w| w == b"new").unwrap();
/// # bytes[at] = b'N';
/// # std::fs::write(&path, bytes).unwrap();
/// use caskfile::{Error, verify};
///
/// // `old` is the `last_index` of an older value. After a bit of the new value has changed:
/// let Err(Error::Damaged { report, .. }) = verify(&path) else { panic!() };
/// let lost = &report.losses[0].keys[0];
/// assert_eq!((&lost.key[..], lost.kept, lost.deleted), (&b"key"[..], Some(old), false));
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostKey {
    /// Where the record starts.
    pub offset: u64,
    /// The name of the key's bucket, empty for the default one.
    pub bucket: Vec<u8>,
    /// The key.
    pub key: Vec<u8>,
    /// The sequence number of the lost record: the pair's `last_index`.
    pub last_index: u64,
    /// Whether the record is a tombstone: the key was deleted here.
    pub deleted: bool,
    /// The `last_index` of the value that the key has without the lost record; `None` if it has none. If it is higher than
    /// that of the lost record, the record had been replaced, and nothing is lost with it. Else the key is back at an
    /// older value.
    pub kept: Option<u64>,
}

impl Report {
    /// Returns whether all that had been on stable storage is there and verifies. `false` if the end of the file or of a
    /// copy is missing, or if the snapshot of the index is wrong; a torn tail does not count.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-is-sound-{}", std::process::id()));
    /// # caskfile::Cask::open(&path)?;
    /// assert!(caskfile::verify(&path)?.is_sound());
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn is_sound(&self) -> bool {
        !self.truncated && !self.cut_off && !self.is_damaged()
    }

    /// Whether bytes that had been on stable storage do not verify, or cannot be read, or the snapshot is wrong.
    pub(crate) fn is_damaged(&self) -> bool {
        self.lacks_records() || self.wrong_snapshot.is_some()
    }

    /// Whether bytes of the log that had been on stable storage do not verify, or cannot be read.
    pub(crate) fn lacks_records(&self) -> bool {
        !self.unreadable.is_empty() || self.losses.iter().any(|loss| !loss.torn)
    }

    /// Returns how many whole records do not count because their batch has no end: the sum of [`Loss::whole_records`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-unfinished-{}", std::process::id()));
    /// # caskfile::Cask::open(&path)?.put("key", "value")?;
    /// assert_eq!(caskfile::verify(&path)?.unfinished_records(), 0);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn unfinished_records(&self) -> u64 {
        self.losses.iter().map(|loss| loss.whole_records).sum()
    }

    /// Returns how many bytes do not verify, those of a torn tail included. [`Report::unreadable`] ranges count where a loss
    /// covers them.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-lost-bytes-{}", std::process::id()));
    /// # caskfile::Cask::open(&path)?;
    /// assert_eq!(caskfile::verify(&path)?.lost_bytes(), 0);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn lost_bytes(&self) -> u64 {
        self.losses.iter().map(|loss| loss.end - loss.start).sum()
    }

    /// Returns the report as one JSON object on one line.
    ///
    /// Its members have the names of the fields of this type, [`Loss`], [`LostKey`] and [`WrongSnapshot`]. `sound` is
    /// [`Report::is_sound`], `damage` is a word ([`Damage::name`]), and `detail` is a text for people. Keys and buckets
    /// that are not UTF-8 are in hexadecimal, as `key_hex` and `bucket_hex`.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-json-{}", std::process::id()));
    /// # caskfile::Cask::open(&path)?.close()?;
    /// assert!(caskfile::verify(&path)?.to_json().contains(r#""sound":true,"losses":[]"#));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn to_json(&self) -> String {
        json::of(self)
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
            synced_to: Some(192),
            has_roots: true,
            truncated: false,
            cut_off: false,
            losses: vec![lost, torn],
            unreadable: vec![4096..12288, 20480..24576],
            unlisted_keys: 4,
            wrong_snapshot: Some(WrongSnapshot { offset: 160, detail: "the \"part\" differs".into() }),
        }
    }

    #[test]
    fn the_json_has_every_field_and_is_escaped() {
        assert_eq!(
            report().to_json(),
            concat!(
                r#"{"file_len":300,"log_end":200,"keys":1,"records":2,"torn_bytes":8,"synced_to":192,"has_roots":true,"truncated":false,"cut_off":false,"sound":false,"losses":["#,
                r#"{"start":64,"end":128,"damage":"form","detail":"the body does not have the form that its kind demands","#,
                r#""torn":false,"batch":32,"whole_records":0,"keys":["#,
                r#"{"offset":64,"bucket":"b","key":"quote\"back\\\u000a\u0001","last_index":7,"deleted":false,"kept":null},"#,
                r#"{"offset":64,"bucket":"b","key_hex":"ff00","last_index":7,"deleted":true,"kept":3},"#,
                r#"{"offset":64,"bucket":"b","key":"grün","last_index":7,"deleted":false,"kept":9}]},"#,
                r#"{"start":200,"end":208,"damage":"zeros","detail":"zeros stand where a record should, and records follow","#,
                r#""torn":true,"batch":200,"whole_records":1,"keys":[]}],"unreadable":[{"start":4096,"end":12288},{"start":20480,"end":24576}],"unlisted_keys":4,"#,
                r#""wrong_snapshot":{"offset":160,"detail":"the \"part\" differs"}}"#
            )
        );
    }

    #[test]
    fn the_text_names_what_is_lost_and_where() {
        let text = report().to_string();
        for part in [
            "2 records verify and give 1 keys; the log ends at 200 of 300 bytes, followed by 8 bytes of a torn tail",
            "bytes 4096 to 12288 cannot be read from the disk\nbytes 20480 to",
            "72 bytes are lost, in 2 ranges:",
            "bytes 64 to 128: the body does not have",
            "cuts the batch that starts at 32 in two",
            r#"value of the key "quote\"back\\\n\x01" in the bucket "b" (unverified), last_index 7: the key has no value now"#,
            r#"deletion of the key "\xff\x00" in the bucket "b" (unverified), last_index 7: the older value of last_index 3 is there"#,
            "replaced later, by last_index 9",
            "bytes 200 to 208: zeros stand where a record should, and records follow (a torn tail",
            "has 1 whole record of a batch that has no end",
            "and 4 more keys of lost records can be read",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(Report::default().to_string().ends_with("nothing is lost"));
    }

    #[test]
    fn a_wrong_snapshot_alone_is_damage_by_which_nothing_is_lost() {
        let wrong = Report { wrong_snapshot: report().wrong_snapshot, ..Report::default() };
        let text = wrong.to_string();
        assert!(text.contains("the snapshot of the index at 160 is wrong: the \"part\" differs"), "{text}");
        assert!(
            text.contains("`caskfile compact` makes a file without it") && text.ends_with("nothing is lost"),
            "{text}"
        );
        assert!(!wrong.is_sound() && !wrong.lacks_records());
        assert!(Report::default().to_json().ends_with(r#""wrong_snapshot":null}"#));
    }

    #[test]
    fn a_torn_tail_alone_leaves_the_store_sound() {
        let mut report = report();
        assert!(!report.is_sound());
        report.losses.remove(0);
        assert!(!report.is_sound());
        report.unreadable.clear();
        assert!(!report.is_sound());
        report.wrong_snapshot = None;
        assert!(report.is_sound() && Report::default().is_sound());
        assert_eq!((report.unfinished_records(), Report::default().unfinished_records()), (1, 0));
        assert!(!Report { cut_off: true, ..report.clone() }.is_sound(), "the end of a copy is missing");
        assert!(!Report { truncated: true, ..report }.is_sound(), "the end of the file is missing");
    }
}
