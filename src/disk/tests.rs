//! Tests that run on every disk, and tests of the operating system alone.

use crate::patience::with_a_deadline;
use std::ffi::{CStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use super::attributes::ACL;
use super::scratch::Scratch;
use super::sim::SimDisk;
use super::{Access, Disk, DiskFile, FileAttributes, RealDisk, SyncScope};

/// Runs a check on the operating system and on the simulated disk.
fn on_every_disk(check: impl Fn(&dyn Disk, &Path)) {
    check(&SimDisk::new(), Path::new("/directory"));
    let scratch = Scratch::new();
    check(&RealDisk, &scratch.0);
}

fn kind<T>(result: io::Result<T>) -> Option<io::ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn reads_are_short_at_the_end_of_the_file() {
    on_every_disk(|disk, directory| {
        let file = disk.create_new(&directory.join("file"), 0o600).unwrap();
        assert_eq!(file.write_at(3, b"abcdef").unwrap(), 6);
        assert_eq!(file.len().unwrap(), 9);
        let mut buffer = [0xFF; 4];
        assert_eq!(file.read_at(1, &mut buffer).unwrap(), 4);
        assert_eq!(&buffer, b"\0\0ab");
        assert_eq!(file.read_at(7, &mut buffer).unwrap(), 2);
        assert_eq!(&buffer, b"efab");
        assert_eq!(file.read_at(9, &mut buffer).unwrap(), 0);
        assert_eq!(file.read_at(1000, &mut buffer).unwrap(), 0);
        file.sync(SyncScope::Data).unwrap();
        file.sync(SyncScope::File).unwrap();
    });
}

#[test]
fn any_range_can_be_written_back() {
    on_every_disk(|disk, directory| {
        let file = disk.create_new(&directory.join("file"), 0o600).unwrap();
        let bytes: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
        file.write_at(0, &bytes).unwrap();
        for range in [0..0, 0..100, 100..12_345, 12_345..20_000, 20_000..20_000, 19_000..1 << 40, 0..20_000] {
            file.write_back(range.clone(), 0).unwrap();
            file.write_back(range.clone(), range.start).unwrap();
        }
        let mut read = vec![0; 30_000];
        assert_eq!(file.read_at(0, &mut read).unwrap(), bytes.len());
        assert_eq!(read[..bytes.len()], bytes);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_resized_map_shows_the_file() {
    let scratch = Scratch::new();
    let file = RealDisk.create_new(&scratch.0.join("file"), 0o600).unwrap();
    let bytes: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
    file.write_at(0, &bytes).unwrap();
    let mut map = file.map(100).unwrap().unwrap();
    for len in [100, 20_000, 5_000, 1 << 30, 12_345] {
        assert!(map.resize(len));
        assert_eq!(map.len(), len);
        let shown = bytes.len().min(len as usize);
        assert!(map.equals(0, &bytes[..shown]));
    }
    assert!(!map.resize(1 << 60), "no address space is so large");
    assert!(map.equals(0, &bytes[..12_345]));
    assert_eq!(map.len(), 12_345);
}

#[test]
fn set_len_cuts_and_extends_with_zeros() {
    on_every_disk(|disk, directory| {
        let file = disk.create_new(&directory.join("file"), 0o600).unwrap();
        file.write_at(0, b"abcdef").unwrap();
        file.set_len(2).unwrap();
        file.set_len(4).unwrap();
        assert_eq!(file.len().unwrap(), 4);
        let mut buffer = [0xFF; 8];
        assert_eq!(file.read_at(0, &mut buffer).unwrap(), 4);
        assert_eq!(&buffer[..4], b"ab\0\0");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_punched_range_reads_as_zeros() {
    on_every_disk(|disk, directory| {
        let file = disk.create_new(&directory.join("file"), 0o600).unwrap();
        file.write_at(0, &[7; 20_000]).unwrap();
        match file.punch(5..15_000) {
            Ok(()) => {}
            // Not every file system has holes.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return,
            Err(error) => panic!("{error}"),
        }
        let mut found = vec![1; 20_000];
        assert_eq!(file.read_at(0, &mut found).unwrap(), 20_000);
        assert_eq!(found, [&[7; 5][..], &[0; 14_995], &[7; 5_000]].concat());
        file.punch(19_000..1 << 20).unwrap();
        assert_eq!(file.len().unwrap(), 20_000);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_map_of_another_description_is_noticed() {
    on_every_disk(|disk, directory| {
        let path = directory.join("file");
        let file = disk.create_new(&path, 0o600).unwrap();
        file.write_at(0, b"bytes").unwrap();
        let own = file.map(5).unwrap();
        let other = disk.open(&path, Access::Read).unwrap();
        assert!(!file.is_mapped_elsewhere().unwrap(), "its own map does not count, nor does a file that is only open");
        assert!(other.is_mapped_elsewhere().unwrap());
        let map = other.map(5).unwrap();
        assert!(file.is_mapped_elsewhere().unwrap());
        drop((map, other, own));
        assert!(!file.is_mapped_elsewhere().unwrap());
    });
    // Only on the operating system: no map of the simulated disk is lent.
    let scratch = Scratch::new();
    let path = scratch.0.join("file");
    let file = RealDisk.create_new(&path, 0o600).unwrap();
    let map = RealDisk.open(&path, Access::Read).unwrap().map(5).unwrap();
    assert!(file.is_mapped_elsewhere().unwrap(), "the description is closed, and its map is still there");
    drop(map);
    assert!(!file.is_mapped_elsewhere().unwrap());
}

#[test]
fn a_file_opened_for_reading_cannot_be_written() {
    on_every_disk(|disk, directory| {
        let path = directory.join("file");
        disk.create_new(&path, 0o600).unwrap().write_at(0, b"kept").unwrap();
        let file = disk.open(&path, Access::Read).unwrap();
        assert!(file.write_at(0, b"lost").is_err());
        assert!(file.set_len(0).is_err());
        let mut buffer = [0; 4];
        assert_eq!(file.read_at(0, &mut buffer).unwrap(), 4);
        assert_eq!(&buffer, b"kept");
    });
}

#[test]
fn a_missing_file_is_not_found() {
    on_every_disk(|disk, directory| {
        let path = directory.join("file");
        assert_eq!(kind(disk.open(&path, Access::ReadWrite)), Some(io::ErrorKind::NotFound));
        assert_eq!(kind(disk.stat(&path)), Some(io::ErrorKind::NotFound));
        assert_eq!(kind(disk.remove(&path)), Some(io::ErrorKind::NotFound));
        assert_eq!(kind(disk.rename(&path, &directory.join("other"))), Some(io::ErrorKind::NotFound));
        assert_eq!(kind(disk.link(&path, &directory.join("other"))), Some(io::ErrorKind::NotFound));
    });
}

/// Where files can have no second name, as on FAT.
#[test]
fn a_link_that_is_a_rename_replaces_nothing() {
    let disk = SimDisk::new();
    disk.set_links(false);
    let [first, second, third] = ["/first", "/second", "/third"].map(Path::new);
    let identities = [first, second].map(|path| disk.create_new(path, 0o600).unwrap().stat().unwrap().identity);
    assert_eq!(kind(disk.link(first, second)), Some(io::ErrorKind::AlreadyExists));
    assert_eq!([first, second].map(|path| disk.stat(path).unwrap().identity), identities);
    disk.link(first, third).unwrap();
    assert_eq!(kind(disk.stat(first)), Some(io::ErrorKind::NotFound));
    assert_eq!(disk.stat(third).unwrap().identity, identities[0]);
    assert_eq!(kind(disk.link(first, third)), Some(io::ErrorKind::NotFound));
}

#[test]
fn a_directory_is_not_opened_as_a_file() {
    on_every_disk(|disk, directory| {
        disk.create_new(&directory.join("file"), 0o600).unwrap();
        let error = disk.open(directory, Access::Read).err().expect("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("directory"), "{error}");
    });
}

#[test]
fn only_rename_replaces_a_file() {
    on_every_disk(|disk, directory| {
        let (old, new) = (directory.join("old"), directory.join("new"));
        disk.create_new(&old, 0o600).unwrap();
        let file = disk.create_new(&new, 0o600).unwrap();
        assert_eq!(kind(disk.create_new(&old, 0o600)), Some(io::ErrorKind::AlreadyExists));
        assert_eq!(kind(disk.link(&new, &old)), Some(io::ErrorKind::AlreadyExists));
        disk.rename(&new, &old).unwrap();
        assert_eq!(disk.stat(&old).unwrap(), file.stat().unwrap());
        assert_eq!(kind(disk.stat(&new)), Some(io::ErrorKind::NotFound));
        disk.sync_dir(directory).unwrap();
    });
}

#[test]
fn a_rename_between_two_names_of_a_file_keeps_both() {
    on_every_disk(|disk, directory| {
        let (first, second) = (directory.join("first"), directory.join("second"));
        let file = disk.create_new(&first, 0o600).unwrap();
        assert_eq!(file.stat().unwrap().links, 1);
        disk.link(&first, &second).unwrap();
        disk.rename(&first, &second).unwrap();
        let stat = file.stat().unwrap();
        assert_eq!(stat.links, 2);
        assert_eq!(disk.stat(&first).unwrap(), stat);
        assert_eq!(disk.stat(&second).unwrap(), stat);
        disk.remove(&first).unwrap();
        assert_eq!(disk.open(&second, Access::Read).unwrap().stat().unwrap().links, 1);
        disk.remove(&second).unwrap();
        assert_eq!(file.stat().unwrap().links, 0);
    });
}

#[test]
fn list_returns_the_names_with_the_prefix() {
    on_every_disk(|disk, directory| {
        for name in ["store", "store.a", "store.b", "other"] {
            disk.create_new(&directory.join(name), 0o600).unwrap();
        }
        let mut names = disk.list(directory, &OsString::from("store.")).unwrap();
        names.sort();
        assert_eq!(names, ["store.a", "store.b"]);
    });
}

#[test]
fn a_lock_belongs_to_one_description() {
    on_every_disk(|disk, directory| {
        let path = directory.join("file");
        let first = disk.create_new(&path, 0o600).unwrap();
        let second = disk.open(&path, Access::ReadWrite).unwrap();
        assert!(first.try_lock().unwrap());
        assert!(first.try_lock().unwrap(), "it has it already");
        assert!(!second.try_lock().unwrap());
        second.unlock().unwrap();
        assert!(!second.try_lock().unwrap(), "it was not its to give up");
        first.unlock().unwrap();
        assert!(second.try_lock().unwrap());
        assert!(!first.try_lock().unwrap());
        drop(disk.open(&path, Access::Read).unwrap());
        assert!(!first.try_lock().unwrap(), "closing a description frees its own lock only");
        drop(second);
        assert!(first.try_lock().unwrap());
    });
}

#[test]
fn a_file_takes_the_attributes_of_another() {
    on_every_disk(|disk, directory| {
        let file = disk.create_new(&directory.join("file"), 0o600).unwrap();
        let own = file.attributes().unwrap();
        file.set_attributes(&FileAttributes { mode: 0o644, ..own.clone() }).unwrap();
        assert_eq!(file.attributes().unwrap(), FileAttributes { mode: 0o644, ..own.clone() });

        // Only the superuser gives files away; other users get an error.
        let given_away = FileAttributes { uid: own.uid + 1, gid: own.gid + 1, ..own.clone() };
        match file.set_attributes(&given_away) {
            Ok(()) => assert_eq!(file.attributes().unwrap(), given_away),
            Err(error) => assert_eq!((error.kind(), own.uid == 0), (io::ErrorKind::PermissionDenied, false)),
        }
    });
}

/// An ACL with one named user, as Linux takes it: the version, then tag, permissions and id of each entry.
fn acl(owner: u16, named_user: u16, group: u16, mask: u16) -> Vec<u8> {
    const ALL: u32 = u32::MAX;
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(1u16, owner, ALL), (2, named_user, 1234), (4, group, ALL), (0x10, mask, ALL), (0x20, 0, ALL)]
    {
        bytes.extend([tag.to_le_bytes(), permissions.to_le_bytes()].concat());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn with_extended(own: &FileAttributes, mode: u32, extended: &[(&CStr, Vec<u8>)]) -> FileAttributes {
    let extended = extended.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    FileAttributes { mode, extended, ..own.clone() }
}

/// Returns whether a file can have an ACL and user attributes. Not every file system has both.
fn takes_attributes(file: &dyn DiskFile) -> bool {
    let own = file.attributes().unwrap();
    match file.set_attributes(&with_extended(&own, 0o660, &[(ACL, acl(6, 6, 0, 6)), (c"user.name", vec![1])])) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            println!("skipped on this file system: {error}");
            false
        }
        set => {
            set.unwrap();
            file.set_attributes(&own).unwrap();
            true
        }
    }
}

#[test]
fn attributes_of_another_file_replace_its_own() {
    on_every_disk(|disk, directory| {
        let file = disk.create_new(&directory.join("file"), 0o600).unwrap();
        if !takes_attributes(&*file) {
            return;
        }
        let own = file.attributes().unwrap();
        let (first, second) = ((c"user.first", vec![1]), (c"user.second", Vec::new()));
        for like in [
            with_extended(&own, 0o660, &[(ACL, acl(6, 6, 0, 6)), first.clone(), second.clone()]),
            // The owner may not write this file, and could not set an attribute afterwards.
            with_extended(&own, 0o440, &[(ACL, acl(4, 4, 4, 4)), (c"user.first", vec![2; 100])]),
            with_extended(&own, 0o600, &[second]),
            with_extended(&own, 0o644, &[]),
        ] {
            file.set_attributes(&like).unwrap();
            assert_eq!(file.attributes().unwrap(), like);
        }
    });
}

/// A failed step leaves the effects of the steps before it. If the mode came first, the group could open the file.
#[test]
fn after_failed_attributes_a_file_is_private() {
    let scratch = Scratch::new();
    for (mode, extended) in [
        (0o660, [(ACL, acl(6, 6, 0, 6)), (c"user.too-long", vec![7; 1 << 17])]),
        (0o666, [(ACL, vec![2, 0, 0, 0, 9, 9, 9, 9]), (c"user.fits", vec![1])]),
    ] {
        let path = scratch.0.join("file");
        let file = RealDisk.create_new(&path, 0o600).unwrap();
        if !takes_attributes(&*file) {
            return;
        }
        let own = file.attributes().unwrap();
        let error = file.set_attributes(&with_extended(&own, mode, &extended)).unwrap_err();
        assert!(error.to_string().contains("attribute "), "{error}");
        assert_eq!(file.attributes().unwrap().mode & 0o077, 0);
        // Also a file that others could open before.
        file.set_attributes(&with_extended(&own, 0o660, &[(ACL, acl(6, 6, 6, 6))])).unwrap();
        file.set_attributes(&with_extended(&own, mode, &extended)).unwrap_err();
        assert_eq!(file.attributes().unwrap().mode & 0o077, 0);
        RealDisk.remove(&path).unwrap();
    }
}

#[test]
fn a_map_shows_later_writes_and_outlives_the_file() {
    on_every_disk(|disk, directory| {
        let path = directory.join("file");
        let reader = disk.create_new(&path, 0o600).unwrap();
        reader.write_at(0, b"before..").unwrap();
        let map = reader.map(8).unwrap().expect("this disk maps");
        let writer = disk.open(&path, Access::ReadWrite).unwrap();
        assert!(map.equals(0, b"before.."));
        writer.write_at(0, b"after...").unwrap();
        assert!(map.equals(0, b"after..."));
        assert_eq!(map.word(0), u64::from_le_bytes(*b"after..."));
        drop((reader, writer));
        disk.remove(&path).unwrap();
        assert!(map.equals(0, b"after..."));
    });
}

#[test]
fn a_map_beyond_the_end_shows_the_file_as_it_grows() {
    on_every_disk(|disk, directory| {
        let file = disk.create_new(&directory.join("file"), 0o600).unwrap();
        file.write_at(0, b"x").unwrap();
        let map = file.map(1 << 20).unwrap().expect("this disk maps");
        assert_eq!(map.len(), 1 << 20);
        assert_eq!(map.word(8), 0, "the rest of the last page is zeros");
        file.write_at(100_000, b"grown").unwrap();
        let mut bytes = [0xFF; 7];
        map.read(99_999, &mut bytes);
        assert_eq!(&bytes, b"\0grown\0");
    });
}

#[test]
fn a_map_refuses_ranges_outside_it() {
    on_every_disk(|disk, directory| {
        let file = disk.create_new(&directory.join("file"), 0o600).unwrap();
        file.set_len(1 << 16).unwrap();
        let map = file.map(1 << 16).unwrap().expect("this disk maps");
        let refused = |read: &dyn Fn()| catch_unwind(AssertUnwindSafe(read)).is_err();
        let mut bytes = [0; 4];
        map.read((1 << 16) - 4, &mut bytes);
        assert!(refused(&|| map.read((1 << 16) - 3, &mut [0; 4])));
        assert!(refused(&|| map.read(u64::MAX, &mut [0; 4])));
        assert!(refused(&|| _ = map.word(1 << 16)));
        assert!(refused(&|| _ = map.word(4)), "not a multiple of 8");
        assert!(refused(&|| _ = map.equals((1 << 16) - 3, b"1234")));
        assert!(refused(&|| _ = map.compare((1 << 16) - 3, 4, b"")));
        // SAFETY: nothing writes to the file.
        assert!(refused(&|| _ = unsafe { map.slice((1 << 16) - 3, 4) }));
        map.prefetch(u64::MAX);
    });
}

#[test]
fn next_data_skips_nothing_but_zeros() {
    on_every_disk(|disk, directory| {
        let file = disk.create_new(&directory.join("file"), 0o600).unwrap();
        let (data, end) = (1 << 20, 3 << 20);
        file.write_at(data + 5, b"data").unwrap();
        file.set_len(end).unwrap();
        let found = file.next_data(0).unwrap().expect("there is data");
        assert!(found <= data + 5);
        assert_eq!(file.next_data(data + 7).unwrap(), Some(data + 7), "inside data is data");
        assert!(file.next_data(data + (64 << 10)).unwrap().is_none_or(|found| found < end));
        assert_eq!(file.next_data(end).unwrap(), None);
        assert_eq!(file.next_data(u64::MAX).unwrap(), None);
    });
}

/// A walk reads no further than this, and what it does not read costs nothing. So it may be too high, but not too low.
#[test]
fn data_ends_where_only_zeros_follow() {
    on_every_disk(|disk, directory| {
        let file = disk.create_new(&directory.join("file"), 0o600).unwrap();
        let (data, end) = (1 << 20, 3 << 20);
        file.write_at(data + 5, b"data").unwrap();
        file.set_len(end).unwrap();
        let found = file.data_end(data + 7).unwrap();
        assert!((data + 9..=end).contains(&found), "{found}");
        let mut rest = vec![1; (end - found) as usize];
        assert_eq!(file.read_up_to(found, &mut rest).unwrap(), rest.len());
        assert!(rest.iter().all(|&byte| byte == 0));
        for beyond in [end, end + 1, u64::MAX] {
            assert_eq!(file.data_end(beyond).unwrap(), beyond);
        }
        file.set_len(data + 9).unwrap();
        assert_eq!(file.data_end(data + 7).unwrap(), data + 9, "the end of the file");
    });
}

#[test]
fn random_bytes_differ() {
    on_every_disk(|disk, _| {
        let (mut first, mut second) = ([0; 16], [0; 16]);
        disk.system().fill_random(&mut first).unwrap();
        disk.system().fill_random(&mut second).unwrap();
        assert_ne!(first, second);
        assert!(disk.system().unix_time() > 1_600_000_000);
    });
}

#[test]
fn a_relative_path_with_dots_becomes_absolute() {
    let here = std::env::current_dir().unwrap().canonicalize().unwrap();
    assert_eq!(kind(RealDisk.resolve(Path::new("no/../no-such-file"))), Some(io::ErrorKind::NotFound));
    assert_eq!(RealDisk.resolve(Path::new("./no-such-file")).unwrap(), here.join("no-such-file"));
    assert_eq!(SimDisk::new().resolve(Path::new("./no/../file")).unwrap(), Path::new("/file"));
    on_every_disk(|disk, _| {
        assert_eq!(kind(disk.resolve(Path::new(""))), Some(io::ErrorKind::NotFound));
        assert_eq!(disk.resolve(Path::new("/")).unwrap(), Path::new("/"));
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_link_that_leads_elsewhere_is_not_followed() {
    use std::os::fd::AsRawFd;

    let scratch = Scratch::new();
    let path = scratch.0.join("file");
    let open = File::create(&path).unwrap();
    let link = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
    assert_eq!(RealDisk.resolve(&link).unwrap(), path);
    fs::remove_file(&path).unwrap();
    let error = RealDisk.resolve(&link).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains("name the file by its own path"), "{error}");
    // Nor to a file whose name is the link's text.
    File::create(scratch.0.join("file (deleted)")).unwrap();
    assert_eq!(RealDisk.resolve(&link).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn dangling_symlinks_are_resolved() {
    let scratch = Scratch::new();
    let at = |name: &str| scratch.0.join(name);
    fs::create_dir(at("real")).unwrap();
    symlink("real", at("directory")).unwrap();
    symlink("directory/file", at("first")).unwrap();
    symlink(at("first"), at("second")).unwrap();
    for path in ["real/file", "directory/file", "first", "second", "directory/../second"] {
        assert_eq!(RealDisk.resolve(&at(path)).unwrap(), at("real/file"), "{path} dangles");
    }
    fs::write(at("real/file"), b"").unwrap();
    for path in ["real/file", "directory/file", "first", "second"] {
        assert_eq!(RealDisk.resolve(&at(path)).unwrap(), at("real/file"), "{path}");
    }
    assert_eq!(kind(RealDisk.resolve(&at("nowhere/file"))), Some(io::ErrorKind::NotFound));
    symlink("nowhere/file", at("lost")).unwrap();
    assert_eq!(kind(RealDisk.resolve(&at("lost"))), Some(io::ErrorKind::NotFound));
    symlink("loop", at("loop")).unwrap();
    assert!(RealDisk.resolve(&at("loop")).is_err());
}

/// If it did not exist, the store was once created as a file of that name.
#[test]
fn a_path_with_a_slash_at_its_end_is_refused() {
    on_every_disk(|disk, directory| {
        drop(disk.create_new(&directory.join("file"), 0o600).unwrap());
        for path in ["file/", "missing/", "missing/.", "missing//", ""] {
            let error = disk.resolve(&directory.join(path)).expect_err(path);
            assert_eq!(error.kind(), io::ErrorKind::IsADirectory, "{path}");
            assert!(error.to_string().contains("slash"), "{error}");
        }
    });
    let scratch = Scratch::new();
    symlink("missing/", scratch.0.join("symlink")).unwrap();
    assert_eq!(kind(RealDisk.resolve(&scratch.0.join("symlink"))), Some(io::ErrorKind::IsADirectory));
}

#[test]
fn a_planted_symlink_is_not_followed() {
    let scratch = Scratch::new();
    let (target, planted) = (scratch.0.join("target"), scratch.0.join("planted"));
    symlink(&target, &planted).unwrap();
    assert_eq!(kind(RealDisk.create_new(&planted, 0o600)), Some(io::ErrorKind::AlreadyExists));
    assert!(!target.exists());
    fs::write(&target, b"").unwrap();
    assert_eq!(kind(RealDisk.open(&planted, Access::ReadWrite)), Some(io::ErrorKind::InvalidInput));
}

#[test]
fn a_fifo_a_socket_and_a_device_are_refused() {
    let scratch = Scratch::new();
    let (fifo, socket) = (scratch.0.join("fifo"), scratch.0.join("socket"));
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("run mkfifo").success());
    let _listener = UnixListener::bind(&socket).unwrap();
    for (path, what) in [(&*fifo, "FIFO"), (&*socket, "socket"), (Path::new("/dev/null"), "device")] {
        for access in [Access::Read, Access::ReadWrite] {
            let error = RealDisk.open(path, access).err().expect("refused");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(what), "{error}");
        }
    }
    let error = RealDisk.sync_dir(&fifo).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
}

#[test]
fn a_name_that_changes_during_an_opening_is_safe() {
    let Some(()) = with_a_deadline(a_name_that_changes_during_an_opening_is_safe) else { return };
    let scratch = Scratch::new();
    let at = |name: &str| scratch.0.join(name);
    assert!(Command::new("mkfifo").arg(at("fifo")).status().expect("run mkfifo").success());
    fs::write(at("regular"), b"").unwrap();
    fs::write(at("elsewhere"), b"").unwrap();
    symlink(at("elsewhere"), at("symlink")).unwrap();
    let regular = RealDisk.stat(&at("regular")).unwrap().identity;
    let done = AtomicBool::new(false);
    let mut others = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for kind in ["fifo", "regular", "symlink", "regular"].iter().cycle() {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                fs::hard_link(at(kind), at("next")).unwrap();
                fs::rename(at("next"), at("name")).unwrap();
            }
        });
        for _ in 0..20_000 {
            if let Ok(file) = RealDisk.open(&at("name"), Access::Read) {
                others += u32::from(file.stat().unwrap().identity != regular);
            }
        }
        // A panic in here would leave the other thread running, and the scope waiting for it.
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(others, 0);
}

#[test]
fn the_umask_does_not_change_a_new_files_mode() {
    // The umask belongs to the process, so the check runs in a process of its own: this test, started once more.
    const DIRECTORY: &str = "CASKFILE_UMASK_TEST";
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        for mode in [0o600, 0o640, 0o666, 0o400] {
            let path = Path::new(&directory).join(format!("{mode:o}"));
            RealDisk.create_new(&path, mode).unwrap().write_at(0, b"writable").unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        }
        return;
    }
    for umask in ["000", "022", "777"] {
        let scratch = Scratch::new();
        let name = "disk::tests::the_umask_does_not_change_a_new_files_mode";
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask $1 && exec $0 --exact $2"]).arg(std::env::current_exe().unwrap()).args([umask, name]);
        let output = shell.env(DIRECTORY, &scratch.0).output().unwrap();
        assert!(output.status.success(), "umask {umask}: {}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 4, "the check ran");
    }
}

#[test]
fn a_map_larger_than_the_address_space_is_an_error() {
    let scratch = Scratch::new();
    let file = RealDisk.create_new(&scratch.0.join("file"), 0o600).unwrap();
    assert!(file.map(u64::MAX).is_err());
    assert_eq!(file.map(0).unwrap().expect("an empty map is one").len(), 0);
}
