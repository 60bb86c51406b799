//! Sessions and locks, call by call, on a clock that the test moves. `tests/crash/locks.rs` has the random lives.

use std::sync::Arc;
use std::time::Duration;

use caskfile::disk::sim::{Choices, Fault, Repeat, SimDisk, Verb, When};
use caskfile::disk::{Clock, Disk};
use caskfile::{
    Batch, Cask, Change, CompactionPolicy, Config, Durability, Error, Held, Limits, LockLoss, LockMode, LockOptions,
    Session, Store as _, WatchFrom,
};

pub(super) const TTL: Duration = Duration::from_secs(20);
pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) struct Store {
    pub(super) disk: SimDisk,
    pub(super) clock: Clock,
}

pub(super) fn config() -> Config {
    Config::new().durability(Durability::Os).compaction(CompactionPolicy::Manual).connection_timeout(SECOND)
}

impl Store {
    pub(super) fn new() -> Store {
        let disk = SimDisk::new();
        disk.set_limits(Limits { least_running_cost: u64::MAX, renewal_look: u64::MAX, ..Limits::REAL });
        disk.set_waiting_line(true);
        let clock = disk.stop_clock();
        Store { disk, clock }
    }

    /// A handle in a process of its own.
    pub(super) fn open(&self) -> (SimDisk, Cask) {
        let process = self.disk.process();
        let cask = open(&process);
        (process, cask)
    }

    pub(super) fn wait(&self, time: Duration) {
        self.clock.advance(time);
    }
}

pub(super) fn open(process: &SimDisk) -> Cask {
    Cask::open_on(Arc::new(process.clone()), "/store", &config()).unwrap()
}

pub(super) fn shows(cask: &Cask) -> Vec<String> {
    let pairs = cask.list("").unwrap();
    assert_eq!(pairs.len() as u64, cask.len().unwrap());
    let keys: Vec<String> = pairs.into_iter().map(|pair| String::from_utf8(pair.key).unwrap()).collect();
    keys.iter().for_each(|key| assert!(cask.exists(key).unwrap() && cask.get(key).is_ok()));
    keys
}

fn is_over<T: std::fmt::Debug>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::SessionOver))
}

fn is_not_held<T: std::fmt::Debug>(result: Result<T, Error>) -> bool {
    match result {
        Err(Error::BatchConflict { cause, .. }) => matches!(*cause, Error::NotHeld),
        other => matches!(other, Err(Error::NotHeld)),
    }
}

pub(super) fn options() -> LockOptions {
    LockOptions::new().ttl(TTL)
}

pub(super) fn begin(cask: &Cask) -> Session {
    cask.session(TTL).unwrap()
}

#[test]
fn the_keys_of_a_session_live_as_long_as_it_is_renewed() {
    let store = Store::new();
    let ((_, cask), (_, other)) = (store.open(), store.open());
    cask.put("plain", "").unwrap();
    let session = begin(&cask);
    session.put(&cask, "mine", "1").unwrap();
    session.put(&cask.bucket("log").unwrap(), "mine", "2").unwrap();
    for _ in 0..5 {
        store.wait(TTL - SECOND);
        assert_eq!(shows(&other), ["mine", "plain"]);
        cask.renew_sessions().unwrap();
        assert!(session.is_live());
    }
    store.wait(TTL - Duration::from_millis(1));
    assert_eq!(shows(&other), ["mine", "plain"]);
    store.wait(Duration::from_millis(1));
    assert!(!session.is_live());
    for cask in [&cask, &other] {
        assert_eq!(shows(cask), ["plain"]);
        assert!(cask.bucket("log").unwrap().is_empty().unwrap());
        assert!(matches!(cask.expires_at("mine"), Err(Error::KeyNotFound)));
        assert_eq!(cask.stats().unwrap().hidden, 2);
    }
    assert!(is_over(session.put(&cask, "mine", "3")));
    cask.renew_sessions().unwrap();
    assert!(session.loss().is_lost() && is_over(session.end()));
    // The next write of any handle ends it in the log, and removes its keys.
    other.put("plain", "").unwrap();
    assert_eq!(other.stats().unwrap().hidden, 0);
}

