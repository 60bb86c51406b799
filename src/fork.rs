//! How the engine knows that it runs in a forked child: everything that a child must not use remembers its [`Process`].
//!
//! A child has a copy of all of its parent's memory, and shares the parent's open files and their locks. It has none of
//! the parent's threads. What a thread had locked at the moment of the fork stays locked in the child for ever.
//!
//! Process ids are not enough: a process with the id 1 can fork into a new PID namespace, where its child has the id 1
//! too. Linux since 4.14 can give a child zeros in place of a page (`MADV_WIPEONFORK`), however the child is made. A
//! number in such a page belongs to one process, and comparing it costs one load. Where there is no such page, a
//! handler that runs in the child after `fork` sets the number to 0. Then the process id is compared as well, for
//! children of a bare `clone`.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicPtr, AtomicU64};

use crate::sync::thread::JoinHandle;

/// The process in which this value was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    word: &'static AtomicU64,
    /// The value of `word` in this process.
    number: u64,
    /// Only on systems that wipe no page.
    pid: Option<u32>,
}

/// The highest number in use. It is not wiped, so a child continues above its parent's numbers.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Points to the process's number, in a page that is wiped or in [`FALLBACK`]. Null before the first use.
static WORD: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());

static FALLBACK: AtomicU64 = AtomicU64::new(0);

impl Process {
    /// Returns the calling process.
    pub(crate) fn this() -> Process {
        Process::numbered_by(word())
    }

    /// Returns whether the caller runs in this process, and not in a child of it.
    #[inline]
    pub(crate) fn is_this(&self) -> bool {
        self.word.load(Relaxed) == self.number && self.pid.is_none_or(|pid| pid == std::process::id())
    }

    /// Returns a number that no parent and no child of the process has. `None` where a child of a bare `clone` would have the
    /// same one.
    #[cfg(target_os = "linux")]
    pub(crate) fn number(&self) -> Option<u64> {
        self.pid.is_none().then_some(self.number)
    }

    fn numbered_by(word: &'static AtomicU64) -> Process {
        let mut number = word.load(Relaxed);
        if number == 0 {
            let next = LAST.fetch_add(1, Relaxed) + 1;
            number = word.compare_exchange(0, next, Relaxed, Relaxed).map_or_else(|others| others, |_| next);
        }
        let pid = std::ptr::eq(word, &FALLBACK).then(std::process::id);
        Process { word, number, pid }
    }
}

/// Returns the process's number. Takes no lock: a fork while another thread holds it would leave it locked in the
/// child.
fn word() -> &'static AtomicU64 {
    let mut word = WORD.load(Acquire);
    if word.is_null() {
        let new = wiped_word().unwrap_or_else(|| {
            forget_in_children();
            &FALLBACK
        });
        let new = std::ptr::from_ref(new).cast_mut();
        // If another thread was faster, this page stays unused.
        word = WORD.compare_exchange(std::ptr::null_mut(), new, AcqRel, Acquire).map_or_else(|others| others, |_| new);
    }
    // SAFETY: it is not null, so it was made from a reference that lives for ever. No other pointers are stored there.
    unsafe { &*word }
}

/// Returns a zero in a page of its own, which is zero again in every child; `None` if the system has no such pages.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn wiped_word() -> Option<&'static AtomicU64> {
    if cfg!(miri) {
        return None;
    }
    // SAFETY: takes no pointer.
    let len = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: asks for new memory, at any place.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), len, access, kind, -1, 0) };
    if page == libc::MAP_FAILED {
        return None;
    }
    // Advice that does not exist must be refused: some emulators accept every advice and follow none.
    // SAFETY: the page is ours, and holds nothing yet.
    let wipes = unsafe { libc::madvise(page, len, -1) != 0 && libc::madvise(page, len, libc::MADV_WIPEONFORK) == 0 };
    if !wipes {
        // SAFETY: the page is ours, and nothing refers to it.
        unsafe { libc::munmap(page, len) };
        return None;
    }
    // SAFETY: a page is as aligned as an `AtomicU64` must be and large enough, holds zeros, which are one, and stays
    // mapped for ever. It is changed through this reference alone, and by the fork, which changes the child's copy
    // before the child runs.
    Some(unsafe { &*page.cast::<AtomicU64>() })
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn wiped_word() -> Option<&'static AtomicU64> {
    None
}

