//! Several real processes on one file, really killed.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use caskfile::disk::Disk;
use caskfile::{Cask, Config, Durability, Error, KvPair, LockMode, OptionalExt, ReadMode};
use memmap2::{MmapOptions, MmapRaw};

mod common;
#[path = "common/hooked.rs"]
mod hooked;
#[path = "common/process.rs"]
mod process;

use common::TempDir;
use hooked::{HALFWAY, HookedDisk};
use process::{Process, arguments, die, listen, say, was_killed};

// Counting while being killed.

const COUNTERS: usize = 10;
const WRITERS: usize = 8;

/// What a counting process writes down after each increment that was acknowledged.
const ACKNOWLEDGEMENT_LEN: usize = 16;

/// Every acknowledged increment counts, and one more for each kill at most: the one that its process had no time left
/// to write down. What anybody has seen or was told stays, for everybody.
///
/// `CASKFILE_PROCESS_SECONDS` makes it run longer than two seconds.
#[test]
fn counters_hold_what_was_acknowledged_and_one_more_for_each_kill_at_most() {
    if let Some(arguments) = arguments() {
        let seconds: u32 = arguments[1].parse().unwrap();
        process::be_patient_for(seconds + 120);
        let directory = Path::new(&arguments[2]);
        return match arguments[0].as_str() {
            "count" => count(directory, arguments[3].parse().unwrap(), arguments[4].parse().unwrap()),
            "watch" => watch(directory, &arguments[3]),
            "compact" => keep_compacting(directory),
            role => panic!("{role}"),
        };
    }
    let name = "counters_hold_what_was_acknowledged_and_one_more_for_each_kill_at_most";
    let seconds = std::env::var("CASKFILE_PROCESS_SECONDS").map_or(2, |seconds| seconds.parse().unwrap());
    let directory = TempDir::new();
    Board::make(directory.path());
    let mut random = Random::new();
    let start = |role: &str, arguments: &[&str]| {
        let common = [role, &seconds.to_string(), directory.path().to_str().unwrap()];
        Process::start(name, &[&common, arguments].concat())
    };
    let start_writer = |slot: usize, seed: u64| start("count", &[&slot.to_string(), &seed.to_string()]);

    let mut writers: Vec<Process> = (0..WRITERS).map(|slot| start_writer(slot, random.next())).collect();
    let watchers = ["a map", "pread", "a handle that could write"].map(|how| start("watch", &[how]));
    let compactor = start("compact", &[]);
    let began = Instant::now();
    let mut kills = 0;
    while began.elapsed() < Duration::from_secs(seconds) {
        thread::sleep(Duration::from_micros(random.below(5000)));
        let slot = random.below(WRITERS as u64) as usize;
        let next = start_writer(slot, random.next());
        let status = std::mem::replace(&mut writers[slot], next).kill();
        assert!(was_killed(status), "a writer must not end by itself: {status}");
        kills += 1;
    }
    File::create(stop_file(directory.path())).unwrap();
    writers.into_iter().for_each(Process::succeed);
    let looks = watchers.map(last_words);
    let compactions = last_words(compactor);

    let acknowledged = acknowledged(directory.path());
    let cask = Cask::open(store(directory.path())).unwrap();
    let mut sum = 0;
    for (key, values) in acknowledged.iter().enumerate() {
        let value = cask.get(counter(key)).optional().unwrap().as_ref().map_or(0, value_of);
        let least = values.len() as u64;
        assert!(least <= value, "{least} increments of counter {key} were acknowledged, and it is at {value}");
        assert!(value <= least + kills, "{kills} kills do not explain a {value} after {least} increments");
        assert!(values.iter().all(|acknowledged| *acknowledged <= value));
        let mut once = values.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), values.len(), "two processes were told that they had counted to the same number");
        sum += value;
    }
    let total: u64 = acknowledged.iter().map(|values| values.len() as u64).sum();
    println!(
        "{seconds} s, {kills} kills: {total} acknowledged <= {sum} counted <= {}; {compactions} compactions; looks: {looks:?}",
        total + kills
    );
    assert!(total <= sum && sum <= total + kills);
    assert!(total > 0 && kills > 0 && compactions > 0 && looks.iter().all(|looks| *looks > 0), "nothing was tried");
    cask.verify().unwrap();
    cask.close().unwrap();
    assert_no_leftovers(directory.path());
}

