//! What the simulated disk promises to the tests that build on it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use quickcheck::{Arbitrary, Gen, quickcheck};

use super::{Choices, Fault, Repeat, SimDisk, Verb, When};
use crate::disk::{Access, Disk, DiskFile, FileStat};

const STORE: &str = "/store";

/// A disk with one file, whose contents are on the disk.
fn disk_with(synced: &[u8]) -> (SimDisk, Arc<dyn DiskFile>) {
    let disk = SimDisk::new();
    disk.set_contents(STORE, synced.to_vec());
    let file = open(&disk);
    (disk, file)
}

fn open(disk: &SimDisk) -> Arc<dyn DiskFile> {
    disk.open(Path::new(STORE), Access::ReadWrite).expect("open the store")
}

/// Everything that a power cut at this moment can make of the disk, in order and each once.
fn outcomes<T: Ord>(disk: &SimDisk, look: impl Fn(&SimDisk) -> T) -> Vec<T> {
    let mut choices = Choices::exhaustive();
    let mut seen = Vec::new();
    loop {
        seen.push(look(&disk.reboot(&mut choices)));
        if !choices.advance() {
            break;
        }
    }
    seen.sort();
    seen.dedup();
    seen
}

/// The store's possible contents, as text, with `.` for a zero.
fn contents_after_cut(disk: &SimDisk) -> Vec<String> {
    outcomes(disk, |disk| match disk.contents(STORE) {
        Some(bytes) => String::from_utf8(bytes).expect("text").replace('\0', "."),
        None => "(no file)".to_string(),
    })
}

fn names_after_cut(disk: &SimDisk) -> Vec<String> {
    outcomes(disk, |disk| disk.paths().iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" "))
}

fn os_error<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn what_was_not_synced_is_lost_when_nothing_is_kept_and_there_when_all_is() {
    let (disk, file) = disk_with(b"old");
    file.write_at(0, b"new and longer").unwrap();
    file.set_len(5).unwrap();
    assert_eq!(disk.reboot(&mut Choices::keep_nothing()).contents(STORE).unwrap(), b"old");
    assert_eq!(disk.reboot(&mut Choices::keep_all()).contents(STORE).unwrap(), b"new a");
}

#[test]
fn what_was_synced_is_always_kept() {
    let (disk, file) = disk_with(b"old");
    file.write_at(3, b" and new").unwrap();
    file.sync_data().unwrap();
    assert_eq!(contents_after_cut(&disk), ["old and new"]);
    file.write_at(0, b"OLD").unwrap();
    file.sync_all().unwrap();
    assert_eq!(contents_after_cut(&disk), ["OLD and new"]);
}

#[test]
fn a_sync_through_one_description_covers_what_another_wrote() {
    let (disk, file) = disk_with(b"old");
    open(&disk.process()).write_at(0, b"new").unwrap();
    file.sync_data().unwrap();
    assert_eq!(contents_after_cut(&disk), ["new"]);
}

#[test]
fn each_sector_and_the_length_survive_by_themselves() {
    let (disk, file) = disk_with(b"abcd");
    disk.set_sector(4);
    file.write_at(2, b"CDEF").unwrap();
    assert_eq!(contents_after_cut(&disk), ["abCD", "abCD..", "abCDEF", "abcd", "abcd..", "abcdEF"]);
}

#[test]
fn a_long_write_can_have_made_the_file_longer_by_some_of_its_sectors() {
    let (disk, file) = disk_with(b"a");
    disk.set_sector(2);
    file.write_at(1, b"bcdef").unwrap();
    let lengths = outcomes(&disk, |disk| disk.contents(STORE).unwrap().len());
    assert_eq!(lengths, [1, 2, 4, 6]);
}

#[test]
fn one_sector_has_only_the_contents_that_it_had_in_turn() {
    let (disk, file) = disk_with(b"....");
    file.write_at(0, b"ab").unwrap();
    file.write_at(2, b"cd").unwrap();
    assert_eq!(contents_after_cut(&disk), ["....", "ab..", "abcd"]);
    disk.set_sector(1);
    assert_eq!(contents_after_cut(&disk).len(), 16, "torn at any byte");
}

#[test]
fn what_was_cut_off_may_come_back_behind_what_was_written_since() {
    let (disk, file) = disk_with(b"aabbcc");
    disk.set_sector(2);
    file.set_len(2).unwrap();
    file.write_at(2, b"XX").unwrap();
    assert!(contents_after_cut(&disk).contains(&"aaXXcc".to_string()));
    file.sync_data().unwrap();
    assert_eq!(contents_after_cut(&disk), ["aaXX"]);
}

