//! Makes a test's calls on a real handle and brings the answers into a form that can be compared.

use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;

use caskfile::disk::Disk;
use caskfile::disk::sim::SimDisk;
use caskfile::{Applied, Batch, Cask, Error, Keys, KvPair, OptionalExt, Scan, Update, salvage_on};

use crate::common::history::{BatchPart, Bytes, Call, Key, Pair, Refusal, State, listed, predict, ranged};
use crate::common::ops::{BUCKETS, Copying, Setup, Whole};

/// What a read says.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Pair(Option<(Bytes, u64)>),
    There(bool),
    Pairs(Vec<KvPair>),
    Names(Vec<Vec<u8>>),
    /// With their buckets.
    Whole(Vec<(Vec<u8>, KvPair)>),
    Keys(u64),
    /// How many keys each bucket has.
    Lens(Vec<u64>),
    Nothing,
}

/// What a write says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Receipt {
    /// The index of its last record, where the call tells.
    pub index: Option<u64>,
    /// Whether the call tells about an index.
    pub tells: bool,
    pub deleted: Option<u64>,
    /// How many operations have an index, where the call tells about each.
    pub records: Option<usize>,
    /// It was broken off, as it was meant to be.
    pub cancelled: bool,
}

pub fn in_bucket(cask: &Cask, bucket: usize) -> Result<Cask, Error> {
    cask.bucket(BUCKETS[bucket])
}

fn pair(found: Result<KvPair, Error>) -> Result<Answer, Error> {
    match found {
        Ok(pair) => Ok(Answer::Pair(Some((pair.value.into(), pair.last_index)))),
        Err(Error::KeyNotFound) => Ok(Answer::Pair(None)),
        Err(error) => Err(error),
    }
}

/// Takes pairs from both ends, in an order that `how` decides, and puts them in key order again.
fn from_both_ends(mut scan: Scan, how: u8) -> Result<Vec<KvPair>, Error> {
    let expected = scan.len();
    let (mut front, mut back) = (Vec::new(), Vec::new());
    let mut turn = 0;
    loop {
        let forward = how == 0 || (how >> (turn % 8)) & 1 == 0;
        turn += 1;
        let next = match (forward, how & 2 == 0) {
            (true, true) => scan.next(),
            (true, false) => scan.next_ref().map(|pair| pair.map(|pair| pair.to_pair())),
            (false, true) => scan.next_back(),
            (false, false) => scan.next_back_ref().map(|pair| pair.map(|pair| pair.to_pair())),
        };
        match next {
            Some(pair) if forward => front.push(pair?),
            Some(pair) => back.push(pair?),
            None => break,
        }
    }
    front.extend(back.into_iter().rev());
    assert_eq!(front.len(), expected, "a scan knows how many pairs it will return");
    Ok(front)
}

/// Takes the keys by themselves, from both ends, and the pairs of a scan to which they must belong.
fn with_keys(scan: Scan, mut keys: Keys, how: u8) -> Result<Vec<KvPair>, Error> {
    let (mut front, mut back) = (Vec::new(), Vec::new());
    assert_eq!(keys.len(), scan.len());
    while keys.len() > 0 {
        let (end, next) = match (how >> (keys.len() % 8)) & 1 {
            0 => (&mut front, keys.next()),
            _ => (&mut back, keys.next_back()),
        };
        end.push(next.expect("it has said so")?);
    }
    front.extend(back.into_iter().rev());
    let pairs = scan.collect::<Result<Vec<_>, Error>>()?;
    assert!(front.iter().eq(pairs.iter().map(|pair| &pair.key)), "keys {front:?} of {pairs:?}");
    Ok(pairs)
}