/// A busy disk was seen to take ten seconds for a sync, and one of the processes has the lock meanwhile. That is not
/// what is under test.
fn patient() -> Config {
    Config::new().connection_timeout(Duration::from_secs(60))
}

fn count(directory: &Path, slot: usize, seed: u64) {
    let durability = match slot {
        0 => Durability::Os,
        1 => Durability::Interval(Duration::from_millis(5)),
        _ => Durability::Sync,
    };
    let cask = Cask::open_with(store(directory), &patient().durability(durability)).unwrap();
    let mut acknowledgements =
        OpenOptions::new().append(true).create(true).open(directory.join(format!("acknowledged-{slot}"))).unwrap();
    let board = Board::open(directory);
    let mut random = Random(seed | 1);
    while !stop_file(directory).exists() {
        let key = random.below(COUNTERS as u64) as usize;
        let pair = loop {
            let previous = cask.get(counter(key)).optional().unwrap();
            let next = previous.as_ref().map_or(0, value_of) + 1;
            match cask.atomic_put(counter(key), next.to_le_bytes(), previous.as_ref()) {
                Ok(pair) => break pair,
                Err(Error::KeyModified | Error::KeyExists) => {}
                Err(error) => panic!("{error}"),
            }
        };
        // One write each, so that a kill leaves all of it or nothing.
        let value = value_of(&pair);
        acknowledgements.write_all(&[(key as u64).to_le_bytes(), value.to_le_bytes()].concat()).unwrap();
        board.raise(key, value, pair.last_index);
        if random.below(200) == 0 {
            cask.compact().unwrap();
        }
    }
    cask.close().unwrap();
}

