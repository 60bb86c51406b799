//! Readers that look while another process is in the middle of something.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use caskfile::disk::sim::{Fault, Repeat, SimDisk, Verb, When};
use caskfile::disk::{Access, Disk};
use caskfile::{Cask, Config, Durability, Error, salvage_on, verify_on};

const STORE: &str = "/store";

fn open(disk: &SimDisk, config: &Config) -> Result<Cask, Error> {
    Cask::open_on(Arc::new(disk.clone()), STORE, config)
}

fn read_only() -> Config {
    Config::new().read_only(true)
}

/// The reader comes to the log's end, and before it looks what lies beyond, two more groups are there, the second of
/// which states that the first is on stable storage: so a proof lies beyond an end. It was a busy writer, not damage,
/// and it stays busy while the reader looks again.
#[test]
fn a_writer_active_during_an_opening_is_no_damage() {
    let disk = SimDisk::new();
    let (reader, writer) = (disk.process(), open(&disk, &Config::new()).unwrap());
    writer.put("key", "0").unwrap();
    let write_before_each_look_beyond = |looks: u64| {
        let writer = writer.clone();
        for look in 1..=looks {
            let writer = writer.clone();
            disk.before(When::nth(look).of(Verb::NextData).by(&reader), Repeat::Once, move |_| {
                writer.put("key", "1").unwrap();
                writer.put("key", "2").unwrap();
            });
        }
    };

    write_before_each_look_beyond(4);
    let cask = open(&reader, &read_only()).unwrap();
    assert_eq!(cask.get("key").unwrap().value, b"2");
    write_before_each_look_beyond(4);
    assert!(cask.verify().unwrap().records > 8);
    write_before_each_look_beyond(4);
    assert_eq!(verify_on(&reader, STORE.as_ref()).unwrap().losses, []);
    write_before_each_look_beyond(4);
    assert_eq!(salvage_on(&reader, STORE.as_ref(), "/rescued".as_ref()).unwrap().losses, []);
    assert!(open(&disk, &read_only()).unwrap().get("key").is_ok());
}

/// The file ends with what a power cut has left: a damaged record that nothing proves, and a whole one. At any moment
/// while it is read, another process opens the store, cuts that off, and writes something longer in its place.
#[test]
fn salvage_and_verification_restart_when_the_log_is_cut() {
    let disk = SimDisk::new();
    let writer = open(&disk, &Config::new().durability(Durability::Os)).unwrap();
    for key in ["first", "damaged", "behind it"] {
        writer.put(key, "value").unwrap();
    }
    let mut bytes = disk.contents(STORE).unwrap();
    let at = bytes.windows(12).position(|window| window == b"damagedvalue").unwrap();
    bytes[at] ^= 1;

    let (mut rescued_before, mut rescued_after) = (0, 0);
    for nth in 1.. {
        let disk = SimDisk::new();
        disk.set_contents(STORE, bytes.clone());
        let (reader, recovering) = (disk.process(), disk.process());
        disk.before(When::nth(nth).by(&reader), Repeat::Once, move |_| {
            let cask = open(&recovering, &Config::new()).unwrap();
            cask.put("in its place", vec![7; 500]).unwrap();
        });
        if nth % 2 == 0 {
            verify_on(&reader, STORE.as_ref()).unwrap();
        }
        let report = salvage_on(&reader, STORE.as_ref(), "/rescued".as_ref()).unwrap();
        assert!(report.is_sound(), "{report}");
        let rescued = Cask::open_on(Arc::new(disk.process()), "/rescued", &read_only()).and_then(|cask| cask.list(""));
        let keys: Vec<Vec<u8>> = rescued.unwrap().into_iter().map(|pair| pair.key).collect();
        match &keys.iter().map(|key| key.as_slice()).collect::<Vec<_>>()[..] {
            [b"behind it", b"first"] => rescued_before += 1,
            [b"first", b"in its place"] => rescued_after += 1,
            // The moment between the cut and the write.
            [b"first"] => {}
            other => panic!("call {nth}: {other:?}"),
        }
        if disk.contents(STORE).unwrap() == bytes {
            // There are fewer calls than that.
            break;
        }
    }
    assert!(rescued_before > 1 && rescued_after > 1, "{rescued_before} before, {rescued_after} after");
}

/// The writer could not extend the file ahead, so the file grows with the record that is being written. A reader that
/// looks in between remembers what it saw, so as not to take it apart with every call. All that it saw stays as it is
/// when the rest arrives.
#[test]
fn a_reader_of_half_a_record_sees_it_whole_later() {
    let disk = SimDisk::new();
    let writing = disk.process();
    disk.fail(When::next().of(Verb::SetLen), Fault::Os(libc::EFBIG), Repeat::Forever);
    let writer = open(&writing, &Config::new()).unwrap();
    writer.put("first", "value").unwrap();
    let reader = open(&disk.process(), &read_only()).unwrap();

    for (key, value) in [("noise", vec![7; 1000]), ("zeros", vec![0; 1000])] {
        disk.fail(When::next().of(Verb::WriteAt).by(&writing), Fault::Short(500), Repeat::Once);
        let looking = reader.clone();
        disk.before(When::nth(2).of(Verb::WriteAt).by(&writing), Repeat::Once, move |_| {
            assert!(matches!(looking.get(key), Err(Error::KeyNotFound)));
        });
        writer.put(key, &value).unwrap();
        assert_eq!(reader.get(key).unwrap().value, value);
    }
}

