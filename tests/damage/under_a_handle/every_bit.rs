//! Every bit of every record's header and key, flipped under an open handle.
//!
//! Each call then has to give the answer that it gives without the damage, or `Corrupt`. A listing may report single pairs
//! as corrupt, each in its place; a pair that is missing without an error, or a pair that is another one, is the fault that
//! this looks for. A write may also fail with `Poisoned`: what it should have changed is unknown then, and nothing else may
//! have changed.

use std::fmt::Debug;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use caskfile::disk::sim::SimDisk;
use caskfile::{Batch, Cask, Config, Error, KvPair, ReadMode, Result};

const STORE: &str = "/store";

/// So long that the sorted index cannot tell keys that begin with it apart.
const LONG: &str = "a prefix of more than 18 bytes/";
const BUCKETS: [&str; 4] = ["", "log", "a bucket with a name that is long", "a bucket with a name that is long, too"];

/// How the handle reads, and whether it has listed before the damage.
#[derive(Debug, Clone, Copy)]
struct Way {
    reads: ReadMode,
    listed: bool,
}

const WAYS: [Way; 4] = [
    Way { reads: ReadMode::Map, listed: false },
    Way { reads: ReadMode::Map, listed: true },
    Way { reads: ReadMode::Pread, listed: false },
    Way { reads: ReadMode::Pread, listed: true },
];

fn open(disk: &SimDisk, reads: ReadMode) -> Cask {
    Cask::open_on(Arc::new(disk.process()), STORE, &Config::new().read_mode(reads)).unwrap()
}

fn long(end: &str) -> String {
    format!("{LONG}{end}")
}

/// The file of a small store, and which of its bytes are damaged: those of headers and keys, except the last record's, of
/// which nothing proves that it was on stable storage.
fn store() -> (Vec<u8>, Vec<usize>) {
    let disk = SimDisk::new();
    let cask = open(&disk, ReadMode::Map);
    let (mut records, mut end) = (Vec::new(), 0);
    let mut put = |bucket: &str, key: &str, value: &[u8]| {
        let cask = cask.bucket(bucket).unwrap();
        cask.put(key, value).unwrap();
        let len = (24 + 1 + bucket.len() + key.len() + value.len()).next_multiple_of(8);
        end = cask.stats().unwrap().log_end as usize;
        records.push((end - len, 24 + 1 + bucket.len() + key.len()));
    };
    put("", &long("c"), b"replaced");
    put("", "job:1", b"one");
    put("", "job:3", b"three");
    put("", &long("e"), &[b'e'; 300]);
    put("", &long("a"), b"");
    put("", &long("c"), b"see");
    put(BUCKETS[1], "0001", b"started");
    put(BUCKETS[2], "key", b"value");
    put(BUCKETS[3], "key", b"value, too");
    put("", "the last record", b"proves the others");
    assert_eq!(cask.stats().unwrap().live_bytes, {
        let len = |&(start, next): &(usize, usize)| (next - start) as u64;
        let starts: Vec<usize> = records.iter().map(|&(start, _)| start).chain([end]).collect();
        starts.windows(2).map(|pair| (pair[0], pair[1])).skip(1).map(|record| len(&record)).sum::<u64>()
    });
    let (_, proven) = records.split_last().unwrap();
    let bytes = proven.iter().flat_map(|&(start, len)| start..start + len).collect();
    // As it is while the store is open, with what the file is extended by.
    (disk.contents(STORE).unwrap(), bytes)
}

/// What a call gave: nothing at all but an error, or pieces, of which each may be one.
type Given = Result<Vec<Result<String>>>;

fn one(result: Result<impl Debug>) -> Given {
    result.map(|given| vec![Ok(format!("{given:?}"))])
}

/// As an answer: that a key is absent is no error.
fn found(result: Result<KvPair>) -> Result<Option<KvPair>> {
    match result {
        Err(Error::KeyNotFound) => Ok(None),
        result => result.map(Some),
    }
}

fn pieces<T: Debug>(scan: Result<impl Iterator<Item = Result<T>>>) -> Given {
    Ok(scan?.map(|piece| piece.map(|piece| format!("{piece:?}"))).collect())
}