/// Looks at all counters again and again: none may ever be behind what any process was known to have seen before the
/// look began.
fn watch(directory: &Path, how: &str) {
    let config = match how {
        "a map" => patient().read_only(true),
        "pread" => patient().read_only(true).reads(ReadMode::Pread),
        _ => patient(),
    };
    let board = Board::open(directory);
    let open = || loop {
        match Cask::open_with(store(directory), &config) {
            Ok(cask) => return cask,
            // The very first writer is still about to create it.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    let mut cask = open();
    let mut looks = 0u64;
    while !stop_file(directory).exists() {
        looks += 1;
        let seen: Vec<(u64, u64)> = (0..COUNTERS).map(|key| board.seen(key)).collect();
        let pairs = match looks % 8 {
            0 => cask.list("counter").unwrap(),
            _ => (0..COUNTERS).filter_map(|key| cask.get(counter(key)).optional().unwrap()).collect(),
        };
        for (key, seen) in seen.into_iter().enumerate() {
            let pair = pairs.iter().find(|pair| pair.key == counter(key).as_bytes());
            let now = pair.map_or((0, 0), |pair| (value_of(pair), pair.last_index));
            assert!(
                now.0 >= seen.0 && now.1 >= seen.1,
                "counter {key} went back from {seen:?} to {now:?}, read by {how}"
            );
            board.raise(key, now.0, now.1);
        }
        if looks % 500 == 0 {
            cask.close().unwrap();
            cask = open();
        }
    }
    say(looks.to_string());
}

fn keep_compacting(directory: &Path) {
    let cask = Cask::open_with(store(directory), &patient().durability(Durability::Os)).unwrap();
    let mut compactions = 0;
    while !stop_file(directory).exists() {
        cask.compact().unwrap();
        compactions += 1;
        thread::sleep(Duration::from_millis(10));
    }
    cask.close().unwrap();
    say(compactions.to_string());
}

/// What the counting processes have written down: for each counter, all values that they were told to have set.
fn acknowledged(directory: &Path) -> Vec<Vec<u64>> {
    let mut values = vec![Vec::new(); COUNTERS];
    for slot in 0..WRITERS {
        let bytes = fs::read(directory.join(format!("acknowledged-{slot}"))).unwrap();
        assert_eq!(bytes.len() % ACKNOWLEDGEMENT_LEN, 0);
        for acknowledgement in bytes.chunks_exact(ACKNOWLEDGEMENT_LEN) {
            let (key, value) = acknowledgement.split_at(8);
            values[number(key) as usize].push(number(value));
        }
    }
    values
}

/// For each counter, the highest value and index that any process has seen or was told: memory that all share.
///
/// A process raises what stands here after it has seen more, and reads it before it looks at the store. So whoever
/// then sees less has looked into the past.
struct Board(MmapRaw);

impl Board {
    fn make(directory: &Path) {
        File::create(directory.join("board")).unwrap().set_len(COUNTERS as u64 * 16).unwrap();
    }

    fn open(directory: &Path) -> Board {
        let file = OpenOptions::new().read(true).write(true).open(directory.join("board")).unwrap();
        Board(MmapOptions::new().map_raw(&file).unwrap())
    }

    fn cell(&self, number: usize) -> &AtomicU64 {
        assert!(number < 2 * COUNTERS);
        // SAFETY: the map is a page's beginning, and covers as many cells as the file that `make` has made, which
        // nobody cuts. All processes use them as atomics only.
        unsafe { &*self.0.as_mut_ptr().cast::<AtomicU64>().add(number) }
    }

    fn seen(&self, key: usize) -> (u64, u64) {
        (self.cell(2 * key).load(Ordering::SeqCst), self.cell(2 * key + 1).load(Ordering::SeqCst))
    }

    fn raise(&self, key: usize, value: u64, last_index: u64) {
        self.cell(2 * key).fetch_max(value, Ordering::SeqCst);
        self.cell(2 * key + 1).fetch_max(last_index, Ordering::SeqCst);
    }
}

/// What a compaction leaves in the old file is the last that a reader finds there, and by the time it looks, others
/// may have written to the new file. A reader that took in the former and answered without the latter showed a counter
/// running backwards.
#[test]
fn a_reader_that_slept_through_a_compaction_sees_what_was_written_after_it() {
    let directory = TempDir::new();
    let writer = Cask::open(directory.join("store")).unwrap();
    for config in [Config::new(), Config::new().read_only(true), Config::new().read_only(true).reads(ReadMode::Pread)] {
        writer.put("key", "before").unwrap();
        let reader = Cask::open_with(directory.join("store"), &config).unwrap();
        assert_eq!(reader.get("key").unwrap().value, b"before");
        writer.compact().unwrap();
        writer.put("key", "after").unwrap();
        assert_eq!(reader.get("key").unwrap().value, b"after", "{config:?}");
        writer.put("key", "listed").unwrap();
        writer.compact().unwrap();
        writer.compact().unwrap();
        writer.put("key", "later").unwrap();
        assert_eq!(reader.list("").unwrap()[0].value, b"later", "{config:?}");
    }
}

// Killed at every single call.

/// What a process does until it dies at a given call to the disk, and what it finds when it begins.
struct Course {
    prepare: fn(&Path),
    act: fn(Arc<HookedDisk>, &Path),
}

const COURSES: [(&str, Course); 4] = [
    ("creation", Course { prepare: |_| (), act: create }),
    ("creation from an empty file", Course { prepare: leave_an_empty_file, act: create }),
    ("recovery", Course { prepare: leave_a_torn_tail, act: create }),
    ("compaction", Course { prepare: leave_what_can_be_compacted, act: compact }),
];

/// For what is not under test here, and would only take its time: a killed process does not need a sync.
fn hasty() -> Config {
    Config::new().durability(Durability::Os)
}

fn create(disk: Arc<HookedDisk>, path: &Path) {
    let cask = Cask::open_on(disk, path, &Config::new()).unwrap();
    cask.put("new/1", "1").unwrap();
    say("new/1");
    cask.put("new/2", "2").unwrap();
    say("new/2");
    cask.close().unwrap();
}

fn compact(disk: Arc<HookedDisk>, path: &Path) {
    let cask = Cask::open_on(disk, path, &Config::new()).unwrap();
    cask.put("new/1", "1").unwrap();
    say("new/1");
    cask.compact().unwrap();
    cask.put("new/2", "2").unwrap();
    say("new/2");
    cask.close().unwrap();
}

fn leave_an_empty_file(path: &Path) {
    File::create(path).unwrap();
}

fn leave_what_can_be_compacted(path: &Path) {
    let cask = Cask::open_with(path, &hasty()).unwrap();
    for n in 0..30 {
        cask.put(format!("old/{}", n % 10), format!("{n}")).unwrap();
    }
    cask.put("gone", "").unwrap();
    cask.delete("gone").unwrap();
    cask.close().unwrap();
}

/// The file of a process that died in the middle of a write.
fn leave_a_torn_tail(path: &Path) {
    let cask = Cask::open_with(path, &hasty()).unwrap();
    for n in 0..10 {
        cask.put(format!("old/{n}"), format!("{}", 20 + n)).unwrap();
    }
    let end = cask.stats().unwrap().log_end as usize;
    cask.put("torn", "x".repeat(100)).unwrap();
    let mut bytes = fs::read(path).unwrap();
    cask.close().unwrap();
    bytes[end + 50..].fill(0);
    fs::write(path, bytes).unwrap();
}

/// A course is run again and again, and each time its process dies one call to the disk later, until it gets through.
/// Each time the store must open and hold what was there before and whatever was acknowledged.
fn dies_at_every_call(test: &str, course: &str) {
    let (_, Course { prepare, act }) = COURSES.iter().find(|(name, _)| *name == course).unwrap();
    if let Some(arguments) = arguments() {
        let (call, dying) = (AtomicU64::new(0), arguments[1].parse::<u64>().unwrap());
        let mut disk = HookedDisk::new(move |_| {
            if call.fetch_add(1, Ordering::Relaxed) == dying {
                die();
            }
            Ok(())
        });
        disk.halve_writes = true;
        return act(Arc::new(disk), Path::new(&arguments[0]));
    }
    for call in 0.. {
        let directory = TempDir::new();
        let path = directory.join("store");
        prepare(&path);
        let old: Vec<KvPair> = match Cask::open_with(&path, &Config::new().read_only(true)) {
            Ok(before) => before.list("old").unwrap(),
            Err(_) => Vec::new(),
        };
        // A handle that was there before the process came and died.
        let beside = (!old.is_empty()).then(|| Cask::open_with(&path, &hasty()).unwrap());
        let mut process = Process::start(test, &[path.to_str().unwrap(), &call.to_string()]);
        let mut acknowledged = Vec::new();
        while let Some(said) = process.hear() {
            acknowledged.push(said);
        }
        let status = process.end();
        assert!(status.success() || was_killed(status), "{course}, at call {call}: {status}");

        if let Some(beside) = beside {
            assert_eq!(beside.list("old").unwrap(), old, "{course}, at call {call}");
            beside.put("beside", "it").unwrap();
            beside.close().unwrap();
        }
        let cask = Cask::open_with(&path, &hasty()).unwrap_or_else(|error| panic!("{course}, at call {call}: {error}"));
        cask.verify().unwrap();
        assert_eq!(cask.list("old").unwrap(), old, "{course}, at call {call}");
        for key in &acknowledged {
            assert!(cask.exists(key).unwrap(), "{course}, at call {call}: {key} was acknowledged");
        }
        for pair in cask.list("new").unwrap() {
            assert!(pair.key.ends_with(&pair.value), "{course}, at call {call}: {pair:?}");
        }
        let highest = cask.list("").unwrap().iter().map(|pair| pair.last_index).max().unwrap_or(0);
        assert!(cask.atomic_put("last", "", None).unwrap().last_index > highest);
        cask.close().unwrap();
        assert_no_leftovers(directory.path());
        if status.success() {
            println!("{course}: {call} calls");
            assert!(call > 10);
            return;
        }
    }
}

#[test]
fn a_process_killed_at_any_call_of_creation_leaves_a_store_or_none() {
    dies_at_every_call("a_process_killed_at_any_call_of_creation_leaves_a_store_or_none", "creation");
}

#[test]
fn a_process_killed_at_any_call_of_creation_from_an_empty_file_leaves_a_store_or_an_empty_file() {
    dies_at_every_call(
        "a_process_killed_at_any_call_of_creation_from_an_empty_file_leaves_a_store_or_an_empty_file",
        "creation from an empty file",
    );
}

#[test]
fn a_process_killed_at_any_call_of_recovery_leaves_a_store_that_recovers() {
    dies_at_every_call("a_process_killed_at_any_call_of_recovery_leaves_a_store_that_recovers", "recovery");
}

#[test]
fn a_process_killed_at_any_call_of_compaction_leaves_the_store_compacted_or_not() {
    dies_at_every_call("a_process_killed_at_any_call_of_compaction_leaves_the_store_compacted_or_not", "compaction");
}

// Seeing each other.

#[test]
fn what_one_process_has_put_all_others_see_as_soon_as_the_put_has_returned() {
    if let Some(arguments) = arguments() {
        let cask = Cask::open(&arguments[0]).unwrap();
        while let Some(line) = listen() {
            match line.split_once(' ').unwrap_or((&line, "")) {
                ("put", value) => cask.put("key", value).unwrap(),
                ("compact", _) => drop(cask.compact().unwrap()),
                _ => {}
            }
            say(String::from_utf8(cask.get("key").unwrap().value).unwrap());
        }
        return;
    }
    let directory = TempDir::new();
    let path = directory.join("store");
    let writing = Cask::open_with(&path, &Config::new().durability(Durability::Os)).unwrap();
    writing.put("key", "").unwrap();
    let mapped = Cask::open_with(&path, &Config::new().read_only(true)).unwrap();
    let plain = Cask::open_with(&path, &Config::new().read_only(true).reads(ReadMode::Pread)).unwrap();
    let name = "what_one_process_has_put_all_others_see_as_soon_as_the_put_has_returned";
    let mut other = Process::start(name, &[path.to_str().unwrap()]);
    for round in 0..300 {
        // Of all lengths, so that the log's end is seen to move by small and large steps, over pages and maps.
        let theirs = format!("{round}-{}", "t".repeat(round * 37 % 9000));
        assert_eq!(other.ask(&format!("put {theirs}")), theirs);
        for cask in [&writing, &mapped, &plain] {
            assert_eq!(cask.get("key").unwrap().value, theirs.as_bytes(), "round {round}, {cask:?}");
        }
        let ours = format!("{round}-{}", "o".repeat(round * 91 % 9000));
        writing.put("key", &ours).unwrap();
        assert_eq!(other.ask("get"), ours);
        match round % 40 {
            19 => assert_eq!(other.ask("compact"), ours),
            39 => drop(writing.compact().unwrap()),
            _ => {}
        }
    }
    other.succeed();
}

/// A write that makes the file longer becomes visible page by page, the file's length with it. A reader that had looked
/// at the first page, and remembered what it saw there, took the finished record for the same unfinished one for ever.
#[test]
fn a_reader_that_looked_in_the_middle_of_a_write_sees_it_once_it_is_done() {
    let directory = TempDir::new();
    let path = directory.join("store");
    drop(Cask::open(&path).unwrap());
    let readers = [ReadMode::Map, ReadMode::Pread]
        .map(|reads| Cask::open_with(&path, &Config::new().read_only(true).reads(reads)).unwrap());
    let looking = Arc::new(readers.clone());
    let mut disk = HookedDisk::new(move |call| match call {
        // So that the file is not made longer ahead of the write.
        "set_len" => Err(std::io::ErrorKind::FileTooLarge.into()),
        HALFWAY => {
            for reader in looking.iter() {
                assert!(reader.get("key").optional().is_ok());
            }
            Ok(())
        }
        _ => Ok(()),
    });
    disk.halve_writes = true;
    let writer = Cask::open_on(Arc::new(disk), &path, &hasty()).unwrap();
    for len in (0..150).chain([5000, 70_000, 200_000]) {
        for value in [vec![0; len], vec![b'x'; len]] {
            writer.put("key", &value).unwrap();
            for reader in &readers {
                assert!(reader.get("key").unwrap().value == value, "{len} bytes");
            }
        }
    }
}

#[test]
fn of_processes_that_create_the_same_store_at_once_all_get_one_and_the_same() {
    if let Some(arguments) = arguments() {
        while let Some(path) = listen() {
            let cask = Cask::open(path).unwrap();
            cask.put(&arguments[0], "").unwrap();
            say("done");
            // Some stay for a while, some leave while others are still coming.
            if arguments[0].as_bytes()[0] % 2 == 0 {
                listen();
            }
            cask.close().unwrap();
            say("closed");
        }
        return;
    }
    let name = "of_processes_that_create_the_same_store_at_once_all_get_one_and_the_same";
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut creators = names.map(|creator| Process::start(name, &[creator]));
    for round in 0..20 {
        let directory = TempDir::new();
        let path = directory.join("store");
        if round % 2 == 1 {
            leave_an_empty_file(&path);
        }
        for creator in &mut creators {
            creator.tell(path.to_str().unwrap());
        }
        for creator in &mut creators {
            creator.hear_it_say("done");
        }
        let cask = Cask::open_with(&path, &Config::new().create(false)).unwrap();
        let found: Vec<_> = cask.list("").unwrap().into_iter().map(|pair| pair.key).collect();
        assert_eq!(found, names.map(|name| name.as_bytes().to_vec()), "round {round}");
        for (creator, name) in creators.iter_mut().zip(names) {
            if name.as_bytes()[0] % 2 == 0 {
                creator.tell("leave");
            }
            creator.hear_it_say("closed");
        }
        cask.close().unwrap();
        assert_no_leftovers(directory.path());
    }
    creators.into_iter().for_each(Process::succeed);
}

// Taking turns.

#[test]
fn an_exclusive_handle_keeps_other_writers_out_until_it_is_closed_or_its_process_dies() {
    if let Some(arguments) = arguments() {
        let cask = Cask::open_with(&arguments[0], &Config::new().lock_mode(LockMode::Exclusive)).unwrap();
        cask.put("key", "theirs").unwrap();
        say("it is mine");
        listen();
        cask.compact().unwrap();
        cask.put("key", "compacted").unwrap();
        say("it is still mine");
        listen();
        cask.close().unwrap();
        say("it is yours");
        listen();
        return;
    }
    let name = "an_exclusive_handle_keeps_other_writers_out_until_it_is_closed_or_its_process_dies";
    let directory = TempDir::new();
    let path = directory.join("store");
    let impatient = Config::new().connection_timeout(Duration::ZERO);
    let before = Cask::open_with(&path, &impatient).unwrap();
    let reader = Cask::open_with(&path, &impatient.clone().read_only(true)).unwrap();
    let kept_out = || {
        assert!(matches!(Cask::open_with(&path, &impatient), Err(Error::LockTimeout { .. })));
        for result in [before.put("key", "ours"), before.delete("key"), before.sync(), before.compact().map(drop)] {
            assert!(matches!(result, Err(Error::LockTimeout { .. })), "{result:?}");
        }
    };

    let mut owner = Process::start(name, &[path.to_str().unwrap()]);
    owner.hear_it_say("it is mine");
    kept_out();
    assert_eq!(reader.get("key").unwrap().value, b"theirs");
    assert_eq!(
        Cask::open_with(&path, &impatient.clone().read_only(true)).unwrap().get("key").unwrap().value,
        b"theirs"
    );
    assert_eq!(owner.ask("compact"), "it is still mine");
    kept_out();
    assert_eq!(
        (reader.get("key").unwrap(), before.get("key").unwrap().value),
        (before.get("key").unwrap(), b"compacted".to_vec())
    );
    assert_eq!(owner.ask("close"), "it is yours");
    before.put("key", "ours").unwrap();
    owner.succeed();
    assert_eq!(reader.get("key").unwrap().value, b"ours");

    let mut owner = Process::start(name, &[path.to_str().unwrap()]);
    owner.hear_it_say("it is mine");
    kept_out();
    assert!(was_killed(owner.kill()));
    before.put("key", "inherited").unwrap();
    drop(Cask::open_with(&path, &impatient).unwrap());
}

/// A child forked by any thread has every open file too, until it executes its program. What it has must not be a lock.
#[test]
fn no_lock_outlives_the_call_that_took_it_in_a_child_that_was_forked_meanwhile() {
    let directory = TempDir::new();
    let path = directory.join("store");
    let mut disk = HookedDisk::new(|_| Ok(()));
    disk.never_closed = Some(Mutex::default());
    let disk = Arc::new(disk);
    let impatient = Config::new().connection_timeout(Duration::ZERO);
    let exclusive = impatient.clone().lock_mode(LockMode::Exclusive);
    let open = |config| Cask::open_on(Arc::clone(&disk) as Arc<dyn Disk>, &path, config).unwrap();

    for empty_first in [false, true] {
        if empty_first {
            File::create(&path).unwrap();
        }
        open(&impatient).close().unwrap();
        let exclusive = open(&exclusive);
        exclusive.put("key", "").unwrap();
        exclusive.compact().unwrap();
        exclusive.close().unwrap();
        let cask = open(&impatient);
        cask.put("key", "").unwrap();
        cask.compact().unwrap();
        drop(open(&impatient));
        fs::remove_file(&path).unwrap();
    }
    assert!(disk.never_closed.as_ref().unwrap().lock().unwrap().len() > 10);
}

/// The lock is polled, and whoever has just had it is awake while the others sleep.
#[test]
fn every_process_gets_its_turn_however_many_others_write() {
    if let Some(arguments) = arguments() {
        let durability = if arguments[1] == "sync" { Durability::Sync } else { Durability::Os };
        let cask = Cask::open_with(&arguments[0], &patient().durability(durability)).unwrap();
        let stop = Path::new(&arguments[0]).with_file_name("stop");
        let (mut puts, mut longest) = (0u64, Duration::ZERO);
        while !stop.exists() {
            let began = Instant::now();
            cask.put(&arguments[1], puts.to_le_bytes()).unwrap();
            longest = longest.max(began.elapsed());
            puts += 1;
        }
        say(puts.to_string());
        return say(format!("longest {longest:?}"));
    }
    let name = "every_process_gets_its_turn_however_many_others_write";
    let directory = TempDir::new();
    let path = directory.join("store");
    let start = |kind: &str| Process::start(name, &[path.to_str().unwrap(), kind]);
    let mut writers = ["os", "os", "os", "sync", "sync"].map(start);
    let ours = Cask::open_with(&path, &patient()).unwrap();
    let began = Instant::now();
    let mut puts = 0u64;
    while began.elapsed() < Duration::from_secs(1) {
        ours.put("ours", puts.to_le_bytes()).unwrap();
        puts += 1;
    }
    File::create(stop_file(directory.path())).unwrap();
    let mut shares: Vec<u64> = writers.iter_mut().map(|writer| writer.hear().unwrap().parse().unwrap()).collect();
    let longest: Vec<String> = writers.iter_mut().map(|writer| writer.hear().unwrap()).collect();
    writers.into_iter().for_each(Process::succeed);
    shares.push(puts);
    println!("puts in a second: {shares:?}; {longest:?}");
    // Who syncs keeps the lock for longer and so writes less often; but nobody may be left out.
    let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
    assert!(least * 50 > *most, "{shares:?}");
}

// What the tests share.

fn store(directory: &Path) -> std::path::PathBuf {
    directory.join("store")
}

fn stop_file(directory: &Path) -> std::path::PathBuf {
    directory.join("stop")
}

fn counter(key: usize) -> String {
    format!("counter/{key}")
}

fn value_of(pair: &KvPair) -> u64 {
    number(&pair.value)
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("a number has 8 bytes"))
}

/// The number that a process says last.
fn last_words(mut process: Process) -> u64 {
    let said = process.hear().expect("it must tell how far it got");
    process.succeed();
    said.parse().unwrap()
}

fn assert_no_leftovers(directory: &Path) {
    for entry in directory.read_dir().unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.starts_with("store."), "{name} is left");
    }
}

/// xorshift64*: enough to vary times and choices.
struct Random(u64);

impl Random {
    fn new() -> Random {
        let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        Random(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
