//! A process whose two threads want the lock all the time, and write while they hold it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use caskfile::{Batch, Cask, CaskLock, Config, Durability, Error, ErrorKind, Held, LockOptions, OptionalExt};

use super::history::Note;
use super::{COPY, COUNT, LOCK, TTL, notes_file, now, store};
use crate::common::dice::Dice;
use crate::common::hooked::HookedDisk;
use crate::common::process::{be_patient_for, listen, say};

/// What the threads of a worker share.
struct Worker {
    number: u64,
    notes: File,
    is_over: AtomicBool,
}

/// Plays the role, with the arguments that [`start`](super::start) passes.
pub fn work(arguments: &[String]) {
    be_patient_for(600);
    // SAFETY: no handler is installed. A file size limit is an error then, and no signal.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let directory = Path::new(&arguments[0]);
    let number: u64 = arguments[1].parse().unwrap();
    let mut dice = Dice::new(arguments[2].parse().unwrap());
    let durability = match number % 3 {
        0 => Durability::Sync,
        1 => Durability::Os,
        _ => Durability::Interval(Duration::from_millis(20)),
    };
    let config = Config::new().durability(durability);
    let failures = Arc::new(AtomicU64::new(0));
    let open = || {
        let failures = Arc::clone(&failures);
        let mut disk = HookedDisk::new(move |call| {
            let fails =
                call.starts_with("sync_") && failures.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
            if fails { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
        });
        disk.has_sessions = true;
        Cask::open_on(Arc::new(disk), store(directory), &config).unwrap_or_else(|error| panic!("{error:#}"))
    };
    let first = open();
    // Waiters are in the same handle, or in another one of the same process.
    let second = if number % 2 == 0 { first.clone() } else { open() };
    let casks = [first, second];
    let notes = OpenOptions::new().append(true).create(true).open(notes_file(directory, number)).unwrap();
    let worker = Arc::new(Worker { number, notes, is_over: AtomicBool::new(false) });
    let threads: Vec<_> = casks
        .iter()
        .map(|cask| {
            let (worker, cask, dice) = (Arc::clone(&worker), cask.clone(), Dice::new(dice.roll()));
            thread::spawn(move || worker.contend(&cask, dice))
        })
        .collect();
    while let Some(command) = listen() {
        match command.as_str() {
            "compact" => may_fail(casks[1].compact().map(drop)),
            "reopen" => casks.iter().for_each(|cask| may_fail(cask.reopen())),
            "fail a sync" => failures.store(1, SeqCst),
            "fork" => say(fork().to_string()),
            other => panic!("{other}"),
        }
    }
    worker.is_over.store(true, SeqCst);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    casks.iter().for_each(|cask| may_fail(cask.close()));
}

/// A child that lives on, has all descriptors, and does nothing.
fn fork() -> libc::pid_t {
    // SAFETY: the child calls what may be called after a fork of a process with threads, and nothing else.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: takes no pointer.
        unsafe {
            libc::alarm(60);
            libc::pause();
            libc::_exit(0);
        }
    }
    child
}

/// A call that may fail because of what the test does: a full disk, a failed sync, an exclusive handle, another compaction.
#[track_caller]
fn may_fail(outcome: Result<(), Error>) {
    if let Err(error) = outcome {
        let passes = matches!(error.kind(), ErrorKind::Busy | ErrorKind::Io | ErrorKind::Lock);
        assert!(passes || matches!(error, Error::Poisoned { .. }), "{error:#}");
    }
}

impl Worker {
    /// What is noted is in the file before the thread goes on, so that a kill takes no note along.
    fn note(&self, note: Note) {
        (&self.notes).write_all(note.to_line().as_bytes()).unwrap();
    }

    fn contend(&self, cask: &Cask, mut dice: Dice) {
        let value = format!("{} 0", self.number);
        let lock = cask.lock(LOCK, &LockOptions::new().ttl(TTL).value(value)).unwrap();
        let mut before: Option<Held> = None;
        while !self.is_over.load(SeqCst) {
            let taken = match dice.below(4) {
                0 => lock.try_lock(),
                _ => lock.lock(Some(Duration::from_secs(1))).map(Some),
            };
            match taken {
                Ok(Some(held)) => {
                    self.note(Note::Begins { token: held.token(), at: now() });
                    self.hold(cask, &lock, &held, &mut dice);
                    before = Some(held);
                }
                Ok(None) => thread::sleep(Duration::from_millis(1)),
                Err(error) => self.go_on_after(cask, error),
            }
            // A past holder that does not know of its loss.
            if let Some(held) = before.as_ref().filter(|_| dice.one_in(4)) {
                self.write(cask, held);
            }
            if dice.one_in(3) {
                thread::sleep(Duration::from_micros(dice.below(4000)));
            }
        }
    }

    fn hold(&self, cask: &Cask, lock: &CaskLock, held: &Held, dice: &mut Dice) {
        let token = held.token();
        // Mostly for a moment, so that the lock goes from hand to hand; sometimes beyond a renewal.
        let steps = if dice.one_in(6) { 20 + dice.below(40) } else { dice.below(4) };
        for _ in 0..steps {
            if dice.one_in(8) {
                may_fail(lock.set_value(format!("{} {token}", self.number)).map(drop).or_else(not_held));
            }
            if dice.one_in(3) {
                self.write(cask, held);
            }
            thread::sleep(Duration::from_micros(dice.below(4000)));
            let at = now();
            if held.is_held() {
                self.note(Note::Holds { token, at });
            } else if !dice.one_in(4) {
                break;
            }
        }
        self.note(Note::Ends { token });
        if let Err(error) = lock.unlock().or_else(not_held) {
            self.go_on_after(cask, error);
        }
    }

    /// Counts on from the last count, under the condition that the lock is held.
    fn write(&self, cask: &Cask, held: &Held) {
        let count = match cask.get(COUNT).optional() {
            Ok(pair) => pair.map_or(1, |pair| super::numbers(&pair.value)[0] + 1),
            Err(error) => return self.go_on_after(cask, error),
        };
        let token = held.token();
        let value = format!("{count} {token}");
        self.note(Note::Tries { token, count });
        match cask.write(Batch::new().expect_held(held).put(COUNT, &value).put(COPY, &value)) {
            Ok(applied) => {
                let seq = applied.last_index().expect("it has written something");
                self.note(Note::Wrote { token, count, seq });
            }
            Err(Error::BatchConflict { .. }) => self.note(Note::Refused { token, count }),
            Err(error) => self.go_on_after(cask, error),
        }
    }

    /// After an error that does not say that the lock is lost.
    fn go_on_after(&self, cask: &Cask, error: Error) {
        if let Error::Poisoned { .. } = error {
            return may_fail(cask.reopen());
        }
        may_fail(Err(error));
        thread::sleep(Duration::from_millis(1));
    }
}

/// The holder may have lost the lock meanwhile.
fn not_held<T: Default>(error: Error) -> Result<T, Error> {
    if error.kind() == ErrorKind::Lock || error.is_conflict() { Ok(T::default()) } else { Err(error) }
}
