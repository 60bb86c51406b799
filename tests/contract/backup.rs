//! Copies of a store that goes on meanwhile: each is of one moment, complete under its name or not there, and leads a
//! life of its own.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use caskfile::disk::Disk;
use caskfile::disk::sim::{Choices, Fault, Repeat, SimDisk, When};
use caskfile::{
    Batch, Cask, Config, Durability, Error, KvPair, Progress, SnapshotPolicy, salvage_on, salvage_with, verify,
    verify_on,
};

use crate::common::patience::with_a_deadline;
use crate::common::refusal::{io_kind, refused, says};
use crate::common::{TempDir, names};

const STORE: &str = "/store";
const COPY: &str = "/copy";

/// A machine on which copying is slow gets no file without end.
const MOST_ROWS: u64 = 10_000;

/// Lets the writers end, also if the test has failed: else it would wait for them for ever.
struct Until<'a>(&'a AtomicBool);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Everything in a store, by bucket.
fn contents(cask: &Cask) -> Vec<(Vec<u8>, KvPair)> {
    let buckets = cask.buckets().unwrap().into_iter();
    buckets
        .flat_map(|bucket| {
            let pairs = cask.bucket(&bucket).unwrap().list("").unwrap();
            pairs.into_iter().map(move |pair| (bucket.clone(), pair))
        })
        .collect()
}

/// Ten buckets, batches, deletions, an empty value and a long one.
fn fill(cask: &Cask) {
    for number in 0..30 {
        let bucket = cask.bucket(format!("{}", number % 10)).unwrap();
        bucket.put("single", format!("{number}")).unwrap();
        let mut batch = Batch::new();
        batch.put("one", format!("{number}")).put("other", "").delete("gone");
        bucket.write(&batch).unwrap();
        bucket.put("gone", vec![7; 100 * number]).unwrap();
    }
    cask.bucket("9").unwrap().delete("single").unwrap();
    cask.put("long", vec![1; 3 << 20]).unwrap();
}

#[test]
fn a_copy_holds_the_same_pairs_and_indexes() {
    let directory = TempDir::new();
    // A snapshot would use sequence numbers between two copies.
    let config = Config::new().snapshots(SnapshotPolicy::Never);
    let cask = Cask::open_with(directory.join("store"), &config).unwrap();
    fill(&cask);
    let expected = contents(&cask);
    let read_only = Cask::open_with(directory.join("store"), &Config::new().read_only(true)).unwrap();
    let mut stream = Vec::new();
    for (number, handle) in [cask.clone(), cask.bucket("another").unwrap(), read_only].iter().enumerate() {
        let path = directory.join(format!("copy-{number}"));
        let backup = handle.backup(&path).unwrap();
        let length = std::fs::metadata(&path).unwrap().len();
        assert_eq!((backup.keys, backup.bytes), (expected.len() as u64, length));
        let compacted = directory.join(format!("compacted-{number}"));
        let compact = handle.compact_to(&compacted).unwrap();
        assert_eq!(compact.bytes, std::fs::metadata(&compacted).unwrap().len());
        assert!(compact.bytes < length);
        assert_eq!((compact.keys, compact.last_index), (backup.keys, backup.last_index));
        stream.clear();
        assert_eq!(handle.backup_to(&mut stream).unwrap().bytes, stream.len() as u64);
        let streamed = directory.join(format!("streamed-{number}"));
        std::fs::write(&streamed, &stream).unwrap();
        for path in [path, compacted, streamed] {
            assert!(!verify(&path).unwrap().cut_off);
            let copy = Cask::open_with(&path, &Config::new().read_only(true)).unwrap();
            assert_eq!(contents(&copy), expected);
            assert_eq!(copy.stats().unwrap().torn_bytes, 0);
        }
    }
}

