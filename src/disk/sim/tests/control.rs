//! Processes, faults, hooks, forks, and what the disk shows of its files.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{STORE, contents_after_cut, disk_with, open};
use crate::disk::sim::{Choices, Fault, Repeat, SimDisk, Verb, When};
use crate::disk::{Access, Disk, DiskFile, SyncScope};

fn os_error<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn each_description_reports_a_failed_sync_once() {
    let (disk, file) = disk_with(b"old");
    let (other, process) = (open(&disk), disk.process());
    let (third, bystander) = (open(&process), disk.create_new(Path::new("/other"), 0o600).unwrap());
    disk.fail(When::next(), Fault::Os(libc::EIO), Repeat::Once);
    file.sync(SyncScope::Data).unwrap_err();
    assert_eq!(os_error(other.sync(SyncScope::File)), Some(libc::EIO));
    assert_eq!(os_error(third.sync(SyncScope::Data)), Some(libc::EIO));
    for file in [file, other, third, bystander, open(&disk)] {
        file.sync(SyncScope::Data).unwrap();
    }
}

#[test]
fn each_description_reports_a_failed_write_back() {
    let (disk, file) = disk_with(b"old");
    let other = open(&disk.process());
    file.write_at(0, b"new!").unwrap();
    disk.fail_writeback(STORE);
    let late = open(&disk);
    assert_eq!(
        os_error(late.sync(SyncScope::Data)),
        Some(libc::EIO),
        "no description had reported it before the opening"
    );
    let later = open(&disk);
    for file in [&file, &other] {
        assert_eq!(os_error(file.sync(SyncScope::Data)), Some(libc::EIO));
    }
    for file in [&file, &other, &late, &later] {
        file.sync(SyncScope::Data).unwrap();
    }
    assert_eq!(contents_after_cut(&disk), ["old."], "the length is no data");
    assert_eq!(disk.contents(STORE).unwrap(), b"new!");
    disk.fail_writeback("/nothing");

    let (disk, file) = disk_with(b"old");
    file.write_at(0, b"new!").unwrap();
    disk.fail_writeback(STORE);
    disk.drop_caches();
    open(&disk).sync(SyncScope::Data).unwrap();
    assert_eq!(os_error(file.sync(SyncScope::Data)), Some(libc::EIO));
    assert_eq!(disk.contents(STORE).unwrap(), b"old\0");
}

type Call = fn(&SimDisk, &dyn DiskFile) -> io::Result<()>;

/// One call of each kind, on a file that exists.
fn calls() -> Vec<(Verb, Call)> {
    vec![
        (Verb::Resolve, |disk, _| disk.resolve(Path::new("store")).map(drop)),
        (Verb::Open, |disk, _| disk.open(Path::new(STORE), Access::Read).map(drop)),
        (Verb::CreateNew, |disk, _| disk.create_new(Path::new("/new"), 0o600).map(drop)),
        (Verb::Link, |disk, _| disk.link(Path::new(STORE), Path::new("/second"))),
        (Verb::Rename, |disk, _| disk.rename(Path::new("/second"), Path::new("/third"))),
        (Verb::Remove, |disk, _| disk.remove(Path::new("/third"))),
        (Verb::SyncDir, |disk, _| disk.sync_dir(Path::new("/"))),
        (Verb::Stat, |disk, _| disk.stat(Path::new(STORE)).map(drop)),
        (Verb::List, |disk, _| disk.list(Path::new("/"), &"".into()).map(drop)),
        (Verb::FillRandom, |disk, _| disk.system().fill_random(&mut [0; 8])),
        (Verb::ReadAt, |_, file| file.read_at(0, &mut [0; 2]).map(drop)),
        (Verb::WriteAt, |_, file| file.write_at(0, b"new").map(drop)),
        (Verb::Len, |_, file| file.len().map(drop)),
        (Verb::SetLen, |_, file| file.set_len(2)),
        (Verb::Punch, |_, file| file.punch(1..2)),
        (Verb::SyncData, |_, file| file.sync(SyncScope::Data)),
        (Verb::SyncAll, |_, file| file.sync(SyncScope::File)),
        (Verb::SyncFileSystem, |_, file| file.sync(SyncScope::FileSystem)),
        (Verb::BeginWriteBack, |_, file| file.write_back(0..3, 0)),
        (Verb::WriteBack, |_, file| file.write_back(1..3, 1)),
        (Verb::NextData, |_, file| file.next_data(0).map(drop)),
        (Verb::DataEnd, |_, file| file.data_end(0).map(drop)),
        (Verb::TryLock, |_, file| file.try_lock().map(drop)),
        (Verb::Unlock, |_, file| file.unlock()),
        (Verb::FileStat, |_, file| file.stat().map(drop)),
        (Verb::Attributes, |_, file| file.attributes().map(drop)),
        (Verb::SetAttributes, |_, file| file.attributes().and_then(|attributes| file.set_attributes(&attributes))),
        (Verb::Map, |_, file| file.map(8).map(drop)),
        (Verb::IsMappedElsewhere, |_, file| file.is_mapped_elsewhere().map(drop)),
    ]
}