/// A record that ends where the file ends, at the end of a page, while the next one is being written: touching the
/// place of the end mark through the map would be SIGBUS. One thread of the reader's process has just taken the record
/// in, another one asks whether anything is new.
#[test]
fn a_reader_leaves_the_place_of_the_end_mark_alone() {
    const PAGE: usize = 4096;
    let disk = SimDisk::new();
    let writer = open(&disk, &Config::new()).unwrap();
    writer.put("first", "value").unwrap();
    let before = disk.contents(STORE).unwrap();
    // With the one at the page's end, as many as the scanner hands over at once.
    (0..63).for_each(|_| writer.put("first", "value").map(drop).unwrap());
    let end = writer.stats().unwrap().log_end as usize;
    let header_and_key = 24 + 1 + "second".len();
    writer.put("second", vec![1; PAGE - end - header_and_key]).unwrap();
    assert_eq!(writer.stats().unwrap().log_end as usize, PAGE);
    writer.put("third", "value").unwrap();
    let in_between = disk.contents(STORE).unwrap()[..PAGE].to_vec();

    let disk = SimDisk::new();
    disk.set_contents(STORE, before);
    let reader = open(&disk, &read_only()).unwrap();
    disk.set_contents(STORE, in_between);
    let other_thread = reader.clone();
    // The scanner reads to the end of the file, learns that there is no more, and asks once more for what follows
    // the records that it has handed over.
    disk.before(When::nth(3).of(Verb::ReadAt), Repeat::Once, move |_| {
        assert!(other_thread.exists("second").unwrap());
        assert!(!other_thread.exists("third").unwrap());
    });
    assert!(reader.exists("second").unwrap());
    assert!(!reader.exists("third").unwrap());
}

/// A large record arrives piece by piece, and whenever the reader looks, more of it is there. What was complete when the
/// call began is all that the reader has to know, so it does not wait for the rest.
#[test]
fn a_reader_does_not_wait_for_a_growing_record() {
    let disk = SimDisk::new();
    let reading = disk.process();
    let writer = open(&disk, &Config::new()).unwrap();
    writer.put("key", "value").unwrap();
    let end = writer.stats().unwrap().log_end;
    let reader = open(&reading, &read_only()).unwrap();

    let file = disk.process().open(STORE.as_ref(), Access::ReadWrite).unwrap();
    file.write_at(end, &[1; 24]).unwrap();
    let written = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&written);
    disk.before(When::next().of(Verb::ReadAt).by(&reading), Repeat::Forever, move |_| {
        let piece = count.fetch_add(1, Ordering::Relaxed);
        assert!(piece < 100, "the reader waits");
        file.write_at(end + 8 * (piece % 4), &[piece as u8 + 2; 8]).unwrap();
    });
    assert_eq!(reader.get("key").unwrap().value, b"value");
    assert_eq!(reader.get("key").unwrap().value, b"value");
    written.store(0, Ordering::Relaxed);
    assert_eq!(verify_on(&reading, STORE.as_ref()).unwrap().keys, 1);
}

/// A whole store takes long to read. A process that finds new records meanwhile must be able to replay them, and
/// above all a writer, which would otherwise wait with the file's lock held and stop every other process.
#[test]
fn verifying_holds_up_neither_readers_nor_writers() {
    let disk = SimDisk::new();
    let (here, other) =
        (open(&disk.process(), &Config::new()).unwrap(), open(&disk.process(), &Config::new()).unwrap());
    let verifying = open(&disk, &Config::new()).unwrap();
    verifying.put("key", "before").unwrap();
    let same_handle = verifying.clone();
    disk.before(When::next().of(Verb::ReadAt).by(&disk), Repeat::Once, move |_| {
        other.put("key", "another process's").unwrap();
        assert_eq!(same_handle.get("key").unwrap().value, b"another process's");
        same_handle.put("key", "this one's").unwrap();
    });
    assert!(verifying.verify().unwrap().records > 3);
    assert_eq!(here.get("key").unwrap().value, b"this one's");
    verifying.verify().unwrap();
}

/// Half a record follows a `MOVED`: its writer came too late. The log is the other file in spite of it.
#[test]
fn a_log_that_has_moved_is_left_for_the_new_one() {
    let disk = SimDisk::new();
    let writer = open(&disk, &Config::new()).unwrap();
    writer.put("key", "old").unwrap();
    let reader = open(&disk.process(), &read_only()).unwrap();
    let opens = Arc::new(AtomicU64::new(0));
    let opened = Arc::clone(&opens);
    disk.before(When::next().of(Verb::Rename), Repeat::Once, move |disk| {
        let mut old = disk.contents(STORE).unwrap();
        let end = old.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1).next_multiple_of(8);
        old[end..end + 16].fill(7);
        let file = disk.open(STORE.as_ref(), Access::ReadWrite).unwrap();
        file.write_at(end as u64, &old[end..end + 16]).unwrap();
        // A handle that opens it now must follow with the next call.
        opened.fetch_add(1, Ordering::Relaxed);
    });
    writer.compact().unwrap();
    assert_eq!(opens.load(Ordering::Relaxed), 1);
    writer.put("key", "new").unwrap();
    assert_eq!(reader.get("key").unwrap().value, b"new");
}