#[test]
fn a_copy_stopped_at_any_time_leaves_nothing() {
    let directory = TempDir::new();
    let (store, copy) = (directory.join("store"), directory.join("copy"));
    let cask = Cask::open(&store).unwrap();
    fill(&cask);
    type Copying<'c> = &'c dyn Fn(&mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<(), Error>;
    let kinds: [(&str, Copying<'_>); 3] = [
        ("backup", &|watch| cask.backup_with(&copy, watch).map(drop)),
        ("compact_to", &|watch| cask.compact_to_with(&copy, watch).map(drop)),
        ("salvage", &|watch| salvage_with(&store, &copy, watch).map(drop)),
    ];
    for (kind, copying) in kinds {
        for patience in 0.. {
            let mut reports = Vec::new();
            let copied = copying(&mut |progress| {
                // The name is there when all is done, and from the first call on a temporary one can be.
                assert!(!copy.exists() && (!reports.is_empty() || names(directory.path()) == ["store"]), "{kind}");
                reports.push(progress);
                if reports.len() > patience { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert!(reports.is_sorted_by_key(|progress| (progress.done, progress.total)), "{kind}: {reports:?}");
            assert!(reports.iter().all(|progress| progress.done <= progress.total), "{kind}: {reports:?}");
            if copied.is_ok() {
                assert!(reports.len() == patience && patience > 2, "{kind}: {reports:?}");
                let (first, last) = (reports[0], reports[reports.len() - 1]);
                assert!(first.done == 0 && last.done == last.total, "{kind}: {reports:?}");
                break;
            }
            assert!(matches!(copied, Err(Error::CopyCancelled { path }) if path.ends_with("copy")), "{kind}");
            assert_eq!(names(directory.path()), ["store"], "{kind}, stopped at {reports:?}");
        }
        verify(&copy).unwrap();
        let copied = Cask::open_with(&copy, &Config::new().read_only(true)).unwrap();
        assert_eq!(contents(&copied), contents(&cask), "{kind}");
        std::fs::remove_file(&copy).unwrap();
    }
}

/// A copy that took over the original's indexes would hand out the next ones once more.
#[test]
fn a_restored_store_refuses_a_pair_read_after_the_backup() {
    let directory = TempDir::new();
    let cask = Cask::open(directory.join("store")).unwrap();
    cask.put("key", "before").unwrap();
    let (copy, compacted) = (directory.join("copy"), directory.join("compacted"));
    cask.backup(&copy).unwrap();
    cask.compact_to(&compacted).unwrap();
    let mut stale = Vec::new();
    for round in 0..4 {
        // Each opening begins an index block.
        let cask = Cask::open(directory.join("store")).unwrap();
        for _ in 0..3 {
            cask.put("key", format!("{round}")).unwrap();
            stale.push(cask.get("key").unwrap());
        }
    }
    for path in [copy, compacted] {
        let restored = Cask::open(path).unwrap();
        let old = restored.get("key").unwrap();
        assert_eq!(old.value, b"before");
        for _ in 0..20 {
            restored.put("key", "a new life").unwrap();
            let now = restored.get("key").unwrap().last_index;
            assert!(stale.iter().all(|pair| pair.last_index < now));
            assert!(matches!(restored.atomic_put("key", "", Some(stale.last().unwrap())), Err(Error::KeyModified)));
        }
    }
}

#[test]
fn backups_while_several_handles_write_are_of_one_moment() {
    let Some(()) = with_a_deadline(backups_while_several_handles_write_are_of_one_moment) else { return };
    let directory = TempDir::new();
    let path = directory.join("store");
    let config = Config::new().durability(Durability::Os);
    let cask = Cask::open_with(&path, &config).unwrap();
    cask.write(Batch::new().put("a", "0").put("b", "0")).unwrap();
    let (done, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let other = Cask::open_with(&path, &config).unwrap();
            while !done.load(Ordering::Relaxed) && acknowledged.load(Ordering::Relaxed) < MOST_ROWS {
                // Each is there only if all before are.
                let number = acknowledged.load(Ordering::Relaxed);
                other.put(format!("row/{number:08}"), vec![number as u8; 100]).unwrap();
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            let other = Cask::open_with(&path, &config).unwrap();
            for number in 0..MOST_ROWS as usize {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let number = format!("{number}").repeat(number % 50);
                other.write(Batch::new().put("a", &number).delete("none").put("b", &number)).unwrap();
            }
        });
        let _until = Until(&done);
        for round in 0..12 {
            let copy = directory.join(format!("copy-{round}"));
            let before = acknowledged.load(Ordering::Relaxed);
            match round % 3 {
                0 => drop(cask.backup(&copy).unwrap()),
                1 => drop(cask.backup_to(&mut std::fs::File::create(&copy).unwrap()).unwrap()),
                _ => drop(cask.compact_to(&copy).unwrap()),
            }
            // One more may be written, and not acknowledged.
            let after = acknowledged.load(Ordering::Relaxed) + 1;
            let copied = Cask::open(&copy).unwrap();
            assert_eq!(copied.stats().unwrap().torn_bytes, 0);
            assert_eq!(copied.get("a").unwrap().value, copied.get("b").unwrap().value);
            let rows = copied.list("row/").unwrap();
            assert!((before..=after).contains(&(rows.len() as u64)), "{before} <= {} <= {after}", rows.len());
            for (number, row) in rows.iter().enumerate() {
                assert_eq!(row.key, format!("row/{number:08}").as_bytes());
                assert_eq!(row.value, vec![number as u8; 100]);
            }
        }
    });
    cask.close().unwrap();
    assert!(names(directory.path()).iter().all(|name| !name.contains("tmp")), "{:?}", names(directory.path()));
}

#[test]
fn a_copy_never_replaces_a_file() {
    let directory = TempDir::new();
    let cask = Cask::open(directory.join("store")).unwrap();
    cask.put("key", "value").unwrap();
    let taken = directory.join("taken");
    std::fs::write(&taken, "mine").unwrap();
    for to in [taken.clone(), directory.join("store")] {
        for error in [refused(cask.backup(&to)), refused(cask.compact_to(&to))] {
            assert_eq!(io_kind(&error), io::ErrorKind::AlreadyExists);
            says(&error, &to, &["the file exists, and is not replaced"]);
        }
    }
    assert_eq!(std::fs::read(&taken).unwrap(), b"mine");
    let error = refused(cask.backup(directory.join("missing").join("copy")));
    assert_eq!(io_kind(&error), io::ErrorKind::NotFound);
    cask.close().unwrap();
    assert!(matches!(cask.backup(directory.join("late")), Err(Error::Closed)));
    assert_eq!(names(directory.path()), ["store", "taken"]);
}

#[test]
fn no_copy_is_made_of_a_damaged_log() {
    let directory = TempDir::new();
    let path = directory.join("store");
    let cask = Cask::open(&path).unwrap();
    cask.put("first", "value").unwrap();
    cask.put("second", "value").unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(11).position(|window| window == b"secondvalue").unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"S", at as u64).unwrap();
    for error in [
        refused(cask.backup(directory.join("copy"))),
        refused(cask.compact_to(directory.join("copy"))),
        refused(cask.backup_to(&mut io::sink())),
    ] {
        assert!(matches!(error, Error::Corrupt { offset, .. } if offset == at as u64 - 25), "{error}");
    }
    assert_eq!(names(directory.path()), ["store"]);
}

#[test]
fn a_failing_receiver_is_an_error_and_changes_nothing() {
    struct Narrow(usize);
    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let taken = bytes.len().min(self.0).min(1000);
            self.0 -= taken;
            Ok(taken)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let directory = TempDir::new();
    let cask = Cask::open(directory.join("store")).unwrap();
    fill(&cask);
    for room in [0, 63, 64, 5000, 2 << 20] {
        assert_eq!(io_kind(&refused(cask.backup_to(&mut Narrow(room)))), io::ErrorKind::BrokenPipe);
    }
    assert!(cask.backup_to(&mut Narrow(usize::MAX)).is_ok());
    cask.verify().unwrap();
}

/// A pipe that breaks leaves a copy without its end. It is refused, and salvage copies what is there.
#[test]
fn a_stream_that_breaks_off_is_refused() {
    let disk = SimDisk::new();
    let cask = Cask::open_on(Arc::new(disk.clone()), STORE, &Config::new().durability(Durability::Os)).unwrap();
    for number in 0..8 {
        let mut batch = Batch::new();
        batch.put("a", format!("{number}")).put(format!("b{number}"), vec![number; 30]).delete("c").put("d", "");
        cask.write(&batch).unwrap();
        cask.put("c", "single").unwrap();
    }
    let mut stream = Vec::new();
    cask.backup_to(&mut stream).unwrap();
    // A tool that reserves the space first leaves zeros in place of what did not come.
    let lens = (0..=stream.len()).map(|len| (len, false));
    for (len, zeros) in lens.chain((216..stream.len()).step_by(8).map(|len| (len, true))) {
        let mut bytes = stream[..len].to_vec();
        bytes.resize(if zeros { stream.len() } else { len }, 0);
        disk.set_contents(COPY, bytes.clone());
        let opened = Cask::open_on(Arc::new(disk.process()), COPY, &Config::new().read_only(true));
        // The closing mark is a header and stands before eight zeros.
        let is_whole = len >= stream.len() - 8;
        match opened {
            Ok(copy) => assert!(is_whole && contents(&copy) == contents(&cask), "{len} of {}", stream.len()),
            Err(Error::NotCaskfile { .. }) => assert!(len < 64),
            Err(error) => assert!(matches!(error, Error::Truncated { .. }) && !is_whole, "{len}: {error}"),
        }
        if let Err(refused) = Cask::open_on(Arc::new(disk.process()), COPY, &Config::new().create(false)) {
            let is_refused = matches!(refused, Error::Truncated { .. }) || len < 64;
            assert!(is_refused && !is_whole, "{len}: a writer: {refused}");
        } else {
            assert!(is_whole || len == 0, "{len}: a writer opens it");
            disk.set_contents(COPY, bytes);
        }
        match verify_on(&disk, Path::new(COPY)) {
            Ok(report) => assert!(is_whole && !report.cut_off, "{len} of {}: {report}", stream.len()),
            Err(Error::Damaged { report, .. }) => {
                assert!(!is_whole && report.cut_off, "{len} of {}: {report}", stream.len());
                assert!(report.to_json().contains(r#""cut_off":true,"sound":false"#));
                let copied = salvage_on(&disk, Path::new(COPY), Path::new("/rescued")).unwrap();
                let rescued = Cask::open_on(Arc::new(disk.process()), "/rescued", &Config::new()).unwrap();
                assert_eq!((contents(&rescued).len() as u64, copied.keys), (report.keys, report.keys));
                drop(rescued);
                disk.remove(Path::new("/rescued")).unwrap();
            }
            Err(Error::NotCaskfile { .. }) => assert!(len < 64),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_crash_leaves_a_whole_copy_or_none() {
    for how in ["killed", "power cut"] {
        for compacted in [false, true] {
            for nth in 1.. {
                let disk = SimDisk::from_seed(nth);
                let cask = Cask::open_on(Arc::new(disk.process()), STORE, &Config::new()).unwrap();
                cask.write(Batch::new().put("a", "1").put("b", "2")).unwrap();
                let expected = contents(&cask);
                let copying = disk.process();
                let copier = Cask::open_on(Arc::new(copying.clone()), STORE, &Config::new().read_only(true)).unwrap();
                let fault = if how == "killed" { Fault::Kill(usize::MAX) } else { Fault::PowerCut };
                disk.fail(When::nth(nth).by(&copying), fault, Repeat::Once);
                let made = if compacted { copier.compact_to(COPY) } else { copier.backup(COPY) };
                let after = if how == "killed" { disk.fork() } else { disk.reboot(&mut Choices::from_seed(nth)) };
                assert!(
                    made.is_err() || after.contents(COPY).is_some(),
                    "{how} at {nth}: a copy that was made is gone"
                );
                if after.contents(COPY).is_some() {
                    assert!(!verify_on(&after, Path::new(COPY)).unwrap().cut_off);
                    let copy = Cask::open_on(Arc::new(after.process()), COPY, &Config::new()).unwrap();
                    assert_eq!(contents(&copy), expected);
                } else {
                    let cask = Cask::open_on(Arc::new(after.process()), STORE, &Config::new()).unwrap();
                    assert_eq!(contents(&cask), expected);
                    cask.backup(COPY).unwrap();
                }
                let mut left = after.paths();
                left.sort();
                assert_eq!(left, [Path::new(COPY), Path::new(STORE)], "{how} at {nth}");
                if made.is_ok() {
                    break;
                }
            }
        }
    }
}

/// `cp` reads from front to back while the file grows: what it has read of one place is older than what it reads of the
/// next. Every such mixture of two moments opens to a moment that was between them, or is refused as damaged; and
/// salvage finds everything that was there when the copying began.
#[test]
fn a_file_copied_during_writes_opens_or_is_refused() {
    let disk = SimDisk::new();
    let cask = Cask::open_on(Arc::new(disk.clone()), STORE, &Config::new()).unwrap();
    let mut moments = Vec::new();
    for number in 0..5_u8 {
        let mut batch = Batch::new();
        batch.put("a", format!("{number}")).put("b", vec![number; 20]).delete("single");
        for single in [false, true] {
            if single {
                cask.put("single", format!("{number}")).unwrap();
            } else {
                cask.write(&batch).unwrap();
            }
            moments.push((disk.contents(STORE).unwrap(), contents(&cask), cask.stats().unwrap().log_end as usize));
        }
    }
    let (mut refused, mut later) = (0, 0);
    let disk = SimDisk::new();
    for (begin, (old, _, old_end)) in moments.iter().enumerate() {
        for (end, (new, _, new_end)) in moments.iter().enumerate().skip(begin) {
            for split in (0..new_end + 16).step_by(12) {
                disk.set_contents(COPY, [&old[..split], &new[split..]].concat());
                match Cask::open_on(Arc::new(disk.process()), COPY, &Config::new().read_only(true)) {
                    Ok(copy) => {
                        let found = contents(&copy);
                        let at = moments.iter().position(|(_, state, _)| *state == found);
                        let at = at.expect("a moment, and no mixture of two");
                        assert!((begin..=end).contains(&at), "{begin} <= {at} <= {end}");
                        later += u64::from(at > begin);
                    }
                    Err(Error::Corrupt { offset, .. }) => {
                        assert!(offset as usize >= *old_end, "damaged before what was there at the beginning");
                        refused += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    assert!(refused > 10 && later > 10, "{refused} were refused, {later} were later");
}

#[test]
fn cp_beside_a_writer_keeps_all_older_data() {
    let Some(()) = with_a_deadline(cp_beside_a_writer_keeps_all_older_data) else { return };
    let directory = TempDir::new();
    let path = directory.join("store");
    let config = Config::new().durability(Durability::Os);
    let cask = Cask::open_with(&path, &config).unwrap();
    let (done, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) && acknowledged.load(Ordering::Relaxed) < MOST_ROWS {
                let number = acknowledged.load(Ordering::Relaxed);
                cask.put(format!("row/{number:08}"), vec![number as u8; 300]).unwrap();
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        });
        let _until = Until(&done);
        for round in 0..10 {
            let copy = directory.join(format!("copy-{round}"));
            let before = acknowledged.load(Ordering::Relaxed);
            assert!(Command::new("cp").arg(&path).arg(&copy).status().unwrap().success());
            let after = acknowledged.load(Ordering::Relaxed) + 1;
            let readable = match Cask::open_with(&copy, &Config::new().read_only(true)) {
                Err(Error::Corrupt { .. }) => {
                    let rescued = directory.join(format!("rescued-{round}"));
                    caskfile::salvage(&copy, &rescued).unwrap();
                    rescued
                }
                opened => {
                    let rows = opened.unwrap().list("row/").unwrap().len() as u64;
                    assert!(rows <= after);
                    copy
                }
            };
            let rows = Cask::open_with(readable, &Config::new().read_only(true)).unwrap().list("row/").unwrap();
            assert!(rows.len() as u64 >= before, "{before} of {}", rows.len());
            for (number, row) in rows.iter().take(before as usize).enumerate() {
                assert_eq!(row.key, format!("row/{number:08}").as_bytes());
            }
        }
    });
}
