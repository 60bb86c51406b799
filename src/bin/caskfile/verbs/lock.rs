//! `lock`.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use caskfile::{CaskLock, Config, Error, Held, LockOptions};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpgrp, kill_process, set_parent_process_death_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use crate::escape::escaped;
use crate::exit::Exit;
use crate::failure::{Failure, Result, io_failure, shell_word};
use crate::open::{Bucket, Timeout, open_or_create, parse_timeout, parse_ttl};
use crate::session::Session;
use crate::signals::Signals;

/// Run a command while a lock is held that all processes with the store share
///
/// Waits for the lock, then runs the command and ends with its exit code. The lock is a key: while it is held, others can read
/// its value. The command has the lock's token in CASKFILE_TOKEN, a number that is higher for each holder than for those before,
/// and its store and key in CASKFILE_STORE and CASKFILE_KEY.
///
/// Signals are passed on to the command, and the lock is held until the command has ended. If the lock is lost before that, because this
/// process was stopped for longer than --ttl, or another one has deleted the key, the command gets SIGTERM, and SIGKILL after --grace;
/// the exit code is 12 then. If this process is killed, so is the command, unless it is a set-uid program.
///
/// The lock protects what the command does only as long as this process runs. After it was stopped or killed, another process may have the
/// lock already while the command still runs for a moment: what must not happen then has to be checked by the token.
#[derive(clap::Args)]
pub struct Lock {
    /// The store's file; it is created if it is not there
    #[arg(value_name = "STORE", value_hint = clap::ValueHint::FilePath)]
    store: PathBuf,
    #[command(flatten)]
    bucket: Bucket,
    /// The key: processes with the same one exclude each other
    key: OsString,
    /// How long to wait for the lock: seconds, or with a unit (250ms, 2m), or `none` for ever; then the exit code is 11. With 0 it looks once
    #[arg(short, long, value_name = "TIME", default_value = "none", value_parser = parse_timeout)]
    timeout: Timeout,
    /// How long the lock outlives this process, if the system does not tell that it has died
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = parse_ttl)]
    ttl: Duration,
    /// The key's value while the lock is held [default: host and process id]
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    value: Option<OsString>,
    /// How long the command may take to end once the lock is lost, before it is killed
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_timeout)]
    grace: Timeout,
    /// The command and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "COMMAND", value_hint = clap::ValueHint::CommandWithArguments)]
    command: Vec<OsString>,
}

impl Lock {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let signals = Signals::catch()?;
        let (bucket, key) = (self.bucket.name(session)?, session.bytes(&self.key)?);
        let value = match &self.value {
            Some(value) => session.bytes(value)?,
            None => host_and_process().into_bytes(),
        };
        let cask = open_or_create(session, &self.store, &Config::new()).map_err(|failure| match failure.exit() {
            // --timeout is for the lock.
            Exit::Locked => failure.hint("a writer keeps the whole store to itself; try again when it has ended"),
            _ => failure,
        })?;
        let lock = cask.bucket(bucket)?.lock(&key, &LockOptions::new().value(value).ttl(self.ttl))?;
        let what = format!("{}: the lock `{}` in {}", self.store.display(), escaped(&key), self.bucket.shown());
        let held = self.wait(&lock, &signals, &what)?;
        let ran = self.run_command(&held, &signals, session);
        // The next one need not wait, whatever has become of the command.
        let unlocked = lock.unlock();
        drop(lock);
        let closed = cask.close();
        let Ran { status, is_lost, is_out_of_reach } = ran?;
        if is_lost || matches!(unlocked, Err(Error::NotHeld)) {
            let end = match (is_lost, is_out_of_reach) {
                (true, false) => "and was ended",
                (true, true) => "and could not be ended, since it runs as another user",
                (false, _) => "and it may have run beside another one",
            };
            return Err(Failure::new(Exit::LockLost, format!("{what} was lost before the command had ended, {end}")));
        }
        match code_of(status) {
            0 => {
                unlocked?;
                closed?;
                Ok(Exit::Done)
            }
            // The command has said what there is to say.
            code => Err(Failure::Silent(code)),
        }
    }

    /// Takes the lock if it is free, or waits for it at most as long as `--timeout` says.
    fn take(&self, lock: &CaskLock) -> caskfile::Result<Option<Held>> {
        match self.timeout.0 {
            // The file's lock is another matter: a writer may have it for a moment.
            Some(Duration::ZERO) => lock.try_lock(),
            timeout => lock.lock(timeout).map(Some),
        }
    }

    /// Waits for the lock. A signal ends that.
    fn wait(&self, lock: &CaskLock, signals: &Signals, what: &str) -> Result<Held> {
        let stopper = lock.stopper();
        let (ended, end) = UnixStream::pair().map_err(|e| io_failure("waiting for the lock", e))?;
        let waited = std::thread::scope(|scope| {
            let waiting = scope.spawn(move || {
                let held = self.take(lock);
                drop(end);
                held
            });
            loop {
                let came = signals.take().into_iter().find_map(exit_of);
                if came.is_some() {
                    stopper.stop();
                }
                if came.is_some() || waiting.is_finished() {
                    let held = waiting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                    return (held, came);
                }
                wait_for(&[signals.descriptor(), ended.as_fd()], None);
            }
        });
        match waited {
            (Ok(Some(held)), None) => Ok(held),
            (Ok(None), None) => {
                let message = format!("{what} is not free: another process holds it, or waits for it");
                Err(Failure::new(Exit::TimedOut, message))
            }
            (_, Some(exit)) => Err(Failure::new(exit, format!("stopped by {}", exit.cause()))),
            (Err(Error::TimedOut { waited }), None) => {
                let message = format!("{what} is held by another process; waited {} s", waited.as_secs_f64());
                Err(Failure::new(Exit::TimedOut, message))
            }
            (Err(error), None) => Err(error.into()),
        }
    }

    /// Runs the command until it ends.
    fn run_command(&self, held: &Held, signals: &Signals, session: &Session) -> Result<Ran> {
        let mut command = Running { child: self.start(held)?, is_out_of_reach: false, session };
        let mut lost_since = None;
        loop {
            for signal in signals.take() {
                command.pass_on(signal);
            }
            if let Some(status) = command.ended()? {
                return Ok(Ran { status, is_lost: lost_since.is_some(), is_out_of_reach: command.is_out_of_reach });
            }
            let grace = match lost_since {
                None if held.loss().is_lost() => {
                    lost_since = Some(Instant::now());
                    command.send(Signal::TERM);
                    continue;
                }
                Some(since) if !command.is_out_of_reach => {
                    self.grace.0.map(|grace| grace.saturating_sub(since.elapsed()))
                }
                _ => None,
            };
            if grace == Some(Duration::ZERO) {
                command.send(Signal::KILL);
            }
            let descriptors = [signals.descriptor(), held.loss().as_fd()];
            let wanted = if lost_since.is_some() { &descriptors[..1] } else { &descriptors };
            // A child that was killed ends soon.
            wait_for(wanted, grace.map(|grace| grace.max(Duration::from_millis(10))));
        }
    }

    fn start(&self, held: &Held) -> Result<Child> {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).env("CASKFILE_TOKEN", held.token().to_string());
        command.env("CASKFILE_STORE", &self.store).env("CASKFILE_KEY", &self.key);
        let parent = rustix::process::getpid();
        let die_with_parent = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // It may have died before that.
            if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
        };
        // SAFETY: the closure makes system calls only, and neither allocates nor takes a lock. This thread lives as long as the process:
        // it is the main thread, at whose end the child would get the signal too.
        unsafe { command.pre_exec(die_with_parent) };
        command.spawn().map_err(|error| {
            let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
            Failure::of_command(code, format!("{}: {error}", shell_word(&self.command[0])))
        })
    }
}

