//! The numbers of docs/FORMAT.md: layouts, limits, kinds, and the checksum.

/// A field: its name on the page, where it starts, how long it is.
pub type Field = (&'static str, usize, usize);

pub const FILE_HEADER: &[Field] = &[
    ("magic", 0, 8),
    ("major", 8, 2),
    ("minor", 10, 2),
    ("features", 12, 4),
    ("file_id", 16, 16),
    ("base_seq", 32, 8),
    ("created", 40, 8),
    ("complete_after", 48, 8),
    ("reserved", 56, 4),
    ("crc", 60, 4),
];

pub const RECORD_HEADER: &[Field] = &[
    ("header_crc", 0, 4),
    ("body_crc", 4, 4),
    ("flags", 8, 1),
    ("kind", 9, 1),
    ("key_len", 10, 2),
    ("value_len", 12, 4),
    ("seq", 16, 8),
];

/// A slot of `ROOTS`.
pub const SLOT: &[Field] =
    &[("generation", 0, 8), ("synced_to", 8, 8), ("snapshot", 16, 8), ("reserved", 24, 36), ("crc", 60, 4)];

/// What stands in front of the user's part of the value of a put-with or put-owned.
pub const EXPIRY: &[Field] = &[("deadline", 0, 8), ("session", 8, 8), ("acquired", 16, 8)];

/// The value of a session.
pub const SESSION_VALUE: &[Field] = &[
    ("session", 0, 8),
    ("owner", 8, 8),
    ("nonce", 16, 8),
    ("ttl", 24, 8),
    ("deadline", 32, 8),
    ("boot", 40, 16),
    ("base_seq", 56, 8),
];

pub const MAGIC: [u8; 8] = [0xca, 0x53, 0x4b, 0x46, 0x0d, 0x0a, 0x1a, 0x0a];
pub const MAJOR: u64 = 1;
pub const FILE_HEADER_LEN: usize = 64;
pub const RECORD_HEADER_LEN: usize = 24;
pub const END_MARK_LEN: usize = 8;
pub const HAS_ROOTS: u64 = 1;
pub const SLOTS: [usize; 2] = [88, 152];
pub const SLOT_LEN: usize = 64;
pub const ROOTS_END: usize = 216;
pub const ALIGNMENT: usize = 8;
pub const EXPIRY_LEN: usize = 24;
pub const SESSION_LEN: usize = 64;
pub const MAX_VALUE_LEN: u64 = 1 << 30;
pub const MAX_FILE_LEN: u64 = 1 << 43;
pub const MAX_SEQ: u64 = (1 << 62) - 1;
pub const MAX_SEQ_STEP: u64 = 1 << 48;

pub const SYNCED: u64 = 1;
pub const MORE: u64 = 2;
pub const PUT: u64 = 1;
pub const DELETE: u64 = 2;
pub const PUT_WITH: u64 = 4;
pub const SESSION: u64 = 5;
pub const PUT_OWNED: u64 = 6;
pub const ANCILLARY: u64 = 0x80;
pub const MARK: u64 = 0x80;
pub const SYNCED_TO: u64 = 0x81;
pub const MOVED: u64 = 0x82;
pub const LOOSE: u64 = 0xc0;
pub const ROOTS: u64 = 0xc0;
pub const IMAGE: u64 = 0xc1;
pub const SNAPSHOT: u64 = 0xc2;

/// What a clock of a simulated disk shows that stands still, in milliseconds since 1970. Pairs are hidden by that.
pub const NOW: u64 = 1_800_000_000_000;

/// The value of a put-with.
pub fn with_deadline(deadline: u64, value: &[u8]) -> Vec<u8> {
    [&deadline.to_le_bytes()[..], &[0; 16], value].concat()
}

/// The value of a put-owned.
pub fn with_owner(deadline: u64, session: u64, acquired: u64, value: &[u8]) -> Vec<u8> {
    [&deadline.to_le_bytes()[..], &session.to_le_bytes(), &acquired.to_le_bytes(), value].concat()
}

/// The value of a session of an owner on another machine, in a file that was made as a new store. Its END if `deadline` is 0.
pub fn session(session: u64, deadline: u64) -> [u8; SESSION_LEN] {
    let mut value = [0; SESSION_LEN];
    let numbers = [("session", session), ("owner", 0x0123_4567_89ab_cdef), ("nonce", 77), ("ttl", 20_000)];
    for (name, number) in numbers.into_iter().chain([("deadline", deadline)]) {
        set(SESSION_VALUE, name, &mut value, number);
    }
    (40..56).for_each(|at| value[at] = 0xa0 + at as u8 - 40);
    value
}

/// Sets the number in a field.
pub fn set(layout: &[Field], name: &str, bytes: &mut [u8], number: u64) {
    let &(_, at, len) = layout.iter().find(|field| field.0 == name).expect("a field of the page's table");
    bytes[at..at + len].copy_from_slice(&number.to_le_bytes()[..len]);
}

/// Where the log of a file with a right header starts.
pub fn log_start(file: &[u8]) -> usize {
    if number(FILE_HEADER, "features", file) & HAS_ROOTS != 0 { ROOTS_END } else { FILE_HEADER_LEN }
}

/// Generation and `synced_to` of the slot at this offset, whether it holds or not.
pub fn slot(file: &[u8], at: usize) -> (u64, u64) {
    let field = |name| number(SLOT, name, &file[at..at + SLOT_LEN]);
    (field("generation"), field("synced_to"))
}

/// The checksum that binds bytes to the file and to their offset.
pub fn crc_at(file: &[u8], offset: usize, bytes: &[u8]) -> u32 {
    crc32(&[&file[16..32], &(offset as u64).to_le_bytes(), bytes].concat())
}

/// The CRC-32 of IEEE 802.3, a byte at a time.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| crc >> 8 ^ CRC_OF_BYTE[(crc as u8 ^ byte) as usize])
}

const CRC_OF_BYTE: [u32; 256] = {
    let (mut table, mut byte) = ([0; 256], 0);
    while byte < table.len() {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The unsigned little-endian number in a field.
pub fn number(layout: &[Field], name: &str, bytes: &[u8]) -> u64 {
    let &(_, at, len) = layout.iter().find(|field| field.0 == name).expect("a field of the page's table");
    bytes[at..at + len].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}
