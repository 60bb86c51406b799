//! What the usual calls cost on the simulated disk: calls to the disk, by kind, and bytes written, read, and read with the file's
//! lock. All of it is exact, and [`budgets/table.md`](budgets/table.md) is the list of what is allowed.
//!
//! A cost is no property that a user sees, so a change that makes a call dearer fails no other test. If a change makes costs other
//! than they were, and that is meant, this writes the table again, and the difference belongs into the commit:
//!
//! ```sh
//! CASKFILE_BUDGETS=write cargo test --test contract budgets::
//! ```
//!
//! The tests after those of the table say what no change of the table may give up.

use std::sync::Arc;
use std::time::Duration;

use caskfile::disk::sim::{SimDisk, Verb};
use caskfile::{Batch, Cask, CompactionPolicy, Config, Durability, OptionalExt, verify_on};

use self::cost::Cost;
use self::lab::{Lab, MODES, Mode, STATES, State};
use self::table::{Row, check};

mod cost;
mod lab;
mod table;

/// A call whose cost is counted, and the durability of the handle that makes it.
struct Usual {
    name: &'static str,
    durability: Durability,
    call: fn(&Lab),
}

const fn usual(name: &'static str, durability: Durability, call: fn(&Lab)) -> Usual {
    Usual { name, durability, call }
}

/// A result that is of no interest here.
fn ignore<T>(_: T) {}

const GET: Usual = usual("get", Durability::Sync, |lab| ignore(lab.handle().get("a").unwrap()));
const PUT: Usual = usual("put", Durability::Os, |lab| lab.handle().put("a", lab::VALUE).map(drop).unwrap());
const DURABLE_PUT: Usual =
    usual("durable put", Durability::Sync, |lab| lab.handle().put("a", lab::VALUE).map(drop).unwrap());
const LIST: Usual = usual("list of 3", Durability::Sync, |lab| assert_eq!(lab.handle().list("").unwrap().len(), 3));

/// What is counted after everything that may have happened before.
const EVERYWHERE: [Usual; 5] =
    [GET, usual("exists", Durability::Sync, |lab| assert!(lab.handle().exists("a").unwrap())), LIST, PUT, DURABLE_PUT];

/// Reads and writes of a handle that has made calls before, while no other process does anything.
const READS: [Usual; 9] = [
    GET,
    usual("get of 100,000 bytes", Durability::Sync, |lab| ignore(lab.large().get("large").unwrap())),
    usual("get of an absent key", Durability::Sync, |lab| ignore(lab.handle().get("absent").unwrap_err())),
    usual("exists", Durability::Sync, |lab| assert!(lab.handle().exists("a").unwrap())),
    usual("exists, absent", Durability::Sync, |lab| assert!(!lab.handle().exists("absent").unwrap())),
    LIST,
    usual("scan by index", Durability::Sync, |lab| ignore(lab.handle().scan_by_index().unwrap().count())),
    usual("stats", Durability::Sync, |lab| ignore(lab.handle().stats().unwrap())),
    usual("buckets", Durability::Sync, |lab| ignore(lab.handle().buckets().unwrap())),
];

const WRITES: [Usual; 15] = [
    PUT,
    DURABLE_PUT,
    usual("put of 100,000 bytes", Durability::Os, |lab| lab.large().put("large", lab::LARGE).map(drop).unwrap()),
    usual("durable put of 100,000 bytes", Durability::Sync, |lab| {
        lab.large().put("large", lab::LARGE).map(drop).unwrap()
    }),
    usual("batch of 3", Durability::Os, batch),
    usual("durable batch of 3", Durability::Sync, batch),
    usual("durable delete", Durability::Sync, |lab| lab.handle().delete("a").unwrap()),
    usual("durable delete, absent", Durability::Sync, |lab| lab.handle().delete("absent").unwrap()),
    usual("durable delete_prefix", Durability::Sync, |lab| assert!(lab.handle().delete_prefix("").unwrap() > 0)),
    usual("durable swap, with its get", Durability::Sync, |lab| {
        let pair = lab.handle().get("a").optional().unwrap();
        lab.handle().atomic_put("a", lab::VALUE, pair.as_ref()).unwrap();
    }),
    usual("durable swap, refused", Durability::Sync, |lab| {
        lab.handle().atomic_put("a", lab::VALUE, None).unwrap_err();
    }),
    usual("durable update", Durability::Sync, |lab| ignore(lab.handle().update("a", |_| lab::VALUE.to_vec()).unwrap())),
    usual("sync of a put", Durability::Os, |lab| {
        lab.handle().put("a", lab::VALUE).unwrap();
        lab.handle().sync().unwrap();
    }),
    usual("sync of nothing", Durability::Sync, |lab| lab.handle().sync().unwrap()),
    usual("verify", Durability::Sync, |lab| ignore(lab.handle().verify().unwrap())),
];

fn batch(lab: &Lab) {
    let mut batch = Batch::new();
    batch.put("a", lab::VALUE).put("b", lab::VALUE).delete("c");
    lab.handle().write(&batch).unwrap();
}

