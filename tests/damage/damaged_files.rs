//! Damaged files: what is torn is cut off, what was whole once is an error with its place, and the file stays as it is.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use caskfile::{Cask, Config, Damage, Durability, Error, KvPair, ReadMode};

use crate::common::TempDir;
use crate::common::refusal::{Unchanged, every_config, io_kind, refused, says, store_with};

#[test]
fn a_writer_cuts_a_damaged_tail_a_reader_leaves_it() {
    let directory = TempDir::new();
    let path = directory.join("store");
    store_with(&path, &[("key", "value"), ("other", "value")]);
    let whole = fs::read(&path).unwrap();
    let end = whole.len() as u64 - 8;
    let tails: [(&str, Vec<u8>); 4] = [
        ("noise after the end mark", [&whole[..], &[7; 100]].concat()),
        ("noise in the end mark's place", [&whole[..whole.len() - 8], &[7; 100]].concat()),
        ("no end mark", whole[..whole.len() - 8].to_vec()),
        ("half an end mark", whole[..whole.len() - 4].to_vec()),
    ];
    for (what, bytes) in tails {
        fs::write(&path, &bytes).unwrap();
        let unchanged = Unchanged::from_now_on(&path);
        for reads in [ReadMode::Map, ReadMode::Pread] {
            let reader = Cask::open_with(&path, &Config::new().read_only(true).read_mode(reads)).unwrap();
            assert_eq!(reader.list("").unwrap().len(), 2, "{what}");
            let verification = reader.verify().unwrap();
            assert_eq!((verification.keys, verification.log_end), (2, end), "{what}");
            assert_eq!(verification.torn_bytes > 0, bytes.len() > whole.len(), "{what}");
            assert_eq!(reader.stats().unwrap().torn_bytes, 0, "a reader cuts nothing");
        }
        unchanged.check();

        let cask = Cask::open(&path).unwrap();
        let torn = (bytes.len() as u64).saturating_sub(end);
        let cut = cask.stats().unwrap().torn_bytes;
        assert!(cut <= torn && (cut > 0) == (bytes.len() > whole.len()), "{what}: {cut} of {torn}");
        assert_eq!(cask.list("").unwrap().len(), 2, "{what}");
        cask.put("after", "").unwrap();
        cask.delete("after").unwrap();
        cask.close().unwrap();
        Cask::open(&path).unwrap().verify().unwrap();
    }
}

#[test]
fn whole_records_after_a_torn_one_are_kept_beside() {
    let directory = TempDir::new();
    let path = directory.join("store");
    let cask = Cask::open_with(&path, &Config::new().durability(Durability::Os).file_mode(0o640)).unwrap();
    for n in 0..5 {
        cask.put(format!("key-{n}"), format!("value-{n}")).unwrap();
    }
    // As a power cut leaves it: a part of the unsynced data came back.
    let mut bytes = fs::read(&path).unwrap();
    cask.close().unwrap();
    let damaged = find(&bytes, b"value-2");
    bytes[damaged] ^= 1;
    fs::write(&path, &bytes).unwrap();

    let cask = Cask::open(&path).unwrap();
    let keys: Vec<_> = cask.list("").unwrap().into_iter().map(|pair| pair.key).collect();
    assert_eq!(keys, [b"key-0", b"key-1"]);
    let kept: Vec<PathBuf> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("store.torn-"))
        .collect();
    let [kept] = &kept[..] else { panic!("{kept:?}") };
    let torn = fs::read(kept).unwrap();
    assert_eq!(torn.len() as u64, cask.stats().unwrap().torn_bytes);
    assert!(torn.windows(7).any(|window| window == b"value-3") && torn.windows(7).any(|window| window == b"value-4"));
    assert_eq!(fs::metadata(kept).unwrap().mode() & 0o7777, 0o640);
    cask.put("key-2", "again").unwrap();
    cask.close().unwrap();
}

