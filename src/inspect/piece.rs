//! [`Piece`]: a part of a file, with its class and its fields.

use std::ops::Range;

use crate::format::Damage;
use crate::format::snapshot::{PART_ENTRY_LEN, SNAPSHOT_HEAD_LEN, Snapshot};
use crate::format::{
    EXPIRY_FIELDS, FILE_HEADER_FIELDS, FLAG_NAMES, Named, PART_FIELDS, RECORD_HEADER_FIELDS, RECORD_HEADER_LEN,
    RawRecordHeader, SESSION_FIELDS, SESSION_LEN, SLOT_FIELDS, SLOTS, SNAPSHOT_FIELDS, expiry_len, is_session_kind,
    is_snapshot_kind, kind_name, padded, split_full_key,
};

/// What the bytes of a piece are.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-class-{}", std::process::id()));
/// # caskfile::Cask::open(&path)?.put("key", "value")?;
/// use caskfile::inspect::{Class, Inspection};
///
/// let inspection = Inspection::open(&path)?;
/// let live = inspection.pieces().filter(|piece| piece.as_ref().unwrap().class == Class::Live);
/// assert_eq!(live.count(), 1);
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Class {
    /// The file's header, whether it holds or not.
    FileHeader,
    /// The record `ROOTS`, which says how much of the log has been on stable storage.
    Roots,
    /// A put that holds its key's current value. If its deadline has passed, or its session is over, the store hides the pair until
    /// a write removes it.
    Live,
    /// A put that was replaced, or whose key was deleted.
    Dead,
    /// A delete.
    Tombstone,
    /// A record about the log or a session, not about a key: a session, a mark, `SYNCED_TO`, `MOVED`, or an ancillary kind of a later version.
    Statement,
    /// A record of a snapshot of the index, `IMAGE` or `SNAPSHOT`, of the newest snapshot or of an older one.
    Snapshot,
    /// The zeros after a record, up to the next multiple of 8.
    Padding,
    /// The end mark, or the part of it that the file has.
    EndMark,
    /// Bytes after the log's end that a crash has left of a write, or a write under way. The next writer cuts them off.
    Torn,
    /// Damaged after it had been on stable storage.
    Corrupt,
    /// Bytes that this version cannot read: the file, or a record here or before, is of a later version; or the file header
    /// is lost and the records do not show the file's identity.
    Unread,
    /// Zeros after all of that, by which a writer has extended the file.
    Zeros,
}

impl Class {
    /// All classes.
    ///
    /// ```
    /// use caskfile::inspect::Class;
    ///
    /// assert!(Class::ALL.map(Class::name).contains(&"tombstone"));
    /// ```
    pub const ALL: [Class; 13] = [
        Class::FileHeader,
        Class::Roots,
        Class::Live,
        Class::Dead,
        Class::Tombstone,
        Class::Statement,
        Class::Snapshot,
        Class::Padding,
        Class::EndMark,
        Class::Torn,
        Class::Corrupt,
        Class::Unread,
        Class::Zeros,
    ];

    /// Returns the class in one word, for programs: `"file_header"`, `"roots"`, `"live"`, `"dead"`, `"tombstone"`, `"statement"`,
    /// `"snapshot"`, `"padding"`, `"end_mark"`, `"torn"`, `"corrupt"`, `"unread"` or `"zeros"`.
    ///
    /// ```
    /// assert_eq!(caskfile::inspect::Class::EndMark.name(), "end_mark");
    /// ```
    pub fn name(self) -> &'static str {
        match self {
            Class::FileHeader => "file_header",
            Class::Roots => "roots",
            Class::Live => "live",
            Class::Dead => "dead",
            Class::Tombstone => "tombstone",
            Class::Statement => "statement",
            Class::Snapshot => "snapshot",
            Class::Padding => "padding",
            Class::EndMark => "end_mark",
            Class::Torn => "torn",
            Class::Corrupt => "corrupt",
            Class::Unread => "unread",
            Class::Zeros => "zeros",
        }
    }
}

/// A part of a file whose bytes belong together: a header, a record, padding, or a range without any.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-piece-{}", std::process::id()));
/// # caskfile::Cask::open(&path)?.put("key", "value")?;
/// use caskfile::inspect::{Class, Inspection};
///
/// let inspection = Inspection::open(&path)?;
/// let live = inspection.pieces().map(Result::unwrap).find(|piece| piece.class == Class::Live).unwrap();
/// assert_eq!(live.end - live.start, 24 + 1 + 3 + 5);
/// assert!(live.damage.is_none());
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Piece {
    /// Where it starts, in bytes from the start of the file.
    pub start: u64,
    /// Where it ends, which is where the next piece starts. Equal to `start` where a batch breaks off right before a whole
    /// record, so that the damage has no bytes.
    pub end: u64,
    /// What its bytes are.
    pub class: Class,
    /// The piece's record, without padding. In a torn, corrupt or unread part of the file: bytes that still have the form
    /// of a record, with padding; such a record does not count.
    pub record: Option<Record>,
    /// What does not hold at its start; `None` if all does.
    pub damage: Option<Damage>,
    /// Of [`Class::Roots`]: what the two slots are, in the file's order. `None` for other pieces.
    pub slots: Option<[Slot; 2]>,
}