const WHOLE: [Usual; 12] = [
    usual("compact", Durability::Sync, |lab| ignore(lab.handle().compact().unwrap())),
    usual("backup", Durability::Sync, |lab| ignore(lab.handle().backup("/copy").unwrap())),
    usual("compact_to", Durability::Sync, |lab| ignore(lab.handle().compact_to("/copy").unwrap())),
    usual("reopen", Durability::Sync, |lab| lab.handle().reopen().unwrap()),
    usual("close", Durability::Sync, |lab| lab.handle().close().unwrap()),
    usual("close, after puts without syncs", Durability::Os, |lab| lab.handle().close().unwrap()),
    usual("closed, then open and close", Durability::Sync, |lab| ignore(lab.closed().open())),
    usual("closed, then open and get", Durability::Sync, |lab| ignore(lab.closed().open().get("a").unwrap())),
    usual("closed, then open to read", Durability::Sync, |lab| ignore(lab.closed().open_to_read().get("a").unwrap())),
    usual("closed, then a put and close", Durability::Os, one_shot),
    usual("closed, then a durable put and close", Durability::Sync, one_shot),
    usual("closed, then verify of the file", Durability::Sync, |lab| {
        ignore(verify_on(&lab.closed().disk, lab::STORE.as_ref()).unwrap());
    }),
];

fn one_shot(lab: &Lab) {
    let cask: Cask = lab.closed().open();
    cask.put("a", lab::VALUE).unwrap();
    cask.close().unwrap();
}

/// Counts what a call costs, in a lab of its own, and what it costs when it is made again.
fn count(mode: Mode, state: State, usual: &Usual) -> [Cost; 2] {
    let lab = Lab::new(mode, usual.durability);
    lab.bring_into(state);
    [0, 1].map(|_| lab.count(|| (usual.call)(&lab)))
}

/// Counts what a call costs that a handle makes after others, or a new one after that was closed.
fn count_later(mode: Mode, usual: &Usual) -> Cost {
    let lab = Lab::new(mode, usual.durability);
    lab.bring_into(State::Later);
    if usual.name.starts_with("closed") {
        lab.handle().close().unwrap();
    }
    lab.count(|| (usual.call)(&lab))
}

fn rows_of(usuals: &[Usual]) -> Vec<Row> {
    usuals.iter().flat_map(|usual| Row::of_modes(usual.name, |mode| Some(count_later(mode, usual)))).collect()
}

#[test]
fn a_read_costs_what_its_budget_says() {
    check("Reads", rows_of(&READS));
}

#[test]
fn a_write_costs_what_its_budget_says() {
    check("Writes", rows_of(&WRITES));
}

#[test]
fn a_call_for_the_whole_store_costs_what_its_budget_says() {
    check("The whole store", rows_of(&WHOLE));
}

/// Where locks linger between writes that are not synced, as on Linux.
#[test]
fn a_write_in_a_burst_costs_what_its_budget_says() {
    let usuals = [
        PUT,
        usual("batch of 3", Durability::Os, batch),
        usual("put, and a sync", Durability::Os, |lab| {
            lab.handle().put("a", lab::VALUE).unwrap();
            lab.handle().sync().unwrap();
        }),
        DURABLE_PUT,
    ];
    let counted = |mode: Mode, usual: &Usual| {
        let lab = Lab::new(mode, usual.durability);
        lab.let_locks_linger();
        lab.bring_into(State::Later);
        for _ in 0..8 {
            lab.handle().put("a", lab::VALUE).unwrap();
        }
        lab.count(|| (usual.call)(&lab))
    };
    let rows = |usual: &Usual| Row::of_modes(usual.name, |mode| Some(counted(mode, usual)));
    check("In a burst", usuals.iter().flat_map(rows).collect());
}

/// Of a call that is made again only what differs from a later call is in the table.
#[test]
fn a_call_after_anything_else_costs_what_its_budget_says() {
    for state in STATES.into_iter().filter(|&state| state != State::Later) {
        let rows = EVERYWHERE.iter().flat_map(|usual| {
            let counted = MODES.map(|mode| state.exists_in(mode).then(|| count(mode, state, usual)));
            let later = MODES.map(|mode| count(mode, State::Later, usual)[1]);
            let of = |mode: Mode| counted[mode.number()];
            let mut rows = Row::of_modes(usual.name, |mode| of(mode).map(|[first, _]| first));
            let again = format!("{}, again", usual.name);
            rows.extend(Row::of_modes(&again, |mode| {
                of(mode).map(|[_, again]| again).filter(|again| *again != later[mode.number()])
            }));
            rows
        });
        check(state.name(), rows.collect());
    }
}