#[test]
fn a_damaged_middle_is_an_error_with_its_place() {
    let directory = TempDir::new();
    let path = directory.join("store");
    store_with(&path, &[("first", "1"), ("second", "2"), ("third", "3")]);
    let whole = fs::read(&path).unwrap();
    let record = find(&whole, b"second") - 1 - 24;
    let mut damages: Vec<(usize, Vec<u8>)> = Vec::new();
    for at in [record, record + 5, record + 9, record + 10, record + 17, record + 25, record + 31] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        damages.push((record, bytes));
    }
    let mut zeros = whole.clone();
    zeros[record..record + 32].fill(0);
    damages.push((record, zeros));
    for (number, (record, bytes)) in damages.into_iter().enumerate() {
        fs::write(&path, &bytes).unwrap();
        let unchanged = Unchanged::from_now_on(&path);
        for config in every_config() {
            let error = refused(Cask::open_with(&path, &config));
            assert!(matches!(error, Error::Corrupt { offset, .. } if offset == record as u64), "{number}: {error:?}");
            says(&error, &path, &[&format!("offset {record}"), "salvage", "unchanged"]);
        }
        unchanged.check();

        let rescued = directory.join(format!("rescued-{number}"));
        let report = caskfile::salvage(&path, &rescued).unwrap();
        assert_eq!((report.keys, report.losses.len()), (2, 1), "{number}");
        assert_eq!(report.losses[0].start, record as u64);
        let cask = Cask::open(&rescued).unwrap();
        assert_eq!(cask.get("first").unwrap().value, b"1");
        assert_eq!(cask.get("third").unwrap().value, b"3");
        cask.close().unwrap();
        fs::remove_file(&rescued).unwrap();
        unchanged.check();
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(Cask::open(&path).unwrap().list("").unwrap().len(), 3);
}

#[test]
fn damage_under_a_live_handle_spares_the_rest() {
    use std::os::unix::fs::FileExt;
    for reads in [ReadMode::Map, ReadMode::Pread] {
        let directory = TempDir::new();
        let path = directory.join("store");
        let cask = Cask::open_with(&path, &Config::new().read_mode(reads)).unwrap();
        for key in ["first", "second", "third"] {
            cask.put(key, "value of ".to_owned() + key).unwrap();
        }
        let at = find(&fs::read(&path).unwrap(), b"value of second");
        let record = at as u64 - 24 - 7;
        let file = File::options().write(true).open(&path).unwrap();
        file.write_at(b"V", at as u64).unwrap();
        for error in [refused(cask.get("second")), refused(cask.list("")), refused(cask.compact())] {
            match &error {
                Error::Corrupt { offset, damage: Damage::Body { .. }, .. } => assert_eq!(*offset, record),
                other => panic!("{other:?}"),
            }
            says(&error, &path, &[&format!("offset {record}"), "checksum"]);
        }
        let error = refused(cask.verify());
        let Error::Damaged { report, .. } = &error else { panic!("{error:?}") };
        assert_eq!((report.losses.len(), report.losses[0].start, report.keys), (1, record, 2));
        says(&error, &path, &[&format!("bytes {record} to"), "checksum", "\"second\"", "salvage"]);
        assert_eq!(cask.get("first").unwrap().value, b"value of first");
        let pairs: Vec<Option<KvPair>> = cask.scan("").unwrap().map(|pair| pair.ok()).collect();
        assert!(matches!(&pairs[..], [Some(_), None, Some(_)]), "a scan goes on after it");
        cask.put("second", "replaced").unwrap();
        assert_eq!(cask.get("second").unwrap().value, b"replaced");
        assert_eq!(cask.list("").unwrap().len(), 3);
        assert_eq!(directory.path().read_dir().unwrap().count(), 1, "the compaction that failed left nothing");
        let _ = cask.close();
    }
}

#[test]
fn salvage_replaces_no_file_and_names_a_missing_one() {
    let directory = TempDir::new();
    let (path, taken) = (directory.join("store"), directory.join("taken"));
    store_with(&path, &[("key", "value")]);
    fs::write(&taken, "mine").unwrap();
    let (unchanged, untaken) = (Unchanged::from_now_on(&path), Unchanged::from_now_on(&taken));
    let error = refused(caskfile::salvage(&path, &taken));
    assert_eq!(io_kind(&error), ErrorKind::AlreadyExists);
    says(&error, &taken, &[]);
    let error = refused(caskfile::salvage(&path, &path));
    assert_eq!(io_kind(&error), ErrorKind::AlreadyExists);
    let error = refused(caskfile::salvage(directory.join("missing"), directory.join("new")));
    assert_eq!(io_kind(&error), ErrorKind::NotFound);
    says(&error, &directory.join("missing"), &[]);
    unchanged.check();
    untaken.check();
}

fn find(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).position(|window| window == wanted).unwrap()
}
