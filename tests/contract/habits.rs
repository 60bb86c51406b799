//! What a map has too: how many keys there are, the keys alone, ranges that are deleted, batches from iterators. And stores
//! in pointers.

use std::ops::Bound;
use std::sync::Arc;

use caskfile::disk::sim::SimDisk;
use caskfile::{Batch, Cask, Config, Durability, Error, KvPair, Limits, Store};

fn store(disk: &SimDisk) -> Cask {
    Cask::open_on(Arc::new(disk.process()), "/store", &Config::new().durability(Durability::Os)).unwrap()
}

#[test]
fn each_bucket_knows_how_many_keys_it_has() {
    let disk = SimDisk::new();
    let (cask, other) = (store(&disk), store(&disk));
    let buckets = ["", "a", "b"].map(|name| cask.bucket(name).unwrap());
    let lens = |cask: &Cask| ["", "a", "b", "none"].map(|name| cask.bucket(name).unwrap().len().unwrap());
    let mut expected = [0; 4];
    for round in 0..30 {
        let at = round % 3;
        expected[at] += 1;
        buckets[at].put(format!("{round}"), "").unwrap();
        buckets[at].put(format!("{round}"), "again").unwrap();
        assert_eq!([lens(&cask), lens(&other)], [expected; 2]);
    }
    cask.compact().unwrap();
    assert_eq!([lens(&cask), lens(&other), lens(&store(&disk))], [expected; 3]);
    for (at, bucket) in buckets.iter().enumerate() {
        bucket.delete_prefix("1").unwrap();
        expected[at] = bucket.list("").unwrap().len() as u64;
        assert!(!bucket.is_empty().unwrap());
        assert_eq!([lens(&cask), lens(&other)], [expected; 2]);
        bucket.delete_prefix("").unwrap();
        expected[at] = 0;
        assert!(bucket.is_empty().unwrap());
        assert_eq!([lens(&cask), lens(&other)], [expected; 2]);
    }
}

#[test]
fn a_range_is_deleted_with_all_its_kinds_of_bounds() {
    type Ends = (Bound<&'static str>, Bound<&'static str>);
    use Bound::{Excluded, Included, Unbounded};
    const KEYS: [&str; 6] = ["a", "b", "b\0", "c", "d", "e"];
    let ranges: [(Ends, &[&str]); 7] = [
        ((Unbounded, Unbounded), &[]),
        ((Included("b"), Excluded("c")), &["a", "c", "d", "e"]),
        ((Excluded("b"), Included("c")), &["a", "b", "d", "e"]),
        ((Unbounded, Excluded("b")), &["b", "b\0", "c", "d", "e"]),
        ((Excluded("c"), Unbounded), &["a", "b", "b\0", "c"]),
        ((Included("d"), Excluded("b")), &KEYS),
        ((Included("x"), Unbounded), &KEYS),
    ];
    for limits in [Limits::REAL, Limits::SMALL] {
        for (range, left) in ranges {
            let disk = SimDisk::new();
            disk.set_limits(limits);
            let cask = store(&disk);
            let neighbour = cask.bucket("b").unwrap();
            for cask in [&cask, &neighbour] {
                cask.write(&KEYS.iter().map(|key| (key, "")).collect()).unwrap();
            }
            assert_eq!(cask.delete_range::<&str>(range).unwrap(), (KEYS.len() - left.len()) as u64, "{range:?}");
            let keys = |cask: &Cask| cask.keys("").unwrap().collect::<Result<Vec<_>, _>>().unwrap();
            assert_eq!(keys(&cask), left.iter().map(|key| key.as_bytes()).collect::<Vec<_>>(), "{range:?}");
            assert_eq!(keys(&neighbour).len(), KEYS.len());
        }
    }
}

