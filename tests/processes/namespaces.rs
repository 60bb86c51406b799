//! Locks between processes in different namespaces of the system: one whose clock shows another time, and one whose machine has another
//! boot identity, as containers have them.
//!
//! Where neither the superuser nor this user may have such namespaces, these tests are skipped. With `CASKFILE_NAMESPACES=1` they fail then.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use caskfile::{Cask, Config, Durability, SessionState};

use crate::common::TempDir;
use crate::common::process::{Process, arguments, be_patient_for, say, this_test};
use crate::locks::{holder, token};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const OTHER_BOOT: &str = "6c1b2a90-0000-4000-8000-0000000000ff";

/// Milliseconds that no process lives to see, and few enough to wait for.
const LONG: &str = "600000";
const SHORT: &str = "800";
/// Long enough for a process on a busy machine to renew its lock in time.
const RENEWED: &str = "2000";
const LONGER_THAN_RENEWED: Duration = Duration::from_millis(2300);

/// Plays a holder, which first gets a boot identity of its own if the third argument names a file with one.
fn role(arguments: &[String]) {
    be_patient_for(120);
    let (path, ttl, boot) = (&arguments[0], arguments[1].parse().unwrap(), arguments[2].as_str());
    if !boot.is_empty() {
        let mounted = Command::new("mount").args(["--bind", boot, BOOT_ID]).status().unwrap();
        let shown = fs::read_to_string(BOOT_ID).unwrap();
        if !mounted.success() || shown.trim_end() != OTHER_BOOT {
            return say("no boot identity of its own");
        }
    }
    say(std::process::id().to_string());
    holder(path, ttl);
}

/// A holder with the id of its process, since the one that was started may be its parent.
struct Holder {
    process: Process,
    id: libc::pid_t,
}

impl Holder {
    /// Takes the id that it says; `None` if it says why it cannot do its part.
    fn of(mut process: Process) -> Option<Holder> {
        let id = process.hear()?.parse().ok()?;
        Some(Holder { process, id })
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: takes no pointer. The process lives: it has said its id, and nothing has ended it.
        assert_eq!(unsafe { libc::kill(self.id, signal) }, 0);
    }

    fn lock(&mut self) -> u64 {
        token(Some(self.process.ask("lock")))
    }
}

/// A store, and how processes of the other kind are started.
struct Place<'p> {
    test: &'p str,
    directory: TempDir,
    flags: Vec<String>,
    boot: String,
}