/// What others read in the key if no value is given.
fn host_and_process() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}:{}", host.trim(), std::process::id())
}

/// How the command has ended.
struct Ran {
    status: ExitStatus,
    /// Whether the lock was lost before that.
    is_lost: bool,
    is_out_of_reach: bool,
}

/// The command while it runs.
struct Running<'s> {
    child: Child,
    /// Whether it runs as another user, as a set-uid program does: the system refuses signals to it.
    is_out_of_reach: bool,
    session: &'s Session,
}

impl Running<'_> {
    /// Passes a signal on to the command, unless the terminal has sent it to both.
    fn pass_on(&mut self, signal: i32) {
        let of_keyboard = matches!(signal, SIGINT | SIGQUIT) && is_in_foreground();
        if let Some(signal) = Signal::from_named_raw(signal).filter(|_| !of_keyboard) {
            self.send(signal);
        }
    }

    fn send(&mut self, signal: Signal) {
        if self.is_out_of_reach {
            return;
        }
        // A command that has ended needs no signal. Its number is not given to another process before it was waited for.
        if kill_process(Pid::from_child(&self.child), signal) == Err(Errno::PERM) {
            self.is_out_of_reach = true;
            self.session.note("the command runs as another user and cannot be signalled; waiting for its end");
        }
    }

    /// How the command has ended, if it has.
    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(|error| {
            // The lock is released next, so the command must not go on.
            let _ = self.child.kill().and_then(|()| self.child.wait());
            io_failure("waiting for the command", error)
        })
    }
}

/// Whether Ctrl-C reaches this process, and with it the command, which is in the same group.
fn is_in_foreground() -> bool {
    let terminal = std::fs::File::open("/dev/tty");
    terminal.is_ok_and(|terminal| rustix::termios::tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp()))
}

/// Waits until one of these is readable, at most this long.
fn wait_for(descriptors: &[BorrowedFd<'_>], timeout: Option<Duration>) {
    let mut polled: Vec<_> = descriptors.iter().map(|&fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    // An error is a wait that was short.
    let _ = poll(&mut polled, timeout.as_ref());
}

/// The end by a signal that has come before the command was run. The others wait for it.
fn exit_of(signal: i32) -> Option<Exit> {
    match signal {
        SIGINT | SIGQUIT => Some(Exit::Interrupted),
        SIGTERM => Some(Exit::Terminated),
        SIGHUP => Some(Exit::HungUp),
        _ => None,
    }
}

/// The code that a shell would show.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