fn read_whole(cask: &Cask, whole: Whole) -> Result<Vec<(Vec<u8>, KvPair)>, Error> {
    match whole {
        Whole::ByIndex => cask.scan_by_index()?.collect(),
        Whole::ByBucket => {
            let mut all = Vec::new();
            for bucket in cask.scan_buckets()? {
                let (name, pairs) = bucket?;
                for pair in pairs {
                    all.push((name.clone(), pair?));
                }
            }
            Ok(all)
        }
        Whole::Stream => {
            let mut bytes = Vec::new();
            let backup = cask.backup_to(&mut bytes)?;
            assert_eq!(backup.bytes, bytes.len() as u64, "a backup says how long it is");
            let elsewhere = SimDisk::new();
            elsewhere.set_contents("/copy", bytes);
            read_whole(&Cask::open_on(Arc::new(elsewhere), "/copy", &Setup::READER.config())?, Whole::ByBucket)
        }
    }
}

/// What is said of a copy that was made.
#[derive(Debug, Clone, Copy)]
pub struct Made {
    pub keys: u64,
    /// No pair has a higher index.
    pub last_index: u64,
    /// It must be what the original was at one moment: salvage also brings the rest of writes that were not
    /// acknowledged.
    pub of_one_moment: bool,
}

/// Makes a store of its own from another.
pub fn copy(cask: &Cask, copying: Copying, disk: &dyn Disk, from: &Path, to: &Path) -> Result<Made, Error> {
    let backup = match copying {
        Copying::Backup => cask.backup(to)?,
        Copying::CompactTo => cask.compact_to(to)?,
        Copying::Salvage => {
            let report = salvage_on(disk, from, to)?;
            if !report.unreadable.is_empty() {
                // What is there is what the disk could still read: nothing to go by.
                let io = |operation, source| Error::Io { operation, path: to.into(), source: Arc::new(source) };
                disk.remove(to).map_err(|error| io("remove", error))?;
                disk.sync_dir(to.parent().unwrap_or(to)).map_err(|error| io("sync of the directory", error))?;
                return Err(io("read", std::io::Error::from_raw_os_error(libc::EIO)));
            }
            let of_one_moment = report.losses.is_empty() && report.torn_bytes == 0;
            return Ok(Made { keys: report.keys, last_index: u64::MAX, of_one_moment });
        }
    };
    Ok(Made { keys: backup.keys, last_index: backup.last_index, of_one_moment: true })
}

impl Made {
    pub fn check(&self, found: &State) -> Result<(), String> {
        let highest = found.values().map(|pair| pair.index).max().unwrap_or(0);
        let fits = self.keys == found.len() as u64 && highest <= self.last_index;
        if fits { Ok(()) } else { Err(format!("{self:?}, and there are {} keys up to {highest}", found.len())) }
    }
}

/// What a copy holds, which is written to on the way: no index of its own may be one that the original, which has
/// handed out `highest`, will soon have.
pub fn look_at_copy(disk: Arc<dyn Disk>, path: &Path, highest: u64) -> Result<State, String> {
    let describe = |error: Error| format!("{}: {error}", path.display());
    let reader = Cask::open_on(Arc::clone(&disk), path, &Setup::READER.config()).map_err(describe)?;
    let state = read_all(&reader).map_err(describe)?;
    let report = reader.verify().map_err(describe)?;
    if report.torn_bytes > 0 || report.cut_off || report.keys != state.len() as u64 {
        return Err(format!("{}: {report:?}", path.display()));
    }
    let writer = Cask::open_on(disk, path, &Setup::DEFAULT.config()).map_err(describe)?;
    let first = writer.update("a", |_| b"of the copy's own".to_vec()).map_err(describe)?.last_index;
    if first < highest + FAR {
        return Err(format!("{}: its first index of its own is {first}, and {highest} is known", path.display()));
    }
    writer.close().map_err(describe)?;
    Ok(state)
}

/// More writes than any test makes; much less than the distance of a copy's indexes from those of its original.
const FAR: u64 = 1 << 40;

