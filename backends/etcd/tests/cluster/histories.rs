//! Histories of calls beside members that are killed and stopped, checked for linearizability, key by key.
//!
//! The checker is that of the library's own processes. A call whose outcome is not known may have happened at any moment after it began, or
//! never. A call that says it has not happened is left out, so a value of it that is seen is a mistake.

#[allow(dead_code, reason = "listings are checked in the library")]
#[path = "../../../../tests/processes/histories/checker.rs"]
mod checker;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use caskfile::{Config, Error, KvPair, Result, Store};
use caskfile_etcd::{EtcdConfig, EtcdError, EtcdStore};
use checker::{Act, Call, Condition, Deleted, Refusal, Span, check_key};

use crate::server::{Cluster, OnDrop};

const THREADS: usize = 6;
const KEYS: usize = 4;
const ROUND: Duration = Duration::from_secs(4);

/// A sequence that looks random and is the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[test]
fn every_key_is_linearizable_beside_members_that_are_killed_and_stopped() {
    let rounds: u64 = std::env::var("CASKFILE_ETCD_ROUNDS").map_or(4, |rounds| rounds.parse().unwrap());
    let cluster = Cluster::start(3, &[]);
    let total = Totals::default();
    let seen = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let is_enough = || seen(&total.calls) > 500 && seen(&total.unknown) > 0 && seen(&total.disturbed) > 1;
    let mut round = 0;
    // What the totals must have depends on luck: there are more rounds until they have it.
    while round < rounds || !is_enough() {
        assert!(round < rounds + 20, "{total:?}");
        play(&cluster, round, &total);
        round += 1;
    }
    println!("{round} rounds: {total:?}");
}

#[derive(Debug, Default)]
struct Totals {
    calls: AtomicU64,
    unknown: AtomicU64,
    not_done: AtomicU64,
    disturbed: AtomicU64,
}