/// A key whose bytes come from the store itself.
struct Asked(Cask, &'static str);

impl AsRef<[u8]> for Asked {
    fn as_ref(&self) -> &[u8] {
        self.0.put("asked", self.1).unwrap();
        self.1.as_bytes()
    }
}

#[test]
fn the_end_of_a_range_may_call_the_store() {
    let disk = SimDisk::new();
    let cask = store(&disk);
    let end = || Asked(cask.clone(), "b");
    cask.put("b", "").unwrap();
    assert_eq!(cask.range(end()..).unwrap().len(), 1);
    assert_eq!(cask.delete_range(end()..).unwrap(), 1);
    assert_eq!(cask.get("asked").unwrap().value, b"b");
}

#[test]
fn a_key_beside_a_damaged_value_is_damage_and_the_next_one_is_not() {
    // The longer one is read in pieces.
    for len in [5, 70_000] {
        for verify in [true, false] {
            let disk = SimDisk::new();
            let cask = store(&disk);
            let mut value = vec![b'v'; len];
            value[len - 1] = b'!';
            cask.put("a", "1").unwrap();
            cask.put("b", value).unwrap();
            cask.put("c", "1").unwrap();
            let bytes = disk.contents("/store").unwrap();
            let at = bytes.iter().position(|&byte| byte == b'!').unwrap();
            let config = Config::new().verify_on_read(verify);
            let reader = Cask::open_on(Arc::new(disk.process()), "/store", &config).unwrap();
            let keys = reader.keys("").unwrap();
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            disk.set_contents("/store", damaged);
            let found: Vec<_> = keys.map(|key| key.map_err(|error| matches!(error, Error::Corrupt { .. }))).collect();
            let middle = if verify { Err(true) } else { Ok(b"b".to_vec()) };
            assert_eq!(found, [Ok(b"a".to_vec()), middle, Ok(b"c".to_vec())], "{len} {verify}");
        }
    }
}

#[test]
fn a_batch_comes_from_pairs() {
    let disk = SimDisk::new();
    let cask = store(&disk);
    let mut batch: Batch = [("a", "1"), ("b", "2")].into_iter().collect();
    batch.bucket("other").extend([(b"c".to_vec(), vec![3])]);
    batch.handle_bucket().extend(std::iter::empty::<(&str, &str)>());
    assert_eq!(batch.len(), 3);
    let taken = batch.take();
    assert!(batch.is_empty());
    cask.write(batch.put("d", "in a batch that starts again")).unwrap();
    assert_eq!(cask.len().unwrap(), 1);
    cask.write(&taken).unwrap();
    assert_eq!([cask.len().unwrap(), cask.bucket("other").unwrap().len().unwrap()], [3, 1]);
    assert_eq!(cask.bucket("other").unwrap().get("c").unwrap().value, [3]);
}

/// Adds a prefix to all keys of a store that it owns.
struct Prefixed<S>(S);

impl<S> Prefixed<S> {
    fn key(key: &[u8]) -> Vec<u8> {
        [b"p/", key].concat()
    }
}

impl<S: Store> Store for Prefixed<S> {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.0.put(&Self::key(key), value)
    }
    fn get(&self, key: &[u8]) -> Result<KvPair, Error> {
        self.0.get(&Self::key(key))
    }
    fn exists(&self, key: &[u8]) -> Result<bool, Error> {
        self.0.exists(&Self::key(key))
    }
    fn list(&self, prefix: &[u8]) -> Result<Vec<KvPair>, Error> {
        self.0.list(&Self::key(prefix))
    }
    fn atomic_put(&self, key: &[u8], value: &[u8], previous: Option<&KvPair>) -> Result<KvPair, Error> {
        self.0.atomic_put(&Self::key(key), value, previous)
    }
    fn atomic_delete(&self, key: &[u8], previous: Option<&KvPair>) -> Result<(), Error> {
        self.0.atomic_delete(&Self::key(key), previous)
    }
    fn delete(&self, key: &[u8]) -> Result<(), Error> {
        self.0.delete(&Self::key(key))
    }
    fn close(&self) -> Result<(), Error> {
        self.0.close()
    }
}

#[test]
fn a_type_can_own_a_store_of_any_kind_and_a_handle_comes_out_again() {
    let disk = SimDisk::new();
    let cask = store(&disk);
    let shared: Arc<dyn Store> = Arc::new(cask.clone());
    let boxed: Box<dyn Store> = Box::new(Arc::clone(&shared));
    let owned: Arc<dyn Store> = Arc::new(Prefixed(Arc::clone(&shared)));
    owned.put(b"key", b"value").unwrap();
    assert_eq!(cask.get("p/key").unwrap().value, b"value");
    for store in [&*shared, &*boxed, &&&*shared, &cask] {
        let handle: Cask = store.downcast_ref::<Cask>().expect("it is one").clone();
        assert_eq!(handle.scan("p/").unwrap().len(), 1);
    }
    // It shows nothing of what it wraps: the keys would be others.
    assert!(owned.downcast_ref::<Cask>().is_none());
    assert!(owned.downcast_ref::<Prefixed<Arc<dyn Store>>>().is_none(), "it did not implement `as_any`");
    boxed.close().unwrap();
    assert!(matches!(owned.get(b"key"), Err(Error::Closed)));
}

#[test]
fn handles_and_what_they_return_can_be_sent_shared_and_used_after_a_panic() {
    use std::panic::{RefUnwindSafe, UnwindSafe, catch_unwind};
    fn check<T: Send + Sync + UnwindSafe + RefUnwindSafe>() {}
    check::<Cask>();
    check::<Batch>();
    check::<Config>();
    check::<caskfile::Applied>();
    check::<caskfile::Scan>();
    check::<caskfile::Keys>();
    check::<caskfile::BucketScans>();
    check::<caskfile::IndexScan>();
    check::<caskfile::Mapped>();
    check::<caskfile::Slice>();
    check::<KvPair>();
    check::<caskfile::Watch>();
    check::<caskfile::Stopper>();
    check::<caskfile::Held>();
    check::<caskfile::LockLoss>();
    check::<caskfile::LossSender>();
    check::<caskfile::WatchOptions>();
    check::<caskfile::Change>();
    // It borrows its watch mutably, and such a borrow is never `UnwindSafe`.
    fn check_shared<T: Send + Sync>() {}
    check_shared::<caskfile::Unit<'_>>();

    let disk = SimDisk::new();
    let cask = store(&disk);
    let panicked = catch_unwind(|| cask.update("key", |_| -> Vec<u8> { panic!("a caller's own") }));
    assert!(panicked.is_err());
    cask.put("key", "value").unwrap();
    assert_eq!(cask.get("key").unwrap().value, b"value");
}