/// Makes a call that reads.
pub fn ask(cask: &Cask, call: &Call) -> Result<Answer, Error> {
    match call {
        Call::Get((bucket, key), how) => {
            let cask = in_bucket(cask, *bucket)?;
            match how % 4 {
                0 => pair(cask.get(key)),
                1 => {
                    let mut value = b"what was here before".to_vec();
                    pair(cask.get_into(key, &mut value).map(|index| KvPair::new(key.clone(), value, index)))
                }
                2 => cask.exists(key).map(Answer::There),
                _ => {
                    // SAFETY: only this library writes to the stores of tests that come here.
                    let slice = unsafe { cask.mapped() }.get(key);
                    pair(slice.map(|slice| KvPair::new(key.clone(), slice.to_vec(), slice.last_index())))
                }
            }
        }
        Call::List(bucket, prefix, how) => {
            let cask = in_bucket(cask, *bucket)?;
            Ok(Answer::Pairs(match how % 4 {
                0 => cask.list(prefix)?,
                1 => {
                    let mut pairs = Vec::new();
                    cask.visit(prefix, |pair| {
                        pairs.push(pair.to_pair());
                        ControlFlow::Continue(())
                    })?;
                    pairs
                }
                2 => from_both_ends(cask.scan(prefix)?, how / 4)?,
                _ => with_keys(cask.scan(prefix)?, cask.scan(prefix)?.into_keys(), *how)?,
            }))
        }
        Call::Range(bucket, from, to, how) => {
            let cask = in_bucket(cask, *bucket)?;
            let scan = || cask.range((from.clone(), to.clone()));
            match how % 4 {
                3 => with_keys(scan()?, scan()?.into_keys(), *how).map(Answer::Pairs),
                _ => from_both_ends(scan()?, *how).map(Answer::Pairs),
            }
        }
        Call::Buckets => cask.buckets().map(Answer::Names),
        Call::Stats => cask.stats().map(|stats| Answer::Keys(stats.keys)),
        Call::Len(bucket) => in_bucket(cask, *bucket)?.len().map(Answer::Keys),
        Call::Counts => {
            let mut keys = Vec::new();
            for bucket in 0..BUCKETS.len() {
                let cask = in_bucket(cask, bucket)?;
                keys.push(cask.len()?);
                assert_eq!(cask.is_empty()?, keys[bucket] == 0);
            }
            assert_eq!(keys.iter().sum::<u64>(), cask.stats()?.keys, "the buckets have all keys of the store");
            Ok(Answer::Lens(keys))
        }
        Call::Verify => cask.verify().map(|verified| Answer::Keys(verified.keys)),
        Call::Whole(whole) => read_whole(cask, *whole).map(Answer::Whole),
        _ => Ok(Answer::Nothing),
    }
}

/// What a call that reads must say in a state.
pub fn answer(call: &Call, state: &State) -> Answer {
    let pairs = |(key, pair): (&Key, &Pair)| KvPair::new(key.1.clone(), pair.value.to_vec(), pair.index);
    let len = |bucket| state.keys().filter(|(at, _)| *at == bucket).count() as u64;
    match call {
        Call::Get(key, how) if how % 4 == 2 => Answer::There(state.contains_key(key)),
        Call::Get(key, _) => Answer::Pair(state.get(key).map(|pair| (pair.value.clone(), pair.index))),
        Call::List(bucket, prefix, _) => Answer::Pairs(listed(state, *bucket, prefix).map(pairs).collect()),
        Call::Range(bucket, from, to, _) => Answer::Pairs(ranged(state, *bucket, from, to).map(pairs).collect()),
        Call::Buckets => {
            let names: BTreeSet<usize> = state.keys().map(|(bucket, _)| *bucket).collect();
            Answer::Names(names.into_iter().map(|bucket| BUCKETS[bucket].to_vec()).collect())
        }
        Call::Stats | Call::Verify => Answer::Keys(state.len() as u64),
        Call::Len(bucket) => Answer::Keys(len(*bucket)),
        Call::Counts => Answer::Lens((0..BUCKETS.len()).map(len).collect()),
        Call::Whole(whole) => {
            let named = |(key, pair): (&Key, &Pair)| {
                (BUCKETS[key.0].to_vec(), KvPair::new(key.1.clone(), pair.value.to_vec(), pair.index))
            };
            let mut all: Vec<_> = state.iter().map(named).collect();
            if *whole == Whole::ByIndex {
                all.sort_by_key(|(_, pair)| pair.last_index);
            }
            Answer::Whole(all)
        }
        _ => Answer::Nothing,
    }
}