/// What a slot of `ROOTS` is. The slots have checksums of their own, which no checksum of the record covers.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-slot-{}", std::process::id()));
/// use caskfile::Cask;
/// use caskfile::inspect::{Inspection, Slot};
///
/// let slots = || Inspection::open(&path).unwrap().pieces().find_map(|piece| piece.unwrap().slots);
/// let cask = Cask::open(&path)?;
/// assert_eq!(slots(), Some([Slot::Empty, Slot::Empty]));
/// cask.put("key", "value")?;
/// cask.close()?;
/// assert_eq!(slots(), Some([Slot::Root, Slot::Empty]));
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Slot {
    /// It holds, and it is the root: what it states counts.
    Root,
    /// It holds, and the other slot is the root.
    Earlier,
    /// All of its bytes are zeros: it was never written.
    Empty,
    /// It does not hold: a write was torn, it is damaged, or the file ends in it.
    Broken,
}

/// A record as the file has it.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-record-{}", std::process::id()));
/// use caskfile::Cask;
/// use caskfile::inspect::Inspection;
///
/// let cask = Cask::open(&path)?;
/// cask.put("key", "value")?;
/// let inspection = Inspection::open(&path)?;
/// let record = inspection.pieces().filter_map(|piece| piece.unwrap().record).last().unwrap();
/// assert_eq!(record.seq, cask.get("key")?.last_index);
/// assert_eq!((record.kind_name(), record.value_len, record.batch), (Some("put"), 5, None));
/// assert!(record.flag_names().eq(["SYNCED"]) && record.unknown_flags() == 0);
/// assert_eq!(record.bucket_and_key(), Some((&b""[..], &b"key"[..])));
///
/// let mut value = [0; 5];
/// inspection.read(record.value().start, &mut value)?;
/// assert_eq!(&value, b"value");
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Where it starts, in bytes from the start of the file.
    pub offset: u64,
    /// The checksum of the header, as stored.
    pub header_crc: u32,
    /// The checksum of the body, as stored.
    pub body_crc: u32,
    /// The flags: see [`Record::flag_names`].
    pub flags: u8,
    /// The kind: see [`Record::kind_name`].
    pub kind: u8,
    /// The length of the full key (bucket and key), in bytes.
    pub key_len: u16,
    /// The length of the value in bytes, as stored: of a put-with or put-owned, the expiry included.
    pub value_len: u32,
    /// The record's sequence number.
    pub seq: u64,
    /// Whether the header's checksum holds.
    pub header_holds: bool,
    /// Whether the body's checksum holds; `None` if it cannot be checked, because the record is of a later version or its
    /// lengths are wrong.
    pub body_holds: Option<bool>,
    /// The full key: the length of the bucket's name, the name, the key. Shorter where the file ends in it.
    pub full_key: Vec<u8>,
    /// The deadline of a put-with or put-owned, in milliseconds since 1970-01-01 00:00 UTC: from this moment on, the store hides the pair.
    /// `None` if it has none, and where the file ends before it.
    pub deadline: Option<u64>,
    /// The session to which a put-owned belongs, or which a session's record is about: the sequence number of the session's first
    /// record. `None` for other kinds, and where the file ends before it.
    pub session: Option<u64>,
    /// The sequence number of the record that took the lock, if a put-owned is one: its fencing token.
    pub acquired: Option<u64>,
    /// Where the first record of its batch starts, if it belongs to one.
    pub batch: Option<u64>,
}

impl Record {
    pub(crate) fn new(offset: u64, raw: RawRecordHeader, body_holds: Option<bool>) -> Record {
        Record {
            offset,
            header_crc: raw.header_crc,
            body_crc: raw.body_crc,
            flags: raw.flags,
            kind: raw.kind,
            key_len: raw.key_len,
            value_len: raw.value_len,
            seq: raw.seq,
            header_holds: true,
            body_holds,
            full_key: Vec::new(),
            deadline: None,
            session: None,
            acquired: None,
            batch: None,
        }
    }

