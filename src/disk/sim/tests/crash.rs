//! What a power cut leaves of bytes, names and attributes.

use std::io;
use std::path::Path;

use quickcheck::{Arbitrary, Gen, quickcheck};

use super::{STORE, contents_after_cut, disk_with, names_after_cut, open, outcomes};
use crate::disk::sim::{Choices, Fault, Repeat, SimDisk, Verb, When};
use crate::disk::{Access, Disk, FileAttributes, SyncScope};

#[test]
fn unsynced_bytes_can_be_kept_or_lost() {
    let (disk, file) = disk_with(b"old");
    file.write_at(0, b"new and longer").unwrap();
    file.set_len(5).unwrap();
    assert_eq!(disk.reboot(&mut Choices::keep_nothing()).contents(STORE).unwrap(), b"old");
    assert_eq!(disk.reboot(&mut Choices::keep_all()).contents(STORE).unwrap(), b"new a");
}

#[test]
fn synced_bytes_are_always_kept() {
    let (disk, file) = disk_with(b"old");
    file.write_at(3, b" and new").unwrap();
    file.sync(SyncScope::Data).unwrap();
    assert_eq!(contents_after_cut(&disk), ["old and new"]);
    file.write_at(0, b"OLD").unwrap();
    file.sync(SyncScope::File).unwrap();
    assert_eq!(contents_after_cut(&disk), ["OLD and new"]);
}

#[test]
fn a_sync_through_one_description_covers_what_another_wrote() {
    let (disk, file) = disk_with(b"old");
    open(&disk.process()).write_at(0, b"new").unwrap();
    file.sync(SyncScope::Data).unwrap();
    assert_eq!(contents_after_cut(&disk), ["new"]);
}

#[test]
fn each_sector_and_the_length_survive_independently() {
    let (disk, file) = disk_with(b"abcd");
    disk.set_sector(4);
    file.write_at(2, b"CDEF").unwrap();
    assert_eq!(contents_after_cut(&disk), ["abCD", "abCD..", "abCDEF", "abcd", "abcd..", "abcdEF"]);
}

#[test]
fn a_write_can_be_torn_between_any_two_sectors() {
    for sector in [1, 512, 4096] {
        let (disk, file) = disk_with(&vec![b'-'; 3 * sector as usize]);
        disk.set_sector(sector);
        // In the middle of the first piece, over the second, and into the third.
        file.write_at(sector / 2, &vec![b'+'; 2 * sector as usize]).unwrap();
        let pieces = |contents: &[u8]| -> Vec<bool> {
            let written = |piece: &[u8]| piece.iter().filter(|&&byte| byte == b'+').count();
            let whole = disk.contents(STORE).unwrap();
            contents
                .chunks(sector as usize)
                .zip(whole.chunks(sector as usize))
                .map(|(piece, all)| {
                    assert!([0, written(all)].contains(&written(piece)), "a piece was torn");
                    written(piece) > 0
                })
                .collect()
        };
        let seen = outcomes(&disk, |disk| pieces(&disk.contents(STORE).unwrap()));
        assert_eq!(seen.len(), if sector == 1 { 4 } else { 8 }, "any of them without any other");
    }
}

/// Bytes that were lost between two kept pieces read as the older bytes, or as zeros if there were none.
#[test]
fn a_later_write_can_survive_an_earlier_one() {
    let (disk, file) = disk_with(b"aaaa");
    disk.set_sector(2);
    for (at, bytes) in [(0, b"bb"), (4, b"cc"), (6, b"dd")] {
        file.write_at(at, bytes).unwrap();
    }
    let seen = contents_after_cut(&disk);
    assert!(seen.contains(&"aaaa..dd".to_string()), "the last one alone: {seen:?}");
    assert!(seen.contains(&"bbaa".to_string()) && seen.contains(&"aaaa".to_string()));
}

#[test]
fn a_disk_has_at_most_the_outcomes_it_counts() {
    let (disk, file) = disk_with(b"....");
    let count = |disk: &SimDisk| {
        let mut choices = Choices::exhaustive();
        (1..).find(|_| {
            disk.reboot(&mut choices);
            !choices.advance()
        })
    };
    let check = |most: u64| {
        for sector in [1, 2, 4, 512] {
            disk.set_sector(sector);
            let tried = count(&disk).unwrap();
            assert!(tried <= disk.outcomes() && disk.outcomes() <= most * tried, "{tried} and {}", disk.outcomes());
        }
    };
    assert_eq!((disk.outcomes(), count(&disk)), (1, Some(1)));
    file.write_at(0, b"ab").unwrap();
    check(2);
    file.write_at(2, b"cdef").unwrap();
    check(4);
    file.set_len(3).unwrap();
    check(16);
    disk.create_new(Path::new("/other"), 0o600).unwrap().write_at(0, b"ab").unwrap();
    disk.rename(Path::new("/other"), Path::new(STORE)).unwrap();
    check(64);
}