#[test]
fn a_session_that_ends_takes_its_keys_along_and_a_watch_sees_each_once() {
    let store = Store::new();
    let ((_, cask), (_, other)) = (store.open(), store.open());
    let mut watch = other.changes("", WatchFrom::Now).unwrap();
    for drop_it in [false, true] {
        let session = begin(&cask);
        session.put(&cask, "a", "1").unwrap();
        session.put(&cask, "b", "1").unwrap();
        session.put(&cask, "b", "2").unwrap();
        cask.put("b", "not the session's any more").unwrap();
        if drop_it {
            drop(session)
        } else {
            session.end().unwrap()
        }
        assert_eq!(shows(&cask), ["b"]);
        let mut seen = Vec::new();
        while let Some(unit) = watch.try_next().unwrap() {
            seen.extend(unit.into_changes().unwrap().into_iter().map(|change| match change {
                Change::Put(pair) => format!("+{}", String::from_utf8(pair.key).unwrap()),
                Change::Delete { key, .. } => format!("-{}", String::from_utf8(key).unwrap()),
            }));
        }
        assert_eq!(seen, ["+a", "+b", "+b", "+b", "-a"]);
    }
    assert_eq!(other.stats().unwrap().hidden, 0);
}

#[test]
fn a_lock_has_one_holder_at_a_time_and_its_token_rises() {
    let store = Store::new();
    let ((_, a), (_, b)) = (store.open(), store.open());
    a.put("lock", "something else").unwrap();
    let (one, two) =
        (a.lock("lock", &options().value("one")).unwrap(), b.lock("lock", &options().value("two")).unwrap());
    let again = a.lock("lock", &options()).unwrap();
    let mut last = 0;
    for _ in 0..3 {
        let held = one.try_lock().unwrap().unwrap();
        assert!(held.is_held() && held.token() > last);
        assert!(two.try_lock().unwrap().is_none() && again.try_lock().unwrap().is_none());
        assert!(matches!(one.try_lock(), Err(Error::AlreadyHeld)) && matches!(one.lock(None), Err(Error::AlreadyHeld)));
        assert_eq!(b.get("lock").unwrap().value, b"one");
        assert_eq!(b.get("lock").unwrap().last_index, held.token());
        one.set_value("one, later").unwrap();
        assert!(b.get("lock").unwrap().last_index > held.token());
        a.write(Batch::new().expect_held(&held).put("fenced", "1")).unwrap();
        one.unlock().unwrap();
        assert!(!held.is_held() && held.loss().is_lost() && !b.exists("lock").unwrap());
        assert!(is_not_held(one.unlock()) && is_not_held(one.set_value("late")));
        assert!(is_not_held(a.write(Batch::new().expect_held(&held).put("fenced", "2"))));

        let other = two.lock(Some(SECOND)).unwrap();
        assert!(other.token() > held.token());
        // Through another handle, and in another bucket.
        a.bucket("log").unwrap().write(Batch::new().expect_held(&other).put("fenced", "3")).unwrap();
        assert!(matches!(again.lock(Some(SECOND)), Err(Error::TimedOut { waited }) if waited >= SECOND));
        two.unlock().unwrap();
        last = other.token();
    }
}

#[test]
fn a_holder_that_was_stopped_has_lost_the_lock_and_cannot_write_behind_it() {
    let store = Store::new();
    let ((_, a), (_, b)) = (store.open(), store.open());
    let (one, two) = (a.lock("lock", &options()).unwrap(), b.lock("lock", &options()).unwrap());
    let held = one.lock(None).unwrap();
    store.wait(TTL - Duration::from_millis(1));
    assert!(held.is_held() && two.try_lock().unwrap().is_none());
    store.wait(Duration::from_millis(1));
    assert!(!held.is_held());
    // No other has taken it yet. All others can see that it is free.
    assert!(is_not_held(a.write(Batch::new().expect_held(&held).put("fenced", ""))));
    let next = two.try_lock().unwrap().unwrap();
    assert!(next.token() > held.token());
    assert!(is_not_held(a.write(Batch::new().expect_held(&held).put("fenced", ""))));
    assert!(is_not_held(one.unlock()));
    assert!(next.is_held() && two.unlock().is_ok() && !a.exists("lock").unwrap());
    // It can be taken again, and the old token does not count for the new lock.
    let again = one.lock(None).unwrap();
    assert!(is_not_held(a.write(Batch::new().expect_held(&held).put("fenced", ""))));
    a.write(Batch::new().expect_held(&again).put("fenced", "")).unwrap();
}