/// Makes every child of `fork` begin with a [`FALLBACK`] of 0.
fn forget_in_children() {
    extern "C" fn forget() {
        FALLBACK.store(0, Relaxed);
    }
    if !cfg!(miri) {
        // If this fails because memory is short, the process id still tells the child from its parent.
        // SAFETY: the handler stores a number, which is allowed after a fork.
        unsafe { libc::pthread_atfork(None, None, Some(forget)) };
    }
}

/// A background thread, and the process that started it.
#[derive(Debug)]
pub(crate) struct Background {
    process: Process,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    pub(crate) fn new(thread: JoinHandle<()>) -> Background {
        Background { process: Process::this(), thread: Some(thread) }
    }

    /// Returns whether the caller runs in the thread's process.
    pub(crate) fn is_here(&self) -> bool {
        self.process.is_this()
    }

    /// Waits for the thread's end. In a forked child there is no such thread, and this returns at once.
    pub(crate) fn join(mut self) {
        if self.is_here() {
            if let Some(thread) = self.thread.take() {
                // A panic of the thread has been printed already.
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if !self.is_here() {
            // Dropping it would detach the thread. In a child that may be another thread, which has got the same stack.
            std::mem::forget(self.thread.take());
        }
    }
}

#[cfg(all(test, target_os = "linux", not(any(miri, loom, shuttle))))]
mod tests {
    use super::*;
    use crate::patience::with_a_deadline;

    /// How a child is made.
    #[derive(Debug, Clone, Copy)]
    enum How {
        Fork,
        /// The bare system call, without the C library's handlers.
        Clone,
    }

    /// Runs `check` in a child and returns its result.
    fn in_a_child(how: How, check: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child loads and stores numbers and leaves by `_exit`.
        let child = unsafe {
            match how {
                How::Fork => libc::fork(),
                How::Clone => libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) as libc::pid_t,
            }
        };
        if child == 0 {
            // SAFETY: takes no pointer.
            unsafe { libc::_exit(i32::from(!check())) };
        }
        let mut status = 0;
        // SAFETY: `status` is there to be written to.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        status == 0
    }

    fn expect_children_to_be_others(process: impl Fn() -> Process) {
        for how in [How::Fork, How::Clone] {
            let parent = process();
            assert!(parent.is_this() && process().is_this());
            let differs = in_a_child(how, || {
                let child = process();
                let grandchild = || !parent.is_this() && !child.is_this() && process().is_this();
                !parent.is_this() && child.is_this() && in_a_child(how, grandchild)
            });
            assert!(differs, "{how:?}");
            assert!(parent.is_this(), "{how:?}");
        }
    }

    #[test]
    fn a_wiped_page_tells_a_child_from_its_parent() {
        assert!(Process::this().pid.is_none(), "this system wipes pages");
        expect_children_to_be_others(Process::this);
    }

    #[test]
    fn a_child_is_recognised_without_a_wiped_page() {
        forget_in_children();
        expect_children_to_be_others(|| Process::numbered_by(&FALLBACK));
    }

    /// In a child, a thread of its own can have the stack, and so the handle, of one of the parent's threads. Joining
    /// or detaching the parent's thread would then join or detach the child's.
    #[test]
    fn a_child_leaves_its_parents_threads_alone() {
        let Some(()) = with_a_deadline(a_child_leaves_its_parents_threads_alone) else { return };
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let stopped = std::sync::Arc::new(std::sync::Mutex::new(stopped));
        let threads = || {
            let waiting = |_| {
                let stopped = std::sync::Arc::clone(&stopped);
                std::thread::spawn(move || stopped.lock().unwrap().recv().unwrap_or_default())
            };
            (0..32).map(waiting).collect::<Vec<_>>()
        };
        let mut of_parent: Vec<_> = threads().into_iter().map(Background::new).collect();
        let end = |handles: Vec<Background>| {
            for (n, handle) in handles.into_iter().enumerate() {
                if n % 2 == 0 { handle.join() } else { drop(handle) }
            }
        };
        assert!(in_a_child(How::Fork, || {
            // SAFETY: takes no pointer. It ends a child that hangs.
            unsafe { libc::alarm(30) };
            let (go_on, wait) = std::sync::mpsc::channel::<()>();
            let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
            let own = [(); 64].map(|()| {
                let wait = std::sync::Arc::clone(&wait);
                std::thread::spawn(move || wait.lock().unwrap().recv().is_err())
            });
            end(std::mem::take(&mut of_parent));
            drop(go_on);
            let joined = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                own.into_iter().all(|thread| thread.join().unwrap_or_default())
            }));
            joined.unwrap_or_default()
        }));
        drop(stop);
        end(of_parent);
    }
}
