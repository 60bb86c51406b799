//! Processes that a test can disturb, on the simulated disk and on real files.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use caskfile::Limits;
use caskfile::disk::Disk;
use caskfile::disk::sim::{Choices, Fault, Repeat, SimDisk, Verb, When};

use crate::common::hooked::HookedDisk;
use crate::common::{self, TempDir};

/// A process, on the simulated disk or on real files.
pub trait Seat: Clone + Send + Sync + 'static {
    /// The first process on a disk that has nothing on it.
    fn first() -> Self;
    /// Another one on the same disk.
    fn another(&self) -> Self;
    fn disk(&self) -> Arc<dyn Disk>;
    fn path(&self) -> PathBuf;
    fn names(&self) -> Vec<PathBuf>;
    /// Makes this process's `nth` write or rename from now on fail.
    fn fail(&self, verb: Verb, nth: u64, fault: Fault);
    /// Does something before this process's `nth` call from now on.
    fn before(&self, nth: u64, act: impl Fn() + Send + Sync + 'static);
    /// The same before its `nth` call for a lock from now on, of at most a thousand.
    fn before_lock(&self, nth: u64, act: impl Fn() + Send + Sync + 'static);
    /// Nothing that was planned happens any more.
    fn heal(&self);
    fn kill(&self);
    /// The disk as a power cut may leave it.
    fn after_power_cut(&self, seed: u64) -> Self;
}

impl Seat for SimDisk {
    fn first() -> SimDisk {
        SimDisk::new()
    }

    fn another(&self) -> SimDisk {
        self.process()
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    fn path(&self) -> PathBuf {
        "/store".into()
    }

    fn names(&self) -> Vec<PathBuf> {
        self.paths()
    }

    fn fail(&self, verb: Verb, nth: u64, fault: Fault) {
        SimDisk::fail(self, When::nth(nth).of(verb).by(self), fault, Repeat::Once);
    }

    fn before(&self, nth: u64, act: impl Fn() + Send + Sync + 'static) {
        SimDisk::before(self, When::nth(nth).by(self), Repeat::Once, move |_| act());
    }

    fn before_lock(&self, nth: u64, act: impl Fn() + Send + Sync + 'static) {
        SimDisk::before(self, When::nth(nth).of(Verb::TryLock).by(self), Repeat::Once, move |_| act());
        let endless = |_: &SimDisk| panic!("a process asks for locks without end");
        SimDisk::before(self, When::nth(1000).of(Verb::TryLock).by(self), Repeat::Forever, endless);
    }

    fn heal(&self) {
        self.clear_hooks();
        self.clear_faults();
    }

    fn kill(&self) {
        SimDisk::kill(self);
    }

    fn after_power_cut(&self, seed: u64) -> SimDisk {
        self.cut();
        self.reboot(&mut Choices::from_seed(seed))
    }
}

/// A process on a simulated disk on which locks linger after every write that is not synced.
#[derive(Clone)]
pub struct Lingering(SimDisk);

impl Seat for Lingering {
    fn first() -> Lingering {
        let disk = SimDisk::new();
        disk.set_limits(Limits {
            burst_turns: 0,
            burst_gap: u64::MAX,
            least_running_cost: u64::MAX,
            renewal_look: u64::MAX,
            ..Limits::REAL
        });
        disk.set_waiting_line(true);
        disk.set_lingering(Some(1));
        Lingering(disk)
    }

    fn another(&self) -> Lingering {
        Lingering(self.0.process())
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.0.clone())
    }

    fn path(&self) -> PathBuf {
        self.0.path()
    }

    fn names(&self) -> Vec<PathBuf> {
        self.0.names()
    }

    fn fail(&self, verb: Verb, nth: u64, fault: Fault) {
        Seat::fail(&self.0, verb, nth, fault);
    }

    fn before(&self, nth: u64, act: impl Fn() + Send + Sync + 'static) {
        Seat::before(&self.0, nth, act);
    }

    fn before_lock(&self, nth: u64, act: impl Fn() + Send + Sync + 'static) {
        self.0.before_lock(nth, act);
    }

    fn heal(&self) {
        self.0.heal();
    }

    fn kill(&self) {
        self.0.kill();
    }

    fn after_power_cut(&self, seed: u64) -> Lingering {
        Lingering(self.0.after_power_cut(seed))
    }
}

/// A process on real files: to the others it is killed when all its calls fail, and its files are closed.
#[derive(Clone)]
pub struct RealSeat {
    directory: Arc<TempDir>,
    plans: Arc<Plans>,
    disk: Arc<HookedDisk>,
}

#[derive(Default)]
struct Plans {
    dead: AtomicBool,
    /// Which write or rename fails, counted down.
    faults: Mutex<Vec<(&'static str, u64, Fault)>>,
    act: Mutex<Option<(u64, Act)>>,
}

type Act = Arc<dyn Fn() + Send + Sync>;

impl Plans {
    /// What happens before a call. Returns how many bytes it may handle.
    fn before(&self, name: &str) -> std::io::Result<usize> {
        let due = {
            let mut act = self.act.lock().unwrap();
            act.iter_mut().for_each(|(nth, _)| *nth -= 1);
            act.take_if(|(nth, _)| *nth == 0)
        };
        if let Some((_, act)) = due {
            act();
        }
        if self.dead.load(Ordering::SeqCst) {
            return Err(std::io::Error::other("the process was killed"));
        }
        let mut faults = self.faults.lock().unwrap();
        faults.iter_mut().filter(|(meant, ..)| *meant == name).for_each(|(_, nth, _)| *nth -= 1);
        let Some(at) = faults.iter().position(|(_, nth, _)| *nth == 0) else { return Ok(usize::MAX) };
        match faults.remove(at).2 {
            Fault::Os(errno) => Err(std::io::Error::from_raw_os_error(errno)),
            Fault::Short(most) => Ok(most),
            Fault::Kill(most) => {
                // The next call fails, so the outcome of this one is never seen.
                self.dead.store(true, Ordering::SeqCst);
                Ok(most)
            }
            other => panic!("{other:?} cannot happen to a real file"),
        }
    }
}

impl RealSeat {
    fn new(directory: Arc<TempDir>) -> RealSeat {
        let plans = Arc::<Plans>::default();
        let (ours, most) = (Arc::clone(&plans), Arc::new(AtomicUsize::new(usize::MAX)));
        let limit = Arc::clone(&most);
        let mut disk = HookedDisk::new(move |name| {
            limit.store(ours.before(name)?, Ordering::SeqCst);
            Ok(())
        });
        disk.most = most;
        RealSeat { directory, plans, disk: Arc::new(disk) }
    }
}

impl Seat for RealSeat {
    fn first() -> RealSeat {
        RealSeat::new(Arc::new(TempDir::without_waits()))
    }

    fn another(&self) -> RealSeat {
        RealSeat::new(Arc::clone(&self.directory))
    }

    fn disk(&self) -> Arc<dyn Disk> {
        self.disk.clone()
    }

    fn path(&self) -> PathBuf {
        self.directory.join("store")
    }

    fn names(&self) -> Vec<PathBuf> {
        common::names(self.directory.path()).into_iter().map(PathBuf::from).collect()
    }

    fn fail(&self, verb: Verb, nth: u64, fault: Fault) {
        let name = if verb == Verb::Rename { "rename" } else { "write_at" };
        self.plans.faults.lock().unwrap().push((name, nth, fault));
    }

    fn before(&self, nth: u64, act: impl Fn() + Send + Sync + 'static) {
        *self.plans.act.lock().unwrap() = Some((nth, Arc::new(act)));
    }

    fn before_lock(&self, _: u64, _: impl Fn() + Send + Sync + 'static) {
        unreachable!("the locks of a real disk are not counted");
    }

    fn heal(&self) {
        self.plans.act.lock().unwrap().take();
        self.plans.faults.lock().unwrap().clear();
    }

    fn kill(&self) {
        self.plans.dead.store(true, Ordering::SeqCst);
    }

    fn after_power_cut(&self, _: u64) -> RealSeat {
        unreachable!("the power of a real disk is not cut");
    }
}
