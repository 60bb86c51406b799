//! Sleeping until the system reports a change of a file: inotify on Linux.
//!
//! Each sleeper has an inotify instance of its own. Sleepers that shared one would have to hand each other the reports that they
//! read. The system allows a user 128 instances (`fs.inotify.max_user_instances`). A sleeper that gets none reports no changes, and
//! asks for one again whenever it is armed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering, fence};
use std::time::Duration;

use crate::disk::{DiskFile, Doze, Sleeper};

/// A write or a cut, a new link count, another name, the loss of the last name; then no more reports.
///
/// A file that loses its name to another one gets a new link count. A process that has it open keeps it alive, so the report of
/// its end (`IN_DELETE_SELF`) alone would not come.
const CHANGES: u32 = libc::IN_MODIFY | libc::IN_ATTRIB | libc::IN_MOVE_SELF | libc::IN_DELETE_SELF | libc::IN_ONESHOT;

/// A sleeper whose descriptors are made when it first needs them. What the system refuses, for want of descriptors for example,
/// is asked for again by the next call that needs it.
///
/// One thread sleeps, arms and asks for the descriptor. Others only wake it.
#[derive(Debug, Default)]
pub(super) struct RealSleeper {
    is_woken: AtomicBool,
    /// An eventfd that is written once, by [`Sleeper::wake`].
    woken: OnceLock<OwnedFd>,
    inotify: OnceLock<Inotify>,
    set: OnceLock<Set>,
    /// While there is no eventfd.
    doze: Doze,
}

#[derive(Debug)]
struct Inotify {
    instance: OwnedFd,
    /// The number of the watch that was armed last; -1 if there is none.
    armed: AtomicI32,
}

/// All descriptors in one that can be waited for.
#[derive(Debug)]
struct Set {
    epoll: OwnedFd,
    timer: OwnedFd,
}

impl RealSleeper {
    fn woken(&self) -> io::Result<&OwnedFd> {
        if let Some(woken) = self.woken.get() {
            return Ok(woken);
        }
        // SAFETY: this call takes no pointers.
        let made = unsafe { owned(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) }?;
        let woken = self.woken.get_or_init(|| made);
        // A thread that wakes this may have found no descriptor yet. Between them, the two fences let one thread see what the
        // other has done.
        fence(Ordering::SeqCst);
        if self.is_woken.load(Ordering::SeqCst) {
            write_one(woken);
        }
        Ok(woken)
    }

    fn inotify(&self) -> io::Result<&Inotify> {
        if let Some(inotify) = self.inotify.get() {
            return Ok(inotify);
        }
        // SAFETY: this call takes no pointers.
        let instance = unsafe { owned(libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK)) }?;
        if let Some(set) = self.set.get() {
            set.add(&instance)?;
        }
        Ok(self.inotify.get_or_init(|| Inotify { instance, armed: AtomicI32::new(-1) }))
    }

    fn set(&self) -> io::Result<&Set> {
        if let Some(set) = self.set.get() {
            return Ok(set);
        }
        let made = Set::new()?;
        made.add(self.woken()?)?;
        if let Ok(inotify) = self.inotify() {
            made.add(&inotify.instance)?;
        }
        Ok(self.set.get_or_init(|| made))
    }

    /// Waits until one of these can be read, at most this long.
    /// Returns whether a change was reported.
    fn wait(&self, most: Duration, for_changes: bool) -> bool {
        let Ok(woken) = self.woken() else {
            self.doze.rest(most);
            return false;
        };
        if self.is_woken.load(Ordering::SeqCst) {
            return false;
        }
        let polled = |file: &OwnedFd| libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let inotify = self.inotify.get().filter(|_| for_changes);
        let mut files = [polled(woken), polled(inotify.map_or(woken, |inotify| &inotify.instance))];
        let most = timespec(most);
        // A signal ends the wait early, which callers expect.
        // SAFETY: `files` has as many elements as the call is given, and they and `most` live until it returns. A null mask leaves
        // the signals as they are.
        unsafe { libc::ppoll(files.as_mut_ptr(), files.len() as libc::nfds_t, &most, std::ptr::null()) };
        inotify.is_some() && files[1].revents != 0
    }
}