#[test]
fn the_lock_of_a_process_that_is_dead_is_free_at_once() {
    let store = Store::new();
    let ((process, a), (_, b)) = (store.open(), store.open());
    let (one, two) = (a.lock("lock", &options()).unwrap(), b.lock("lock", &options()).unwrap());
    let session = begin(&a);
    session.put(&a, "other", "").unwrap();
    let held = one.lock(None).unwrap();
    assert!(two.try_lock().unwrap().is_none());
    process.kill();
    drop((one, session));
    let next = two.try_lock().unwrap().unwrap();
    assert!(next.token() > held.token());
    // Another session of the dead process: a condition on one of its keys finds out too.
    b.put_new("other", "taken").unwrap();
    assert_eq!(shows(&b), ["lock", "other"]);
}

/// It is one of two processes that have the description, so it could be the holder itself.
/// Each writer asks for some owners at a time. Those of sessions that live must not keep it from the others.
#[test]
fn a_session_of_a_dead_process_ends_soon_beside_any_number_that_live() {
    let store = Store::new();
    let ((_living, one), (dying, other), (_, writer)) = (store.open(), store.open(), store.open());
    let sessions: Vec<Session> = (0..70).map(|_| one.session(TTL).unwrap()).collect();
    // The last one in the order of deadlines.
    let dead = other.session(100 * TTL).unwrap();
    dead.put(&other, "dead", "").unwrap();
    dying.kill();
    for turns in 0.. {
        writer.put("key", "").unwrap();
        if !writer.exists("dead").unwrap() {
            break;
        }
        assert!(turns < 8, "the owner is asked for within some turns");
        store.wait(SECOND / 10);
    }
    assert!(sessions.iter().all(Session::is_live) && writer.sessions().unwrap().len() == 70);
    drop(dead);
}

#[test]
fn a_forked_child_that_lives_on_makes_others_wait_for_the_deadline() {
    let store = Store::new();
    let ((process, a), (_, b)) = (store.open(), store.open());
    let (one, two) = (a.lock("lock", &options()).unwrap(), b.lock("lock", &options()).unwrap());
    // Stands for the child's copy of the description: any holder of the byte will do.
    let child = store.disk.process();
    let file = child.open("/store".as_ref(), caskfile::disk::Access::ReadWrite).unwrap();
    let held = one.lock(None).unwrap();
    let owner = u64::from_le_bytes(session_of(&store, held.token() - 1)[8..16].try_into().unwrap());
    file.hold_owner(owner).unwrap();
    process.kill();
    drop(one);
    assert!(two.try_lock().unwrap().is_none());
    store.wait(TTL - Duration::from_millis(1));
    assert!(two.try_lock().unwrap().is_none());
    store.wait(Duration::from_millis(1));
    assert!(two.try_lock().unwrap().is_some());
}

/// The value of the session's record with this number.
fn session_of(store: &Store, seq: u64) -> Vec<u8> {
    let bytes = store.disk.contents("/store").unwrap();
    let at =
        (216..bytes.len()).step_by(8).find(|&at| bytes[at + 9] == 5 && bytes[at + 16..at + 24] == seq.to_le_bytes());
    bytes[at.unwrap() + 24..at.unwrap() + 88].to_vec()
}

