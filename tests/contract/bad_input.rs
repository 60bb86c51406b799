//! What bad input gets: the documented result or an error that says which file, where in it, and what to do; and no
//! foreign file is ever changed.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use caskfile::{Batch, Cask, Config, Damage, Error, MAX_BATCH_OPS, MAX_BUCKET_LEN, MAX_VALUE_LEN, max_key_len};

use crate::common::process::{in_own_process, this_test};
use crate::common::refusal::{Unchanged, every_config, io_kind, refused, says, store_with};
use crate::common::{TempDir, names};

// Paths that name no file.

#[test]
fn a_missing_directory_is_named() {
    let directory = TempDir::new();
    let path = directory.join("missing").join("store");
    for config in every_config() {
        let error = refused(Cask::open_with(&path, &config));
        assert_eq!(io_kind(&error), ErrorKind::NotFound);
        says(&error, &path, &[]);
    }
    assert!(directory.path().read_dir().unwrap().next().is_none(), "nothing may be made");
    let not_a_directory = directory.join("file");
    File::create(&not_a_directory).unwrap();
    let error = refused(Cask::open(not_a_directory.join("store")));
    assert_eq!(io_kind(&error), ErrorKind::NotADirectory);
    says(&error, &not_a_directory, &[]);
}

#[test]
fn a_missing_file_is_made_only_if_allowed() {
    let directory = TempDir::new();
    let path = directory.join("store");
    for config in [Config::new().create(false), Config::new().read_only(true)] {
        let error = refused(Cask::open_with(&path, &config));
        assert_eq!(io_kind(&error), ErrorKind::NotFound);
        says(&error, &path, &["open"]);
        assert!(!path.exists());
    }
    Cask::open(&path).unwrap();
    assert!(path.exists());
}

#[test]
fn a_directory_instead_of_a_file_is_refused() {
    let directory = TempDir::new();
    for config in every_config() {
        let error = refused(Cask::open_with(directory.path(), &config));
        assert_eq!(io_kind(&error), ErrorKind::InvalidInput);
        says(&error, directory.path(), &["directory"]);
        assert!(Cask::open_with("/", &config).is_err());
        assert!(Cask::open_with("", &config).is_err());
        assert!(Cask::open_with("nul\0byte", &config).is_err());
    }
    assert!(directory.path().read_dir().unwrap().next().is_none());
}

/// A process that hangs here is ended by its alarm.
#[test]
fn a_fifo_is_refused_without_a_hang() {
    let Some(directory) = in_own_process(this_test!()) else { return };
    let path = directory.join("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    for config in every_config() {
        let error = refused(Cask::open_with(&path, &config));
        assert_eq!(io_kind(&error), ErrorKind::InvalidInput);
        says(&error, &path, &["FIFO"]);
    }
    assert_eq!(io_kind(&refused(caskfile::salvage(&path, path.with_file_name("rescued")))), ErrorKind::InvalidInput);
}

/// Files that are made beside a store have shorter names of their own.
#[test]
fn a_name_is_limited_by_the_file_system_only() {
    let directory = TempDir::new();
    let path = directory.join("n".repeat(256));
    let error = refused(Cask::open(&path));
    let Error::Io { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.raw_os_error(), Some(libc::ENAMETOOLONG));
    says(&error, &path, &[]);
    assert!(directory.path().read_dir().unwrap().next().is_none());
    let path = directory.join("n".repeat(255));
    Cask::open(&path).unwrap().put("key", "value").unwrap();
    Cask::open(&path).unwrap().compact().unwrap();
    assert_eq!(names(directory.path()), ["n".repeat(255)]);
}

/// The errors of the operating system keep their number, so that callers can distinguish them.
#[test]
fn an_io_error_carries_its_cause() {
    let error = refused(Cask::open_with("/no/such/directory/store", &Config::new()));
    let Error::Io { source, operation, path } = &error else { panic!("{error:?}") };
    assert_eq!(source.raw_os_error(), Some(libc::ENOENT));
    assert!(!operation.is_empty() && path.starts_with("/no"));
    let cause = std::error::Error::source(&error).expect("it has a source");
    assert!(cause.downcast_ref::<io::Error>().is_some() || cause.to_string() == source.to_string());
}