    /// Returns the name that `docs/FORMAT.md` gives the kind: `"put"`, `"delete"`, `"put-with"`, `"session"`, `"put-owned"`,
    /// `"mark"`, `"SYNCED_TO"`, `"MOVED"`, `"ROOTS"`, `"IMAGE"` or `"SNAPSHOT"`; `None` for kinds that this version does not know.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-kind-name-{}", std::process::id()));
    /// # caskfile::Cask::open(&path)?.put("key", "value")?;
    /// use caskfile::inspect::Inspection;
    ///
    /// let inspection = Inspection::open(&path)?;
    /// let mut records = inspection.pieces().filter_map(|piece| piece.unwrap().record);
    /// let record = records.find(|record| !record.full_key.is_empty()).unwrap();
    /// assert_eq!(record.kind_name(), Some("put"));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn kind_name(&self) -> Option<&'static str> {
        kind_name(self.kind)
    }

    /// Returns the names of the flags that are set and that this version knows: `"SYNCED"`, `"MORE"`.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-flag-names-{}", std::process::id()));
    /// # caskfile::Cask::open(&path)?.put("key", "value")?;
    /// use caskfile::inspect::Inspection;
    ///
    /// let inspection = Inspection::open(&path)?;
    /// let mut records = inspection.pieces().filter_map(|piece| piece.unwrap().record);
    /// let record = records.find(|record| !record.full_key.is_empty()).unwrap();
    /// assert!(record.flag_names().eq(["SYNCED"]));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn flag_names(&self) -> impl Iterator<Item = &'static str> + use<> {
        let flags = self.flags;
        FLAG_NAMES.into_iter().filter(move |(flag, _)| flags & flag != 0).map(|(_, name)| name)
    }

    /// Returns the flags that are set and that this version does not know.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-unknown-flags-{}", std::process::id()));
    /// # caskfile::Cask::open(&path)?.put("key", "value")?;
    /// use caskfile::inspect::Inspection;
    ///
    /// let inspection = Inspection::open(&path)?;
    /// let mut records = inspection.pieces().filter_map(|piece| piece.unwrap().record);
    /// let record = records.find(|record| !record.full_key.is_empty()).unwrap();
    /// assert_eq!(record.unknown_flags(), 0);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn unknown_flags(&self) -> u8 {
        FLAG_NAMES.into_iter().fold(self.flags, |left, (flag, _)| left & !flag)
    }

    /// Returns the bucket's name and the key; `None` if the full key does not have that form. Only those of puts and
    /// deletes must have it.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-bucket-and-key-{}", std::process::id()));
    /// # caskfile::Cask::open(&path)?.put("key", "value")?;
    /// use caskfile::inspect::Inspection;
    ///
    /// let inspection = Inspection::open(&path)?;
    /// let mut records = inspection.pieces().filter_map(|piece| piece.unwrap().record);
    /// let record = records.find(|record| !record.full_key.is_empty()).unwrap();
    /// assert_eq!(record.bucket_and_key(), Some((&b""[..], &b"key"[..])));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn bucket_and_key(&self) -> Option<(&[u8], &[u8])> {
        split_full_key(&self.full_key)
    }

    /// Whether the value has the length of a head and whole entries. Its numbers are not looked at.
    fn has_snapshot_form(&self) -> bool {
        let entries = (self.value_len as usize).checked_sub(SNAPSHOT_HEAD_LEN);
        self.key_len == 0
            && entries.is_some_and(|len| len % PART_ENTRY_LEN == 0 && len <= PART_ENTRY_LEN * Snapshot::MOST_ENTRIES)
    }

    /// Whether its value begins with an expiry.
    pub(super) fn has_expiry(&self) -> bool {
        self.expiry_len() > 0
    }

    /// The length of the expiry in front of the value, if there is room for one.
    fn expiry_len(&self) -> usize {
        Some(expiry_len(self.kind)).filter(|&len| len <= self.value_len as usize).unwrap_or(0)
    }

    /// Returns where in the file the value lies, or would lie. The expiry of a put-with or put-owned lies before it.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-record-value-{}", std::process::id()));
    /// # caskfile::Cask::open(&path)?.put("key", "value")?;
    /// use caskfile::inspect::Inspection;
    ///
    /// let inspection = Inspection::open(&path)?;
    /// let mut records = inspection.pieces().filter_map(|piece| piece.unwrap().record);
    /// let record = records.find(|record| !record.full_key.is_empty()).unwrap();
    /// let mut value = [0; 5];
    /// inspection.read(record.value().start, &mut value)?;
    /// assert_eq!(&value, b"value");
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn value(&self) -> Range<u64> {
        let stored = self.stored();
        stored.start + self.expiry_len() as u64..stored.end
    }

    /// Where the value lies with the expiry in front of it.
    pub(super) fn stored(&self) -> Range<u64> {
        let start = self.offset + RECORD_HEADER_LEN as u64 + u64::from(self.key_len);
        start..start + u64::from(self.value_len)
    }

    /// Whether the value is that of a session. Its numbers are not looked at.
    pub(super) fn has_session_form(&self) -> bool {
        is_session_kind(self.kind) && self.key_len == 0 && self.value_len as usize == SESSION_LEN
    }
}

