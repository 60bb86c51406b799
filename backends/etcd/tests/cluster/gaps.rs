//! Where a backend over a network goes wrong: what is cut off, goes back, expires, or is at a limit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use caskfile::{Change, Config, Error, Feed, KvPair, LockMode, LockOptions, PutOptions, Store, TreeEvent};
use caskfile_etcd::{EtcdConfig, EtcdError, EtcdStore, MAX_REQUEST_BYTES};
use etcd_client::{Client, Permission};

use crate::proxy::Proxy;
use crate::server::{Cluster, OnDrop, PATIENCE, block_on, shared};

fn next<T>(feed: &mut dyn Feed<T>) -> T {
    feed.next_timeout(Some(PATIENCE)).unwrap().expect("an item must come")
}

fn within(seconds: u64) -> Config {
    Config::new().connection_timeout(Duration::from_secs(seconds))
}

fn of(error: &Error) -> &EtcdError {
    EtcdError::of(error).unwrap_or_else(|| panic!("{error:?}"))
}

/// A store whose way to the cluster is a proxy, and one beside it with the same keys.
fn through_a_proxy(cluster: &Cluster, root: &str, seconds: u64) -> (Proxy, EtcdStore, EtcdStore) {
    let proxy = Proxy::to(cluster.endpoint(0));
    let store = EtcdConfig::new([proxy.endpoint()]).root(root).open(&within(seconds)).unwrap();
    (proxy, store, cluster.store(root))
}

#[test]
fn a_feed_that_was_cut_off_goes_on_where_it_was() {
    let (proxy, store, other) = through_a_proxy(shared(), "cut-off/", 10);
    let mut feed = store.watch_tree(b"").unwrap();
    assert_eq!(next(&mut *feed), TreeEvent::List(vec![]));
    other.put(b"1", b"").unwrap();
    assert_eq!(next(&mut *feed), TreeEvent::Changes(vec![Change::Put(other.get(b"1").unwrap())]));
    proxy.cut();
    let second = other.atomic_put(b"2", b"", None).unwrap();
    other.delete(b"1").unwrap();
    let third = other.atomic_put(b"3", b"", None).unwrap();
    assert_eq!(feed.next_timeout(Some(Duration::from_millis(300))).unwrap(), None);
    proxy.mend();
    assert_eq!(next(&mut *feed), TreeEvent::Changes(vec![Change::Put(second)]));
    match next(&mut *feed) {
        TreeEvent::Changes(changes) => assert!(matches!(&changes[..], [Change::Delete { key, .. }] if key == b"1")),
        other => panic!("{other:?}"),
    }
    assert_eq!(next(&mut *feed), TreeEvent::Changes(vec![Change::Put(third)]));
    assert_eq!(feed.try_next().unwrap(), None);
}

#[test]
fn a_feed_whose_history_was_compacted_while_it_was_cut_off_sends_the_state() {
    let cluster = Cluster::start(1, &[]);
    let (proxy, store, other) = through_a_proxy(&cluster, "compacted/", 10);
    let same = other.atomic_put(b"same", b"", None).unwrap();
    let mut tree = store.watch_tree(b"").unwrap();
    let mut keys = ["same", "changed", "absent"].map(|key| store.watch(key.as_bytes()).unwrap());
    next(&mut *tree);
    assert_eq!(keys.each_mut().map(|feed| next(&mut **feed)), [Some(same.clone()), None, None]);
    proxy.cut();
    other.put(b"changed", b"1").unwrap();
    other.put(b"changed", b"2").unwrap();
    other.put(b"gone", b"").unwrap();
    other.delete(b"gone").unwrap();
    cluster.compact();
    proxy.mend();
    let changed = other.get(b"changed").unwrap();
    assert_eq!(next(&mut *tree), TreeEvent::List(vec![changed.clone(), same]));
    assert_eq!(next(&mut *keys[1]), Some(changed.clone()));
    // They have missed nothing.
    assert_eq!(keys.each_mut().map(|feed| feed.try_next().unwrap()), [None, None, None]);

    other.delete(b"changed").unwrap();
    assert_eq!(next(&mut *keys[1]), None);
    match next(&mut *tree) {
        TreeEvent::Changes(changes) => assert!(matches!(&changes[..], [Change::Delete { .. }])),
        other => panic!("{other:?}"),
    }
}