#[test]
fn a_compaction_takes_sessions_along_and_their_bytes_follow_with_the_next_renewal() {
    for compactor_holds in [true, false] {
        let store = Store::new();
        let ((process, a), (_, b)) = (store.open(), store.open());
        let (one, two) = (a.lock("lock", &options()).unwrap(), b.lock("lock", &options()).unwrap());
        let held = one.lock(None).unwrap();
        for _ in 0..100 {
            a.put("filler", vec![7; 1000]).unwrap();
        }
        if compactor_holds {
            a.compact().unwrap()
        } else {
            b.compact().unwrap()
        };
        assert!(two.try_lock().unwrap().is_none());
        a.write(Batch::new().expect_held(&held).put("fenced", "")).unwrap();
        // Its byte is in the new file now, but the log does not say so: no other asks.
        assert!(two.try_lock().unwrap().is_none());
        a.renew_sessions().unwrap();
        assert!(held.is_held() && two.try_lock().unwrap().is_none());
        process.kill();
        drop(one);
        assert!(two.try_lock().unwrap().is_some());
    }
}

#[test]
fn after_a_power_cut_no_session_lives_and_tokens_go_on_rising() {
    let store = Store::new();
    let (_, a) = store.open();
    a.put("plain", "").unwrap();
    let one = a.lock("lock", &options()).unwrap();
    let held = one.lock(None).unwrap();
    for choices in [&mut Choices::keep_all(), &mut Choices::keep_nothing()] {
        let disk = store.disk.reboot(choices);
        disk.set_clock(&store.clock);
        disk.set_limits(Limits { least_running_cost: u64::MAX, renewal_look: u64::MAX, ..Limits::REAL });
        let b = open(&disk.process());
        let two = b.lock("lock", &options()).unwrap();
        let next = two.try_lock().unwrap().unwrap();
        assert!(next.token() > held.token());
    }
    drop(one);
}

#[test]
fn a_session_of_another_boot_lives_while_its_byte_is_held_and_no_longer_than_its_deadline() {
    let store = Store::new();
    let ((process, a), (container, b)) = (store.open(), store.open());
    let one = a.lock("lock", &options()).unwrap();
    let _held = one.lock(None).unwrap();
    drop(b);
    container.set_boot([9; 16]);
    let b = open(&container);
    let two = b.lock("lock", &options()).unwrap();
    assert!(two.try_lock().unwrap().is_none());
    store.wait(TTL - SECOND);
    assert!(two.try_lock().unwrap().is_none() && b.exists("lock").unwrap());
    // This handle cannot compare the deadline, and shows the key.
    store.wait(SECOND);
    assert!(b.exists("lock").unwrap() && !a.exists("lock").unwrap());
    assert!(two.try_lock().unwrap().is_some());
    two.unlock().unwrap();
    let _held = one.lock(None).unwrap();
    process.kill();
    drop(one);
    assert!(two.try_lock().unwrap().is_some());
}

#[test]
fn a_session_that_can_only_be_watched_is_over_when_nothing_has_changed_for_its_time() {
    let store = Store::new();
    let (process, a) = store.open();
    let one = a.lock("lock", &options()).unwrap();
    let _held = one.lock(None).unwrap();
    a.backup("/copy").unwrap();
    process.kill();
    drop(one);
    let container = store.disk.process();
    container.set_boot([9; 16]);
    let b = Cask::open_on(Arc::new(container), "/copy", &config()).unwrap();
    let two = b.lock("lock", &options()).unwrap();
    assert!(two.try_lock().unwrap().is_none(), "the record names another file, so its byte says nothing");
    store.wait(TTL - SECOND);
    assert!(two.try_lock().unwrap().is_none());
    store.wait(SECOND);
    assert!(two.try_lock().unwrap().is_some());
}

