//! [`Damage`]: the rule that a damaged place breaks.

/// The rule that a damaged place breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The file header's checksum does not match its bytes.
    #[error("the file header's checksum is {found:#010x}, its bytes give {computed:#010x}")]
    FileHeader {
        /// The checksum as stored.
        found: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// The file does not start with a caskfile's magic bytes.
    #[error("the file does not start as a caskfile does")]
    Magic,
    /// The record header's checksum does not match its bytes and place.
    #[error("the record header's checksum is {found:#010x}, its bytes and place give {computed:#010x}")]
    Header {
        /// The checksum as stored.
        found: u32,
        /// The checksum of file identity, offset and header.
        computed: u32,
    },
    /// The record's lengths are beyond the format's limits.
    #[error("the record's lengths (key {key_len}, value {value_len}) are beyond the format's limits")]
    Lengths {
        /// Length of the full key in bytes.
        key_len: u16,
        /// Length of the value in bytes.
        value_len: u32,
    },
    /// The record would reach beyond the end of the file.
    #[error("the record would end at {end}, beyond the file's {file_len} bytes")]
    BeyondFile {
        /// Where the record would end.
        end: u64,
        /// The file's length in bytes.
        file_len: u64,
    },
    /// The record's sequence number does not follow the one before it.
    #[error("the record's sequence number {found} does not follow {previous}")]
    Sequence {
        /// The sequence number as stored.
        found: u64,
        /// The sequence number of the record before.
        previous: u64,
    },
    /// The body's checksum does not match.
    #[error("the body's checksum is {found:#010x}, its bytes give {computed:#010x}")]
    Body {
        /// The checksum as stored.
        found: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// A record's key is not a bucket and a key, or its kind does not have such a body.
    #[error("the body does not have the form that its kind demands")]
    Form,
    /// An end mark, or a hole, stands where records follow.
    #[error("zeros stand where a record should, and records follow")]
    Zeros,
    /// A batch ends without its last record.
    #[error("a batch of records breaks off, and records follow")]
    BrokenBatch,
}

impl Damage {
    /// The kind of damage in one word, for programs: `"file_header"`, `"magic"`, `"header"`, `"lengths"`,
    /// `"beyond_file"`, `"sequence"`, `"body"`, `"form"`, `"zeros"` or `"broken_batch"`.
    pub fn name(&self) -> &'static str {
        match self {
            Damage::FileHeader { .. } => "file_header",
            Damage::Magic => "magic",
            Damage::Header { .. } => "header",
            Damage::Lengths { .. } => "lengths",
            Damage::BeyondFile { .. } => "beyond_file",
            Damage::Sequence { .. } => "sequence",
            Damage::Body { .. } => "body",
            Damage::Form => "form",
            Damage::Zeros => "zeros",
            Damage::BrokenBatch => "broken_batch",
        }
    }
}