#[test]
fn try_next_has_everything_that_the_handle_has_seen() {
    let store = shared().store("seen/");
    let mut tree = store.watch_tree(b"t/").unwrap();
    let mut key = store.watch(b"t/1").unwrap();
    assert_eq!(tree.try_next().unwrap(), Some(TreeEvent::List(vec![])));
    assert_eq!(key.try_next().unwrap(), Some(None));
    for round in 0..200_u32 {
        // What the range is not about makes the feed ask too.
        store.put(b"elsewhere", b"").unwrap();
        assert_eq!(tree.try_next().unwrap(), None);
        let pair = store.put_with(b"t/1", &round.to_le_bytes(), &PutOptions::new()).unwrap();
        assert_eq!(tree.try_next().unwrap(), Some(TreeEvent::Changes(vec![Change::Put(pair.clone())])));
        assert_eq!(key.try_next().unwrap(), Some(Some(pair.clone())));
        store.atomic_delete(b"t/1", Some(&pair)).unwrap();
        assert!(matches!(tree.try_next().unwrap(), Some(TreeEvent::Changes(changes)) if changes[0].value().is_none()));
        assert_eq!(key.try_next().unwrap(), Some(None));
        assert_eq!((tree.try_next().unwrap(), key.try_next().unwrap()), (None, None));
    }
}

#[test]
fn a_feed_has_a_descriptor_for_event_loops() {
    use std::os::fd::AsRawFd;
    let store = shared().store("descriptor/");
    let mut feed = store.watch(b"key").unwrap();
    let descriptor = feed.descriptor().unwrap().as_raw_fd();
    let is_readable = |wait: i32| {
        let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure, of which the system sets a field.
        (unsafe { libc::poll(&mut poll, 1, wait) }) == 1
    };
    assert!(is_readable(0), "before the first item was taken");
    assert_eq!(feed.try_next().unwrap(), Some(None));
    assert_eq!(feed.try_next().unwrap(), None);
    assert!(!is_readable(50), "nothing has changed");
    for value in [b"1", b"2"] {
        store.put(b"key", value).unwrap();
        assert!(is_readable(60_000));
        assert_eq!(feed.try_next().unwrap().unwrap().unwrap().value, value);
        assert_eq!(feed.try_next().unwrap(), None);
    }
    feed.stopper().stop();
    assert!(is_readable(60_000));
    assert!(matches!(feed.try_next(), Err(Error::Stopped)));
}