#[test]
fn a_stall_between_the_look_at_the_clock_and_the_write_loses_the_session() {
    type Call = fn(&Cask, &Session) -> Result<(), Error>;
    let calls: [(&str, Call); 2] =
        [("renew", |cask, _| cask.renew_sessions()), ("put", |cask, session| session.put(cask, "late", "").map(drop))];
    for (name, call) in calls {
        for stall in [TTL - SECOND, TTL] {
            let store = Store::new();
            let ((process, cask), (_, other)) = (store.open(), store.open());
            let session = begin(&cask);
            session.put(&cask, "mine", "").unwrap();
            let clock = store.clock.clone();
            process.before(When::next().of(Verb::WriteAt).by(&process), Repeat::Once, move |_| clock.advance(stall));
            let called = call(&cask, &session);
            let survives = stall < TTL;
            // A renewal that comes too late finds a session that is over, and has nothing to say of it.
            match name {
                "renew" => assert!(called.is_ok(), "{called:?}"),
                _ => assert!(if survives { called.is_ok() } else { is_over(called) }, "{name}"),
            }
            assert_eq!((session.is_live(), session.loss().is_lost()), (survives, !survives), "{name}");
            assert_eq!(other.exists("mine").unwrap(), survives, "{name}");
            // Nothing shows its keys again.
            store.wait(Duration::from_millis(1));
            assert_eq!(other.exists("mine").unwrap(), survives, "{name}");
            assert_eq!(is_over(session.end()), !survives);
        }
    }
}

#[test]
fn a_wait_for_a_free_lock_says_that_a_writer_has_the_file() {
    let store = Store::new();
    let ((_, a), (_, b)) = (store.open(), store.open());
    let one = a.lock("lock", &options()).unwrap();
    let writer = Cask::open_on(Arc::new(store.disk.process()), "/store", &config().lock_mode(LockMode::Exclusive));
    for timeout in [Duration::ZERO, Duration::from_millis(50)] {
        let waited = one.lock(Some(timeout));
        assert!(matches!(waited, Err(Error::LockTimeout { waited, .. }) if waited >= timeout), "{waited:?}");
    }
    writer.unwrap().close().unwrap();
    let two = b.lock("lock", &options()).unwrap();
    assert!(two.lock(Some(Duration::ZERO)).unwrap().is_held());
    for timeout in [Duration::ZERO, Duration::from_millis(50)] {
        let waited = one.lock(Some(timeout));
        assert!(matches!(waited, Err(Error::TimedOut { .. })), "{waited:?}");
    }
}

#[test]
fn a_lock_is_not_given_to_a_holder_whose_time_is_over_before_it_has_it() {
    let store = Store::new();
    let ((process, a), (_, b)) = (store.open(), store.open());
    a.put("plain", "").unwrap();
    let (one, two) = (a.lock("lock", &options()).unwrap(), b.lock("lock", &options()).unwrap());
    let clock = store.clock.clone();
    process.before(When::next().of(Verb::WriteAt).by(&process), Repeat::Once, move |_| clock.advance(TTL));
    assert!(is_over(one.try_lock()));
    assert!(!b.exists("lock").unwrap());
    assert!(two.try_lock().unwrap().is_some());
}

/// The turn holds the file's lock throughout, so no other process has seen anything else.
#[test]
fn a_fenced_write_that_reaches_the_file_after_the_deadline_counts() {
    let store = Store::new();
    let ((process, a), (_, b)) = (store.open(), store.open());
    let (one, two) = (a.lock("lock", &options()).unwrap(), b.lock("lock", &options()).unwrap());
    let held = one.lock(None).unwrap();
    let clock = store.clock.clone();
    process.before(When::next().of(Verb::WriteAt).by(&process), Repeat::Once, move |_| clock.advance(TTL));
    let written = a.write(Batch::new().expect_held(&held).put("fenced", "")).unwrap();
    let next = two.try_lock().unwrap().unwrap();
    assert!(next.token() > written.last_index().unwrap());
}

#[test]
fn a_failed_renewal_loses_nothing_and_a_full_disk_loses_the_session_at_its_deadline() {
    let store = Store::new();
    let ((process, cask), (_, other)) = (store.open(), store.open());
    let session = begin(&cask);
    session.put(&cask, "mine", "").unwrap();
    store.wait(TTL / 3);
    process.fail(When::next().of(Verb::WriteAt).by(&process), Fault::Os(libc::ENOSPC), Repeat::Once);
    cask.renew_sessions().unwrap_err();
    assert!(session.is_live());
    store.wait(TTL / 3);
    cask.renew_sessions().unwrap();
    store.wait(TTL - SECOND);
    assert!(session.is_live() && other.exists("mine").unwrap());
    process.fail(When::next().of(Verb::WriteAt).by(&process), Fault::Os(libc::ENOSPC), Repeat::Forever);
    cask.renew_sessions().unwrap_err();
    store.wait(SECOND);
    assert!(!session.is_live() && !other.exists("mine").unwrap());
    process.clear_faults();
    other.put("plain", "").unwrap();
    assert_eq!(shows(&other), ["plain"]);
}