/// Every key, and neighbours that are absent: some of them one bit away.
fn keys() -> Vec<(&'static str, String)> {
    let unnamed = ["job:1", "job:3", "job:0", "job:2", "job:9", "job:33", "the last record"].map(str::to_string);
    let alike = ["a", "b", "c", "d", "e", "", "g", "ee"].map(long);
    let unnamed = unnamed.into_iter().chain(alike).map(|key| ("", key));
    let named =
        [(BUCKETS[1], "0001"), (BUCKETS[1], "0003"), (BUCKETS[2], "key"), (BUCKETS[3], "key"), (BUCKETS[3], "kex")];
    unnamed.chain(named.map(|(bucket, key)| (bucket, key.to_string()))).collect()
}

/// Every call that reads, by name.
fn read_everything(cask: &Cask) -> Vec<(String, Given)> {
    let mut given = Vec::new();
    let mut call = |name: String, answer: Given| given.push((name, answer));
    // SAFETY: the simulated disk lends nothing, so every slice is a copy.
    let mapped = |cask: &Cask| unsafe { cask.mapped() };
    for (bucket, key) in keys() {
        let cask = cask.bucket(bucket).unwrap();
        call(format!("get {bucket}/{key}"), one(found(cask.get(&key))));
        call(format!("exists {bucket}/{key}"), one(cask.exists(&key)));
        let slice = mapped(&cask).get(&key).map(|slice| KvPair::new(&*key, &*slice, slice.last_index()));
        call(format!("mapped get {bucket}/{key}"), one(found(slice)));
    }
    let prefixes = ["".to_string(), "job:".into(), "job:1".into(), long(""), long("c"), long("b")];
    let listed =
        prefixes.iter().map(|prefix| ("", prefix)).chain(BUCKETS[1..].iter().map(|&bucket| (bucket, &prefixes[0])));
    for (bucket, prefix) in listed {
        let cask = cask.bucket(bucket).unwrap();
        call(format!("list {bucket}/{prefix}"), one(cask.list(prefix)));
        call(format!("scan {bucket}/{prefix}"), pieces(cask.scan(prefix)));
        call(format!("scan {bucket}/{prefix} from the end"), pieces(cask.scan(prefix).map(Iterator::rev)));
        let mut visited = Vec::new();
        let all = cask.visit(prefix, |pair| {
            visited.push(pair.to_pair());
            ControlFlow::Continue(())
        });
        call(format!("visit {bucket}/{prefix}"), one(all.map(|()| visited)));
        call(format!("range of all of {bucket}"), pieces(cask.range::<&str>(..)));
    }
    let ends = ["job:1".to_string(), "job:2".into(), "job:3".into(), long("a"), long("b"), long("c"), long("e")];
    for start in &ends {
        for end in ends.iter().filter(|end| *end >= start) {
            let after = (Bound::Excluded(start), Bound::Included(end));
            call(format!("range after {start} up to {end}"), pieces(cask.range::<String>(after)));
            let from = (Bound::Included(start), Bound::Excluded(end));
            call(format!("range from {start} to {end}"), pieces(cask.range::<String>(from)));
        }
    }
    call("buckets".into(), one(cask.buckets()));
    let scans = cask.scan_buckets().and_then(Iterator::collect::<Result<Vec<_>>>);
    call("scan_buckets, each with how many keys it has".into(), {
        let sizes = scans
            .as_ref()
            .map(|scans| scans.iter().map(|(name, pairs)| (name.clone(), pairs.len())).collect::<Vec<_>>());
        one(sizes.map_err(Clone::clone))
    });
    let pairs =
        scans.map(|scans| scans.into_iter().flat_map(|(name, pairs)| pairs.map(move |pair| Ok((name.clone(), pair?)))));
    call("scan_buckets, all pairs".into(), pieces(pairs));
    call("scan_by_index".into(), pieces(cask.scan_by_index()));
    given
}

/// Enough to see what the store holds.
fn read_all_pairs(cask: &Cask) -> Vec<(String, Given)> {
    let mut given =
        vec![("scan_by_index".into(), pieces(cask.scan_by_index())), ("buckets".into(), one(cask.buckets()))];
    for bucket in BUCKETS {
        let cask = cask.bucket(bucket).unwrap();
        given.push((format!("scan {bucket}"), pieces(cask.scan(""))));
        given.push((format!("scan {bucket}/{LONG}"), pieces(cask.scan(LONG))));
    }
    for (bucket, key) in keys() {
        given.push((format!("get {bucket}/{key}"), one(found(cask.bucket(bucket).unwrap().get(&key)))));
    }
    given
}