#[test]
fn a_write_without_an_answer_is_indeterminate_and_is_not_repeated() {
    let (proxy, store, other) = through_a_proxy(shared(), "no-answer/", 2);
    type Make<'a> = &'a dyn Fn(&EtcdStore) -> caskfile::Result<()>;
    let calls: [(&str, Make<'_>); 5] = [
        ("put", &|store| store.put(b"put", b"value")),
        ("atomic_put", &|store| store.atomic_put(b"atomic_put", b"value", None).map(drop)),
        ("delete", &|store| store.delete(b"deleted")),
        ("delete_tree", &|store| store.delete_tree(b"tree/").map(drop)),
        ("put_with", &|store| store.put_with(b"put_with", b"value", &PutOptions::new()).map(drop)),
    ];
    for key in [&b"deleted"[..], b"tree/1", b"tree/2"] {
        other.put(key, b"").unwrap();
    }
    for (call, make) in calls {
        assert!(matches!(store.get(b"connects again"), Err(Error::KeyNotFound)));
        proxy.swallow_answers();
        let error = make(&store).unwrap_err();
        assert!(matches!(&error, Error::Indeterminate { call: said, .. } if *said == call), "{call}: {error:?}");
        assert!(matches!(of(&error), EtcdError::NoAnswer { .. }), "{error:?}");
        proxy.mend();
    }
    // All of them have happened, once.
    let keys: Vec<Vec<u8>> = other.list(b"").unwrap().into_iter().map(|pair| pair.key).collect();
    assert_eq!(keys, [&b"atomic_put"[..], b"put", b"put_with"]);
    for key in keys {
        let full = [b"no-answer/\0", &key[..]].concat();
        let versions = block_on(async {
            let mut client = Client::connect(shared().endpoints(), None).await.unwrap();
            client.get(full, None).await.unwrap().kvs()[0].version()
        });
        assert_eq!(versions, 1, "{}", key.escape_ascii());
    }
    // A read is repeated, and fails if nothing answers.
    proxy.swallow_answers();
    let error = store.get(b"put").unwrap_err();
    assert!(matches!(of(&error), EtcdError::Unavailable { .. }) && !error.is_indeterminate(), "{error:?}");
}

#[test]
fn a_write_without_a_connection_has_not_happened_and_goes_to_another_member() {
    let (proxy, store, other) = through_a_proxy(shared(), "no-connection/", 1);
    store.put(b"key", b"1").unwrap();
    proxy.cut();
    // The connection that was there breaks off in the first call.
    let _ = store.get(b"key");
    let error = store.put(b"key", b"2").unwrap_err();
    assert!(matches!(of(&error), EtcdError::Unavailable { .. }), "{error:?}");
    assert!(!error.is_indeterminate());
    assert_eq!(other.get(b"key").unwrap().value, b"1");

    let config = EtcdConfig::new([proxy.endpoint(), "127.0.0.1:1".to_owned(), shared().endpoint(1)]);
    let store = config.root("no-connection/").open(&within(10)).unwrap();
    store.put(b"key", b"3").unwrap();
    assert_eq!(other.get(b"key").unwrap().value, b"3");
}

#[test]
fn members_without_a_majority_answer_nothing() {
    let cluster = Cluster::start(3, &[]);
    let store = cluster.config().open(&within(3)).unwrap();
    let mut feed = store.watch(b"key").unwrap();
    assert_eq!(next(&mut *feed), None);
    store.put(b"key", b"1").unwrap();
    cluster.kill(0);
    cluster.kill(1);
    let began = Instant::now();
    for _ in 0..3 {
        let error = store.get(b"key").unwrap_err();
        assert!(matches!(of(&error), EtcdError::Unavailable { .. }), "{error:?}");
        // Before the last member knows that it is alone, it takes the write and never answers.
        let error = store.put(b"key", b"2").unwrap_err();
        assert!(matches!(of(&error), EtcdError::Unavailable { .. }) || error.is_indeterminate(), "{error:?}");
    }
    assert!(began.elapsed() < PATIENCE);
    cluster.start_member(0);
    cluster.await_answers();
    store.put(b"key", b"3").unwrap();
    assert_eq!(next(&mut *feed).unwrap().value, b"1");
    // The undecided writes may be there, and nothing comes twice.
    let mut last = 0;
    loop {
        let pair = next(&mut *feed).unwrap();
        assert!(pair.last_index > last);
        last = pair.last_index;
        if pair.value == b"3" {
            break;
        }
        assert_eq!(pair.value, b"2");
    }
}

#[test]
fn events_on_their_way_are_not_lost_when_their_stream_breaks() {
    // The feed's stream is at the first member. What is read goes to the second one while the first is silent.
    let proxy = Proxy::to(shared().endpoint(0));
    let config = EtcdConfig::new([proxy.endpoint(), shared().endpoint(1)]).root("on their way/");
    let (store, other) = (config.open(&within(2)).unwrap(), shared().store("on their way/"));
    let mut feed = store.watch_tree(b"").unwrap();
    assert_eq!(feed.try_next().unwrap(), Some(TreeEvent::List(vec![])));
    proxy.swallow_answers();
    let pair = other.atomic_put(b"key", b"", None).unwrap();
    other.delete(b"key").unwrap();
    assert!(matches!(store.get(b"key"), Err(Error::KeyNotFound)));
    // As the top of feed.rs says: the range is as the feed knows it.
    assert_eq!(feed.try_next().unwrap(), None);
    proxy.mend();
    assert_eq!(next(&mut *feed), TreeEvent::Changes(vec![Change::Put(pair)]));
    match next(&mut *feed) {
        TreeEvent::Changes(changes) => assert!(matches!(&changes[..], [Change::Delete { .. }])),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cluster_that_has_forgotten_what_a_feed_has_seen_is_refused() {
    let cluster = Cluster::start(1, &[]);
    let store = cluster.config().open(&within(10)).unwrap();
    let mut feed = store.watch(b"key").unwrap();
    assert_eq!(next(&mut *feed), None);
    // Only the feed knows of these.
    let other = cluster.config().open(&within(10)).unwrap();
    for round in 0..20_u8 {
        other.put(b"key", &[round]).unwrap();
        assert_eq!(next(&mut *feed).unwrap().value, [round]);
    }
    cluster.begin_again(false);
    let began = Instant::now();
    let ended = loop {
        match feed.next_timeout(Some(Duration::from_secs(1))) {
            Ok(_) => assert!(began.elapsed() < PATIENCE, "the feed must end"),
            Err(error) => break error,
        }
    };
    assert!(matches!(of(&ended), EtcdError::RevisionBack { .. }), "{ended:?}");
    assert!(matches!(of(&store.get(b"key").unwrap_err()), EtcdError::RevisionBack { .. }));
}

#[test]
fn a_cluster_that_has_forgotten_is_refused() {
    for other_id in [false, true] {
        let cluster = Cluster::start(1, &[]);
        let store = cluster.config().open(&within(10)).unwrap();
        let mut feed = store.watch(b"key").unwrap();
        for _ in 0..20 {
            store.put(b"key", b"1").unwrap();
        }
        let pair = store.get(b"key").unwrap();
        cluster.begin_again(other_id);
        let error = store.get(b"key").unwrap_err();
        match of(&error) {
            EtcdError::RevisionBack { seen, found } => {
                assert!(!other_id && *seen >= pair.last_index && found < seen, "{error:?}")
            }
            EtcdError::OtherCluster { seen, found } => assert!(other_id && seen != found, "{error:?}"),
            _ => panic!("{error:?}"),
        }
        // Nothing is written from then on.
        let error = store.put(b"other", b"").unwrap_err();
        assert!(!error.is_indeterminate(), "{error:?}");
        let began = Instant::now();
        let ended = loop {
            match feed.next_timeout(Some(Duration::from_secs(1))) {
                Ok(_) => assert!(began.elapsed() < PATIENCE, "the feed must end"),
                Err(error) => break error,
            }
        };
        assert!(matches!(of(&ended), EtcdError::RevisionBack { .. } | EtcdError::OtherCluster { .. }), "{ended:?}");
        let again = cluster.config().open(&within(10)).unwrap();
        assert_eq!(again.list(b"").unwrap(), []);
    }
}

#[test]
fn a_write_into_a_cluster_that_has_forgotten_is_indeterminate() {
    let cluster = Cluster::start(1, &[]);
    let store = cluster.config().open(&within(10)).unwrap();
    for _ in 0..20 {
        store.put(b"key", b"1").unwrap();
    }
    cluster.begin_again(false);
    // The connection of before may break off in the first call.
    let error = (0..2).find_map(|_| {
        let error = store.put(b"key", b"2").unwrap_err();
        matches!(EtcdError::of(&error), Some(EtcdError::RevisionBack { .. })).then_some(error)
    });
    assert!(error.as_ref().is_some_and(Error::is_indeterminate), "{error:?}");
    assert!(!store.put(b"key", b"3").unwrap_err().is_indeterminate());
}

#[test]
fn tokens_that_expire_are_renewed() {
    let cluster = Cluster::start(1, &["--auth-token-ttl", "1"]);
    block_on(async {
        let mut client = Client::connect(cluster.endpoints(), None).await.unwrap();
        client.user_add("root", "secret", None).await.unwrap();
        client.role_add("root").await.unwrap();
        client.user_grant_role("root", "root").await.unwrap();
        client.user_add("app", "password", None).await.unwrap();
        client.role_add("app").await.unwrap();
        let own = Permission::read_write("caskfile/").with_prefix();
        client.role_grant_permission("app", own).await.unwrap();
        client.user_grant_role("app", "app").await.unwrap();
        client.auth_enable().await.unwrap();
    });
    let store = cluster.config().user("app", "password").open(&within(10)).unwrap();
    let mut feed = store.watch(b"key").unwrap();
    assert_eq!(next(&mut *feed), None);
    let lock = store.new_lock(b"lock", &LockOptions::new().ttl(Duration::from_secs(2))).unwrap();
    let held = lock.lock(None).unwrap();
    for round in 0..3_u8 {
        std::thread::sleep(Duration::from_millis(1_700));
        let mut late = store.watch(b"late").unwrap();
        store.put(b"key", &[round]).unwrap();
        assert_eq!(next(&mut *feed).unwrap().value, [round]);
        // This one has opened its stream with a token that had expired.
        assert!(next(&mut *late).is_none_or(|pair| pair.value == [round - 1]));
        store.put(b"late", &[round]).unwrap();
        assert_eq!(next(&mut *late).unwrap().value, [round]);
    }
    assert!(held.is_held());
    lock.unlock().unwrap();

    // A member that is started again knows no tokens. The feed opens its stream by itself, with the one that it has.
    cluster.kill(0);
    cluster.start_member(0);
    let app = cluster.config().user("app", "password");
    let began = Instant::now();
    let other = loop {
        match app.open(&within(2)) {
            Ok(store) => break store,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error:#}"),
        }
    };
    other.put(b"key", b"after").unwrap();
    assert_eq!(next(&mut *feed).unwrap().value, b"after");

    for config in [
        cluster.config(),
        cluster.config().user("app", "wrong"),
        cluster.config().user("app", "password").root("other/"),
    ] {
        let error = config.open(&within(2)).unwrap_err();
        assert!(matches!(of(&error), EtcdError::Refused { .. }), "{config:?}: {error:?}");
    }
}

#[test]
fn the_largest_request_is_sent_and_a_byte_more_is_not() {
    let store = shared().store("limits/");
    let longest = vec![b'k'; caskfile::max_key_len(0)];
    for key in [&b"k"[..], &longest] {
        let max = match store.put(key, &vec![0; MAX_REQUEST_BYTES]) {
            Err(Error::ValueTooLong { max, .. }) => max,
            other => panic!("{other:?}"),
        };
        let (fits, too_long) = (vec![7; max], vec![7; max + 1]);
        store.put(key, &fits).unwrap();
        let pair = store.get(key).unwrap();
        assert!(pair.value == fits);
        let pair = store.atomic_put(key, &fits, Some(&pair)).unwrap();
        store.put_with(key, &fits, &PutOptions::new().ttl(Duration::from_secs(60))).unwrap();
        let refused = |result: caskfile::Result<()>| {
            assert!(matches!(result, Err(Error::ValueTooLong { len, max: said }) if len == max + 1 && said == max));
        };
        refused(store.put(key, &too_long));
        refused(store.atomic_put(key, &too_long, Some(&pair)).map(drop));
        refused(store.put_with(key, &too_long, &PutOptions::new()).map(drop));
        refused(store.new_lock(key, &LockOptions::new().value(too_long)).map(drop));
        store.delete(key).unwrap();
        let lock = store.new_lock(key, &LockOptions::new().value(fits)).unwrap();
        assert!(lock.try_lock().unwrap().is_some());
    }
}

#[test]
fn lists_of_any_size_are_of_one_revision() {
    let cluster = Cluster::start(1, &[]);
    let store = cluster.store("lists/");
    let large = vec![b'x'; 1 << 20];
    for number in 0..10_u8 {
        store.put(&[b'l', number], &large).unwrap();
    }
    // More than an answer may have, so the pages are halved.
    let listed = store.list(b"l").unwrap();
    assert!(listed.len() == 10 && listed.iter().all(|pair| pair.value == large));
    assert_eq!(store.delete_tree(b"l").unwrap(), 10);

    let keys: Vec<Vec<u8>> = (0..3_500).map(|number| format!("k{number:05}").into_bytes()).collect();
    std::thread::scope(|scope| {
        for keys in keys.chunks(500) {
            let store = &store;
            scope.spawn(move || keys.iter().for_each(|key| store.put(key, b"").unwrap()));
        }
    });
    // Beside a writer that counts in the first key and then in the last one, and compactions, which take a list its revision.
    let count = |pair: &KvPair| u64::from_le_bytes(pair.value[..].try_into().unwrap());
    for key in [&keys[0], &keys[keys.len() - 1]] {
        store.put(key, &0_u64.to_le_bytes()).unwrap();
    }
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1_u64.. {
                for key in [&keys[0], &keys[keys.len() - 1]] {
                    store.put(key, &round.to_le_bytes()).unwrap();
                }
                if ended.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        let _end = OnDrop(|| ended.store(true, Ordering::SeqCst));
        let (began, mut lists, mut last) = (Instant::now(), 0, 0);
        while lists < 20 || began.elapsed() < Duration::from_secs(2) {
            // Fewer than the times that a list begins again.
            let listed = std::thread::scope(|scope| {
                scope.spawn(|| (0..10).for_each(|_| cluster.compact()));
                store.list(b"k0").unwrap()
            });
            assert!(listed.iter().map(|pair| &pair.key).eq(&keys));
            let counts = [count(&listed[0]), count(&listed[keys.len() - 1])];
            assert!(
                counts[1] <= counts[0] && counts[0] <= counts[1] + 1,
                "a list must be of one moment, not {counts:?}"
            );
            assert!(counts[0] >= last, "a later list must not be of an earlier moment");
            (lists, last) = (lists + 1, counts[0]);
        }
        assert!(last > 8, "nothing was written meanwhile");
    });
}

#[test]
fn keys_and_buckets_of_extreme_bytes_stay_apart() {
    let root = "extreme/";
    let open = |root: &str, bucket: &[u8]| shared().config().root(root).open(&Config::new().bucket(bucket)).unwrap();
    let highest = [0xff; 255];
    let stores = [
        open(root, b""),
        open(root, &highest),
        open(root, &highest[1..]),
        open(root, b"\0"),
        open("extreme0", b""),
        open("extreme.", b""),
        open("a root", &highest),
    ];
    let keys = [&b"\0"[..], b"\0\0", b"a", b"\xff", b"\xff\xff", &highest];
    for (number, store) in stores.iter().enumerate() {
        for key in keys {
            store.put(key, &[number as u8]).unwrap();
        }
    }
    for (number, store) in stores.iter().enumerate() {
        let listed: Vec<KvPair> = store.list(b"").unwrap();
        assert!(listed.iter().map(|pair| &pair.key[..]).eq(keys));
        assert!(listed.iter().all(|pair| pair.value == [number as u8]));
        for prefix in [&b"\0"[..], b"\xff", b"\xff\xff", &highest] {
            let found = store.list(prefix).unwrap().len();
            assert_eq!(found, keys.iter().filter(|key| key.starts_with(prefix)).count());
        }
    }
    for (number, store) in stores.iter().enumerate() {
        assert_eq!(store.delete_tree(b"\xff\xff").unwrap(), 2);
        assert_eq!(store.delete_tree(b"").unwrap(), 4);
        for other in &stores[number + 1..] {
            assert_eq!(other.list(b"").unwrap().len(), keys.len(), "it takes the keys of no other store");
        }
    }
}

#[test]
fn settings_that_mean_something_here_are_kept_and_the_others_refused() {
    let config = shared().config().root("settings/");
    let exclusive = config.open(&Config::new().lock_mode(LockMode::Exclusive));
    assert!(matches!(exclusive, Err(Error::CallNotSupported { .. })));
    assert!(matches!(config.open(&Config::new().bucket([0; 256])), Err(Error::BucketTooLong { .. })));
    for wrong in [EtcdConfig::new(Vec::<String>::new()), EtcdConfig::new([""]), config.clone().root("")] {
        assert!(matches!(of(&wrong.open(&Config::new()).unwrap_err()), EtcdError::Config { .. }));
    }

    let store = config.open(&Config::new()).unwrap();
    store.put(b"key", b"value").unwrap();
    let reader = config.open(&Config::new().read_only(true)).unwrap();
    let pair = reader.get(b"key").unwrap();
    for result in [
        reader.put(b"key", b""),
        reader.delete(b"key"),
        reader.delete_tree(b"").map(drop),
        reader.atomic_put(b"key", b"", None).map(drop),
        reader.atomic_delete(b"key", Some(&pair)),
        reader.put_with(b"key", b"", &PutOptions::new()).map(drop),
        reader.new_lock(b"key", &LockOptions::new()).map(drop),
    ] {
        assert!(matches!(result, Err(Error::ReadOnly { .. })), "{result:?}");
    }
    assert_eq!(next(&mut *reader.watch(b"key").unwrap()), Some(pair));

    config.register("etcd of a test").unwrap();
    let by_name = caskfile::new_store("etcd of a test", "", &Config::new()).unwrap();
    assert!(by_name.exists(b"key").unwrap());
    let by_address = caskfile::new_store("etcd of a test", shared().endpoints().join(", "), &Config::new()).unwrap();
    assert!(by_address.exists(b"key").unwrap());
}

#[test]
fn times_to_live_are_whole_seconds_and_never_too_short() {
    let store = shared().store("times/");
    let began = Instant::now();
    let short = PutOptions::new().ttl(Duration::from_millis(1_200));
    store.put_with(b"short", b"", &short).unwrap();
    let past = PutOptions::new().expires_at(std::time::UNIX_EPOCH);
    store.put_with(b"past", b"", &past).unwrap();
    for stays in [Duration::MAX, Duration::from_secs(9_000_000_001)] {
        store.put_with(b"stays", b"", &PutOptions::new().ttl(stays)).unwrap();
    }
    let mut feed = store.watch(b"short").unwrap();
    assert!(next(&mut *feed).is_some());
    assert_eq!(next(&mut *feed), None, "its end is a delete");
    assert!(began.elapsed() >= Duration::from_millis(1_200));
    while store.exists(b"past").unwrap() {
        assert!(began.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(store.exists(b"stays").unwrap());
}