#[test]
fn closing_ends_sessions_and_a_lock_that_was_not_released() {
    let store = Store::new();
    let ((_, a), (_, b)) = (store.open(), store.open());
    let (one, two) = (a.lock("lock", &options()).unwrap(), b.lock("lock", &options()).unwrap());
    let (held, session) = (one.lock(None).unwrap(), begin(&a));
    session.put(&a, "mine", "").unwrap();
    a.close().unwrap();
    assert!(held.loss().is_lost() && session.loss().is_lost());
    assert!(matches!(session.end(), Err(Error::Closed)) && matches!(one.try_lock(), Err(Error::Closed)));
    assert_eq!(b.stats().unwrap().hidden, 0);
    assert!(shows(&b).is_empty() && two.try_lock().unwrap().is_some());
}

#[test]
fn plain_writes_take_a_lock_away_and_conditions_take_an_ended_key_for_absent() {
    let store = Store::new();
    let ((_, a), (_, b)) = (store.open(), store.open());
    let one = a.lock("lock", &options().delete_on_unlock(false).value("one")).unwrap();
    let held = one.lock(None).unwrap();
    one.unlock().unwrap();
    assert_eq!(b.get("lock").unwrap().value, b"one");
    assert!(held.loss().is_lost());
    let held = one.lock(None).unwrap();
    b.put("lock", "taken away").unwrap();
    assert!(is_not_held(a.write(Batch::new().expect_held(&held).put("fenced", ""))));
    // Its session lives still, and the lock is another's.
    let two = b.lock("lock", &options()).unwrap();
    let next = two.lock(None).unwrap();
    assert!(held.is_held() && next.token() > held.token());
    assert!(is_not_held(a.write(Batch::new().expect_held(&held).put("fenced", ""))));
    assert!(is_not_held(one.unlock()) && is_not_held(one.set_value("")) && next.is_held());
    two.unlock().unwrap();
    let session = begin(&a);
    let pair = session.put(&a, "mine", "1").unwrap();
    assert!(matches!(b.put_new("mine", ""), Err(Error::KeyExists)));
    assert!(matches!(a.put_new("mine", ""), Err(Error::KeyExists)), "no one else holds the handle's own byte");
    store.wait(TTL);
    assert!(matches!(b.put_if("mine", "", pair.last_index), Err(Error::KeyNotFound)));
    b.put_new("mine", "2").unwrap();
    assert_eq!(a.get("mine").unwrap().value, b"2");
}

/// It would show the keys of a session that is over for others, until all of them are swept.
#[test]
fn a_process_that_cannot_compare_deadlines_learns_the_end_of_a_session_from_the_log() {
    let store = Store::new();
    store.disk.set_limits(Limits { swept_records: 1, renewal_look: u64::MAX, ..Limits::REAL });
    let ((_, a), (_, b)) = (store.open(), store.open());
    let container = store.disk.process();
    container.set_boot([9; 16]);
    let reader = Cask::open_on(Arc::new(container), "/store", &config().read_only(true)).unwrap();
    let session = begin(&a);
    for key in ["four", "one", "three", "two"] {
        session.put(&a, key, "").unwrap();
    }
    store.wait(TTL);
    assert_eq!((shows(&reader).len(), shows(&b).len()), (4, 0));
    b.put_new("one", "").unwrap();
    assert_eq!(shows(&reader), ["one"]);
    assert_eq!(reader.stats().unwrap().hidden, 2, "one was replaced, and one swept");
    // A compaction drops END, and their session has no record then.
    b.compact().unwrap();
    assert_eq!((shows(&reader), reader.stats().unwrap().hidden), (vec!["one".to_owned()], 2));
}

