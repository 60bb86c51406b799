//! Locks beside members that die, connections that break off, and other writers.

use std::time::{Duration, Instant};

use caskfile::{Config, Error, LockOptions, PutOptions, Store};
use caskfile_etcd::EtcdConfig;

use crate::proxy::Proxy;
use crate::server::{Cluster, PATIENCE, shared};

fn of_two_seconds() -> LockOptions {
    LockOptions::new().ttl(Duration::from_millis(1_001))
}

#[test]
fn a_holder_without_a_connection_loses_the_lock_before_another_gets_it() {
    let proxy = Proxy::to(shared().endpoint(0));
    let store = EtcdConfig::new([proxy.endpoint()]).root("lost/").open(&Config::new()).unwrap();
    let other = shared().store("lost/");
    let lock = store.new_lock(b"lock", &of_two_seconds().value("one")).unwrap();
    let held = lock.lock(None).unwrap();
    // It is renewed for longer than its time.
    assert!(!held.loss().wait(Some(Duration::from_millis(4_500))));
    let waiting = other.new_lock(b"lock", &of_two_seconds().value("other")).unwrap();
    assert!(waiting.try_lock().unwrap().is_none());
    proxy.cut();
    let lost_at = std::thread::scope(|scope| {
        let lost = scope.spawn(|| {
            assert!(held.loss().wait(Some(PATIENCE)));
            Instant::now()
        });
        let next = waiting.lock(Some(PATIENCE)).unwrap();
        let taken_at = Instant::now();
        assert!(!held.is_held() && next.is_held() && next.token() > held.token());
        let lost_at = lost.join().unwrap();
        assert!(lost_at <= taken_at, "the first holder must know of its loss before");
        lost_at
    });
    assert!(lost_at.elapsed() < PATIENCE);
    assert_eq!(other.get(b"lock").unwrap().value, b"other");
    assert!(matches!(lock.unlock(), Err(Error::NotHeld)));
    proxy.mend();
    // What the first one does now does not touch the lock of the second one.
    drop(lock);
    drop(store);
    assert!(waiting.unlock().is_ok());
}

#[test]
fn a_lock_outlives_the_leader_of_the_cluster() {
    let cluster = Cluster::start(3, &[]);
    let store = cluster.store("leader/");
    let lock = store.new_lock(b"lock", &LockOptions::new().ttl(Duration::from_secs(15))).unwrap();
    let held = lock.lock(None).unwrap();
    for _ in 0..2 {
        let leader = cluster.leader();
        cluster.kill(leader);
        assert!(!held.loss().wait(Some(Duration::from_secs(3))));
        cluster.start_member(leader);
        cluster.await_answers();
    }
    assert!(held.is_held());
    lock.unlock().unwrap();
    assert!(!store.exists(b"lock").unwrap());
}

#[test]
fn a_write_of_the_key_takes_the_lock_away() {
    let store = shared().store("taken/");
    let takes: [(&str, &dyn Fn()); 4] = [
        ("put", &|| store.put(b"lock", b"mine").unwrap()),
        ("delete", &|| store.delete(b"lock").unwrap()),
        ("delete_tree", &|| assert_eq!(store.delete_tree(b"lo").unwrap(), 1)),
        ("put_with", &|| drop(store.put_with(b"lock", b"", &PutOptions::new()).unwrap())),
    ];
    let lock = store.new_lock(b"lock", &LockOptions::new()).unwrap();
    let mut token = 0;
    for (call, take) in takes {
        let held = lock.lock(Some(PATIENCE)).unwrap();
        assert!(held.token() > token);
        token = held.token();
        take();
        assert!(held.loss().wait(Some(PATIENCE)), "{call}");
        assert!(matches!(lock.unlock(), Err(Error::NotHeld)), "{call}");
    }
    assert!(store.exists(b"lock").unwrap(), "what took the lock stays");
}

#[test]
fn a_released_lock_leaves_its_pair_if_it_is_to() {
    let store = shared().store("stays/");
    let options = LockOptions::new().value("node-1").delete_on_unlock(false).ttl(Duration::from_secs(2));
    let lock = store.new_lock(b"lock", &options).unwrap();
    for _ in 0..2 {
        let held = lock.lock(None).unwrap();
        lock.unlock().unwrap();
        assert!(!held.is_held());
        let pair = store.get(b"lock").unwrap();
        assert!(pair.value == b"node-1" && pair.last_index > held.token());
    }
    std::thread::sleep(Duration::from_secs(5));
    assert!(store.exists(b"lock").unwrap(), "it is a plain pair, without a lease");
}

