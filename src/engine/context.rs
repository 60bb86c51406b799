//! The context that all parts of an open store share: its file, its configuration and its counters.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::deadline::Deadline;
use crate::config::Config;
use crate::disk::{Access, Boot, Clock, Disk, FileIdentity, whole_ms};
use crate::fork::Process;
use crate::index::{MachineTime, Times};
use crate::limits::Shared;
use crate::log::create::Opening;
use crate::sync::{AtomicBool, AtomicU64};
use crate::{Error, Result};

/// While nothing moves, the next pause is the time since the last move, divided by this.
pub(crate) const PART_OF_STANDSTILL: u32 = 32;

/// The longest pause between two looks.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// The shortest pause where there is no waiting line.
const PAUSE_WITHOUT_LINE: Duration = Duration::from_micros(160);

/// The file of an open store and its configuration.
pub(crate) struct Context {
    pub(crate) disk: Arc<dyn Disk>,
    /// The disk without a hold on the store's directory. Copies use it: they go where their path leads now.
    pub(crate) by_path: Arc<dyn Disk>,
    pub(crate) path: Arc<Path>,
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) limits: Shared,
    /// Asked for with the first look at the clocks that needs it.
    boot: OnceLock<std::result::Result<Boot, Arc<std::io::Error>>>,
    /// The process that opened the store. A forked child shares its parent's file lock, and mutexes that other threads of the
    /// parent had locked stay locked in the child.
    process: Process,
    /// Set when closing begins, so that no call queues up after it.
    closing: AtomicBool,
    pub(crate) counters: Counters,
}

/// The counters of [`Stats`](crate::Stats).
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) groups: AtomicU64,
    /// Bytes, images of the index left out.
    pub(crate) written: AtomicU64,
    pub(crate) torn_bytes: AtomicU64,
    pub(crate) compactions: AtomicU64,
    pub(crate) snapshots: AtomicU64,
    /// Of compactions in the background.
    pub(crate) failed_compactions: AtomicU64,
    pub(crate) lock_waits: AtomicU64,
    /// Nanoseconds.
    pub(crate) lock_waited: AtomicU64,
    /// Nanoseconds, of the last opening or reopening.
    pub(crate) opening: AtomicU64,
}

impl Context {
    pub(crate) fn new(disk: Arc<dyn Disk>, by_path: Arc<dyn Disk>, path: Arc<Path>, config: &Config) -> Context {
        let clock = disk.system().clock();
        Context {
            limits: disk.limits_kept(),
            boot: OnceLock::new(),
            disk,
            by_path,
            path,
            config: config.clone(),
            clock,
            process: Process::this(),
            closing: AtomicBool::new(false),
            counters: Counters::default(),
        }
    }

    /// How the file is opened.
    pub(crate) fn opening(&self) -> Opening {
        let read_only = self.config.get_read_only();
        Opening {
            access: if read_only { Access::Read } else { Access::ReadWrite },
            create: self.config.get_create() && !read_only,
            mode: self.config.get_file_mode(),
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(crate) fn begin_closing(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(crate) fn is_this_process(&self) -> bool {
        self.process.is_this()
    }

    /// # Errors
    ///
    /// [`Error::Forked`] in a forked child: another thread of the parent may have held a lock at the moment of the fork, and
    /// the child would wait for it for ever.
    #[inline]
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.process.is_this() { Ok(()) } else { Err(self.forked()) }
    }

    #[cold]
    fn forked(&self) -> Error {
        if self.is_closing() { Error::Closed } else { Error::Forked { path: self.path.to_path_buf() } }
    }

    /// # Errors
    ///
    /// [`Error::Closed`] once closing has begun, and [`Error::Forked`] in a forked child.
    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closing() { Err(Error::Closed) } else { self.check_process() }
    }

    /// Refuses a write that cannot succeed, before it waits for anything.
    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.is_closing() {
            return Err(Error::Closed);
        }
        if self.config.get_read_only() {
            return Err(Error::ReadOnly { path: self.path.to_path_buf() });
        }
        self.check_process()
    }

    pub(crate) fn replaced(&self) -> Error {
        Error::Replaced { path: self.path.to_path_buf() }
    }

    pub(crate) fn full(&self, what: &'static str) -> Error {
        Error::Full { path: self.path.to_path_buf(), what }
    }

    /// The deadline of a call that begins now.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::after(&self.clock, self.config.get_connection_timeout())
    }

    /// Which boot of which machine this handle's monotonic clock belongs to.
    ///
    /// # Errors
    ///
    /// [`Error::NoSessions`] if the system does not say.
    pub(crate) fn boot(&self) -> Result<Boot> {
        let boot = self.boot.get_or_init(|| self.disk.system().boot().map_err(Arc::new));
        boot.clone().map_err(|cause| Error::NoSessions { cause })
    }

    /// One look at both clocks: the wall clock as it is, and what keys and sessions are compared with.
    pub(crate) fn look(&self) -> (Duration, Times) {
        let wall = self.clock.wall();
        (wall, Times { wall: whole_ms(wall), machine: self.machine_time() })
    }

    /// What keys and sessions are compared with, at one look at both clocks.
    pub(crate) fn times(&self) -> Times {
        self.look().1
    }

    /// The time by which sessions live. `None` if the system does not say which machine this is.
    pub(crate) fn machine_time(&self) -> Option<MachineTime> {
        let Boot { id, offset } = self.boot().ok()?;
        let shown = i128::try_from(self.clock.monotonic().as_nanos()).unwrap_or(i128::MAX) - i128::from(offset);
        Some(MachineTime { boot: id, ms: u64::try_from(shown / 1_000_000).unwrap_or(0) })
    }

    /// The error of a call that has waited for the lock of this file, or of the file at the path.
    pub(crate) fn lock_timeout(&self, file: Option<FileIdentity>, deadline: &Deadline) -> Error {
        let holder = deadline.names_holder().then(|| {
            let file = file.or_else(|| Some(self.disk.stat(&self.path).ok()?.identity))?;
            self.disk.system().lock_holder(&file)
        });
        Error::LockTimeout { path: self.path.to_path_buf(), waited: deadline.waited(), holder: holder.flatten() }
    }

    /// Pauses before another try at a lock that another process has.
    pub(crate) fn wait_a_moment(&self, deadline: &Deadline) -> Result<()> {
        if deadline.is_over() {
            return Err(self.lock_timeout(None, deadline));
        }
        let pause = (deadline.waited() / PART_OF_STANDSTILL).clamp(PAUSE_WITHOUT_LINE, LONGEST_PAUSE);
        self.disk.system().pause(deadline.left().map_or(pause, |left| left.min(pause)));
        Ok(())
    }
}