/// A batch of these parts, and the parts of each of its operations.
fn batch(parts: &[BatchPart]) -> (Batch, Vec<Range<usize>>) {
    let (mut batch, mut ops) = (Batch::new(), Vec::new());
    let mut at = 0;
    while let Some(part) = parts.get(at) {
        let (BatchPart::Put(key, _)
        | BatchPart::Delete(key)
        | BatchPart::ExpectSeq(key, _)
        | BatchPart::ExpectAbsent(key)) = part;
        let batch = batch.bucket(BUCKETS[key.0]);
        let first = at;
        at += 1;
        // A condition and a change of the same key have a call of their own.
        match (part, parts.get(at)) {
            (BatchPart::ExpectSeq(_, index), Some(BatchPart::Put(next, value))) if next == key => {
                at += 1;
                batch.put_if(&key.1, value, *index)
            }
            (BatchPart::ExpectAbsent(_), Some(BatchPart::Put(next, value))) if next == key => {
                at += 1;
                batch.put_new(&key.1, value)
            }
            (BatchPart::ExpectSeq(_, index), Some(BatchPart::Delete(next))) if next == key => {
                at += 1;
                batch.delete_if(&key.1, *index)
            }
            (BatchPart::Put(_, value), _) => batch.put(&key.1, value),
            (BatchPart::Delete(_), _) => batch.delete(&key.1),
            (BatchPart::ExpectSeq(_, index), _) => batch.expect_last_index(&key.1, *index),
            (BatchPart::ExpectAbsent(_), _) => batch.expect_absent(&key.1),
        };
        ops.push(first..at);
        assert_eq!(batch.len(), ops.len(), "each call adds one operation");
    }
    (batch, ops)
}

/// The result of a batch that was made of parts: a conflict names the part that is the condition.
fn receipt_of(result: Result<Applied, Error>, parts: &[BatchPart], ops: &[Range<usize>]) -> Result<Receipt, Error> {
    match result {
        Ok(applied) => Ok(receipt(&applied, parts, ops)),
        Err(Error::BatchConflict { op, cause }) => Err(Error::BatchConflict { op: ops[op].start, cause }),
        Err(error) => Err(error),
    }
}

/// Writes batches in one group, and returns what each was answered.
pub fn together(cask: &Cask, batches: &[Vec<BatchPart>]) -> Result<Vec<Result<Option<u64>, Error>>, Error> {
    let (made, ops): (Vec<_>, Vec<_>) = batches.iter().map(|parts| batch(parts)).unzip();
    let results = cask.write_together(&made)?.into_iter().zip(batches.iter().zip(ops));
    Ok(results.map(|(result, (parts, ops))| Ok(receipt_of(result, parts, &ops)?.index)).collect())
}