#[test]
fn one_of_many_holds_a_lock_at_a_time() {
    const THREADS: usize = 4;
    let counter = shared().store("many/");
    counter.put(b"count", &0_u64.to_le_bytes()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let store = shared().store("many/");
                let lock = store.new_lock(b"lock", &LockOptions::new()).unwrap();
                for _ in 0..10 {
                    lock.lock(Some(PATIENCE)).unwrap();
                    // A plain read and a plain write: only the lock keeps others out.
                    let count = u64::from_le_bytes(store.get(b"count").unwrap().value[..].try_into().unwrap());
                    store.put(b"count", &(count + 1).to_le_bytes()).unwrap();
                    lock.unlock().unwrap();
                }
            });
        }
    });
    assert_eq!(counter.get(b"count").unwrap().value, (10 * THREADS as u64).to_le_bytes());
}

#[test]
fn a_wait_for_no_time_tries_once() {
    let store = shared().store("once/");
    let (one, other) =
        (store.new_lock(b"lock", &LockOptions::new()).unwrap(), store.new_lock(b"lock", &LockOptions::new()).unwrap());
    one.lock(Some(Duration::ZERO)).unwrap();
    assert!(matches!(other.lock(Some(Duration::ZERO)), Err(Error::TimedOut { .. })));
    assert!(matches!(one.lock(None), Err(Error::AlreadyHeld)));
    one.unlock().unwrap();
    other.lock(Some(Duration::ZERO)).unwrap();
}

#[test]
fn the_time_of_a_wait_is_that_of_its_first_try_too() {
    let proxy = Proxy::to(shared().endpoint(0));
    let config = Config::new().connection_timeout(Duration::from_secs(5));
    let store = EtcdConfig::new([proxy.endpoint()]).root("first try/").open(&config).unwrap();
    let lock = store.new_lock(b"lock", &LockOptions::new()).unwrap();
    proxy.swallow_answers();
    assert!(matches!(lock.lock(Some(Duration::from_millis(200))), Err(Error::TimedOut { .. })));
    proxy.mend();
    lock.lock(Some(PATIENCE)).unwrap();
}

#[test]
fn a_pair_that_is_to_stay_is_there_after_an_unlock_that_says_it_has_not_happened() {
    let proxy = Proxy::to(shared().endpoint(0));
    let config = Config::new().connection_timeout(Duration::from_secs(1));
    let store = EtcdConfig::new([proxy.endpoint()]).root("not done/").open(&config).unwrap();
    let options = LockOptions::new().delete_on_unlock(false).ttl(Duration::from_secs(600));
    let lock = store.new_lock(b"lock", &options).unwrap();
    lock.lock(None).unwrap();
    proxy.cut();
    // The connection that was there breaks off in the first call.
    store.get(b"lock").unwrap_err();
    std::thread::scope(|scope| {
        // After the time of the call: whatever it still sends gets through.
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(1_200));
            proxy.mend();
        });
        let error = lock.unlock().unwrap_err();
        assert!(!matches!(error, Error::NotHeld) && !error.is_indeterminate(), "{error:?}");
    });
    assert!(shared().store("not done/").exists(b"lock").unwrap());
}

#[test]
fn an_unlock_whose_lease_was_ended_has_happened() {
    let proxy = Proxy::to(shared().endpoint(0));
    let config = Config::new().connection_timeout(Duration::from_secs(20));
    // The second member takes the end of the lease.
    let endpoints = [proxy.endpoint(), shared().endpoint(1)];
    let store = EtcdConfig::new(endpoints).root("ended/").open(&config).unwrap();
    let lock = store.new_lock(b"lock", &LockOptions::new().ttl(Duration::from_secs(600))).unwrap();
    lock.lock(None).unwrap();
    proxy.swallow_answers();
    std::thread::scope(|scope| {
        // The connection of the transaction breaks off, so its outcome is not known.
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(500));
            proxy.cut();
        });
        lock.unlock().unwrap();
    });
    assert!(!shared().store("ended/").exists(b"lock").unwrap());
}