#[test]
fn a_write_can_extend_the_file_by_some_sectors() {
    let (disk, file) = disk_with(b"a");
    disk.set_sector(2);
    file.write_at(1, b"bcdef").unwrap();
    let lengths = outcomes(&disk, |disk| disk.contents(STORE).unwrap().len());
    assert_eq!(lengths, [1, 2, 4, 6]);
}

#[test]
fn a_sector_has_only_contents_that_it_had() {
    let (disk, file) = disk_with(b"....");
    file.write_at(0, b"ab").unwrap();
    file.write_at(2, b"cd").unwrap();
    assert_eq!(contents_after_cut(&disk), ["....", "ab..", "abcd"]);
    disk.set_sector(1);
    assert_eq!(contents_after_cut(&disk).len(), 16, "torn at any byte");
}

#[test]
fn bytes_that_were_cut_off_may_come_back() {
    let (disk, file) = disk_with(b"aabbcc");
    disk.set_sector(2);
    file.set_len(2).unwrap();
    file.write_at(2, b"XX").unwrap();
    assert!(contents_after_cut(&disk).contains(&"aaXXcc".to_string()));
    file.sync(SyncScope::Data).unwrap();
    assert_eq!(contents_after_cut(&disk), ["aaXX"]);
}

#[test]
fn sectors_of_a_punched_hole_may_come_back_until_a_sync() {
    let (disk, file) = disk_with(b"aabbccdd");
    disk.set_sector(2);
    file.punch(1..6).unwrap();
    assert_eq!(disk.contents(STORE).unwrap(), b"a\0\0\0\0\0dd");
    let found = contents_after_cut(&disk);
    assert_eq!(found.len(), 8, "{found:?}");
    assert!(found.contains(&"aa..ccdd".to_string()) && found.contains(&"a.bb..dd".to_string()), "{found:?}");
    file.sync(SyncScope::Data).unwrap();
    assert_eq!(contents_after_cut(&disk), ["a.....dd"]);
    file.punch(6..100).unwrap();
    assert_eq!(disk.contents(STORE).unwrap().len(), 8);
}

#[test]
fn extending_a_file_again_does_not_bring_bytes_back() {
    let (disk, file) = disk_with(b"aabb");
    disk.set_sector(2);
    file.set_len(2).unwrap();
    file.set_len(6).unwrap();
    assert_eq!(contents_after_cut(&disk), ["aa", "aa..", "aa....", "aabb"]);
}

#[test]
fn with_garbage_a_lost_sector_need_not_be_zeros() {
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
    file.sync(SyncScope::File).unwrap();
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
fn a_synced_name_says_nothing_about_the_contents() {
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
    let modes =
        || outcomes(&disk, |disk| disk.open(Path::new(STORE), Access::Read).unwrap().attributes().unwrap().mode);
    let own = file.attributes().unwrap();
    file.set_attributes(&FileAttributes { mode: 0o644, ..own }).unwrap();
    file.sync(SyncScope::Data).unwrap();
    assert_eq!(modes(), [0o600, 0o644]);
    file.sync(SyncScope::File).unwrap();
    assert_eq!(modes(), [0o644]);
}

#[test]
fn a_sync_after_a_failed_one_proves_nothing() {
    let (disk, file) = disk_with(b"old");
    file.write_at(0, b"new!").unwrap();
    disk.fail(When::next().of(Verb::SyncData), Fault::Os(libc::EIO), Repeat::Once);
    assert_eq!(file.sync(SyncScope::Data).unwrap_err().raw_os_error(), Some(libc::EIO));
    file.sync(SyncScope::Data).unwrap();
    assert_eq!(disk.contents(STORE).unwrap(), b"new!", "it reads back well");
    assert_eq!(contents_after_cut(&disk), ["old."], "but only the length is on the disk");
    disk.drop_caches();
    assert_eq!(disk.contents(STORE).unwrap(), b"old\0");
    file.write_at(0, b"new!").unwrap();
    file.sync(SyncScope::Data).unwrap();
    assert_eq!(contents_after_cut(&disk), ["new!"], "written again, it is");
}

#[test]
fn a_failed_sync_can_have_written_a_part() {
    let (disk, file) = disk_with(b"old");
    disk.set_failed_syncs(Choices::keep_all());
    file.write_at(0, b"new").unwrap();
    disk.fail(When::next(), Fault::Error(io::ErrorKind::Other), Repeat::Once);
    file.sync(SyncScope::File).unwrap_err();
    assert_eq!(contents_after_cut(&disk), ["new"]);
}

#[test]
fn the_same_seed_gives_the_same_crash() {
    let run = |seed| {
        let disk = SimDisk::from_seed(seed);
        let mut bytes = vec![0; 5000];
        disk.system().fill_random(&mut bytes).unwrap();
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
fn random_crashes_often_keep_all_or_nothing() {
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
    /// After any changes and a power cut, every byte is one that the file has had there since the last sync, and
    /// keeping nothing or everything does what it says.
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
                Step::Sync => file.sync(SyncScope::Data).unwrap(),
                Step::FailSync => {
                    disk.fail(When::next(), Fault::Os(libc::EIO), Repeat::Once);
                    file.sync(SyncScope::Data).unwrap_err();
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