/// What a batch was answered, whose parts must have indexes that follow each other.
fn receipt(applied: &Applied, parts: &[BatchPart], ops: &[Range<usize>]) -> Receipt {
    let (mut records, mut puts, mut next) = (0, 0, None);
    for (op, of) in ops.iter().enumerate() {
        // A change comes after its condition.
        let part = &parts[of.end - 1];
        let index = applied.last_index_of(op);
        match part {
            BatchPart::Put(..) => puts += 1,
            BatchPart::Delete(_) => {}
            BatchPart::ExpectSeq(..) | BatchPart::ExpectAbsent(_) => {
                assert_eq!(index, None, "a condition has no record")
            }
        }
        assert!(index.is_some() || !matches!(part, BatchPart::Put(..)), "put {op} of {applied:?} has no record");
        if let Some(index) = index {
            assert!(
                next.is_none_or(|next| next == index),
                "operation {op} of {applied:?} has index {index}, not {next:?}"
            );
            (records, next) = (records + 1, Some(index + 1));
        }
    }
    assert_eq!(applied.last_index(), next.map(|next| next - 1), "the last operation has the last index");
    assert_eq!(applied.last_index_of(ops.len()), None);
    assert_eq!(applied.deleted(), (records - puts) as u64, "records that put nothing remove a key");
    Receipt { index: applied.last_index(), tells: true, records: Some(records), ..Receipt::default() }
}

/// Makes a call that may write, in one of the ways in which the library offers it: which one, the call's content says.
pub fn tell(cask: &Cask, call: &Call) -> Result<Receipt, Error> {
    let previous =
        |key: &Key, index: &Option<u64>| index.map(|index| KvPair::new(key.1.clone(), "not compared", index));
    let told = |index| Receipt { index: Some(index), tells: true, ..Receipt::default() };
    let acknowledged = |pair: KvPair, key: &Key, value: &Bytes| {
        assert_eq!((&pair.key, &*pair.value), (&key.1, &**value), "the pair that a write returns is what it wrote");
        told(pair.last_index)
    };
    // The number of a value is in its first byte.
    let way = |value: &Bytes| value.first().copied().unwrap_or_default();
    Ok(match call {
        Call::Put(key, value) => told(in_bucket(cask, key.0)?.put(&key.1, value)?),
        Call::Delete(key) => {
            let cask = in_bucket(cask, key.0)?;
            let was_there = match (key.0 + key.1.len()) % 3 {
                0 => false,
                1 => cask.remove(&key.1)?.is_some_and(|pair| pair.key == key.1),
                _ => {
                    let mut found = false;
                    let left = cask.try_update(&key.1, |pair| {
                        found = pair.is_some();
                        Ok::<_, Error>(Update::Delete)
                    })?;
                    assert_eq!(left, None, "a key that was removed");
                    found
                }
            };
            // The other two only read if the key is absent. A deletion is a write even then.
            if !was_there {
                cask.delete(&key.1)?;
            }
            Receipt::default()
        }
        Call::AtomicPut(key, value, index) => {
            let cask = in_bucket(cask, key.0)?;
            match index {
                _ if way(value) % 2 == 0 => {
                    acknowledged(cask.atomic_put(&key.1, value, previous(key, index).as_ref())?, key, value)
                }
                Some(index) => told(cask.put_if(&key.1, value, *index)?),
                None => told(cask.put_new(&key.1, value)?),
            }
        }
        Call::AtomicDelete(key, index) => {
            let cask = in_bucket(cask, key.0)?;
            match index {
                Some(index) if (key.0 + key.1.len()) % 2 == 0 => cask.delete_if(&key.1, *index)?,
                _ => cask.atomic_delete(&key.1, previous(key, index).as_ref())?,
            }
            Receipt::default()
        }
        Call::Update(key, value) => {
            let cask = in_bucket(cask, key.0)?;
            match way(value) % 3 {
                0 => acknowledged(cask.update(&key.1, |_| value.to_vec())?, key, value),
                1 => {
                    let put = cask.try_update(&key.1, |_| Ok::<_, Error>(Update::put(&**value)))?;
                    acknowledged(put.expect("a put leaves a pair"), key, value)
                }
                // Only an absent key gets the value.
                _ => match cask.get(&key.1).optional()? {
                    None => acknowledged(cask.get_or_insert_with(&key.1, || value.to_vec())?, key, value),
                    Some(there) => {
                        let kept = cask.get_or_insert_with(&key.1, || -> Vec<u8> { panic!("the key is there") })?;
                        assert_eq!(kept.key, there.key);
                        told(cask.put(&key.1, value)?)
                    }
                },
            }
        }
        Call::Write(parts) => {
            let (batch, ops) = batch(parts);
            receipt_of(cask.write(&batch), parts, &ops)?
        }
        Call::DeletePrefix(bucket, prefix) => {
            let cask = in_bucket(cask, *bucket)?;
            let end = end_of(prefix).filter(|_| prefix.len() % 2 == 1);
            let deleted = match end {
                Some(end) => cask.delete_range(prefix.clone()..end)?,
                None => cask.delete_prefix(prefix)?,
            };
            Receipt { deleted: Some(deleted), ..Receipt::default() }
        }
        Call::Sync => {
            cask.sync()?;
            Receipt::default()
        }
        Call::Compact => {
            cask.compact()?;
            Receipt::default()
        }
        Call::CompactUntil(reports) => {
            let mut left = *reports;
            let watch = |_| match left.checked_sub(1) {
                Some(less) => {
                    left = less;
                    ControlFlow::Continue(())
                }
                None => ControlFlow::Break(()),
            };
            let cancelled = match cask.compact_with(watch) {
                Ok(_) => false,
                Err(Error::CompactionCancelled { .. }) => true,
                Err(error) => return Err(error),
            };
            Receipt { cancelled, ..Receipt::default() }
        }
        Call::Reopen => {
            cask.reopen()?;
            Receipt::default()
        }
        _ => Receipt::default(),
    })
}

