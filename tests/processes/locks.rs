//! Locks of real processes: a holder is killed, stopped beyond its deadline and continued, or killed while a forked child lives on.
//! And many waiters, in one handle and in several.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use caskfile::{Batch, Cask, CaskLock, Config, Durability, Error, LockOptions, OptionalExt, SessionState};

use crate::common::TempDir;
use crate::common::patience::with_a_deadline;
use crate::common::process::{Process, arguments, be_patient_for, listen, say, this_test};

fn config() -> Config {
    Config::new().durability(Durability::Os)
}

/// A process that takes the lock, writes under it, and says what happens.
pub fn holder(path: &str, ttl: u64) {
    let cask = Cask::open_with(path, &config()).unwrap();
    let lock = cask.lock("lock", &LockOptions::new().ttl(Duration::from_millis(ttl))).unwrap();
    let mut held = None;
    while let Some(line) = listen() {
        match line.as_str() {
            "lock" => {
                let taken = lock.lock(None).unwrap();
                say(taken.token().to_string());
                held = Some(taken);
            }
            "write" => {
                let held = held.as_ref().unwrap();
                match cask.write(Batch::new().expect_held(held).put("fenced", held.token().to_string())) {
                    Ok(_) => say("written"),
                    Err(Error::BatchConflict { .. }) => say("refused"),
                    Err(error) => say(format!("{error:#}")),
                }
            }
            "loss" => {
                let held = held.as_ref().unwrap();
                assert!(held.loss().wait(None) && !held.is_held());
                say("lost");
            }
            "unlock" => say(released(&lock)),
            "fork" => {
                // SAFETY: the child calls what may be called after a fork of a process with threads, and nothing else.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    // SAFETY: takes no pointer. The child keeps the descriptors, and says nothing.
                    unsafe {
                        libc::alarm(60);
                        libc::pause();
                        libc::_exit(0);
                    }
                }
                say(child.to_string());
            }
            other => panic!("{other}"),
        }
    }
}

/// What the release of a lock comes to.
fn released(lock: &CaskLock) -> &'static str {
    match lock.unlock() {
        Ok(()) => "released",
        Err(Error::NotHeld) => "not held",
        Err(_) => "failed",
    }
}

fn signal(process: &Process, signal: libc::c_int) {
    // SAFETY: takes no pointer. The process is a child that was not waited for.
    assert_eq!(unsafe { libc::kill(process.id() as libc::pid_t, signal) }, 0);
}

pub fn token(said: Option<String>) -> u64 {
    said.expect("it must get the lock").parse().expect("a token")
}

/// The middle and the longest of some times.
fn times(mut of: Vec<Duration>) -> String {
    of.sort_unstable();
    format!("{:?} in the middle, {:?} at most", of[of.len() / 2], of[of.len() - 1])
}

/// `CASKFILE_LOCK_ROUNDS` is the number of rounds (6).
fn rounds() -> usize {
    std::env::var("CASKFILE_LOCK_ROUNDS").ok().map_or(6, |rounds| rounds.parse().expect("a number"))
}