fn figures(cask: &Cask) -> Result<[u64; 4]> {
    cask.stats().map(|stats| [stats.keys, stats.buckets, stats.live_bytes, stats.dead_bytes])
}

fn expect_corrupt(error: &Error) {
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

fn expect_refused(error: &Error) {
    assert!(matches!(error, Error::Corrupt { .. } | Error::Poisoned { .. } | Error::Damaged { .. }), "{error}");
}

/// Makes sure that every answer is one of those of the same call without damage, or says that something is damaged.
fn expect_right(given: Vec<(String, Given)>, right: &[&[(String, Given)]]) {
    for (nth, (name, given)) in given.into_iter().enumerate() {
        let given = match given {
            Ok(given) => given,
            Err(error) => {
                expect_refused(&error);
                continue;
            }
        };
        let is_one_of = right.iter().any(|right| {
            let right = right[nth].1.as_ref().unwrap();
            let agrees = |(given, right): (&Result<String>, &Result<String>)| match given {
                Ok(given) => Some(given) == right.as_ref().ok(),
                Err(error) => {
                    expect_corrupt(error);
                    true
                }
            };
            given.len() == right.len() && given.iter().zip(right).all(agrees)
        });
        assert!(is_one_of, "{name} gave {given:?}");
    }
}

/// Every call that writes.
type Write = (&'static str, fn(&Cask) -> Result<String>);

fn shown(result: Result<impl Debug>) -> Result<String> {
    // That a condition does not hold is an answer.
    match result {
        Ok(given) => Ok(format!("{given:?}")),
        Err(error @ (Error::KeyExists | Error::KeyNotFound | Error::KeyModified | Error::BatchConflict { .. })) => {
            Ok(error.to_string())
        }
        Err(error) => Err(error),
    }
}

fn stale(key: &str) -> KvPair {
    KvPair::new(key, "", 1)
}

const WRITES: &[Write] = &[
    ("put", |cask| shown(cask.put("job:1", "another"))),
    ("put of a key that only the log tells from others", |cask| shown(cask.put(long("c"), "another"))),
    ("put of a new key", |cask| shown(cask.put("job:2", "new"))),
    ("put of a new key between others like it", |cask| shown(cask.put(long("b"), "new"))),
    ("put of a new key after others like it", |cask| shown(cask.put(long("f"), "new"))),
    ("put into a bucket", |cask| shown(cask.bucket(BUCKETS[2]).unwrap().put("kex", "new"))),
    ("delete", |cask| shown(cask.delete("job:3"))),
    ("delete of a key that only the log tells from others", |cask| shown(cask.delete(long("a")))),
    ("delete of an absent key", |cask| shown(cask.delete(long("d")))),
    ("delete of a bucket's last key", |cask| shown(cask.bucket(BUCKETS[1]).unwrap().delete("0001"))),
    ("atomic_put where the key is", |cask| shown(cask.atomic_put(long("e"), "another", None).map(|pair| pair.value))),
    ("atomic_put of what was never read", |cask| {
        shown(cask.atomic_put("job:1", "another", Some(&stale("job:1"))).map(|pair| pair.value))
    }),
    ("atomic_put of what was read", |cask| {
        let pair = cask.get("job:1")?;
        shown(cask.atomic_put("job:1", "another", Some(&pair)).map(|pair| pair.value))
    }),
    ("atomic_delete of what was never read", |cask| shown(cask.atomic_delete(long("a"), Some(&stale(&long("a")))))),
    ("update", |cask| {
        shown(
            cask.update("job:3", |pair| pair.map(|pair| [&pair.value[..], b"!"].concat()).unwrap_or_default())
                .map(|pair| pair.value),
        )
    }),
    ("batch", |cask| {
        let mut batch = Batch::new();
        batch.expect_absent("job:2").expect_last_index("job:1", 1).put("job:2", "").delete(long("c")).delete(long("e"));
        shown(cask.write(&batch).map(|applied| applied.last_index().is_some()))
    }),
    ("delete_prefix of one", |cask| shown(cask.delete_prefix("job:1"))),
    ("delete_prefix of some", |cask| shown(cask.delete_prefix("job:"))),
    ("delete_prefix of keys like each other", |cask| shown(cask.delete_prefix(long("c")))),
    ("delete_prefix of a bucket", |cask| shown(cask.bucket(BUCKETS[2]).unwrap().delete_prefix(""))),
    ("delete_prefix of all", |cask| shown(cask.delete_prefix(""))),
    ("compact", |cask| shown(cask.compact().map(|done| done.keys))),
    ("backup", |cask| shown(cask.backup("/backup").map(|copy| copy.keys))),
    ("compact_to", |cask| shown(cask.compact_to("/copy").map(|copy| copy.keys))),
    ("verify", |cask| shown(cask.verify().map(|report| report.keys))),
];

/// A store that is open in one way, and damaged after that.
fn damaged(contents: &[u8], way: Way, flip: Option<(usize, u8)>) -> (SimDisk, Cask) {
    let disk = SimDisk::new();
    disk.set_contents(STORE, contents.to_vec());
    let cask = open(&disk, way.reads);
    if way.listed {
        cask.list("").unwrap();
    }
    if let Some((byte, bit)) = flip {
        let mut contents = disk.contents(STORE).unwrap();
        contents[byte] ^= 1 << bit;
        disk.set_contents(STORE, contents);
    }
    (disk, cask)
}

/// Does something for one bit in five of these bytes, on all cores; for every bit if `CASKFILE_EVERY_BIT` is set.
fn for_each_bit(bytes: &[usize], act: impl Fn((usize, u8)) + Sync) {
    let one_in = if std::env::var_os("CASKFILE_EVERY_BIT").is_some() { 1 } else { 5 };
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let act = &act;
    std::thread::scope(|scope| {
        for first in 0..threads {
            scope.spawn(move || {
                for &byte in bytes.iter().skip(first).step_by(threads) {
                    (0..8).filter(|bit| (byte + bit) % one_in == 0).for_each(|bit| act((byte, bit as u8)));
                }
            });
        }
    });
}

#[test]
fn any_flipped_bit_leaves_reads_right_or_corrupt() {
    let (contents, bytes) = store();
    for way in WAYS {
        let right = read_everything(&damaged(&contents, way, None).1);
        let figures_before = figures(&damaged(&contents, way, None).1).unwrap();
        for_each_bit(&bytes, |flip| {
            let (_disk, cask) = damaged(&contents, way, Some(flip));
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                expect_right(read_everything(&cask), &[&right]);
                assert_eq!(figures(&cask).unwrap(), figures_before);
            }));
            assert!(checked.is_ok(), "{way:?}, byte {} bit {}", flip.0, flip.1);
        });
    }
}