fn play(cluster: &Cluster, round: u64, total: &Totals) {
    let (began, ended, values) = (Instant::now(), AtomicBool::new(false), AtomicU64::new(0));
    let histories: Vec<Mutex<Vec<Call>>> = (0..KEYS).map(|_| Mutex::default()).collect();
    let open = |thread: usize| {
        let mut endpoints = cluster.endpoints();
        endpoints.rotate_left(thread % cluster.len());
        let config = Config::new().connection_timeout(Duration::from_secs(2));
        EtcdConfig::new(endpoints).root(format!("round {round}/")).open(&config).unwrap()
    };
    let stores: Vec<EtcdStore> = (0..THREADS).map(open).collect();
    std::thread::scope(|scope| {
        let _end = OnDrop(|| ended.store(true, Ordering::SeqCst));
        for (thread, store) in stores.into_iter().enumerate() {
            let (histories, ended, values) = (&histories, &ended, &values);
            scope.spawn(move || {
                let mut dice = Dice(round << 8 | thread as u64);
                let mut known = vec![None; KEYS];
                while !ended.load(Ordering::SeqCst) {
                    let key = dice.below(KEYS as u64) as usize;
                    let value = values.fetch_add(1, Ordering::SeqCst);
                    let now = || began.elapsed().as_nanos() as u64;
                    let span = Span { began: now(), ended: None };
                    let made = make(&store, &mut dice, key, value, &mut known[key]);
                    let call = match made {
                        Made::Known(act) => Call { span: Span { ended: Some(now()), ..span }, act },
                        Made::Unknown(act) => {
                            total.unknown.fetch_add(1, Ordering::Relaxed);
                            Call { span, act }
                        }
                        Made::Not => {
                            total.not_done.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                    };
                    total.calls.fetch_add(1, Ordering::Relaxed);
                    histories[key].lock().unwrap().push(call);
                }
            });
        }
        disturb(cluster, &mut Dice(round), total);
    });
    for (key, history) in histories.into_iter().enumerate() {
        let history = history.into_inner().unwrap();
        if let Err(why) = check_key(&history) {
            panic!("round {round}, key {key}: {why}");
        }
    }
}

/// Kills or stops one or two members at a time, the leader more often than others, and brings them back.
fn disturb(cluster: &Cluster, dice: &mut Dice, total: &Totals) {
    let began = Instant::now();
    let pause = |millis: u64| std::thread::sleep(Duration::from_millis(millis));
    while began.elapsed() < ROUND {
        pause(200 + dice.below(400));
        let first = if dice.below(2) == 0 { cluster.leader() } else { dice.below(3) as usize };
        // Two of three: no majority is left.
        let victims: Vec<usize> = match dice.below(4) {
            0 => vec![first, (first + 1) % cluster.len()],
            _ => vec![first],
        };
        let kills = dice.below(2) == 0;
        for &victim in &victims {
            if kills { cluster.kill(victim) } else { cluster.stop(victim) }
        }
        pause(300 + dice.below(1_500));
        for victim in victims {
            if kills { cluster.start_member(victim) } else { cluster.go_on(victim) }
        }
        total.disturbed.fetch_add(1, Ordering::Relaxed);
    }
    cluster.await_answers();
}

/// What a call has given.
enum Made {
    Known(Act),
    Unknown(Act),
    /// Nothing has happened, or nothing was read.
    Not,
}

/// Makes a call at random. `known` is the pair of this key that this thread has seen last.
fn make(store: &EtcdStore, dice: &mut Dice, key: usize, value: u64, known: &mut Option<KvPair>) -> Made {
    let name = format!("key {key}").into_bytes();
    let bytes = value.to_le_bytes();
    let of = |pair: &KvPair| u64::from_le_bytes(pair.value[..].try_into().unwrap());
    match dice.below(8) {
        0 | 1 => match store.get(&name) {
            Ok(pair) => {
                let act = Act::Saw(Some((of(&pair), pair.last_index)));
                *known = Some(pair);
                Made::Known(act)
            }
            Err(Error::KeyNotFound) => Made::Known(Act::Saw(None)),
            Err(error) => unavailable(error),
        },
        2 => match store.exists(&name) {
            Ok(there) => Made::Known(Act::SawPresence(there)),
            Err(error) => unavailable(error),
        },
        3 => write(store.put(&name, &bytes).map(|()| None), |index| Act::Put {
            value,
            only_if: Condition::Always,
            index,
        }),
        4 => write(store.atomic_put(&name, &bytes, None).map(|pair| Some(pair.last_index)), |index| Act::Put {
            value,
            only_if: Condition::Absent,
            index,
        }),
        5 => {
            let Some(previous) = known.take() else { return Made::Not };
            let only_if = Condition::Index(previous.last_index);
            let result = store.atomic_put(&name, &bytes, Some(&previous));
            if let Ok(pair) = &result {
                *known = Some(pair.clone());
            }
            write(result.map(|pair| Some(pair.last_index)), |index| Act::Put { value, only_if, index })
        }
        6 => {
            let Some(previous) = known.take() else { return Made::Not };
            let only_if = Condition::Index(previous.last_index);
            let result = store.atomic_delete(&name, Some(&previous));
            write(result.map(|()| None), |_| Act::Delete { only_if, index: Deleted::Nothing })
        }
        _ => write(store.delete(&name).map(|()| None), |_| Act::Delete {
            only_if: Condition::Always,
            index: Deleted::Nothing,
        }),
    }
}

fn unavailable(error: Error) -> Made {
    assert!(!error.is_indeterminate(), "a read has no outcome to doubt: {error:?}");
    assert!(matches!(EtcdError::of(&error), Some(EtcdError::Unavailable { .. })), "{error:?}");
    Made::Not
}

fn write(result: Result<Option<u64>>, act: impl Fn(Option<u64>) -> Act) -> Made {
    let refused = |refusal| match act(None) {
        Act::Put { only_if, .. } | Act::Delete { only_if, .. } => Made::Known(Act::Refused(only_if, refusal)),
        other => unreachable!("{other:?}"),
    };
    match result {
        Ok(index) => Made::Known(act(index)),
        Err(Error::KeyExists) => refused(Refusal::Exists),
        Err(Error::KeyNotFound) => refused(Refusal::NotFound),
        Err(Error::KeyModified) => refused(Refusal::Modified),
        Err(error) if error.is_indeterminate() => Made::Unknown(act(None)),
        Err(error) => unavailable(error),
    }
}

// What careless backends do, as histories that the checker must refuse. Each is accepted when the call is said to be unknown.

fn call(began: u64, ended: impl Into<Option<u64>>, act: Act) -> Call {
    Call { span: Span { began, ended: ended.into() }, act }
}

fn put(value: u64) -> Act {
    Act::Put { value, only_if: Condition::Always, index: None }
}

fn saw(value: u64, index: u64) -> Act {
    Act::Saw(Some((value, index)))
}

#[test]
fn a_put_that_was_sent_twice_is_found() {
    // The first try has happened, a second writer came, and then the second try.
    let history = [
        call(0, 90, put(1)),
        call(10, 20, saw(1, 5)),
        call(30, 40, put(2)),
        call(50, 60, saw(2, 6)),
        call(70, 80, saw(1, 7)),
    ];
    assert!(check_key(&history).is_err());
    // Without its index, the order alone shows it.
    let is_deleted = Act::Delete { only_if: Condition::Always, index: Deleted::Nothing };
    let history = [
        call(0, 90, put(1)),
        call(10, 20, Act::SawPresence(true)),
        call(30, 40, is_deleted),
        call(50, 60, Act::SawPresence(true)),
    ];
    assert!(check_key(&history).is_err());
    assert!(check_key(&history[..3]).is_ok());
}

#[test]
fn a_read_that_is_taken_as_proof_is_found() {
    // A creation had no answer. Its caller read again, found nothing, and said that it had not happened. It came later.
    let create = Act::Put { value: 1, only_if: Condition::Absent, index: None };
    let said_not = [call(20, 30, Act::Saw(None)), call(40, 50, saw(1, 5))];
    assert!(check_key(&said_not).is_err());
    assert!(check_key(&[call(0, None, create), said_not[0], said_not[1]]).is_ok());

    // A swap had no answer. Its caller read again, found the value of before, and said that it had happened, or that another was faster.
    let swap = Act::Put { value: 2, only_if: Condition::Index(5), index: None };
    let before = [call(0, 5, put(1)), call(6, 8, saw(1, 5))];
    let later = [call(40, 50, saw(1, 5)), call(60, 70, saw(2, 6))];
    for claim in [swap, Act::Refused(Condition::Index(5), Refusal::Modified)] {
        assert!(check_key(&[before[0], before[1], call(10, 30, claim), later[0], later[1]]).is_err());
    }
    assert!(check_key(&[before[0], before[1], call(10, None, swap), later[0], later[1]]).is_ok());
}