#[test]
fn what_was_cut_off_does_not_come_back_in_a_file_that_was_made_longer_again() {
    let (disk, file) = disk_with(b"aabb");
    disk.set_sector(2);
    file.set_len(2).unwrap();
    file.set_len(6).unwrap();
    assert_eq!(contents_after_cut(&disk), ["aa", "aa..", "aa....", "aabb"]);
}

#[test]
fn with_garbage_a_lost_sector_that_the_file_grew_by_need_not_be_zeros() {
    let (disk, file) = disk_with(b"aa");
    disk.set_sector(2);
    file.write_at(0, b"AABB").unwrap();
    assert_eq!(contents_after_cut(&disk), ["AA", "AA..", "AABB", "aa", "aa..", "aaBB"]);
    disk.set_garbage(true);
    let seen = outcomes(&disk, |disk| disk.contents(STORE).unwrap());
    assert_eq!(seen.len(), 8);
    assert!(seen.iter().all(|contents| [b"aa", b"AA"].contains(&contents[..2].try_into().unwrap())));

    let (disk, file) = disk_with(b"aa");
    disk.set_garbage(true);
    file.write_at(3, b"B").unwrap();
    let seen = outcomes(&disk, |disk| disk.contents(STORE).unwrap());
    assert_eq!(seen.iter().filter(|contents| contents.ends_with(b"B")).count(), 1, "one that survives is whole");
}

#[test]
fn a_name_is_lost_without_a_sync_of_its_directory() {
    let disk = SimDisk::new();
    let file = disk.create_new(Path::new(STORE), 0o600).unwrap();
    file.write_at(0, b"new").unwrap();
    file.sync_all().unwrap();
    assert_eq!(contents_after_cut(&disk), ["(no file)", "new"]);
    disk.sync_dir(Path::new("/elsewhere")).unwrap();
    assert_eq!(contents_after_cut(&disk), ["(no file)", "new"]);
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(contents_after_cut(&disk), ["new"]);
    disk.remove(Path::new(STORE)).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(contents_after_cut(&disk), ["(no file)"], "and so is its removal");
}

#[test]
fn a_synced_name_says_nothing_of_the_contents() {
    let disk = SimDisk::new();
    disk.create_new(Path::new(STORE), 0o600).unwrap().write_at(0, b"new").unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(contents_after_cut(&disk), ["", "...", "new"]);
}

#[test]
fn a_rename_happens_whole_or_not_at_all() {
    let (disk, _file) = disk_with(b"old");
    disk.set_contents("/temporary", b"new".to_vec());
    disk.rename(Path::new("/temporary"), Path::new(STORE)).unwrap();
    assert_eq!(names_after_cut(&disk), ["/store", "/store /temporary"]);
    assert_eq!(contents_after_cut(&disk), ["new", "old"]);
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!((names_after_cut(&disk), contents_after_cut(&disk)), (vec!["/store".into()], vec!["new".into()]));
}

#[test]
fn unsynced_names_survive_in_any_combination() {
    let (disk, file) = disk_with(b"old");
    disk.link(Path::new(STORE), Path::new("/second")).unwrap();
    disk.remove(Path::new(STORE)).unwrap();
    assert_eq!(names_after_cut(&disk), ["", "/second", "/second /store", "/store"]);
    assert_eq!(file.stat().unwrap().links, 1);
}

#[test]
fn an_owner_and_mode_need_sync_all() {
    let (disk, file) = disk_with(b"");
    let modes = || outcomes(&disk, |disk| disk.stat(Path::new(STORE)).unwrap().mode);
    let own = file.stat().unwrap();
    file.set_owner_and_mode(&FileStat { mode: 0o644, ..own }).unwrap();
    file.sync_data().unwrap();
    assert_eq!(modes(), [0o600, 0o644]);
    file.sync_all().unwrap();
    assert_eq!(modes(), [0o644]);
}

#[test]
fn after_a_failed_sync_a_sync_that_succeeds_proves_nothing() {
    let (disk, file) = disk_with(b"old");
    file.write_at(0, b"new!").unwrap();
    disk.fail(When::next().of(Verb::SyncData), Fault::Os(libc::EIO), Repeat::Once);
    assert_eq!(os_error(file.sync_data()), Some(libc::EIO));
    file.sync_data().unwrap();
    assert_eq!(disk.contents(STORE).unwrap(), b"new!", "it reads back well");
    assert_eq!(contents_after_cut(&disk), ["old."], "but only the length is on the disk");
    disk.drop_caches();
    assert_eq!(disk.contents(STORE).unwrap(), b"old\0");
    file.write_at(0, b"new!").unwrap();
    file.sync_data().unwrap();
    assert_eq!(contents_after_cut(&disk), ["new!"], "written again, it is");
}