// Files that are no stores.

#[test]
fn a_foreign_file_is_refused_and_never_changed() {
    let directory = TempDir::new();
    let path = directory.join("file");
    store_with(&path, &[("key", "value")]);
    let as_copied_in_text_mode = fs::read(&path).unwrap().into_iter().filter(|byte| *byte != b'\r').collect();
    let foreign: [Vec<u8>; 7] = [
        b"Dear diary,\n".repeat(20),
        [b"SQLite format 3\0".to_vec(), vec![0; 4080]].concat(),
        [b"\x89PNG\r\n\x1a\n".to_vec(), (0..200).collect()].concat(),
        vec![0; 64],
        vec![0; 100_000],
        vec![0xff; 4096],
        as_copied_in_text_mode,
    ];
    for bytes in foreign {
        fs::write(&path, &bytes).unwrap();
        let unchanged = Unchanged::from_now_on(&path);
        for config in every_config() {
            let error = refused(Cask::open_with(&path, &config));
            assert!(matches!(error, Error::NotCaskfile { .. }), "{error:?}");
            says(&error, &path, &["not a caskfile", "unchanged"]);
        }
        let error = refused(caskfile::salvage(&path, directory.join("rescued")));
        assert!(matches!(error, Error::NotCaskfile { .. }), "{error:?}");
        unchanged.check();
    }
}

#[test]
fn a_file_shorter_than_its_header_is_refused() {
    let directory = TempDir::new();
    let path = directory.join("file");
    store_with(&path, &[("key", "value")]);
    let whole = fs::read(&path).unwrap();
    for len in 1..64 {
        for bytes in [&whole[..len], &vec![b'x'; len], &vec![0; len]] {
            fs::write(&path, bytes).unwrap();
            let unchanged = Unchanged::from_now_on(&path);
            for config in every_config() {
                let error = refused(Cask::open_with(&path, &config));
                assert!(matches!(error, Error::NotCaskfile { .. }), "{len} bytes: {error:?}");
                says(&error, &path, &["shorter than a file header"]);
            }
            unchanged.check();
        }
    }
}

#[test]
fn an_empty_file_becomes_a_store_only_if_allowed() {
    let directory = TempDir::new();
    let path = directory.join("file");
    File::create(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let unchanged = Unchanged::from_now_on(&path);
    for config in
        [Config::new().create(false), Config::new().read_only(true), Config::new().create(true).read_only(true)]
    {
        let error = refused(Cask::open_with(&path, &config));
        assert!(matches!(error, Error::NotCaskfile { .. }), "{error:?}");
        says(&error, &path, &["empty"]);
    }
    unchanged.check();
    let cask = Cask::open(&path).unwrap();
    cask.put("key", "value").unwrap();
    cask.close().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640, "a file that is there keeps its mode");
    assert_eq!(Cask::open_with(&path, &Config::new().create(false)).unwrap().get("key").unwrap().value, b"value");
    assert_eq!(directory.path().read_dir().unwrap().count(), 1);
}

// Files of other versions. Where things lie in them is said here once more, not taken from the library: a version that
// moved them could not tell what it has before it.

const MAJOR_AT: usize = 8;
const MINOR_AT: usize = 10;
const HEADER_CRC_AT: usize = 60;