/// The first key after all that start with `prefix`, if that is the next byte at its end.
fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let (last, start) = prefix.split_last()?;
    Some([start, &[last.checked_add(1)?]].concat())
}

/// Whether what a write said fits the changes that it should have made, whose last index in the store is known if
/// the last of them is a put.
pub fn check_receipt(receipt: &Receipt, changes: usize, last_put: Option<u64>, before: u64) -> Result<(), String> {
    if receipt.tells && receipt.index.is_some() != (changes > 0) {
        return Err(format!("{changes} changes were expected, and the index returned is {:?}", receipt.index));
    }
    if receipt.records.is_some_and(|records| records != changes) {
        return Err(format!("{changes} changes were expected, and indexes were returned for {:?}", receipt.records));
    }
    if receipt.index.is_some_and(|index| index <= before) {
        return Err(format!("index {:?} was returned, though {before} was handed out before", receipt.index));
    }
    if let (Some(index), Some(put)) = (receipt.index, last_put) {
        if index != put {
            return Err(format!("index {index} was returned, and the store has {put}"));
        }
    }
    if receipt.deleted.is_some_and(|deleted| deleted != changes as u64) {
        return Err(format!("{changes} keys were to be deleted, and {:?} are said to be", receipt.deleted));
    }
    Ok(())
}

/// How the contract refuses a call in a state, if it does.
pub fn refusal(call: &Call, state: &State, read_only: bool) -> Option<Refusal> {
    match call {
        Call::AtomicDelete(_, None) => Some(Refusal::PreviousNotSpecified),
        _ if call.is_read() || *call == Call::Reopen => None,
        _ if read_only => Some(Refusal::ReadOnly),
        _ => predict(call, state).err(),
    }
}

/// The index of a key, looked up by itself.
pub fn index_of(cask: &Cask, key: &Key) -> Result<Option<u64>, Error> {
    match in_bucket(cask, key.0)?.get(&key.1) {
        Ok(pair) => Ok(Some(pair.last_index)),
        Err(Error::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Everything that a handle shows.
pub fn read_all(cask: &Cask) -> Result<State, Error> {
    let mut state = State::new();
    for bucket in 0..BUCKETS.len() {
        for pair in in_bucket(cask, bucket)?.scan("")? {
            let KvPair { key, value, last_index } = pair?;
            state.insert((bucket, key), Pair { value: value.into(), index: last_index });
        }
    }
    Ok(state)
}