#[test]
fn a_failed_sync_can_have_written_some_of_it() {
    let (disk, file) = disk_with(b"old");
    disk.set_failed_syncs(Choices::keep_all());
    file.write_at(0, b"new").unwrap();
    disk.fail(When::next(), Fault::Error(io::ErrorKind::Other), Repeat::Once);
    file.sync_all().unwrap_err();
    assert_eq!(contents_after_cut(&disk), ["new"]);
}

#[test]
fn each_description_hears_of_a_failed_sync_once() {
    let (disk, file) = disk_with(b"old");
    let (other, process) = (open(&disk), disk.process());
    let (third, bystander) = (open(&process), disk.create_new(Path::new("/other"), 0o600).unwrap());
    disk.fail(When::next(), Fault::Os(libc::EIO), Repeat::Once);
    file.sync_data().unwrap_err();
    assert_eq!(os_error(other.sync_all()), Some(libc::EIO));
    assert_eq!(os_error(third.sync_data()), Some(libc::EIO));
    for file in [file, other, third, bystander, open(&disk)] {
        file.sync_data().unwrap();
    }
}

#[test]
fn dropping_the_cache_keeps_what_is_still_to_be_written() {
    let (disk, file) = disk_with(b"old");
    file.write_at(3, b" and new").unwrap();
    disk.drop_caches();
    assert_eq!(disk.contents(STORE).unwrap(), b"old and new");
    assert_eq!(disk.reboot(&mut Choices::keep_all()).contents(STORE).unwrap(), b"old and new");
}