#[test]
fn a_call_that_waits_for_the_lock_costs_what_its_budget_says() {
    let usuals = [
        GET,
        usual("put", Durability::Sync, |lab| ignore(lab.handle().put("a", lab::VALUE).unwrap_err())),
        usual("sync", Durability::Sync, |lab| ignore(lab.handle().sync().unwrap_err())),
        usual("compact", Durability::Sync, |lab| ignore(lab.handle().compact().unwrap_err())),
        usual("close", Durability::Sync, |lab| lab.handle().close().unwrap()),
    ];
    for (patience, title) in [
        (Duration::ZERO, "While another process has the lock, without patience"),
        (Duration::from_secs(1), "While another process has the lock, for a second"),
    ] {
        let counted = |mode: Mode, usual: &Usual| {
            // Nothing is locked for an exclusive handle.
            let lab = (!mode.is_exclusive()).then(|| Lab::with_patience(mode, usual.durability, patience))?;
            lab.bring_into(State::Later);
            let _owner = lab.lock_from_outside();
            Some(lab.count(|| (usual.call)(&lab)))
        };
        check(title, usuals.iter().flat_map(|usual| Row::of_modes(usual.name, |mode| counted(mode, usual))).collect());
    }
}

/// Whatever its durability, and also if compaction is automatic.
#[test]
fn an_idle_handle_makes_no_call_to_the_disk() {
    for durability in [Durability::Sync, Durability::Os, Durability::Interval(Duration::from_millis(10))] {
        let disk = SimDisk::new();
        let clock = disk.stop_clock();
        let config = Config::new().durability(durability).compaction(CompactionPolicy::default());
        let cask = Cask::open_on(Arc::new(disk.clone()), lab::STORE, &config).unwrap();
        for _ in 0..10 {
            cask.put("a", lab::VALUE).unwrap();
        }
        cask.sync().unwrap();
        assert_eq!(cask.list("").unwrap().len(), 1);
        let settled = disk.calls();
        for _ in 0..20 {
            clock.advance(Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(disk.calls(), settled, "{durability:?}: calls to the disk in twenty minutes without a call");
    }
}

#[test]
fn reads_through_a_map_make_no_call_to_the_disk() {
    for mode in MODES.into_iter().filter(|mode| mode.is_mapped()) {
        // These two ask for the length, and walk the file.
        for usual in READS.iter().filter(|usual| !["stats", "scan by index"].contains(&usual.name)) {
            let cost = count_later(mode, usual);
            assert_eq!(cost.calls(), 0, "{}, {}: {cost}", usual.name, mode.name());
        }
    }
}

/// One write, one sync, and what the protocol between processes asks for: the lock, and whether the path still names the file.
#[test]
fn a_durable_put_syncs_once_whatever_came_before() {
    for (state, mode) in STATES.into_iter().flat_map(|state| MODES.map(|mode| (state, mode))) {
        if !state.exists_in(mode) {
            continue;
        }
        let [first, again] = count(mode, state, &DURABLE_PUT);
        let what = format!("{}, {}", state.name(), mode.name());
        assert_eq!(again.of_kind(Verb::SyncData), 1, "{what}: {again}");
        assert_eq!(again.of_kind(Verb::WriteAt), 1, "{what}: {again}");
        for verb in [Verb::SyncAll, Verb::SyncDir, Verb::SyncFileSystem, Verb::WriteBack, Verb::SetLen, Verb::Open] {
            assert_eq!(again.of_kind(verb), 0, "{what}: {again}");
        }
        let turns = u64::from(!mode.is_exclusive());
        assert_eq!([again.of_kind(Verb::TryLock), again.of_kind(Verb::Unlock)], [turns; 2], "{what}: {again}");
        assert_eq!(again.of_kind(Verb::Stat), 1, "{what}: {again}");
        // A handle's first write has a block of numbers to begin, and perhaps a torn tail to cut.
        assert!(first.of_kind(Verb::SyncData) <= 4, "{what}: {first}");
    }
}

#[test]
fn a_put_without_durability_syncs_nothing_once_a_handle_has_written() {
    for (state, mode) in STATES.into_iter().flat_map(|state| MODES.map(|mode| (state, mode))) {
        if !state.exists_in(mode) {
            continue;
        }
        let [_, again] = count(mode, state, &PUT);
        let syncs =
            [Verb::SyncData, Verb::SyncAll, Verb::SyncDir, Verb::SyncFileSystem].map(|verb| again.of_kind(verb));
        assert_eq!((syncs, again.of_kind(Verb::WriteAt)), ([0; 4], 1), "{}, {}: {again}", state.name(), mode.name());
    }
}

/// With a lock that only an interval or a long rewriting does without.
#[test]
fn no_usual_call_syncs_without_the_lock() {
    for (mode, usual) in MODES.into_iter().flat_map(|mode| WRITES.iter().chain(&WHOLE).map(move |usual| (mode, usual)))
    {
        let lab = Lab::new(mode, usual.durability);
        lab.bring_into(State::Later);
        if usual.name.starts_with("closed") {
            lab.handle().close().unwrap();
        }
        (usual.call)(&lab);
        assert_eq!(lab.disk.syncs_without_lock(), 0, "{}, {}", usual.name, mode.name());
    }
}