impl<'p> Place<'p> {
    fn new(test: &'p str, flags: &[&str]) -> Place<'p> {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Place { test, directory: TempDir::new(), flags, boot: String::new() }
    }

    fn with_its_own_boot(test: &'p str) -> Place<'p> {
        let place = Place::new(test, &["--mount"]);
        let boot = place.directory.join("boot_id");
        fs::write(&boot, format!("{OTHER_BOOT}\n")).unwrap();
        Place { boot: boot.to_str().unwrap().to_owned(), ..place }
    }

    fn path(&self) -> String {
        self.directory.join("store").to_str().unwrap().to_owned()
    }

    /// One that has the same namespaces as the test.
    fn here(&self, ttl: &str) -> Holder {
        Holder::of(Process::start(self.test, &[&self.path(), ttl, ""])).expect("it needs nothing")
    }

    /// One in namespaces of its own; `None` if it cannot have them.
    fn there(&self, ttl: &str) -> Option<Holder> {
        let process = Process::start_in_namespaces(self.test, &self.flags, &[&self.path(), ttl, &self.boot]);
        let holder = process.and_then(Holder::of);
        if holder.is_none() {
            let why = format!("{}: `unshare {}` gives this user no such namespaces", self.test, self.flags.join(" "));
            assert!(std::env::var_os("CASKFILE_NAMESPACES").is_none(), "{why}");
            println!("skipped: {why}");
        }
        holder
    }

    fn cask(&self) -> Cask {
        Cask::open_with(self.path(), &Config::new().durability(Durability::Os)).unwrap()
    }
}

/// A lock that is renewed is never taken, and one of a process that is dead is taken at once.
fn a_living_holder_keeps_its_lock_and_a_dead_one_does_not(mut holder: Holder, mut next: Holder) {
    let first = holder.lock();
    assert_eq!(holder.process.ask("write"), "written");
    next.process.tell("lock");
    assert!(!next.process.says_within(LONGER_THAN_RENEWED), "the lock of a living holder was taken");
    assert_eq!(holder.process.ask("write"), "written");
    holder.signal(libc::SIGKILL);
    assert!(token(next.process.hear()) > first);
    assert_eq!(next.process.ask("write"), "written");
    assert_eq!(next.process.ask("unlock"), "released");
}

/// A lock of a process that stands still is taken at its deadline, and its holder cannot write any more.
fn a_stopped_holder_loses_its_lock_at_its_deadline(
    mut holder: Holder,
    mut next: Holder,
    deadline: impl FnOnce() -> Duration,
) {
    let first = holder.lock();
    assert_eq!(holder.process.ask("write"), "written");
    next.process.tell("lock");
    holder.signal(libc::SIGSTOP);
    let asked = Instant::now();
    let left = deadline();
    let second = token(next.process.hear());
    println!("taken after {:?}, {left:?} were left", asked.elapsed());
    assert!(second > first);
    assert!(asked.elapsed() + Duration::from_millis(1) >= left, "the lock was taken before its deadline");
    holder.signal(libc::SIGCONT);
    assert_eq!(holder.process.ask("write"), "refused");
    assert_eq!(holder.process.ask("loss"), "lost");
    assert_eq!(next.process.ask("write"), "written");
    assert_eq!(next.process.ask("unlock"), "released");
}

/// How long the one session of the store lives, as this process sees it.
fn left(cask: &Cask) -> Duration {
    match cask.sessions().unwrap()[..] {
        [ref session] => match session.state {
            SessionState::Live(left) => {
                assert!(Some(left) <= session.ttl, "{session:?}");
                left
            }
            ref other => panic!("a deadline of this machine can be compared: {other:?}"),
        },
        ref other => panic!("one session: {other:?}"),
    }
}

/// `seconds` is what the other clock shows more.
fn clocks_that_differ(test: &str, seconds: i64) {
    let place = Place::new(test, &["--time", "--monotonic", &seconds.to_string()]);
    let (Some(one), Some(two), Some(three)) = (place.there(RENEWED), place.there(SHORT), place.there(SHORT)) else {
        return;
    };
    a_living_holder_keeps_its_lock_and_a_dead_one_does_not(one, place.here(RENEWED));
    let cask = place.cask();
    a_stopped_holder_loses_its_lock_at_its_deadline(two, place.here(LONG), || left(&cask));
    a_stopped_holder_loses_its_lock_at_its_deadline(place.here(SHORT), three, || left(&cask));
    let other = place.there(LONG).expect("it could be had before");
    a_living_holder_keeps_its_lock_and_a_dead_one_does_not(place.here(RENEWED), other);
    assert!(cask.sessions().unwrap().is_empty());
}

#[test]
fn locks_live_by_one_clock_with_a_time_namespace_that_is_a_day_ahead() {
    match arguments() {
        Some(arguments) => role(&arguments),
        None => clocks_that_differ(this_test!(), 100_000),
    }
}

#[test]
fn locks_live_by_one_clock_with_a_time_namespace_that_is_an_hour_behind() {
    match arguments() {
        Some(arguments) => role(&arguments),
        // The clock of a machine that was just started cannot be set back so far.
        None => {
            let up = fs::read_to_string("/proc/uptime").unwrap();
            let up: f64 = up.split(' ').next().unwrap().parse().unwrap();
            clocks_that_differ(this_test!(), -(up as i64 / 2).min(3000));
        }
    }
}

#[test]
fn a_process_with_a_boot_identity_of_its_own_neither_takes_a_live_lock_nor_keeps_a_dead_one() {
    if let Some(arguments) = arguments() {
        return role(&arguments);
    }
    let place = Place::with_its_own_boot(this_test!());
    let (Some(one), Some(two), Some(three)) = (place.there(RENEWED), place.there(SHORT), place.there(SHORT)) else {
        return;
    };
    // The byte of its owner says that it runs here.
    a_living_holder_keeps_its_lock_and_a_dead_one_does_not(one, place.here(RENEWED));
    let other = place.there(LONG).expect("it could be had before");
    a_living_holder_keeps_its_lock_and_a_dead_one_does_not(place.here(RENEWED), other);
    // While the byte is held, the deadline counts, though the boots differ. It cannot be read here.
    a_stopped_holder_loses_its_lock_at_its_deadline(two, place.here(LONG), Duration::default);
    a_stopped_holder_loses_its_lock_at_its_deadline(place.here(SHORT), three, Duration::default);
}

#[test]
fn after_a_compaction_a_process_of_another_boot_is_dead_once_its_lock_is_seen_unchanged() {
    if let Some(arguments) = arguments() {
        return role(&arguments);
    }
    let place = Place::with_its_own_boot(this_test!());
    let Some(mut dead) = place.there(SHORT) else { return };
    // The byte of a dead owner says nothing in the new file.
    let (cask, mut next) = (place.cask(), place.here(LONG));
    let first = dead.lock();
    dead.signal(libc::SIGSTOP);
    cask.compact().unwrap();
    dead.signal(libc::SIGKILL);
    // Unless the compaction has taken so long that it ended the session at its deadline.
    let is_unknown = matches!(&cask.sessions().unwrap()[..], [session] if session.state == SessionState::Unknown);
    let began = Instant::now();
    let second = next.lock();
    println!("after a compaction, taken after {:?}", began.elapsed());
    assert!(second > first);
    assert!(!is_unknown || began.elapsed() >= Duration::from_millis(SHORT.parse().unwrap()));
    assert_eq!(next.process.ask("write"), "written");
    assert_eq!(next.process.ask("unlock"), "released");

    // A living owner takes its byte in the new file, and renews the lock there.
    let (mut living, mut next) = (place.there(RENEWED).expect("it could be had before"), place.here(LONG));
    let first = living.lock();
    next.process.tell("lock");
    cask.compact().unwrap();
    assert!(!next.process.says_within(LONGER_THAN_RENEWED), "the lock of a living holder was taken");
    assert_eq!(living.process.ask("write"), "written");
    living.signal(libc::SIGKILL);
    assert!(token(next.process.hear()) > first);
}