#[test]
fn a_lock_of_another_store_is_not_held_here() {
    let open = |seed| {
        let disk = SimDisk::from_seed(seed);
        disk.stop_clock();
        Cask::open_on(Arc::new(disk), "/store", &config()).unwrap()
    };
    let (a, b) = (open(1), open(2));
    let (one, two) = (a.lock("lock", &options()).unwrap(), b.lock("lock", &options()).unwrap());
    let (held, other) = (one.lock(None).unwrap(), two.lock(None).unwrap());
    assert_eq!(held.token(), other.token(), "the numbers are the same");
    assert!(is_not_held(b.write(Batch::new().expect_held(&held).put("fenced", ""))));
    b.write(Batch::new().expect_held(&other).put("fenced", "")).unwrap();
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let store = Store::new();
    let (_, cask) = store.open();
    assert!(matches!(cask.session(Duration::ZERO), Err(Error::ZeroTtl)));
    assert!(matches!(cask.lock("lock", &options().ttl(Duration::ZERO)), Err(Error::ZeroTtl)));
    assert!(matches!(cask.lock("", &options()), Err(Error::KeyLength { .. })));
    let (_, other) = store.open();
    let session = begin(&cask);
    assert!(is_over(session.put(&other, "key", "")), "of another handle");
    let reader = Cask::open_on(Arc::new(store.disk.process()), "/store", &config().read_only(true)).unwrap();
    assert!(matches!(reader.session(TTL), Err(Error::ReadOnly { .. })));
    let stopped = cask.lock("lock", &options()).unwrap();
    stopped.stopper().stop();
    assert!(matches!(stopped.lock(None), Err(Error::Stopped)) && matches!(stopped.try_lock(), Err(Error::Stopped)));
    let session = cask.session(Duration::MAX).unwrap();
    store.wait(Duration::from_secs(1 << 31));
    assert!(session.is_live());
}

/// A lock of the contract is the engine's own: its holder's batches are fenced.
#[test]
fn a_lock_of_the_contract_fences_a_batch() {
    let store = Store::new();
    let ((_, a), (_, b)) = (store.open(), store.open());
    let (ours, theirs) = (a.bucket("locks").unwrap(), b.bucket("locks").unwrap());
    let lock = ours.new_lock(b"leader", &LockOptions::new().value("a").ttl(TTL)).unwrap();
    let other = theirs.new_lock(b"leader", &LockOptions::new().value("b").ttl(TTL)).unwrap();
    let held = lock.try_lock().unwrap().unwrap();
    assert!(other.try_lock().unwrap().is_none());
    assert_eq!(theirs.get("leader").unwrap().value, b"a");
    assert!(!b.exists("leader").unwrap(), "a lock is in the bucket of the handle that it was made with");
    a.write(Batch::new().expect_held(&held).put("fenced", "1")).unwrap();

    store.wait(TTL);
    assert!(!held.is_held());
    let next = other.try_lock().unwrap().unwrap();
    assert!(next.token() > held.token());
    assert!(is_not_held(a.write(Batch::new().expect_held(&held).put("fenced", "2"))));
    assert!(matches!(lock.unlock(), Err(Error::NotHeld)));
    assert!(next.is_held());
    assert_eq!(a.get("fenced").unwrap().value, b"1");
}

/// Its key is in another store, which this one knows nothing of.
#[test]
fn a_lock_of_another_backend_fences_no_batch() {
    let store = Store::new();
    let (_, cask) = store.open();
    let (_sender, loss) = LockLoss::channel().unwrap();
    for held in [Held::new(1, loss.clone()), Held::with_check(1, loss, || true)] {
        assert!(held.is_held());
        match cask.write(Batch::new().put("first", "").expect_held(&held).put("key", "")) {
            Err(Error::BatchInvalid { op: 1, cause }) => assert!(matches!(*cause, Error::NotHeld)),
            other => panic!("{other:?}"),
        }
        assert!(cask.is_empty().unwrap());
    }
}