impl Set {
    fn new() -> io::Result<Set> {
        // SAFETY: this call takes no pointers.
        let epoll = unsafe { owned(libc::epoll_create1(libc::EPOLL_CLOEXEC)) }?;
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: as above.
        let timer = unsafe { owned(libc::timerfd_create(libc::CLOCK_MONOTONIC, flags)) }?;
        let set = Set { epoll, timer };
        set.add(&set.timer)?;
        Ok(set)
    }

    fn add(&self, file: &OwnedFd) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        // SAFETY: `event` lives until the call returns, and the descriptors are open.
        let added =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, file.as_raw_fd(), &mut event) };
        if added == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Sleeper for RealSleeper {
    fn arm(&self, file: &dyn DiskFile) -> bool {
        // Without an eventfd it sleeps in a way that no report ends.
        let (Ok(_), Ok(Inotify { instance: inotify, armed })) = (self.woken(), self.inotify()) else { return false };
        let Some(descriptor) = file.descriptor() else { return false };
        // The system takes a watch away after it has queued its report, and not in one step. A watch that is armed again in
        // between would be taken away with it. So each arming makes a watch of its own.
        // SAFETY: takes no pointer. It fails if the watch is gone.
        unsafe { libc::inotify_rm_watch(inotify.as_raw_fd(), armed.load(Ordering::Relaxed)) };
        discard(inotify);
        // The file itself, whatever its path names now.
        let path = format!("/proc/self/fd/{}\0", descriptor.as_raw_fd());
        // SAFETY: the path ends with a zero byte and lives until the call returns.
        let watched = unsafe { libc::inotify_add_watch(inotify.as_raw_fd(), path.as_ptr().cast(), CHANGES) };
        armed.store(watched, Ordering::Relaxed);
        watched != -1
    }

    fn sleep(&self, most: Duration) -> bool {
        self.wait(most, true)
    }

    fn rest(&self, most: Duration) {
        self.wait(most, false);
    }

    fn wake(&self) {
        self.is_woken.store(true, Ordering::SeqCst);
        self.doze.wake();
        fence(Ordering::SeqCst);
        if let Some(woken) = self.woken.get() {
            write_one(woken);
        }
    }

    fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        self.set().map(|set| set.epoll.as_fd())
    }

    fn forget(&self) {
        if let Some(inotify) = self.inotify.get() {
            discard(&inotify.instance);
        }
    }

    fn set_timer(&self, after: Duration) {
        let Some(set) = self.set.get() else { return };
        // A time of zero would turn the timer off.
        let it_value = timespec(after.max(Duration::from_nanos(1)));
        let time = libc::itimerspec { it_interval: timespec(Duration::ZERO), it_value };
        // SAFETY: `time` lives until the call returns, which also forgets that an earlier time is over. The old time is not asked
        // for.
        unsafe { libc::timerfd_settime(set.timer.as_raw_fd(), 0, &time, std::ptr::null_mut()) };
    }
}

/// Makes a sleep end, and all later ones: the value is never read.
fn write_one(event: &OwnedFd) {
    let one = 1_u64.to_ne_bytes();
    // A full counter refuses the write, and is readable all the same.
    // SAFETY: `one` lives until the call returns, and has this many bytes.
    unsafe { libc::write(event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

/// Reads away what was reported.
fn discard(inotify: &OwnedFd) {
    let mut buffer = [0_u8; 1024];
    // SAFETY: the buffer is ours to be written to, and has this many bytes.
    while unsafe { libc::read(inotify.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) } > 0 {}
}

/// The descriptor that a call has returned, or the system's error.
///
/// # Safety
///
/// The descriptor must belong to nothing else.
unsafe fn owned(descriptor: libc::c_int) -> io::Result<OwnedFd> {
    if descriptor == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the caller has just got it from the system.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn timespec(duration: Duration) -> libc::timespec {
    // SAFETY: all fields are numbers, of which zero is one.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    time.tv_sec = duration.as_secs().try_into().unwrap_or(libc::time_t::MAX);
    time.tv_nsec = duration.subsec_nanos().into();
    time
}
