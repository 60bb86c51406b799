//! Locks that linger: a description that has released its lock "soon" keeps it for up to about a tenth of a millisecond, so that
//! the next turn of the same handle finds it still there.
//!
//! One thread per process, the helper, releases what has lingered long enough. It runs only while locks linger, and a
//! second longer.
//!
//! # Forks
//!
//! A forked child shares its parent's descriptions, and so their locks. If the parent dies while a lock lingers, the child keeps
//! it, perhaps for ever. So a handler releases all lingering locks before a `fork`, and a description that was open at
//! a fork never lets its lock linger again. Children of a bare `clone` run no handler; see `docs/LIMITS.md`. Those of `posix_spawn`
//! need none, since their descriptors are closed at once.
//!
//! In the child there is no helper. The process in which the helper was first wanted is the only one that uses it; in a
//! child of that process, no lock lingers.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::{locks, retry_interrupted};
use crate::fork::Process;

/// How long a lock lingers. The helper sleeps for this long, and the system adds up to 50 µs to a sleep, unless it is busy.
const LINGER: Duration = Duration::from_micros(50);

/// The helper ends when no lock has lingered for this long.
const IDLE: Duration = Duration::from_secs(1);

/// How often the fork handler tries for a lock that another thread has for a moment. A signal handler may fork while its own
/// thread has it, so the handler must not wait for ever.
const ATTEMPTS: usize = 1000;

/// The lock of one description.
#[derive(Debug)]
pub(super) struct Linger {
    shared: Arc<Shared>,
    process: Process,
    /// The number of forks when the description was opened. `None` if its lock must not linger.
    forks: Option<u64>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Open as long as `is_open`.
    descriptor: RawFd,
    is_open: bool,
    /// Since when the lock has lingered; `None` if it does not.
    since: Option<Instant>,
    /// How often it has begun to linger.
    count: u64,
    /// The helper has this description in its list, or is about to get it.
    is_watched: bool,
    /// `count`, when the helper last looked.
    seen: u64,
    /// Whether the system knows the line of waiting descriptions. Asked for once; without it, no lock lingers.
    has_line: Option<bool>,
}

impl Linger {
    /// The number of forks so far. Asked for before a description is opened, so that a child which shares it was forked after that.
    pub(super) fn forks() -> Option<u64> {
        counts_forks().then(|| FORKS.load(SeqCst))
    }

    pub(super) fn new(file: &File, forks: Option<u64>) -> Linger {
        let state = State {
            descriptor: file.as_raw_fd(),
            is_open: true,
            since: None,
            count: 0,
            is_watched: false,
            seen: 0,
            has_line: None,
        };
        Linger { shared: Arc::new(Shared { state: Mutex::new(state) }), process: Process::this(), forks }
    }

    /// Takes the lock back, if it lingers, and says whether it did.
    pub(super) fn take_back(&self) -> bool {
        lock(&self.shared.state).since.take().is_some()
    }

    /// Lets the lock linger. Returns `false` if it must be released at once.
    pub(super) fn begin(&self, file: &File) -> bool {
        let Some(forks) = self.forks.filter(|_| HELPER.belongs_to(&self.process)) else { return false };
        if FORKS.load(SeqCst) != forks {
            // A child shares the description.
            return false;
        }
        let mut state = lock(&self.shared.state);
        if !*state.has_line.get_or_insert_with(|| locks::knows_lines(file)) {
            return false;
        }
        state.since = Some(Instant::now());
        state.count = state.count.wrapping_add(1);
        let is_watched = std::mem::replace(&mut state.is_watched, true);
        drop(state);
        // After the lock has begun to linger: a fork that comes later finds it in the list.
        if (is_watched || HELPER.watch(&self.shared)) && FORKS.load(SeqCst) == forks {
            return true;
        }
        // If the lock is gone already, to release it once more does no harm: no turn has taken it through this description.
        self.take_back();
        false
    }
}