#[test]
fn every_call_can_fail_once_or_for_ever() {
    for errno in [libc::EIO, libc::ENOSPC, libc::EINTR] {
        for (verb, call) in calls() {
            let (disk, file) = disk_with(b"old");
            disk.link(Path::new(STORE), Path::new("/second")).unwrap();
            disk.link(Path::new(STORE), Path::new("/third")).unwrap();
            let before = (disk.contents(STORE), disk.paths());
            disk.fail(When::next().of(verb), Fault::Os(errno), Repeat::Once);
            assert_eq!(os_error(call(&disk, &*file)), Some(errno), "{verb:?}");
            assert_eq!((disk.contents(STORE), disk.paths()), before, "{verb:?} has failed and done something");
            if verb == Verb::Link {
                disk.remove(Path::new("/second")).unwrap();
            }
            call(&disk, &*file).unwrap_or_else(|error| panic!("{verb:?} fails once only: {error}"));
            disk.fail(When::next().of(verb), Fault::Os(errno), Repeat::Forever);
            for _ in 0..3 {
                assert_eq!(os_error(call(&disk, &*file)), Some(errno), "{verb:?}");
            }
        }
    }
    let without = "all but the clock, the pause, arming and reads through maps, which have no errors";
    assert_eq!(calls().len() + 4, Verb::COUNT, "{without}");
}

#[test]
fn short_reads_and_writes_can_be_once_or_for_ever() {
    let (disk, file) = disk_with(b"old");
    for (repeat, then) in [(Repeat::Once, 3), (Repeat::Forever, 2)] {
        disk.clear_faults();
        disk.fail(When::next().of_any(&[Verb::WriteAt]), Fault::Short(2), repeat);
        disk.fail(When::next().of_any(&[Verb::ReadAt]), Fault::Short(2), repeat);
        assert_eq!((file.write_at(0, b"new").unwrap(), file.write_at(0, b"new").unwrap()), (2, then));
        assert_eq!((file.read_at(0, &mut [0; 3]).unwrap(), file.read_at(0, &mut [0; 3]).unwrap()), (2, then));
    }
}