#[test]
fn the_next_holder_has_a_higher_token_and_the_one_of_before_cannot_write_behind_it() {
    if let Some(of) = arguments() {
        return holder(&of[0], of[1].parse().unwrap());
    }
    let (directory, name) = (TempDir::new(), this_test!());
    let path = directory.path().join("store");
    let path = path.to_str().unwrap();
    let start = |ttl: &str| Process::start(name, &[path, ttl]);
    let (mut after_kill, mut after_stop, mut after_fork, mut last) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..rounds() {
        // No process would live to see this deadline: the next holder finds out that the other one is gone.
        let (mut one, mut next) = (start("600000"), start("600000"));
        let first = token(Some(one.ask("lock")));
        assert!(first > last);
        assert_eq!(one.ask("write"), "written");
        next.tell("lock");
        let began = Instant::now();
        one.kill();
        last = token(next.hear());
        after_kill.push(began.elapsed());
        assert!(last > first);
        assert_eq!(next.ask("write"), "written");
        next.kill();

        let (mut stopped, mut next) = (start("400"), start("600000"));
        let first = token(Some(stopped.ask("lock")));
        assert!(first > last);
        next.tell("lock");
        let began = Instant::now();
        signal(&stopped, libc::SIGSTOP);
        last = token(next.hear());
        after_stop.push(began.elapsed());
        assert!(last > first);
        signal(&stopped, libc::SIGCONT);
        assert_eq!(stopped.ask("write"), "refused");
        assert_eq!(stopped.ask("loss"), "lost");
        assert_eq!(stopped.ask("unlock"), "not held");
        assert_eq!(next.ask("write"), "written");
        assert_eq!(next.ask("unlock"), "released");
        assert_eq!(stopped.ask("lock").parse::<u64>().map(|again| again > last), Ok(true));
        // On a busy machine it may have lost it again.
        stopped.ask("unlock");

        let (mut parent, mut next) = (start("2000"), start("600000"));
        let first = token(Some(parent.ask("lock")));
        let child: libc::pid_t = parent.ask("fork").parse().unwrap();
        next.tell("lock");
        let began = Instant::now();
        parent.kill();
        // The child has the owner's byte too, so the deadline alone ends the session.
        let is_early = next.says_within(Duration::from_millis(400)) && began.elapsed() < Duration::from_secs(1);
        assert!(!is_early, "the lock was given away while the owner's byte was held");
        last = token(next.hear());
        after_fork.push(began.elapsed());
        assert!(last > first);
        assert_eq!(next.ask("unlock"), "released");
        // SAFETY: takes no pointer. No other waits for this process.
        unsafe { libc::kill(child, libc::SIGKILL) };
    }
    println!("next holder after a kill: {}", times(after_kill));
    println!("after a stop, with a time to live of 400 ms: {}", times(after_stop));
    println!("after a kill with a child that lives on, 2 s: {}", times(after_fork));
}

/// The holder writes nothing after the compaction, and renews its lock by itself once in 200 s. Until its lock is renewed in the new file, only
/// the deadline would end it.
#[test]
fn a_holder_that_dies_after_a_compaction_is_not_waited_for_either() {
    if let Some(of) = arguments() {
        return holder(&of[0], of[1].parse().unwrap());
    }
    let Some(()) = with_a_deadline(a_holder_that_dies_after_a_compaction_is_not_waited_for_either) else { return };
    let (directory, name) = (TempDir::new(), this_test!());
    let path = directory.join("store");
    let cask = Cask::open_with(&path, &config()).unwrap();
    let mut one = Process::start(name, &[path.to_str().unwrap(), "600000"]);
    let mut next = Process::start(name, &[path.to_str().unwrap(), "600000"]);
    let (began, mut last) = (Instant::now(), 0);
    for _ in 0..3 {
        let first = token(Some(one.ask("lock")));
        assert!(first > last);
        let left = || match cask.sessions().unwrap()[..] {
            [ref session] => match session.state {
                SessionState::Live(left) => left,
                ref other => panic!("{other:?}"),
            },
            ref other => panic!("{other:?}"),
        };
        // The deadline is earlier than this: the store says it in whole milliseconds.
        let deadline = left() + began.elapsed() + Duration::from_millis(2);
        thread::sleep(Duration::from_millis(50));
        cask.put("filler", vec![7; 10_000]).unwrap();
        cask.compact().unwrap();
        // It is later once the lock is renewed.
        loop {
            let now = began.elapsed();
            if now + left() > deadline {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        next.tell("lock");
        one.kill();
        last = token(next.hear());
        assert!(last > first);
        assert_eq!(next.ask("unlock"), "released");
        (one, next) = (next, Process::start(name, &[path.to_str().unwrap(), "600000"]));
    }
}

/// Each reads the counter and writes it as the holder: without the lock, or with two holders, a count would be lost.
#[test]
fn a_hundred_waiters_in_one_handle_and_in_several_get_the_lock_once_each() {
    let Some(()) = with_a_deadline(a_hundred_waiters_in_one_handle_and_in_several_get_the_lock_once_each) else {
        return;
    };
    let directory = TempDir::new();
    let path = directory.path().join("store");
    let handles: Vec<Cask> = (0..5).map(|_| Cask::open_with(&path, &config()).unwrap()).collect();
    let lock = handles[0].lock("lock", &LockOptions::new()).unwrap();
    let held = lock.lock(None).unwrap();
    let tokens = Arc::new(Mutex::new(vec![held.token()]));
    let began = Instant::now();
    let waiters: Vec<_> = (0..100)
        .map(|n| {
            let (cask, tokens) = (handles[n % handles.len()].clone(), Arc::clone(&tokens));
            thread::spawn(move || {
                let lock = cask.lock("lock", &LockOptions::new()).unwrap();
                let held = lock.lock(None).unwrap();
                tokens.lock().unwrap().push(held.token());
                let count = cask.get("count").optional().unwrap();
                let count: u64 = count.map_or(0, |pair| String::from_utf8(pair.value).unwrap().parse().unwrap());
                cask.write(Batch::new().expect_held(&held).put("count", (count + 1).to_string())).unwrap();
                lock.unlock().unwrap();
            })
        })
        .collect();
    lock.unlock().unwrap();
    waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    println!("100 waiters, one after the other: {:?}", began.elapsed());
    assert_eq!(handles[0].get("count").unwrap().value, b"100");
    let tokens = tokens.lock().unwrap();
    assert!(tokens.len() == 101 && tokens.is_sorted());
    assert!(!handles[0].exists("lock").unwrap() && handles[0].sessions().unwrap().is_empty());
}

/// How many processes or handles stand in lines for locks of a store, by the system's list: `docs/FORMAT.md` has the bytes.
fn in_line(path: &Path) -> usize {
    let inode = format!(":{}", std::fs::metadata(path).unwrap().ino());
    let is_place = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "OFDLCK", _, "WRITE", _, file, start, _] = fields[..] else { return false };
        let start: u64 = start.parse().unwrap();
        file.ends_with(&inode) && (1 << 59..1 << 60).contains(&start)
    };
    std::fs::read_to_string("/proc/locks").unwrap().lines().filter(is_place).count()
}