/// The bytes of a store, as a library of this version would have left them.
fn bytes_of_version(directory: &TempDir, major: u16, minor: u16) -> Vec<u8> {
    let path = directory.join("original");
    store_with(&path, &[("key", "value")]);
    let mut bytes = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    bytes[MAJOR_AT..][..2].copy_from_slice(&major.to_le_bytes());
    bytes[MINOR_AT..][..2].copy_from_slice(&minor.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..HEADER_CRC_AT]);
    bytes[HEADER_CRC_AT..][..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn a_newer_major_version_is_refused_by_name() {
    let directory = TempDir::new();
    let path = directory.join("file");
    fs::write(&path, bytes_of_version(&directory, 2, 7)).unwrap();
    let unchanged = Unchanged::from_now_on(&path);
    for config in every_config() {
        let error = refused(Cask::open_with(&path, &config));
        assert!(matches!(error, Error::UnsupportedVersion { major: 2, minor: 7, .. }), "{error:?}");
        says(&error, &path, &["2.7", "newer caskfile"]);
    }
    assert!(matches!(caskfile::salvage(&path, directory.join("rescued")), Err(Error::UnsupportedVersion { .. })));
    unchanged.check();
}

#[test]
fn a_newer_minor_version_is_read_and_written() {
    let directory = TempDir::new();
    let path = directory.join("file");
    fs::write(&path, bytes_of_version(&directory, 1, 9)).unwrap();
    let cask = Cask::open(&path).unwrap();
    assert_eq!(cask.get("key").unwrap().value, b"value");
    cask.put("key", "changed").unwrap();
    cask.close().unwrap();
    assert_eq!(Cask::open(&path).unwrap().get("key").unwrap().value, b"changed");
}

#[test]
fn a_damaged_file_header_is_not_another_version() {
    let directory = TempDir::new();
    let path = directory.join("file");
    store_with(&path, &[("key", "value")]);
    let whole = fs::read(&path).unwrap();
    for at in [MAJOR_AT, MINOR_AT, 20, 33, HEADER_CRC_AT] {
        let mut bytes = whole.clone();
        bytes[at] ^= 2;
        fs::write(&path, &bytes).unwrap();
        let unchanged = Unchanged::from_now_on(&path);
        for config in every_config() {
            let error = refused(Cask::open_with(&path, &config));
            let expected = matches!(error, Error::Corrupt { offset: 0, damage: Damage::FileHeader { .. }, .. });
            assert!(expected, "byte {at}: {error:?}");
            says(&error, &path, &["offset 0", "salvage"]);
        }
        unchanged.check();
    }
}

/// The store's bytes with one more record at the log's end.
fn with_record(mut bytes: Vec<u8>, flags: u8, kind: u8, index: u64) -> Vec<u8> {
    let at = bytes.len() - 8;
    let file_id = bytes[16..32].to_vec();
    let key = b"\0unknown";
    let mut header = [0; 24];
    (header[8], header[9], header[10]) = (flags, kind, key.len() as u8);
    header[16..24].copy_from_slice(&index.to_le_bytes());
    let body_crc = crc32fast::hash(&[&header[9..24], key].concat());
    header[4..8].copy_from_slice(&body_crc.to_le_bytes());
    let header_crc = crc32fast::hash(&[&file_id, &(at as u64).to_le_bytes()[..], &header[4..24]].concat());
    header[..4].copy_from_slice(&header_crc.to_le_bytes());
    bytes.truncate(at);
    bytes.extend([&header[..], key, &[0; 8]].concat());
    bytes
}

#[test]
fn a_later_versions_record_is_refused_unless_ancillary() {
    let directory = TempDir::new();
    let path = directory.join("file");
    let cask = Cask::open(&path).unwrap();
    cask.put("key", "value").unwrap();
    let index = cask.get("key").unwrap().last_index + 100;
    cask.close().unwrap();
    let bytes = fs::read(&path).unwrap();
    let offset = bytes.len() as u64 - 8;

    for (flags, kind) in [(0, 3), (0, 0x7f), (4, 1), (0x80, 0x80)] {
        fs::write(&path, with_record(bytes.clone(), flags, kind, index)).unwrap();
        let unchanged = Unchanged::from_now_on(&path);
        for config in every_config() {
            let error = refused(Cask::open_with(&path, &config));
            match error {
                Error::UnsupportedRecord { offset: at, kind: found, flags: set, .. } => {
                    assert_eq!((at, found, set), (offset, kind, flags));
                }
                ref other => panic!("{other:?}"),
            }
            says(&error, &path, &[&format!("offset {offset}"), &format!("{kind:#04x}"), "newer caskfile"]);
        }
        unchanged.check();
    }

    fs::write(&path, with_record(bytes, 0, 0xf0, index)).unwrap();
    let cask = Cask::open(&path).unwrap();
    assert_eq!(cask.list("").unwrap().len(), 1);
    assert!(cask.atomic_put("next", "", None).unwrap().last_index > index);
    cask.verify().unwrap();
}

// Arguments over the limits.

#[test]
fn empty_and_too_long_keys_are_refused_before_writing() {
    let directory = TempDir::new();
    let path = directory.join("store");
    let plain = Cask::open(&path).unwrap();
    plain.put("key", "value").unwrap();
    let pair = plain.get("key").unwrap();
    for (bucket, limit) in [("", 65_534), ("b", 65_533), (&*"b".repeat(255), 65_279)] {
        let cask = plain.bucket(bucket).unwrap();
        assert_eq!(max_key_len(bucket.len()), limit);
        let longest = vec![b'k'; limit];
        let new = cask.atomic_put(&longest, "value", None).unwrap();
        assert_eq!(cask.get(&longest).unwrap(), new);
        assert_eq!(cask.list("k").unwrap().iter().filter(|pair| pair.key == longest).count(), 1);

        let end = plain.stats().unwrap().log_end;
        for key in [Vec::new(), vec![b'k'; limit + 1], vec![b'k'; 1 << 20]] {
            let mut batch = Batch::new();
            batch.put("fine", "").put(&key, "");
            let results = [
                cask.put(&key, "").map(drop),
                cask.get(&key).map(drop),
                cask.get_into(&key, &mut Vec::new()).map(drop),
                cask.exists(&key).map(drop),
                cask.delete(&key).map(drop),
                cask.atomic_put(&key, "", None).map(drop),
                cask.atomic_put(&key, "", Some(&pair)).map(drop),
                cask.atomic_delete(&key, Some(&pair)).map(drop),
                cask.update(&key, |_| Vec::new()).map(drop),
                cask.write(&batch).map(drop),
            ];
            for (call, result) in results.into_iter().enumerate() {
                match result.map_err(cause) {
                    Err(Error::KeyLength { len, max }) => assert_eq!((len, max), (key.len(), limit)),
                    other => panic!("call {call} with {} bytes: {other:?}", key.len()),
                }
            }
            // A prefix is no key: nothing starts with one that is too long, and everything with the empty one.
            let found = cask.list(&key).unwrap().len();
            assert_eq!(found == 0, !key.is_empty());
        }
        assert_eq!(plain.stats().unwrap().log_end, end);
        assert!(!cask.exists("fine").unwrap());
        let message = refused(cask.put("", "")).to_string();
        assert!(message.contains(&limit.to_string()), "{message}");
    }
    plain.close().unwrap();
    assert_eq!(Cask::open(&path).unwrap().verify().unwrap().keys, 4);
}

/// Of a batch's error, what is wrong with the operation.
fn cause(error: Error) -> Error {
    match error {
        Error::BatchInvalid { cause, .. } => *cause,
        error => error,
    }
}

#[test]
fn a_refused_batch_names_its_first_bad_operation() {
    let directory = TempDir::new();
    let cask = Cask::open(directory.join("store")).unwrap();
    let (value, name) = (vec![0; MAX_VALUE_LEN + 1], vec![b'b'; MAX_BUCKET_LEN + 1]);
    let with = |build: &dyn for<'b> Fn(&'b mut Batch) -> &'b mut Batch| {
        let mut batch = Batch::new();
        build(batch.put("fine", ""));
        match cask.write(&batch).unwrap_err() {
            error @ Error::BatchInvalid { op, .. } => {
                assert_eq!(error.to_string(), format!("operation {op} of the batch: {}", cause(error.clone())));
                (op, cause(error))
            }
            other => panic!("{other:?}"),
        }
    };
    let is_key = |(op, error)| (op, matches!(error, Error::KeyLength { len: 0, .. }));
    let is_value = |(op, error)| (op, matches!(error, Error::ValueTooLong { .. }));
    let is_bucket = |(op, error)| (op, matches!(error, Error::BucketTooLong { .. }));
    assert_eq!(is_key(with(&|batch| batch.expect_absent("").put("", ""))), (1, true));
    assert_eq!(is_key(with(&|batch| batch.delete("fine").delete(""))), (2, true));
    assert_eq!(is_key(with(&|batch| batch.put_new("key", "").delete_if("", 1))), (2, true));
    assert_eq!(is_value(with(&|batch| batch.put_new("key", "").put_if("key", &value, 1))), (2, true));
    assert_eq!(is_value(with(&|batch| batch.put("key", &value).put("", ""))), (1, true));
    assert_eq!(is_key(with(&|batch| batch.put("", "").put("key", &value))), (1, true));
    assert_eq!(is_bucket(with(&|batch| batch.delete("key").bucket(&name).put("key", ""))), (2, true));
    assert_eq!(is_value(with(&|batch| batch.put("key", &value).bucket(&name))), (1, true));
    assert!(cask.list("").unwrap().is_empty());
}

