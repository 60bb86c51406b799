//! Random sequences of all calls, through several handles that know nothing of each other, agree with a model.
//!
//! Every handle is opened by itself, as another process would, with settings of its own. A sequence that fails is
//! shrunk and printed. The sequences are the same in every run; `CASKFILE_MODEL_SEED` draws others, and
//! `CASKFILE_MODEL_TESTS` says how many.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use caskfile::disk::sim::SimDisk;
use caskfile::disk::{Disk, RealDisk};
use caskfile::{Cask, Error, Limits};
use quickcheck::{Arbitrary, Gen, QuickCheck, TestResult};

use crate::common::TempDir;
use crate::common::dice::Dice;
use crate::common::held::{Held, Holdings};
use crate::common::history::{self, Call, History, Refusal, predict};
use crate::common::ops::{Op, Setup, below};
use crate::common::player::{answer, ask, check_receipt, copy, index_of, look_at_copy, read_all, refusal, tell};

const HANDLES: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    /// Closes what the handle had open.
    Open(usize, Setup),
    Close(usize),
    Drop(usize),
    Call(usize, Op),
    /// Begins to hold a scan or a value, which goes on with every later step, whatever that does.
    Hold(usize, u16),
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Step {
        let handle = below(g, HANDLES);
        match below(g, 24) {
            0 => Step::Open(handle, Setup::arbitrary(g)),
            1 => Step::Close(handle),
            2 if bool::arbitrary(g) => Step::Drop(handle),
            3 | 4 => Step::Hold(handle, u16::arbitrary(g)),
            _ => Step::Call(handle, Op::arbitrary(g)),
        }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Step>> {
        match self.clone() {
            Step::Open(handle, setup) => Box::new(setup.shrink().map(move |setup| Step::Open(handle, setup))),
            Step::Drop(handle) => Box::new(std::iter::once(Step::Close(handle))),
            Step::Call(handle, op) => {
                let first = (handle > 0).then(|| Step::Call(0, op.clone()));
                Box::new(first.into_iter().chain(op.shrink().map(move |op| Step::Call(handle, op))))
            }
            _ => quickcheck::empty_shrinker(),
        }
    }
}

/// Where the store lies.
enum Ground {
    Real(TempDir),
    Simulated(SimDisk),
}

impl Ground {
    /// As another process would see it.
    fn disk(&self) -> Arc<dyn Disk> {
        match self {
            Ground::Real(_) => Arc::new(RealDisk),
            Ground::Simulated(disk) => Arc::new(disk.process()),
        }
    }

    fn path(&self) -> PathBuf {
        match self {
            Ground::Real(directory) => directory.join("store"),
            Ground::Simulated(_) => PathBuf::from("/store"),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Ground::Real(_) => std::fs::read(self.path()).unwrap_or_default(),
            Ground::Simulated(disk) => disk.contents(self.path()).unwrap_or_default(),
        }
    }

    fn names(&self) -> Vec<PathBuf> {
        match self {
            Ground::Real(directory) => {
                directory.path().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect()
            }
            Ground::Simulated(disk) => disk.paths(),
        }
    }
}

struct Handle {
    cask: Cask,
    setup: Setup,
}

struct World {
    ground: Ground,
    handles: [Option<Handle>; HANDLES],
    history: History,
    /// Scans and values, some of which outlive their handles.
    holdings: Holdings,
}

impl World {
    fn new(ground: Ground) -> World {
        World { ground, handles: [const { None }; HANDLES], history: History::default(), holdings: Holdings::default() }
    }

    /// Whether another handle keeps the file's lock.
    fn locked_out(&self, handle: usize) -> bool {
        let others = self.handles.iter().enumerate().filter(|(at, _)| *at != handle);
        others.filter_map(|(_, other)| other.as_ref()).any(|other| other.setup.exclusive && !other.setup.read_only)
    }

    fn open(&mut self, at: usize, setup: Setup) -> Result<(), String> {
        self.close(at)?;
        match Cask::open_on(self.ground.disk(), self.ground.path(), &setup.config()) {
            Ok(cask) => {
                self.handles[at] = Some(Handle { cask, setup });
                Ok(())
            }
            Err(Error::LockTimeout { .. }) if !setup.read_only && self.locked_out(at) => Ok(()),
            Err(Error::Io { source, .. })
                if setup.read_only && source.kind() == std::io::ErrorKind::NotFound && self.history.len() == 0 =>
            {
                Ok(())
            }
            Err(error) => Err(format!("open: {error}")),
        }
    }