impl Drop for Linger {
    fn drop(&mut self) {
        // In a forked child, another thread of the parent may have had the mutex at the moment of the fork. The descriptor is
        // the child's own, and no helper uses it there.
        if self.process.is_this() {
            let mut state = lock(&self.shared.state);
            state.is_open = false;
            // Another description that shares the lock, that of a forked child, would keep it.
            state.release();
        }
    }
}

impl State {
    fn release(&mut self) {
        if self.since.take().is_some() {
            // A lock that cannot be given up goes with the description.
            // SAFETY: takes no pointer. The descriptor is open: its owner sets `is_open` to false, under the mutex, before it
            // closes it, and no lock lingers after that.
            let _ = retry_interrupted(|| match unsafe { libc::flock(self.descriptor, libc::LOCK_UN) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
    }

    /// What the helper does with a description. Returns the time until the next look, or `None` if it need not look again.
    fn look(&mut self) -> Option<Duration> {
        let left = self.since.map(|since| LINGER.saturating_sub(since.elapsed()));
        if left == Some(Duration::ZERO) {
            self.release();
        }
        // In a burst, the helper often finds a turn under way, and must not have to be woken after each of them.
        let is_in_use = self.is_open && self.count != std::mem::replace(&mut self.seen, self.count);
        match left {
            Some(left) if !left.is_zero() => Some(left),
            _ if is_in_use => Some(LINGER),
            _ => {
                self.is_watched = false;
                None
            }
        }
    }
}

/// The thread that releases lingering locks, for all descriptions of the process.
struct Helper {
    list: Mutex<List>,
    changed: Condvar,
    /// The process whose helper this is; 0 if there is none yet.
    home: AtomicU64,
}

struct List {
    files: Vec<Arc<Shared>>,
    is_running: bool,
}

static HELPER: Helper = Helper {
    list: Mutex::new(List { files: Vec::new(), is_running: false }),
    changed: Condvar::new(),
    home: AtomicU64::new(0),
};

impl Helper {
    /// Returns whether this is the helper of the process: that of the first process that asks, and of no child of it.
    fn belongs_to(&self, process: &Process) -> bool {
        let Some(number) = process.number() else { return false };
        let home = self.home.load(SeqCst);
        home == number || home == 0 && self.home.compare_exchange(0, number, SeqCst, SeqCst).is_ok()
    }

    /// Has the helper look at a description. Returns `false` if there is no helper and none can be started.
    fn watch(&self, file: &Arc<Shared>) -> bool {
        let mut list = lock(&self.list);
        if !list.is_running {
            let started = std::thread::Builder::new().name("caskfile-lock".to_owned()).spawn(|| HELPER.run());
            if started.is_err() {
                // It is not tried in each turn again.
                let mut state = lock(&file.state);
                (state.is_watched, state.has_line) = (false, Some(false));
                return false;
            }
            list.is_running = true;
        }
        list.files.push(Arc::clone(file));
        drop(list);
        self.changed.notify_one();
        true
    }

    fn run(&self) {
        let mut list = lock(&self.list);
        loop {
            let mut next: Option<Duration> = None;
            list.files.retain(|file| {
                let due = lock(&file.state).look();
                next = next.into_iter().chain(due).min();
                due.is_some()
            });
            let waited = self.changed.wait_timeout(list, next.unwrap_or(IDLE));
            let (back, time) = waited.unwrap_or_else(PoisonError::into_inner);
            list = back;
            if next.is_none() && time.timed_out() && list.files.is_empty() {
                list.is_running = false;
                return;
            }
        }
    }
}

/// How many forks there were, since the handler is registered.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// Returns whether forks are counted from now on at the latest.
fn counts_forks() -> bool {
    static BEGUN: AtomicBool = AtomicBool::new(false);
    static DONE: AtomicBool = AtomicBool::new(false);
    if cfg!(miri) {
        return false;
    }
    if !BEGUN.swap(true, SeqCst) {
        // SAFETY: the handler is a function of the program, which lives as long as the process.
        let registered = unsafe { libc::pthread_atfork(Some(before_fork), None, None) };
        DONE.store(registered == 0, SeqCst);
    }
    // Another thread may be registering it at this moment. Then locks of this description do not linger.
    DONE.load(SeqCst)
}

extern "C" fn before_fork() {
    FORKS.fetch_add(1, SeqCst);
    // A child inherits the handler and a copy of the list. A lock in it is its parent's, and the parent may have a turn.
    if HELPER.home.load(SeqCst) == 0 || !HELPER.belongs_to(&Process::this()) {
        return;
    }
    if let Some(list) = attempt(&HELPER.list) {
        for file in &list.files {
            if let Some(mut state) = attempt(&file.state) {
                state.release();
            }
        }
    }
}

/// Locks a mutex that other threads have for moments only.
fn attempt<T>(mutex: &Mutex<T>) -> Option<std::sync::MutexGuard<'_, T>> {
    for _ in 0..ATTEMPTS {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    None
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, not(any(miri, loom, shuttle))))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::disk::os::file::RealFile;
    use crate::disk::scratch::Scratch;
    use crate::disk::{Access, Disk, DiskFile, RealDisk};
    use crate::patience::with_a_deadline;

    /// Two descriptions of a file, of which the first has the lock.
    ///
    /// Other tests fork meanwhile: locks of descriptions that were open before do not linger, and a child has them for a moment after
    /// they were closed here. So each lock is given up before.
    fn locked(scratch: &Scratch) -> [Arc<dyn DiskFile>; 2] {
        let path = scratch.0.join("file");
        if !path.exists() {
            drop(RealDisk.create_new(&path, 0o600).unwrap());
        }
        let files = [(); 2].map(|()| RealDisk.open(&path, Access::ReadWrite).unwrap());
        assert!(files[0].try_lock().unwrap());
        files
    }

    #[test]
    fn a_lingering_lock_is_released_without_another_call() {
        let Some(()) = with_a_deadline(a_lingering_lock_is_released_without_another_call) else { return };
        let scratch = Scratch::new();
        // The helper ends in between, and is started again.
        for round in 0..4 {
            let [file, other] = locked(&scratch);
            file.unlock_soon().unwrap();
            while !other.try_lock().unwrap() {
                std::thread::yield_now();
            }
            assert!(!file.take_lock_back());
            assert!(!file.try_lock().unwrap(), "the other description has it");
            other.unlock().unwrap();
            if round % 2 == 1 {
                std::thread::sleep(IDLE + Duration::from_millis(200));
            }
        }
    }

    #[test]
    fn a_lock_that_is_taken_back_stays() {
        let Some(()) = with_a_deadline(a_lock_that_is_taken_back_stays) else { return };
        let scratch = Scratch::new();
        let mut taken = 0;
        while taken < 20 {
            let [file, other] = locked(&scratch);
            for _ in 0..taken {
                file.unlock_soon().unwrap();
                // It is taken back too late now and then.
                assert!(file.take_lock_back() || file.try_lock().unwrap());
            }
            file.unlock_soon().unwrap();
            if file.take_lock_back() {
                taken += 1;
                std::thread::sleep(4 * LINGER);
                assert!(!other.try_lock().unwrap(), "the helper has released a lock that a turn has");
            }
            file.unlock().unwrap();
            assert!(other.try_lock().unwrap());
            other.unlock().unwrap();
        }
    }

    /// Threads with descriptions of their own, which keep the lock for several turns, leave it, and close the file now and then.
    #[test]
    fn a_lock_that_lingers_has_one_holder_at_a_time() {
        let Some(()) = with_a_deadline(a_lock_that_lingers_has_one_holder_at_a_time) else { return };
        let scratch = Scratch::new();
        let path = scratch.0.join("file");
        drop(RealDisk.create_new(&path, 0o600).unwrap());
        let (holder, kept) = (AtomicU64::new(0), AtomicU64::new(0));
        let hold = |number: u64| {
            let file = RealDisk.open(&path, Access::ReadWrite).unwrap();
            for turn in 0..300 {
                let was_kept = file.take_lock_back();
                kept.fetch_add(u64::from(was_kept), SeqCst);
                while !was_kept && !file.try_lock().unwrap() {
                    std::thread::yield_now();
                }
                assert_eq!(holder.swap(number, SeqCst), 0, "two descriptions have the lock");
                if turn % 7 == number {
                    std::thread::sleep(2 * LINGER);
                }
                assert_eq!(holder.swap(0, SeqCst), number);
                file.unlock_soon().unwrap();
                if turn % 50 == 0 {
                    std::thread::sleep(2 * LINGER);
                }
            }
        };
        std::thread::scope(|scope| {
            for number in 1..4 {
                let hold = &hold;
                scope.spawn(move || (0..5).for_each(|_| hold(number)));
            }
        });
        assert!(kept.load(SeqCst) > 0, "no lock has lingered");
    }

    #[test]
    fn a_lingering_lock_is_released_at_once_when_it_is_dropped_or_unlocked() {
        let scratch = Scratch::new();
        for n in 0..100 {
            let [file, other] = locked(&scratch);
            file.unlock_soon().unwrap();
            match n % 3 {
                0 => drop(file),
                1 => file.unlock().unwrap(),
                _ => assert!(file.try_lock().unwrap() && file.unlock().is_ok() && !file.take_lock_back()),
            }
            assert!(other.try_lock().unwrap());
            other.unlock().unwrap();
        }
    }

    /// The child shares the description, and would keep the lock if this process died.
    #[test]
    fn no_lock_lingers_at_a_fork_or_after_it() {
        let scratch = Scratch::new();
        for _ in 0..20 {
            let [file, other] = locked(&scratch);
            file.unlock_soon().unwrap();
            // SAFETY: the child calls only what a child may call.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: takes no pointer.
                unsafe {
                    libc::pause();
                    libc::_exit(0);
                }
            }
            let was_free = other.try_lock().unwrap();
            other.unlock().unwrap();
            assert!(file.try_lock().unwrap());
            file.unlock_soon().unwrap();
            let is_free = other.try_lock().unwrap();
            other.unlock().unwrap();
            // SAFETY: the child is this process's, and not waited for yet.
            unsafe {
                libc::kill(child, libc::SIGKILL);
                libc::waitpid(child, std::ptr::null_mut(), 0);
            }
            assert!(was_free && is_free, "{was_free}, {is_free}");
        }
    }