#[test]
fn too_long_values_are_refused_before_writing() {
    let directory = TempDir::new();
    let cask = Cask::open(directory.join("store")).unwrap();
    cask.put("key", "value").unwrap();
    let pair = cask.get("key").unwrap();
    let end = cask.stats().unwrap().log_end;
    // Zeros that are never read: the system gives no memory for them.
    let value = vec![0; MAX_VALUE_LEN + 1];
    let mut batch = Batch::new();
    batch.put("other", "").put("key", &value);
    let results = [
        cask.put("key", &value).map(drop),
        cask.atomic_put("new", &value, None).map(drop),
        cask.atomic_put("key", &value, Some(&pair)).map(drop),
        cask.update("key", |_| vec![0; MAX_VALUE_LEN + 1]).map(drop),
        cask.write(&batch).map(drop),
    ];
    for (call, result) in results.into_iter().enumerate() {
        match result.map_err(cause) {
            Err(Error::ValueTooLong { len, max }) => assert_eq!((len, max), (MAX_VALUE_LEN + 1, MAX_VALUE_LEN)),
            other => panic!("call {call}: {other:?}"),
        }
    }
    assert_eq!(cask.stats().unwrap().log_end, end);
    assert_eq!(cask.list("").unwrap(), [pair]);
}

#[test]
fn a_bucket_name_has_at_most_255_bytes() {
    let directory = TempDir::new();
    let path = directory.join("store");
    let cask = Cask::open(&path).unwrap();
    let (longest, longer) = (vec![b'b'; MAX_BUCKET_LEN], vec![b'b'; MAX_BUCKET_LEN + 1]);
    cask.bucket(&longest).unwrap().put("key", "value").unwrap();
    assert_eq!(cask.buckets().unwrap(), std::slice::from_ref(&longest));
    let mut batch = Batch::new();
    batch.put("key", "").bucket(&longer).put("key", "");
    let untouched = directory.join("untouched");
    let results = [
        cask.bucket(&longer).map(drop),
        cask.write(&batch).map(drop),
        Cask::open_with(&untouched, &Config::new().bucket(&longer)).map(drop),
    ];
    for result in results {
        match result.map_err(cause) {
            Err(Error::BucketTooLong { len, max }) => assert_eq!((len, max), (256, 255)),
            other => panic!("{other:?}"),
        }
    }
    assert!(!untouched.exists() && !cask.exists("key").unwrap());
    assert_eq!(Cask::open_with(&path, &Config::new().bucket(&longest)).unwrap().get("key").unwrap().value, b"value");
}