#[test]
fn equal_disks_have_equal_fingerprints() {
    let base = || disk_with(b"old").0;
    let number = |change: &dyn Fn(&SimDisk)| {
        let disk = base();
        change(&disk);
        disk.fingerprint()
    };
    let write = |disk: &SimDisk| assert_eq!(open(disk).write_at(0, b"new").unwrap(), 3);
    let sync = |disk: &SimDisk| open(disk).sync(SyncScope::File).unwrap();
    let create = |disk: &SimDisk, name: &str| drop(disk.create_new(Path::new(name), 0o600).unwrap());
    let different = [
        number(&|_| {}),
        number(&write),
        number(&|disk| {
            write(disk);
            sync(disk);
        }),
        number(&|disk| open(disk).set_len(4).unwrap()),
        number(&|disk| create(disk, "/other")),
        number(&|disk| create(disk, "/another")),
        number(&|disk| {
            create(disk, "/other");
            disk.sync_dir(Path::new("/")).unwrap();
        }),
        number(&|disk| {
            create(disk, "/other");
            create(disk, "/another");
        }),
        number(&|disk| {
            create(disk, "/other");
            disk.link(Path::new("/other"), Path::new("/another")).unwrap();
        }),
        number(&|disk| disk.remove(Path::new(STORE)).unwrap()),
        number(&|disk| disk.rename(Path::new(STORE), Path::new("/other")).unwrap()),
        number(&|disk| disk.fail_writeback(STORE)),
    ];
    for (at, one) in different.iter().enumerate() {
        assert!(!different[at + 1..].contains(one), "{at}");
    }
    let detour = number(&|disk| {
        create(disk, "/other");
        disk.remove(Path::new("/other")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let file = open(disk);
        file.write_at(0, b"new").unwrap();
        file.set_len(5000).unwrap();
        file.set_len(3).unwrap();
        file.write_at(0, b"old").unwrap();
        file.sync(SyncScope::File).unwrap();
    });
    assert_eq!(detour, different[0], "whatever it took to get there");
    let synced = number(&|disk| disk.set_contents(STORE, b"new".to_vec()));
    assert_eq!(synced, different[2]);
}

#[test]
fn dropping_the_cache_keeps_unsynced_bytes() {
    let (disk, file) = disk_with(b"old");
    file.write_at(3, b" and new").unwrap();
    disk.drop_caches();
    assert_eq!(disk.contents(STORE).unwrap(), b"old and new");
    assert_eq!(disk.reboot(&mut Choices::keep_all()).contents(STORE).unwrap(), b"old and new");
}

#[test]
fn a_killed_process_loses_its_locks_and_keeps_its_writes() {
    let (disk, file) = disk_with(b"old");
    let victim = disk.process();
    let its_file = open(&victim);
    assert!(its_file.try_lock().unwrap());
    its_file.write_at(0, b"new").unwrap();
    assert!(!file.try_lock().unwrap());
    victim.kill();
    assert_eq!(its_file.write_at(0, b"bad").unwrap_err().to_string(), "the process was killed");
    assert!(victim.stat(Path::new(STORE)).is_err());
    assert!(file.try_lock().unwrap());
    drop(its_file);
    assert!(!open(&disk).try_lock().unwrap(), "the dead one's file does not free the other's lock");
    assert_eq!(disk.contents(STORE).unwrap(), b"new");
}

#[test]
fn a_process_killed_in_a_write_leaves_a_part() {
    let (disk, file) = disk_with(b"old");
    let victim = disk.process();
    let its_file = open(&victim);
    disk.fail(When::next().by(&victim), Fault::Kill(2), Repeat::Once);
    file.len().unwrap();
    its_file.write_at(0, b"new").unwrap_err();
    assert_eq!(disk.contents(STORE).unwrap(), b"ned");
    file.len().unwrap();
    its_file.len().unwrap_err();
}

#[test]
fn no_call_works_after_the_power_cut() {
    let run = |cut| {
        let (disk, file) = disk_with(b"old");
        disk.cut_at(cut);
        let done = [file.write_at(0, b"new").is_ok(), file.sync(SyncScope::Data).is_ok(), file.set_len(1).is_ok()];
        assert_eq!(done, [cut > 1, cut > 2, cut > 3]);
        assert_eq!(disk.power_is_on(), cut > 3);
        contents_after_cut(&disk)
    };
    assert_eq!(run(1), ["new", "old"]);
    assert_eq!(run(2), ["new", "old"]);
    assert_eq!(run(3), ["n", "n..", "new"]);
    assert_eq!(run(4), ["n", "n..", "new"]);
}

#[test]
fn a_power_cut_in_a_directory_sync_proves_nothing() {
    let (disk, _file) = disk_with(b"old");
    disk.remove(Path::new(STORE)).unwrap();
    disk.cut_at(1);
    disk.sync_dir(Path::new("/")).unwrap_err();
    assert_eq!(contents_after_cut(&disk), ["(no file)", "old"]);
}

#[test]
fn without_power_every_process_gets_errors() {
    let (disk, file) = disk_with(b"old");
    let process = disk.process();
    disk.cut();
    assert_eq!(file.len().unwrap_err().to_string(), "power is off");
    assert_eq!(process.open(Path::new(STORE), Access::Read).err().unwrap().kind(), io::ErrorKind::Other);
    assert!(file.sync(SyncScope::Data).is_err());
    let again = disk.reboot(&mut Choices::keep_all());
    assert!(open(&again).try_lock().unwrap());
}

#[test]
fn faults_hit_the_selected_calls() {
    let (disk, file) = disk_with(b"");
    disk.fail(When::nth(2).of(Verb::WriteAt), Fault::Os(libc::ENOSPC), Repeat::Forever);
    disk.fail(When::next().of(Verb::WriteAt), Fault::Short(3), Repeat::Once);
    assert_eq!(file.write_at(0, b"abcdef").unwrap(), 3);
    assert_eq!(file.len().unwrap(), 3);
    for _ in 0..3 {
        assert_eq!(os_error(file.write_at(3, b"def")), Some(libc::ENOSPC));
    }
    disk.clear_faults();
    disk.fail(When::next(), Fault::Short(0), Repeat::Once);
    file.sync(SyncScope::Data).unwrap();
    assert_eq!(contents_after_cut(&disk), ["abc"], "a sync cannot be short");
    assert_eq!(file.write_at(3, b"def").unwrap(), 3);
    assert_eq!((disk.calls(), disk.calls_of(Verb::WriteAt), disk.calls_of(Verb::Len)), (8, 5, 1));
}

#[test]
fn a_hook_runs_between_two_calls_of_another_process() {
    let (disk, file) = disk_with(b"old");
    let process = disk.process();
    disk.before(When::nth(2).by(&disk), Repeat::Once, move |disk| {
        assert_eq!(disk.contents(STORE).unwrap(), b"one");
        open(&process).write_at(0, b"two").unwrap();
    });
    file.write_at(0, b"one").unwrap();
    let mut seen = [0; 3];
    file.read_at(0, &mut seen).unwrap();
    assert_eq!(&seen, b"two");
}

#[test]
fn a_hook_sees_the_power_cuts_of_a_whole_run() {
    let (disk, file) = disk_with(b"old");
    let runs = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&runs);
    disk.before(When::next(), Repeat::Forever, move |disk| {
        let expected: &[&str] = match count.fetch_add(1, Ordering::Relaxed) {
            0 => &["old"],
            1 => &["new", "old"],
            _ => &["new"],
        };
        assert_eq!(contents_after_cut(disk), expected);
    });
    file.write_at(0, b"new").unwrap();
    file.sync(SyncScope::Data).unwrap();
    file.len().unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 3);
    disk.clear_hooks();
    file.len().unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 3);
}