/// A part of a piece that has a name in `docs/FORMAT.md`.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-field-{}", std::process::id()));
/// # caskfile::Cask::open(&path)?.put("key", "value")?;
/// use caskfile::inspect::Inspection;
///
/// let header = Inspection::open(&path)?.pieces().next().unwrap()?;
/// let magic = header.fields()[0];
/// assert_eq!((magic.name, magic.start, magic.end), ("magic", 0, 8));
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Field {
    /// The name. In headers, that of the tables in `docs/FORMAT.md`; after a record's header `"bucket_len"`, `"bucket"`
    /// and `"key"`, or `"full_key"` if it has another form, then `"value"` and `"padding"`; in other pieces the name of
    /// their class. In front of the value: in `ROOTS`, the names of the slots' table, twice; in a `SNAPSHOT`, those of its
    /// table, then those of an entry for each part; in a put-with and a put-owned, those of an expiry. In place of the value, in
    /// a session: those of its table.
    pub name: &'static str,
    /// Where it starts, in bytes from the start of the file.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
}

impl Piece {
    /// Returns the fields of the piece, which follow one another from its start to its end. Fields without bytes are left
    /// out.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-fields-{}", std::process::id()));
    /// # caskfile::Cask::open(&path)?.put("key", "value")?;
    /// use caskfile::inspect::{Class, Inspection};
    ///
    /// let inspection = Inspection::open(&path)?;
    /// let live = inspection.pieces().map(Result::unwrap).find(|piece| piece.class == Class::Live).unwrap();
    /// let names: Vec<&str> = live.fields().iter().map(|field| field.name).collect();
    /// assert_eq!(names[..6], ["header_crc", "body_crc", "flags", "kind", "key_len", "value_len"]);
    /// assert_eq!(names[6..], ["seq", "bucket_len", "key", "value"]);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn fields(&self) -> Vec<Field> {
        let mut fields = Fields { piece: self, at: self.start, fields: Vec::new() };
        match &self.record {
            Some(record) => {
                fields.push_all(&RECORD_HEADER_FIELDS);
                match record.bucket_and_key() {
                    Some((bucket, key)) if record.full_key.len() == usize::from(record.key_len) => {
                        fields.push("bucket_len", 1);
                        fields.push("bucket", bucket.len() as u64);
                        fields.push("key", key.len() as u64);
                    }
                    _ => fields.push("full_key", record.key_len.into()),
                }
                let value_end =
                    self.start + RECORD_HEADER_LEN as u64 + record.key_len as u64 + u64::from(record.value_len);
                if self.class == Class::Roots {
                    SLOTS.iter().for_each(|_| fields.push_all(&SLOT_FIELDS));
                }
                if is_snapshot_kind(record.kind) && record.has_snapshot_form() {
                    fields.push_all(&SNAPSHOT_FIELDS);
                    while fields.at < value_end.min(self.end) {
                        fields.push_all(&PART_FIELDS);
                    }
                }
                if record.has_expiry() {
                    fields.push_all(&EXPIRY_FIELDS);
                }
                if record.has_session_form() {
                    fields.push_all(&SESSION_FIELDS);
                }
                fields.push("value", value_end.saturating_sub(fields.at));
                fields.push("padding", padded(fields.at) - fields.at);
            }
            None if self.class == Class::FileHeader => fields.push_all(&FILE_HEADER_FIELDS),
            None => {}
        }
        fields.push(self.class.name(), u64::MAX);
        fields.fields
    }
}

struct Fields<'p> {
    piece: &'p Piece,
    at: u64,
    fields: Vec<Field>,
}

impl Fields<'_> {
    /// The next `len` bytes, as many of them as the piece has.
    fn push(&mut self, name: &'static str, len: u64) {
        let end = self.at.saturating_add(len).min(self.piece.end);
        if end > self.at {
            self.fields.push(Field { name, start: self.at, end });
            self.at = end;
        }
    }

    fn push_all(&mut self, table: &[Named]) {
        table.iter().for_each(|(name, at)| self.push(name, at.len() as u64));
    }
}
