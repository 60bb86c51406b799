//! Processes on one file at the same time: what each sees of the others, and how they take turns.

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use caskfile::disk::Disk;
use caskfile::{Cask, Config, Durability, Error, LockMode, OptionalExt, ReadMode};

use crate::common::hooked::{HALFWAY, HookedDisk};
use crate::common::process::{Process, arguments, listen, say, this_test, was_killed};
use crate::common::{TempDir, names};

/// What a compaction leaves in the old file is the last that a reader finds there, and by the time it looks, others
/// may have written to the new file. A reader that took in the former and answered without the latter showed a counter
/// running backwards.
#[test]
fn a_reader_idle_during_a_compaction_sees_later_writes() {
    let directory = TempDir::new();
    let writer = Cask::open(directory.join("store")).unwrap();
    for config in
        [Config::new(), Config::new().read_only(true), Config::new().read_only(true).read_mode(ReadMode::Pread)]
    {
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

#[test]
fn other_processes_see_a_put_when_it_returns() {
    if let Some(arguments) = arguments() {
        let cask = Cask::open(&arguments[0]).unwrap();
        while let Some(line) = listen() {
            match line.split_once(' ').unwrap_or((&line, "")) {
                ("put", value) => cask.put("key", value).map(drop).unwrap(),
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
    let plain = Cask::open_with(&path, &Config::new().read_only(true).read_mode(ReadMode::Pread)).unwrap();
    let name = this_test!();
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

/// A reader that comes in the middle of a write remembers what it saw, so as not to read it again with each call. Twice
/// it took the finished record for that: where the write made the file longer, page by page, and the first page was all
/// that it had seen and would stay as it was; and where a large value ended in zeros, as did the half of it.
#[test]
fn a_reader_sees_a_write_once_it_is_finished() {
    let ways = [(false, ReadMode::Map), (true, ReadMode::Map), (false, ReadMode::Pread), (true, ReadMode::Pread)];
    for (extended_ahead, reads) in ways {
        let directory = TempDir::new();
        let path = directory.join("store");
        drop(Cask::open(&path).unwrap());
        let reader = Cask::open_with(&path, &Config::new().read_only(true).read_mode(reads)).unwrap();
        let looking = reader.clone();
        let mut disk = HookedDisk::new(move |call| match call {
            "set_len" if !extended_ahead => Err(std::io::ErrorKind::FileTooLarge.into()),
            HALFWAY => {
                assert!(looking.get("key").optional().is_ok());
                Ok(())
            }
            _ => Ok(()),
        });
        disk.halve_writes = true;
        let config = Config::new().durability(Durability::Os);
        let writer = Cask::open_on(Arc::new(disk), &path, &config).unwrap();
        for len in (0..150).chain([5000, 70_000, 200_000, 300_000, 300_001, 300_002]) {
            let mut in_the_middle = vec![0; len];
            in_the_middle[len / 2..len / 2 + len / 4].fill(b'm');
            let mut far_behind = vec![0; len];
            far_behind[len / 10 * 9..len / 10 * 9 + len / 100].fill(b'f');
            let mut none_behind = vec![b'n'; len];
            none_behind[len / 2..].fill(0);
            for value in [vec![0; len], vec![b'x'; len], in_the_middle, far_behind, none_behind] {
                writer.put("key", &value).unwrap();
                let found = reader.get("key").unwrap().value;
                assert!(found == value, "{len} bytes, {reads:?}, ahead: {extended_ahead}");
            }
        }
    }
}

#[test]
fn processes_that_create_one_store_at_once_share_it() {
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
    let name = this_test!();
    let keys = ["a", "b", "c", "d", "e", "f"];
    let mut creators = keys.map(|creator| Process::start(name, &[creator]));
    for round in 0..20 {
        let directory = TempDir::new();
        let path = directory.join("store");
        if round % 2 == 1 {
            File::create(&path).unwrap();
        }
        for creator in &mut creators {
            creator.tell(path.to_str().unwrap());
        }
        for creator in &mut creators {
            creator.hear_it_say("done");
        }
        let cask = Cask::open_with(&path, &Config::new().create(false)).unwrap();
        let found: Vec<_> = cask.list("").unwrap().into_iter().map(|pair| pair.key).collect();
        assert_eq!(found, keys.map(|name| name.as_bytes().to_vec()), "round {round}");
        for (creator, name) in creators.iter_mut().zip(keys) {
            if name.as_bytes()[0] % 2 == 0 {
                creator.tell("leave");
            }
            creator.hear_it_say("closed");
        }
        cask.close().unwrap();
        assert_eq!(names(directory.path()), ["store"]);
    }
    creators.into_iter().for_each(Process::succeed);
}

/// The lock of the empty file is had, and by then another file stands in its place: another process was faster.
#[test]
fn a_process_accepts_an_empty_file_that_was_filled() {
    let directory = TempDir::new();
    let path = directory.join("store");
    File::create(&path).unwrap();
    let (elsewhere, first) = (path.clone(), AtomicU64::new(0));
    let disk = HookedDisk::new(move |call| {
        if call == "try_lock" && first.fetch_add(1, Ordering::Relaxed) == 0 {
            Cask::open(&elsewhere).unwrap().put("key", "theirs").unwrap();
        }
        Ok(())
    });
    let cask = Cask::open_on(Arc::new(disk), &path, &Config::new()).unwrap();
    assert_eq!(cask.get("key").unwrap().value, b"theirs");
    assert_eq!(names(directory.path()), ["store"]);
}

#[test]
fn an_exclusive_handle_keeps_other_writers_out() {
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
    let name = this_test!();
    let directory = TempDir::new();
    let path = directory.join("store");
    let impatient = Config::new().connection_timeout(Duration::ZERO);
    let before = Cask::open_with(&path, &impatient).unwrap();
    let reader = Cask::open_with(&path, &impatient.clone().read_only(true)).unwrap();
    let kept_out = || {
        assert!(matches!(Cask::open_with(&path, &impatient), Err(Error::LockTimeout { .. })));
        for result in
            [before.put("key", "ours").map(drop), before.delete("key"), before.sync(), before.compact().map(drop)]
        {
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
fn no_lock_outlives_its_call_in_a_forked_child() {
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

/// A busy disk was seen to take ten seconds for a sync, with the lock held.
const PATIENCE: Duration = Duration::from_secs(60);

/// The lock is polled, and the process that has just released it is awake while the others sleep.
#[test]
fn every_process_gets_its_turn_however_many_others_write() {
    if let Some(arguments) = arguments() {
        let durability = if arguments[1] == "sync" { Durability::Sync } else { Durability::Os };
        let cask =
            Cask::open_with(&arguments[0], &Config::new().connection_timeout(PATIENCE).durability(durability)).unwrap();
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
    let name = this_test!();
    let directory = TempDir::new();
    let path = directory.join("store");
    let start = |kind: &str| Process::start(name, &[path.to_str().unwrap(), kind]);
    let mut writers = ["os", "os", "os", "sync", "sync"].map(start);
    let ours = Cask::open_with(&path, &Config::new().connection_timeout(PATIENCE)).unwrap();
    let began = Instant::now();
    let mut puts = 0u64;
    while began.elapsed() < Duration::from_secs(1) {
        ours.put("ours", puts.to_le_bytes()).unwrap();
        puts += 1;
    }
    File::create(directory.join("stop")).unwrap();
    let mut shares: Vec<u64> = writers.iter_mut().map(|writer| writer.hear().unwrap().parse().unwrap()).collect();
    let longest: Vec<String> = writers.iter_mut().map(|writer| writer.hear().unwrap()).collect();
    writers.into_iter().for_each(Process::succeed);
    shares.push(puts);
    println!("puts in a second: {shares:?}; {longest:?}");
    // A writer that syncs keeps the lock for longer and so writes less often; but each gets its turn.
    let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
    assert!(least * 50 > *most, "{shares:?}");
}