    fn close(&mut self, at: usize) -> Result<(), String> {
        let Some(handle) = self.handles[at].take() else { return Ok(()) };
        handle.cask.close().map_err(|error| format!("close: {error}"))?;
        match handle.cask.get("a") {
            Err(Error::Closed) => {}
            other => return Err(format!("a closed handle said {other:?}")),
        }
        handle.cask.close().map_err(|error| format!("a second close: {error}"))?;
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        let at = match *step {
            Step::Open(at, setup) => return self.open(at, setup),
            Step::Close(at) => return self.close(at),
            Step::Drop(at) => {
                self.handles[at] = None;
                return Ok(());
            }
            Step::Call(at, _) | Step::Hold(at, _) => at,
        };
        if self.handles[at].is_none() {
            self.open(at, Setup::DEFAULT)?;
        }
        match step {
            Step::Call(_, op) => self.call(at, op)?,
            Step::Hold(_, seed) => self.hold(at, *seed)?,
            Step::Open(..) | Step::Close(_) | Step::Drop(_) => {}
        }
        self.holdings.go_on()
    }

    fn call(&mut self, at: usize, op: &Op) -> Result<(), String> {
        let locked_out = self.locked_out(at);
        let Some(handle) = &self.handles[at] else { return Ok(()) };
        let call = self.history.call(op, || self.ground.bytes());
        let state = Arc::clone(self.history.last());
        if let Call::Copy(copying) = call {
            let (disk, store) = (self.ground.disk(), self.ground.path());
            let to = store.with_file_name("copy");
            let made = copy(&handle.cask, copying, &*disk, &store, &to);
            let made = made.map_err(|error| format!("{call:?}: {error}"))?;
            let found = look_at_copy(Arc::clone(&disk), &to, self.history.highest_seen)?;
            same(&found, &*state, "the copy")?;
            made.check(&found)?;
            same(&made.of_one_moment, &true, "what is said of the copy")?;
            return disk.remove(&to).map_err(|error| error.to_string());
        }
        if call.is_read() {
            let said = ask(&handle.cask, &call).map_err(|error| format!("{call:?}: {error}"))?;
            return same(&said, &answer(&call, &state), "the answer");
        }
        let refused = refusal(&call, &state, handle.setup.read_only);
        let early = matches!(refused, Some(Refusal::ReadOnly | Refusal::PreviousNotSpecified));
        let early = early || call == Call::Reopen && handle.setup.read_only;
        match (tell(&handle.cask, &call), &refused) {
            (Err(Error::LockTimeout { .. }), _) if locked_out && !early => Ok(()),
            (_, _) if locked_out && !early => Err(String::from("it wrote while another handle had the lock")),
            (Err(error), Some(refused)) => same(&Refusal::of(&error).as_ref(), &Some(refused), "the refusal"),
            (Err(error), None) => Err(format!("{call:?}: {error}")),
            (Ok(receipt), Some(refused)) => Err(format!("{receipt:?} instead of {refused:?}")),
            (Ok(receipt), None) => {
                let changes = predict(&call, &state).map_err(|refusal| format!("{refusal:?}"))?;
                let before = self.history.highest_seen;
                let look = |key: &history::Key| index_of(&handle.cask, key).map_err(|error| error.to_string());
                let last_put = match changes.last() {
                    Some((key, Some(_))) => look(key)?,
                    _ => None,
                };
                check_receipt(&receipt, changes.len(), last_put, before)?;
                if !changes.is_empty() {
                    self.history.commit(&changes, look)?;
                }
                self.history.highest_seen = self.history.highest_seen.max(receipt.index.unwrap_or(0));
                Ok(())
            }
        }
    }

    fn hold(&mut self, at: usize, seed: u16) -> Result<(), String> {
        let Some(handle) = &self.handles[at] else { return Ok(()) };
        let held = Held::begin(&handle.cask, &mut Dice::new(seed.into()), &[self.history.last()]);
        match held.map_err(|error| format!("to be held: {error}"))? {
            Some(held) => self.holdings.add(held),
            None => Ok(()),
        }
    }