/// The holder wants the lock again as soon as it has released it, while another thread, handle or process stands in line.
#[test]
fn a_holder_that_wants_the_lock_again_does_not_go_ahead_of_the_line() {
    /// So long after the release, it may: the first in line may have been stopped.
    const COURTESY: Duration = Duration::from_millis(200);
    if let Some(of) = arguments() {
        return holder(&of[0], of[1].parse().unwrap());
    }
    let name = this_test!();
    let Some(()) = with_a_deadline(a_holder_that_wants_the_lock_again_does_not_go_ahead_of_the_line) else { return };
    let directory = TempDir::new();
    let path = directory.join("store");
    let cask = Cask::open_with(&path, &config()).unwrap();
    let other = Cask::open_with(&path, &config()).unwrap();
    let mut process = Process::start(name, &[path.to_str().unwrap(), "600000"]);
    let lock = cask.lock("lock", &LockOptions::new()).unwrap();
    for round in 0..30 {
        lock.lock(None).unwrap();
        let waiting = match round % 3 {
            2 => {
                process.tell("lock");
                None
            }
            of => {
                let waiting = [&cask, &other][of].lock("lock", &LockOptions::new()).unwrap();
                Some(thread::spawn(move || {
                    let token = waiting.lock(None).unwrap().token();
                    waiting.unlock().unwrap();
                    token
                }))
            }
        };
        while in_line(&path) == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        // All rounds together take longer than the courtesy, which begins with each release.
        thread::sleep(COURTESY / 10);
        lock.unlock().unwrap();
        let released = Instant::now();
        let tried = lock.try_lock().unwrap().map(|held| held.token());
        let at_once = released.elapsed() < COURTESY;
        if tried.is_some() {
            lock.unlock().unwrap();
        }
        // The process has it until it is asked to release it.
        let again = (waiting.is_some() && tried.is_none()).then(|| lock.lock(None).unwrap().token());
        let passed = released.elapsed();
        let next = match waiting {
            Some(waiting) => {
                if again.is_some() {
                    lock.unlock().unwrap();
                }
                waiting.join().unwrap()
            }
            None => {
                let next = token(process.hear());
                assert_eq!(process.ask("unlock"), "released");
                next
            }
        };
        let is_ahead = |token: Option<u64>| token.is_some_and(|token| token < next);
        assert!(!is_ahead(tried) || !at_once, "round {round}: a try went ahead of the line");
        assert!(!is_ahead(again) || passed >= COURTESY, "round {round}: a wait went ahead of the line");
    }
}

