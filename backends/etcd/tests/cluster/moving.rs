//! From a file into a cluster, and back.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use caskfile::{Cask, LockOptions, PutOptions, Store};
use caskfile_etcd::{Present, copy};

use crate::server::shared;

fn values(store: &dyn Store) -> BTreeMap<Vec<u8>, Vec<u8>> {
    store.list(b"").unwrap().into_iter().map(|pair| (pair.key, pair.value)).collect()
}

#[test]
fn a_store_moves_into_a_cluster_and_back() {
    let directory = std::env::temp_dir().join(format!("caskfile-etcd-moving-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (first, second) = (Cask::open(directory.join("1")).unwrap(), Cask::open(directory.join("2")).unwrap());
    let etcd = shared().store("moving/");
    for number in 0..300_u32 {
        first.put(format!("key {number}"), number.to_le_bytes()).unwrap();
    }
    first.put([0xff; 200], [0; 100_000]).unwrap();
    let lasting = values(&first);
    first.put_with("short", "", &PutOptions::new().ttl(Duration::from_secs(600))).unwrap();
    let lock = first.lock("lock", &LockOptions::new()).unwrap();
    lock.lock(None).unwrap();

    let copied = copy(&first, &etcd, b"", Present::Keep).unwrap();
    assert_eq!((copied.written, copied.same, copied.kept, copied.left_out), (301, 0, 0, 2));
    assert_eq!(values(&etcd), lasting);
    let copied = copy(&first, &etcd, b"", Present::Keep).unwrap();
    assert_eq!((copied.written, copied.same, copied.kept, copied.left_out), (0, 301, 0, 2));

    // What the target has is kept, or replaced.
    etcd.put(b"key 7", b"other").unwrap();
    assert_eq!(copy(&first, &etcd, b"key", Present::Keep).unwrap().kept, 1);
    assert_eq!(etcd.get(b"key 7").unwrap().value, b"other");
    let copied = copy(&first, &etcd, b"key", Present::Replace).unwrap();
    assert_eq!((copied.written, copied.same), (1, 299));

    etcd.put_with(b"short", b"", &PutOptions::new().ttl(Duration::from_secs(600))).unwrap();
    let copied = copy(&etcd, &second, b"", Present::Keep).unwrap();
    assert_eq!((copied.written, copied.left_out), (301, 1));
    assert_eq!(values(&second), lasting);
    drop((lock, first, second));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn the_command_moves_a_store_and_says_what_it_has_kept() {
    let directory = std::env::temp_dir().join(format!("caskfile-etcd-command-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let (file, back) = (path("file"), path("back"));
    let cask = Cask::open(&file).unwrap();
    cask.put("a", "1").unwrap();
    cask.put("b", "2").unwrap();
    let address = format!("etcd:{}", shared().endpoints().join(","));
    let copy = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_caskfile-etcd"));
        let output = command.args(["copy", "--root", "command/"]).args(words).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), text)
    };

    let (code, text) = copy(&[&file, &address]);
    assert!(code == 0 && text.starts_with("2 written, 0 were there"), "{code}: {text}");
    let etcd = shared().store("command/");
    etcd.put(b"a", b"other").unwrap();
    let (code, text) = copy(&[&file, &address]);
    assert!(code == 1 && text.contains("1 kept with another value"), "{code}: {text}");
    let (code, text) = copy(&["--replace", "--prefix", "a", &file, &address]);
    assert!(code == 0 && text.starts_with("1 written"), "{code}: {text}");
    let (code, text) = copy(&[&address, &back]);
    assert!(code == 0 && text.starts_with("2 written"), "{code}: {text}");
    assert_eq!(values(&Cask::open(&back).unwrap()), values(&cask));

    let none = path("none");
    let cases: [(&[&str], i32); 5] = [
        (&[&none, &address], 3),
        (&[&file, "etcd:127.0.0.1:1", "--timeout", "1"], 3),
        (&[&file], 2),
        (&["--none", &file, &address], 2),
        (&[&file, &address, "--timeout"], 2),
    ];
    for (words, expected) in cases {
        let (code, text) = copy(words);
        assert_eq!(code, expected, "{words:?}: {text}");
    }
    assert!(!directory.join("none").exists());
    drop(cask);
    std::fs::remove_dir_all(directory).unwrap();
}
