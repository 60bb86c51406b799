//! The rows, each with its unit, its floor, and caskfile's aim.

pub struct Row {
    pub id: &'static str,
    pub title: &'static str,
    pub unit: Unit,
    /// The engine that does the least that is necessary.
    pub floor: Option<&'static str>,
    pub aims: &'static [Aim],
}

pub struct Group {
    pub id: &'static str,
    pub title: &'static str,
    pub rows: &'static [Row],
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    CallsPerSecond,
    PairsPerSecond,
    GigabytesPerSecond,
    Milliseconds,
    Microseconds,
    NanosecondsPerKey,
    BytesPerKey,
    Bytes,
}

impl Unit {
    pub fn more_is_better(self) -> bool {
        matches!(self, Unit::CallsPerSecond | Unit::PairsPerSecond | Unit::GigabytesPerSecond)
    }

    pub fn show(self, figure: f64) -> String {
        let unit = match self {
            Unit::CallsPerSecond => "/s",
            Unit::PairsPerSecond => " pairs/s",
            Unit::GigabytesPerSecond => " GB/s",
            Unit::Milliseconds => " ms",
            Unit::Microseconds => " µs",
            Unit::NanosecondsPerKey => " ns/key",
            Unit::BytesPerKey => " B/key",
            Unit::Bytes => " B",
        };
        let number = match figure {
            1e9.. => format!("{:.1}G", figure / 1e9),
            1e6.. => format!("{:.2}M", figure / 1e6),
            1e4.. => format!("{:.0}k", figure / 1e3),
            1e3.. => format!("{:.1}k", figure / 1e3),
            100.0.. => format!("{figure:.0}"),
            10.0.. => format!("{figure:.1}"),
            _ => format!("{figure:.2}"),
        };
        number + unit
    }
}

/// At least `factor` times the reference where more is better, at most where less is.
pub struct Aim {
    /// One of caskfile's modes.
    pub of: &'static str,
    pub factor: f64,
    pub than: Reference,
}