#[test]
fn a_batch_with_too_many_operations_is_refused_before_writing() {
    let directory = TempDir::new();
    let cask = Cask::open(directory.join("store")).unwrap();
    let end = cask.stats().unwrap().log_end;
    let mut batch = Batch::new();
    for _ in 0..=MAX_BATCH_OPS {
        batch.delete("k");
    }
    match cask.write(&batch) {
        Err(Error::BatchTooLarge { what: "operations", len, max }) => {
            assert_eq!((len, max), (MAX_BATCH_OPS as u64 + 1, MAX_BATCH_OPS as u64));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(cask.write(&Batch::new()).unwrap().last_index(), None, "none at all are no mistake");
    assert_eq!(cask.stats().unwrap().log_end, end);
}

#[test]
fn the_empty_prefix_lists_all_keys() {
    let directory = TempDir::new();
    let cask = Cask::open(directory.join("store")).unwrap();
    assert_eq!(cask.list("").unwrap(), []);
    for key in [&b"a"[..], b"\0", b"\xff\xff", b"b"] {
        cask.put(key, "").unwrap();
    }
    cask.bucket("other").unwrap().put("elsewhere", "").unwrap();
    let keys: Vec<_> = cask.list("").unwrap().into_iter().map(|pair| pair.key).collect();
    assert_eq!(keys, [&b"\0"[..], b"a", b"b", b"\xff\xff"]);
    assert_eq!(cask.list("c").unwrap(), []);
}

// Handles whose time is over.

#[test]
fn every_call_after_close_is_refused() {
    let directory = TempDir::new();
    for (number, read_only) in [false, true].into_iter().enumerate() {
        let path = directory.join(format!("store-{number}"));
        store_with(&path, &[("key", "value")]);
        let cask = Cask::open_with(&path, &Config::new().read_only(read_only)).unwrap();
        let pair = cask.get("key").unwrap();
        // SAFETY: nothing but the library changes the file.
        let mapped = unsafe { cask.mapped() };
        let handles = [cask.clone(), cask.bucket("").unwrap(), cask.bucket("other").unwrap(), cask.clone()];
        handles[3].close().unwrap();
        let mut batch = Batch::new();
        batch.put("key", "");
        for handle in &handles {
            let store: &dyn caskfile::Store = handle;
            let results = [
                handle.put("key", "").map(drop),
                handle.get("key").map(drop),
                handle.get("absent").map(drop),
                handle.get_into("key", &mut Vec::new()).map(drop),
                handle.exists("key").map(drop),
                handle.list("").map(drop),
                handle.scan("").map(drop),
                handle.range::<&str>(..).map(drop),
                handle.visit("", |_| ControlFlow::Continue(())).map(drop),
                handle.atomic_put("key", "", None).map(drop),
                handle.atomic_put("key", "", Some(&pair)).map(drop),
                handle.atomic_delete("key", None).map(drop),
                handle.atomic_delete("key", Some(&pair)).map(drop),
                handle.delete("key").map(drop),
                handle.delete_prefix("").map(drop),
                handle.update("key", |_| Vec::new()).map(drop),
                handle.write(&batch).map(drop),
                handle.write(&Batch::new()).map(drop),
                handle.bucket("other").map(drop),
                handle.buckets().map(drop),
                handle.sync().map(drop),
                handle.compact().map(drop),
                handle.stats().map(drop),
                handle.verify().map(drop),
                mapped.get("key").map(drop),
                store.put(b"key", b"").map(drop),
                store.get(b"key").map(drop),
                store.exists(b"key").map(drop),
                store.list(b"").map(drop),
                store.atomic_put(b"key", b"", None).map(drop),
                store.atomic_delete(b"key", Some(&pair)).map(drop),
                store.delete(b"key").map(drop),
            ];
            for (call, result) in results.into_iter().enumerate() {
                assert!(matches!(result, Err(Error::Closed)), "call {call}: {result:?}");
            }
            handle.close().unwrap();
            store.close().unwrap();
        }
        assert_eq!(Cask::open(&path).unwrap().list("").unwrap(), [pair]);
    }
}