#[test]
fn any_flipped_bit_leaves_writes_right_or_failed() {
    let (contents, bytes) = store();
    let rights = WAYS.map(|way| {
        let before = read_all_pairs(&damaged(&contents, way, None).1);
        let after = |(_, write): &Write| {
            let (_disk, cask) = damaged(&contents, way, None);
            (write(&cask).unwrap(), read_all_pairs(&cask), figures(&cask).unwrap())
        };
        (before, WRITES.iter().map(after).collect::<Vec<_>>())
    });
    for_each_bit(&bytes, |(byte, bit)| {
        // Each bit with every call, but with each call in one way only: all of them would take minutes.
        for (nth, (name, write)) in WRITES.iter().enumerate() {
            let way = (nth + byte + usize::from(bit)) % WAYS.len();
            let (before, rights) = &rights[way];
            let (outcome, after, figures_after) = &rights[nth];
            let (_disk, cask) = damaged(&contents, WAYS[way], Some((byte, bit)));
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match write(&cask) {
                Ok(given) => {
                    assert_eq!(given, *outcome);
                    expect_right(read_all_pairs(&cask), &[after]);
                    if let Ok(figures) = figures(&cask) {
                        assert_eq!(figures, *figures_after);
                    }
                }
                Err(error) => {
                    expect_refused(&error);
                    expect_right(read_all_pairs(&cask), &[before, after]);
                }
            }));
            assert!(checked.is_ok(), "{name}, {:?}, byte {byte} bit {bit}", WAYS[way]);
        }
    });
}