#[test]
fn a_fork_is_an_independent_disk_with_nothing_open() {
    let (disk, file) = disk_with(b"old");
    file.write_at(0, b"new").unwrap();
    assert!(file.try_lock().unwrap());
    disk.cut_at(2);
    let fork = disk.fork();
    let (_another, its_file) = (open(&fork), open(&fork));
    assert!(its_file.try_lock().unwrap());
    assert_eq!(contents_after_cut(&fork), ["new", "old"]);
    its_file.write_at(0, b"own").unwrap();
    its_file.sync(SyncScope::Data).unwrap();
    assert_eq!((fork.contents(STORE).unwrap(), disk.contents(STORE).unwrap()), (b"own".to_vec(), b"new".to_vec()));
    assert!(fork.power_is_on());
}

#[test]
fn a_read_beyond_the_last_mapped_page_panics() {
    let (disk, file) = disk_with(b"short");
    let map = file.map(1 << 20).unwrap().unwrap();
    assert_eq!(map.word(4088), 0);
    let panic = catch_unwind(AssertUnwindSafe(|| map.word(4096))).unwrap_err();
    assert!(panic.downcast_ref::<String>().unwrap().starts_with("SIGBUS"));
    file.set_len(4097).unwrap();
    assert_eq!(map.word(4096), 0);
    file.set_len(0).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| map.word(0))).is_err());
    disk.set_maps(false);
    assert!(file.map(8).unwrap().is_none());
}

#[test]
fn pages_of_zeros_are_holes() {
    let (disk, file) = disk_with(b"");
    file.write_at(10_000, b"data").unwrap();
    file.set_len(20_000).unwrap();
    assert_eq!(file.next_data(0).unwrap(), Some(8192));
    assert_eq!(file.next_data(12_288).unwrap(), None);
    disk.set_holes(false);
    assert_eq!(file.next_data(0).unwrap(), Some(0));
    assert_eq!(file.next_data(19_999).unwrap(), Some(19_999));
    assert_eq!(file.next_data(20_000).unwrap(), None);
}

#[test]
fn time_passes_only_in_pauses() {
    let disk = SimDisk::new();
    let start = disk.system().unix_time();
    disk.system().pause(Duration::from_secs(1_000_000));
    assert_eq!(disk.system().unix_time(), start + 1_000_000);
    assert_eq!(disk.calls_of(Verb::Pause), 1);
}

#[test]
fn an_inode_number_is_never_used_again() {
    let disk = SimDisk::new();
    let path = Path::new(STORE);
    let mut seen = Vec::new();
    let mut disk = disk;
    for _ in 0..4 {
        seen.push(disk.create_new(path, 0o600).unwrap().stat().unwrap().identity);
        disk.remove(path).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        disk = disk.reboot(&mut Choices::keep_all());
    }
    seen.dedup();
    assert_eq!(seen.len(), 4);
}

#[test]
fn bytes_are_counted_with_a_map_and_without() {
    let (disk, file) = disk_with(b"seven..");
    let mut buffer = [0; 16];
    assert_eq!(file.read_at(2, &mut buffer).unwrap(), 5);
    assert_eq!(disk.bytes_read(), 5);
    file.map(7).unwrap().unwrap().read(0, &mut buffer[..3]);
    assert_eq!(disk.bytes_read(), 8);
}