#[derive(Clone, Copy)]
pub enum Reference {
    BestPeer,
    Peer(&'static str),
    Floor,
    /// The same engine in another row.
    Row(&'static str),
    /// The figure itself is the aim.
    Nothing,
}

const fn aim(of: &'static str, factor: f64, than: Reference) -> Aim {
    Aim { of, factor, than }
}

const fn row(
    id: &'static str,
    title: &'static str,
    unit: Unit,
    floor: Option<&'static str>,
    aims: &'static [Aim],
) -> Row {
    Row { id, title, unit, floor, aims }
}

use Reference::{BestPeer, Floor, Nothing, Peer};
use Unit::{
    Bytes, BytesPerKey, CallsPerSecond, GigabytesPerSecond, Microseconds, Milliseconds, NanosecondsPerKey,
    PairsPerSecond,
};

const OURS: &str = "caskfile";
const EXCLUSIVE: &str = "caskfile-exclusive";
const MAPPED: &str = "caskfile-mapped";
const UNVERIFIED: &str = "caskfile-unverified";
const AUTOMATIC: &str = "caskfile-automatic";
const HASH: Option<&str> = Some("floor-hash");
const TREE: Option<&str> = Some("floor-tree");
const LOG: Option<&str> = Some("floor-log");

pub const GROUPS: &[Group] = &[
    Group {
        id: "write",
        title: "Writes without a sync",
        rows: &[
            row(
                "put",
                "put of a new key",
                CallsPerSecond,
                LOG,
                &[aim(OURS, 1.1, BestPeer), aim(EXCLUSIVE, 2.0, BestPeer)],
            ),
            row("overwrite", "put of a key that is there", CallsPerSecond, LOG, &[aim(EXCLUSIVE, 3.0, BestPeer)]),
            row("swap", "compare-and-swap", CallsPerSecond, LOG, &[aim(EXCLUSIVE, 3.0, BestPeer)]),
            row("delete", "delete", CallsPerSecond, LOG, &[]),
            row("load", "bulk load, batches of 1,000", CallsPerSecond, LOG, &[aim(OURS, 5.0, BestPeer)]),
            row("put-written", "bytes to the disk for a put, synced at the end", BytesPerKey, LOG, &[]),
        ],
    },
    Group {
        id: "durable",
        title: "Writes that survive a power cut",
        rows: &[
            row(
                "durable-1",
                "put, 1 thread",
                CallsPerSecond,
                Some("floor-log-ahead"),
                &[aim(OURS, 1.2, BestPeer), aim(OURS, 0.9, Floor)],
            ),
            row("durable-2", "put, 2 threads", CallsPerSecond, Some("floor-leader"), &[]),
            row("durable-8", "put, 8 threads", CallsPerSecond, Some("floor-leader"), &[aim(OURS, 1.5, BestPeer)]),
            row("durable-32", "put, 32 threads", CallsPerSecond, Some("floor-leader"), &[aim(OURS, 0.8, Floor)]),
            row("durable-swap", "compare-and-swap, 1 thread", CallsPerSecond, Some("floor-log-ahead"), &[]),
            row("durable-written", "bytes to the disk for a put, 1 thread", BytesPerKey, Some("floor-log-ahead"), &[]),
        ],
    },
    Group {
        id: "read",
        title: "Look-ups",
        rows: &[
            row("get-1", "get", CallsPerSecond, HASH, &[aim(OURS, 1.8, BestPeer)]),
            row("get-2", "get, 2 threads", CallsPerSecond, HASH, &[aim(OURS, 1.8, BestPeer)]),
            row("zipf-1", "get, skewed", CallsPerSecond, HASH, &[aim(OURS, 2.0, BestPeer)]),
            row("zipf-2", "get, skewed, 2 threads", CallsPerSecond, HASH, &[aim(OURS, 2.0, BestPeer)]),
            row("miss-1", "get of an absent key", CallsPerSecond, HASH, &[aim(OURS, 1.2, BestPeer)]),
            row("miss-2", "get of an absent key, 2 threads", CallsPerSecond, HASH, &[aim(OURS, 1.2, BestPeer)]),
            row(
                "exists-1",
                "exists",
                CallsPerSecond,
                HASH,
                &[aim(OURS, 1.2, BestPeer), aim(OURS, 1.0, Reference::Row("get-1"))],
            ),
            row(
                "exists-2",
                "exists, 2 threads",
                CallsPerSecond,
                HASH,
                &[aim(OURS, 1.2, BestPeer), aim(OURS, 1.0, Reference::Row("get-2"))],
            ),
        ],
    },
    Group {
        id: "list",
        title: "Listing",
        rows: &[
            row("list-10000", "list of 10,000", PairsPerSecond, TREE, &[aim(OURS, 1.0, BestPeer)]),
            row("list-100", "list of 100", PairsPerSecond, TREE, &[aim(OURS, 1.0, BestPeer)]),
            row("list-first", "the first list after a load", NanosecondsPerKey, None, &[aim(OURS, 150.0, Nothing)]),
            row("list-after-put", "a list of 10 after each put", Microseconds, TREE, &[aim(OURS, 5.0, Nothing)]),
        ],
    },
    Group {
        id: "ycsb",
        title: "Mixed (YCSB)",
        rows: &[
            row("ycsb-a-1", "A: half reads, half updates", CallsPerSecond, HASH, &[]),
            row(
                "ycsb-a-2",
                "A, 2 threads",
                CallsPerSecond,
                HASH,
                &[aim(OURS, 1.5, BestPeer), aim(OURS, 1.0, Reference::Row("ycsb-a-1"))],
            ),
            row("ycsb-b-1", "B: one update in twenty", CallsPerSecond, HASH, &[]),
            row(
                "ycsb-b-2",
                "B, 2 threads",
                CallsPerSecond,
                HASH,
                &[aim(OURS, 1.5, BestPeer), aim(OURS, 1.0, Reference::Row("ycsb-b-1"))],
            ),
            row("ycsb-c-1", "C: reads only", CallsPerSecond, HASH, &[]),
            row("ycsb-c-2", "C, 2 threads", CallsPerSecond, HASH, &[]),
        ],
    },
    Group {
        id: "large",
        title: "Large values",
        rows: &[
            row("put-4k", "put of 4 KiB", GigabytesPerSecond, LOG, &[]),
            row("get-4k", "get of 4 KiB", GigabytesPerSecond, HASH, &[]),
            row("put-1m", "put of 1 MiB", GigabytesPerSecond, LOG, &[]),
            row(
                "get-1m",
                "get of 1 MiB",
                GigabytesPerSecond,
                HASH,
                &[aim(OURS, 0.6, Peer("lmdb")), aim(MAPPED, 0.9, Peer("lmdb")), aim(UNVERIFIED, 0.9, Peer("lmdb"))],
            ),
        ],
    },
    Group {
        id: "open",
        title: "Opening",
        rows: &[
            row("open-closed", "open and first get, after closing", Milliseconds, LOG, &[aim(OURS, 1.5, Floor)]),
            row("open-cold", "open and first get, nothing in the page cache", Milliseconds, LOG, &[]),
            row("open-list", "open and first list of 100, of a store that was listed", Milliseconds, None, &[]),
            row("open-rate", "open, get and close", CallsPerSecond, None, &[]),
            row(
                "open-killed",
                "open and first get, after a kill of a writer that syncs each put",
                Milliseconds,
                None,
                &[],
            ),
            row("open-unsynced", "open and first get, after a kill of one that does not", Milliseconds, None, &[]),
            row("open-memory-100", "memory after opening and 100 gets, files left out", Bytes, None, &[]),
            row("open-memory-1000", "memory after opening and 1,000 gets, files left out", Bytes, None, &[]),
        ],
    },
    Group {
        id: "space",
        title: "Space and memory",
        rows: &[
            row("space-loaded", "disk, loaded", BytesPerKey, LOG, &[aim(OURS, 145.0, Nothing)]),
            row(
                "space-peak",
                "disk, the most while overwriting all three times",
                BytesPerKey,
                None,
                &[
                    // In relation to the 144 bytes of a live record, without the file that a compaction writes.
                    aim(AUTOMATIC, 2.2 * 144.0, Nothing),
                ],
            ),
            row("space-overwritten", "disk, after that", BytesPerKey, None, &[]),
            row("space-compacted", "disk, after compaction of that", BytesPerKey, LOG, &[]),
            row("compact", "compaction of that, user's live bytes", GigabytesPerSecond, LOG, &[aim(OURS, 0.5, Floor)]),
            row("load-memory", "memory after a load, files left out", BytesPerKey, None, &[aim(OURS, 24.0, Nothing)]),
            row("list-memory", "memory after the first list", BytesPerKey, None, &[aim(OURS, 60.0, Nothing)]),
            row("load-memory-peak", "the most while loading, mapped files included", BytesPerKey, None, &[]),
        ],
    },
    Group {
        id: "grow",
        title: "The slowest put while a store grows",
        rows: &[
            row(
                "grow-longest",
                "the longest",
                Milliseconds,
                LOG,
                &[aim(OURS, 5.0, Nothing), aim(EXCLUSIVE, 5.0, Nothing)],
            ),
            row("grow-99.99", "99.99 % are quicker than", Milliseconds, LOG, &[]),
        ],
    },
    Group {
        id: "long-keys",
        title: "Keys of 216 bytes, 200 of them the same in all",
        rows: &[
            row("long-put", "put, long keys", CallsPerSecond, None, &[]),
            row("long-get", "get, long keys", CallsPerSecond, None, &[]),
            row("long-list-first", "the first list after the puts, long keys", NanosecondsPerKey, None, &[]),
            row("long-list-100", "list of 100, long keys", PairsPerSecond, TREE, &[]),
        ],
    },
];
