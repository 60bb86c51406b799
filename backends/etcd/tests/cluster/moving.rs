//! From a file into a cluster, and back.

use std::collections::BTreeMap;
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