    /// A child of the store's process has a copy of the list, in which a lock may seem to linger: another thread was about to see
    /// that the process forks.
    #[test]
    fn a_child_that_forks_does_not_release_its_parents_lock() {
        let Some(()) = with_a_deadline(a_child_that_forks_does_not_release_its_parents_lock) else { return };
        let scratch = Scratch::new();
        let path = scratch.0.join("file");
        drop(RealDisk.create_new(&path, 0o600).unwrap());
        let open = || RealFile::of(Access::ReadWrite, || File::options().read(true).write(true).open(&path)).unwrap();
        for _ in 0..20 {
            let (file, other) = (open(), open());
            assert!(file.try_lock().unwrap());
            // Now it is in the helper's list, unless that thread comes in between.
            file.unlock_soon().unwrap();
            assert!(file.take_lock_back() || file.try_lock().unwrap());
            // SAFETY: the child makes system calls, and writes to memory that is its own. It ends without a destructor.
            match unsafe { libc::fork() } {
                0 => {
                    if let Ok(mut state) = file.linger.shared.state.try_lock() {
                        state.since = Some(Instant::now());
                    }
                    // SAFETY: as above.
                    unsafe {
                        if libc::fork() != 0 {
                            libc::wait(std::ptr::null_mut());
                        }
                        libc::_exit(0);
                    }
                }
                // SAFETY: the status of this child is not asked for.
                child => assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child),
            }
            assert!(!other.try_lock().unwrap(), "a turn of the parent has it");
            file.unlock().unwrap();
        }
    }
}