    /// Whatever happened: all handles agree, the file is whole, and nothing is left beside it.
    fn finish(mut self) -> Result<(), String> {
        let expected = Arc::clone(self.history.last());
        for handle in self.handles.iter().flatten() {
            same(
                &read_all(&handle.cask).map_err(|error| error.to_string())?,
                &*expected,
                "a handle's view at the end",
            )?;
            handle.cask.verify().map_err(|error| format!("verify: {error}"))?;
        }
        for at in 0..HANDLES {
            self.close(at)?;
        }
        self.holdings.finish()?;
        if self.history.len() == 0 {
            return Ok(());
        }
        let again = Cask::open_on(self.ground.disk(), self.ground.path(), &Setup::READER.config());
        let again = again.map_err(|error| format!("reopen: {error}"))?;
        same(&read_all(&again).map_err(|error| error.to_string())?, &*expected, "what a new handle sees")?;
        let verified = again.verify().map_err(|error| format!("verify: {error}"))?;
        same(&(verified.keys, verified.torn_bytes), &(expected.len() as u64, 0), "what verify says")?;
        same(&self.ground.names(), &vec![self.ground.path()], "the names beside the store")
    }
}

fn same<T: PartialEq + std::fmt::Debug>(found: &T, expected: &T, what: &str) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: found {found:?}, expected {expected:?}")) }
}

fn run(ground: Ground, steps: &[Step]) -> TestResult {
    let mut world = World::new(ground);
    for (at, step) in steps.iter().enumerate() {
        if let Err(error) = world.step(step) {
            return TestResult::error(format!("step {at}, {step:?}: {error}"));
        }
    }
    match world.finish() {
        Ok(()) => TestResult::passed(),
        Err(error) => TestResult::error(format!("at the end: {error}")),
    }
}

/// As many tests as `CASKFILE_MODEL_TESTS` says, from the seed `CASKFILE_MODEL_SEED`.
fn check(tests: u64, property: fn(Vec<Step>) -> TestResult) {
    let setting = |name| std::env::var(name).ok().map(|text: String| text.parse().expect("a number"));
    let seed = setting("CASKFILE_MODEL_SEED").unwrap_or(0);
    let tests = setting("CASKFILE_MODEL_TESTS").unwrap_or(tests);
    QuickCheck::new().rng(Gen::from_size_and_seed(80, seed)).tests(tests).quickcheck(property);
}

#[test]
fn random_calls_on_the_simulated_disk_match_the_model() {
    check(60, |steps| run(Ground::Simulated(SimDisk::new()), &steps));
}

#[test]
fn random_calls_with_small_limits_match_the_model() {
    check(60, |steps| {
        let disk = SimDisk::new();
        disk.set_limits(Limits::SMALL);
        run(Ground::Simulated(disk), &steps)
    });
}

#[test]
fn random_calls_with_some_small_limits_match_the_model() {
    check(40, |steps| {
        let disk = SimDisk::new();
        let sum = steps.iter().map(|step| format!("{step:?}").len() as u64).sum::<u64>();
        disk.set_limits(Limits::mixed(sum.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        run(Ground::Simulated(disk), &steps)
    });
}

#[test]
fn random_calls_without_maps_and_holes_match_the_model() {
    check(20, |steps| {
        let disk = SimDisk::new();
        disk.set_limits(Limits::mixed(steps.len() as u64 * 0x9E37_79B9));
        disk.set_maps(false);
        disk.set_holes(false);
        run(Ground::Simulated(disk), &steps)
    });
}

#[test]
fn random_calls_on_real_files_agree_with_the_model() {
    check(25, |steps| run(Ground::Real(TempDir::without_waits()), &steps));
}

#[test]
fn a_missing_store_is_no_store_of_the_model() {
    // The model lets a reader fail to open a store that does not exist, and nothing else.
    let mut world = World::new(Ground::Simulated(SimDisk::new()));
    world.open(0, Setup::READER).unwrap();
    assert!(world.handles[0].is_none());
    assert!(world.ground.names().is_empty());
    assert_eq!(world.ground.path(), Path::new("/store"));
}