#[test]
fn a_wait_ends_by_its_stopper_and_a_renewed_lock_outlives_its_time_to_live() {
    let Some(()) = with_a_deadline(a_wait_ends_by_its_stopper_and_a_renewed_lock_outlives_its_time_to_live) else {
        return;
    };
    let directory = TempDir::new();
    let path = directory.path().join("store");
    let (cask, other) = (Cask::open_with(&path, &config()).unwrap(), Cask::open_with(&path, &config()).unwrap());
    let ttl = Duration::from_millis(2000);
    let lock = cask.lock("lock", &LockOptions::new().ttl(ttl)).unwrap();
    let held = lock.lock(None).unwrap();
    let waiting = other.lock("lock", &LockOptions::new()).unwrap();
    let stopper = waiting.stopper();
    let waiter = thread::spawn(move || waiting.lock(None).map(drop));
    // The thread renews it, beside a compaction and a reopening.
    let began = Instant::now();
    while began.elapsed() < 2 * ttl {
        other.put("filler", vec![7; 10_000]).unwrap();
        other.compact().unwrap();
        cask.reopen().unwrap();
        thread::sleep(ttl / 10);
    }
    assert!(held.is_held() && !held.loss().is_lost());
    stopper.stop();
    assert!(matches!(waiter.join().unwrap(), Err(Error::Stopped)));
    // What others do to the key is found out too.
    other.delete("lock").unwrap();
    let began = Instant::now();
    assert!(held.loss().wait(None) && !held.is_held());
    println!("the loss was reported after {:?}", began.elapsed());
    assert!(matches!(lock.unlock(), Err(Error::NotHeld)));
}

/// A forked child has a copy of everything, and its parent's descriptors.
#[test]
fn a_forked_child_leaves_its_parents_sessions_alone() {
    let Some(directory) = crate::common::process::in_own_process(this_test!()) else { return };
    let path = directory.join("store");
    let cask = Cask::open_with(&path, &config()).unwrap();
    let lock = cask.lock("lock", &LockOptions::new().ttl(Duration::from_secs(600))).unwrap();
    let (held, session) = (lock.lock(None).unwrap(), cask.session(Duration::from_secs(600)).unwrap());
    session.put(&cask, "mine", "").unwrap();
    // SAFETY: the child drops what it has and leaves by `_exit`; what it must not wait for, it does not.
    let child = unsafe { libc::fork() };
    if child == 0 {
        be_patient_for(30);
        let refused = matches!(lock.unlock(), Err(Error::Forked { .. }))
            && matches!(cask.renew_sessions(), Err(Error::Forked { .. }))
            && !held.is_held()
            && !session.is_live()
            && matches!(cask.session(Duration::from_secs(1)), Err(Error::Forked { .. }));
        drop((lock, session, held));
        drop(cask);
        // SAFETY: takes no pointer.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    let mut status = 0;
    // SAFETY: `status` is there to be written to.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0, "the child must come to a good end");
    assert!(held.is_held() && session.is_live() && !held.loss().is_lost());
    for loss in [held.loss(), session.loss()] {
        let mut poll = libc::pollfd { fd: loss.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: it is one descriptor, and `poll` is there to be written to.
        assert_eq!(unsafe { libc::poll(&mut poll, 1, 0) }, 0, "the child shares the descriptors");
    }
    // In another process, or handle, the byte still says so.
    let other = Cask::open_with(&path, &config()).unwrap();
    for _ in 0..3 {
        assert!(other.lock("lock", &LockOptions::new()).unwrap().try_lock().unwrap().is_none());
    }
    assert!(other.exists("mine").unwrap());
    lock.unlock().unwrap();
    session.end().unwrap();
}