#[test]
fn a_killed_process_loses_its_locks_and_its_files_but_not_what_it_wrote() {
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
fn a_process_killed_in_a_write_leaves_the_part_that_was_written() {
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
fn the_call_at_which_the_power_goes_may_be_done_and_no_other_is() {
    let run = |cut| {
        let (disk, file) = disk_with(b"old");
        disk.cut_at(cut);
        let done = [file.write_at(0, b"new").is_ok(), file.sync_data().is_ok(), file.set_len(1).is_ok()];
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
fn a_directory_whose_sync_the_power_cut_ended_is_still_in_doubt() {
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
    assert!(file.sync_data().is_err());
    let again = disk.reboot(&mut Choices::keep_all());
    assert!(open(&again).try_lock().unwrap());
}

#[test]
fn faults_hit_the_calls_that_are_meant() {
    let (disk, file) = disk_with(b"");
    disk.fail(When::nth(2).of(Verb::WriteAt), Fault::Os(libc::ENOSPC), Repeat::Forever);
    disk.fail(When::next().of(Verb::WriteAt), Fault::Short(3), Repeat::Once);
    assert_eq!(file.write_at(0, b"abcdef").unwrap(), 3);
    assert_eq!(file.len().unwrap(), 3);
    for _ in 0..3 {
        assert_eq!(os_error(file.write_at(3, b"def")), Some(libc::ENOSPC));
    }
    disk.clear_faults();
    assert_eq!(file.write_at(3, b"def").unwrap(), 3);
    assert_eq!((disk.calls(), disk.calls_of(Verb::WriteAt), disk.calls_of(Verb::Len)), (7, 5, 1));
}

#[test]
fn a_hook_steps_in_between_two_calls_of_another_process() {
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
fn a_hook_at_every_call_sees_the_power_cuts_of_a_whole_run() {
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
    file.sync_data().unwrap();
    file.len().unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 3);
    disk.clear_hooks();
    file.len().unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 3);
}

#[test]
fn a_fork_is_a_disk_of_its_own_with_nothing_open_or_locked_but_the_same_doubts() {
    let (disk, file) = disk_with(b"old");
    file.write_at(0, b"new").unwrap();
    assert!(file.try_lock().unwrap());
    disk.cut_at(2);
    let fork = disk.fork();
    let (_another, its_file) = (open(&fork), open(&fork));
    assert!(its_file.try_lock().unwrap());
    assert_eq!(contents_after_cut(&fork), ["new", "old"]);
    its_file.write_at(0, b"own").unwrap();
    its_file.sync_data().unwrap();
    assert_eq!((fork.contents(STORE).unwrap(), disk.contents(STORE).unwrap()), (b"own".to_vec(), b"new".to_vec()));
    assert!(fork.power_is_on());
}

#[test]
fn a_map_beyond_the_last_page_of_the_file_raises_a_signal() {
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
fn pages_of_zeros_are_holes_unless_the_file_system_knows_none() {
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
fn time_passes_only_in_pauses_and_nobody_waits() {
    let disk = SimDisk::new();
    let start = disk.unix_time();
    disk.pause(Duration::from_secs(1_000_000));
    assert_eq!(disk.unix_time(), start + 1_000_000);
    assert_eq!(disk.calls_of(Verb::Pause), 1);
}

#[test]
fn the_same_seed_gives_the_same_disk_and_the_same_crash() {
    let run = |seed| {
        let disk = SimDisk::from_seed(seed);
        let mut bytes = vec![0; 5000];
        disk.fill_random(&mut bytes).unwrap();
        disk.set_contents(STORE, Vec::new());
        open(&disk).write_at(0, &bytes).unwrap();
        (0..20).map(|seed| disk.reboot(&mut Choices::from_seed(seed)).contents(STORE)).collect::<Vec<_>>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
    let mut crashes = run(7);
    crashes.sort();
    crashes.dedup();
    assert!(crashes.len() > 10, "{} different crashes of 20", crashes.len());
}

#[test]
fn random_crashes_often_keep_all_or_nothing_of_a_file_and_the_beginning_of_a_directorys_changes() {
    let (disk, file) = disk_with(&[b'-'; 8192]);
    file.write_at(0, &[b'+'; 8192]).unwrap();
    let names: Vec<_> = (10..30).map(|number| Path::new("/").join(number.to_string())).collect();
    for name in &names {
        disk.create_new(name, 0o600).unwrap();
    }
    let (mut all, mut nothing, mut mixed, mut beginnings, mut subsets) = (0, 0, 0, 0, 0);
    for seed in 0..400 {
        let crashed = disk.reboot(&mut Choices::from_seed(seed));
        let contents = crashed.contents(STORE).unwrap();
        match contents.iter().filter(|&&byte| byte == b'+').count() {
            0 => nothing += 1,
            8192 => all += 1,
            _ => mixed += 1,
        }
        let kept: Vec<_> = crashed.paths().into_iter().filter(|path| path != Path::new(STORE)).collect();
        match kept.len() {
            0 | 20 => {}
            count if names[..count] == kept[..] => beginnings += 1,
            _ => subsets += 1,
        }
    }
    let counts = [all, nothing, mixed, beginnings, subsets];
    assert!(counts.iter().all(|&count| count >= 20), "{counts:?}");
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

/// A change to a small file.
#[derive(Debug, Clone)]
enum Step {
    Write(u8, Vec<u8>),
    SetLen(u8),
    Sync,
    FailSync,
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Step {
        match u8::arbitrary(g) % 8 {
            0..=3 => Step::Write(u8::arbitrary(g) % 64, (0..u8::arbitrary(g) % 16).map(|_| u8::arbitrary(g)).collect()),
            4 | 5 => Step::SetLen(u8::arbitrary(g) % 64),
            6 => Step::Sync,
            _ => Step::FailSync,
        }
    }
}

quickcheck! {
    /// Whatever is done, after a power cut every byte is one that the file has had there since it was last certain,
    /// and what the extremes promise holds.
    fn a_crash_invents_nothing(steps: Vec<Step>, seed: u64, sector: u8) -> bool {
        let (disk, file) = disk_with(b"at the start");
        disk.set_sector(u64::from(sector % 16) + 1);
        let mut certain = disk.contents(STORE).unwrap();
        let mut since = vec![certain.clone()];
        let mut failed = false;
        for step in &steps {
            match step {
                Step::Write(at, bytes) => assert_eq!(file.write_at(u64::from(*at), bytes).unwrap(), bytes.len()),
                Step::SetLen(len) => file.set_len(u64::from(*len)).unwrap(),
                Step::Sync => file.sync_data().unwrap(),
                Step::FailSync => {
                    disk.fail(When::next(), Fault::Os(libc::EIO), Repeat::Once);
                    file.sync_data().unwrap_err();
                    failed = true;
                }
            }
            let now = disk.contents(STORE).unwrap();
            if matches!(step, Step::Sync) && !failed {
                certain.clone_from(&now);
                since.clear();
            }
            since.push(now);
        }
        let crashed = disk.reboot(&mut Choices::from_seed(seed)).contents(STORE).unwrap();
        let lengths = || since.iter().map(Vec::len);
        let length_was_there = (lengths().min()..=lengths().max()).contains(&Some(crashed.len()));
        let bytes_were_there = crashed.iter().enumerate().all(|(at, byte)| {
            *byte == 0 || since.iter().any(|contents| contents.get(at) == Some(byte))
        });
        let all = disk.reboot(&mut Choices::keep_all()).contents(STORE).unwrap();
        let nothing = disk.reboot(&mut Choices::keep_nothing()).contents(STORE).unwrap();
        length_was_there && bytes_were_there && (failed || (all == since[since.len() - 1] && nothing == certain))
    }
}
