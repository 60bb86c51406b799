//! Keeping the file's lock between the turns of a burst.
//!
//! A turn that syncs nothing takes two microseconds, and to take the file's lock and give it up takes one. So a handle whose
//! turns follow each other closely does not give the lock up after each of them: the disk does, a tenth of a millisecond after
//! the last ([`DiskFile::unlock_soon`](crate::disk::DiskFile::unlock_soon)). A turn that takes the lock back knows that no other
//! process has written since the turn before.
//!
//! While the lock lingers, the turns of this handle look at the [line](super::line) of waiting processes: at most one in 20 µs. If a
//! process waits, the handle releases the lock, and stands in line itself. The lock does not linger after a turn that had to wait for
//! it, after one that syncs, or after anything but puts, deletes and batches.

use std::time::{Duration, Instant};

use super::Writing;
use super::turn::Turn;
use super::writer::Writer;
use crate::config::{Durability, LockMode};
use crate::disk::PLACES;

/// How often a handle whose lock lingers looks whether another process waits. A look is one system call.
const LOOK: Duration = Duration::from_micros(20);

/// The turns of a handle that follow each other closely.
#[derive(Default)]
pub(super) struct Burst {
    /// When the last turn began.
    began: Option<Instant>,
    /// How many turns have followed another one closely, without a pause.
    quick: u64,
    /// When this handle last looked at the line.
    looked: Option<Instant>,
    /// Turns since then. After enough of them the handle looks, whatever the clock shows.
    unseen: u64,
}

impl Burst {
    /// Ends the burst: the lock lingers again only after as many quick turns as a burst begins with.
    fn end(&mut self) {
        self.quick = 0;
    }
}

impl Turn<'_> {
    /// Takes back the lock that the turn before has left, unless it was released since.
    pub(super) fn take_lock_back(&mut self) {
        let context = &*self.writing.context;
        let config = &context.config;
        if config.get_durability() == Durability::Sync || config.get_lock_mode() != LockMode::PerWrite {
            return;
        }
        let (now, burst) = (context.clock.now(), &mut self.writer.burst);
        let gap = burst.began.replace(now).map(|last| now.saturating_duration_since(last));
        let is_quick = gap.is_some_and(|gap| gap.as_micros() <= u128::from(self.log.limits.burst_gap()));
        burst.quick = if is_quick { burst.quick.saturating_add(1) } else { 0 };
        if self.writer.lingering.as_ref().is_some_and(|left| left.identity != self.log.identity) {
            // This handle goes on in another file.
            self.writer.stop_lingering();
        }
        let Some(left) = self.writer.lingering.take().filter(|left| left.file.take_lock_back()) else { return };
        self.writer.locked = Some(left);
        self.has_kept_lock = true;
        if self.does_another_wait() {
            self.writer.release();
            self.has_kept_lock = false;
            self.writer.burst.end();
        }
    }

    /// Leaves the lock for the next turn, or releases it.
    pub(super) fn leave_lock(&mut self) {
        if !self.may_leave_lock() {
            return self.writer.release();
        }
        if let Some(locked) = self.writer.locked.take() {
            // As with `Writer::release`: a lock that cannot be given up goes with the file description.
            let _ = locked.file.unlock_soon();
            self.writer.lingering = Some(locked);
        }
    }

    fn may_leave_lock(&mut self) -> bool {
        let context = &*self.writing.context;
        let is_burst = self.writer.burst.quick >= self.log.limits.burst_turns();
        if !(self.may_linger && is_burst) || context.config.get_durability() == Durability::Sync {
            return false;
        }
        if self.writer.contended || context.is_closing() || self.writing.syncs.check_poison().is_err() {
            return false;
        }
        let may = !self.does_another_wait();
        if !may {
            self.writer.burst.end();
        }
        may
    }

    /// Returns whether another process waits for the lock. Says no without looking if it has looked a moment ago.
    fn does_another_wait(&mut self) -> bool {
        let (burst, limits) = (&mut self.writer.burst, self.log.limits);
        burst.unseen += 1;
        let since = burst.looked.zip(burst.began).map(|(looked, now)| now.saturating_duration_since(looked));
        if burst.unseen < limits.burst_look() && since.is_some_and(|since| since < LOOK) {
            return false;
        }
        (burst.looked, burst.unseen) = (burst.began, 0);
        self.log.file.waiting_line().and_then(|line| line.place_of_another(0..PLACES)).is_some()
    }
}

impl Writer {
    /// Releases the lock, if it lingers.
    pub(super) fn stop_lingering(&mut self) {
        if let Some(left) = self.lingering.take().filter(|left| left.file.take_lock_back()) {
            // As with `Writer::release`.
            let _ = left.file.unlock();
        }
    }
}

impl Writing {
    /// Releases the file's lock, if it lingers. For a thread that is about to sleep.
    pub(crate) fn stop_lingering(&self) {
        // If another thread has a turn, the lock does not linger.
        if let Ok(mut writer) = self.writer.try_lock() {
            writer.stop_lingering();
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::ops::ControlFlow;
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::config::{CompactionPolicy, LockMode, ReadMode, SnapshotPolicy};
    use crate::disk::sim::{Fault, Repeat, SimDisk, Verb, When};
    use crate::disk::{Access, Disk, DiskFile};
    use crate::engine::Engine;
    use crate::engine::write::request::{Action, Request};
    use crate::limits::Limits;
    use crate::{Config, Error};

    const PATH: &str = "/store";

    /// A disk on which a lock lingers after two quick turns, until `failing_tries` tries of others.
    fn lingering_disk(failing_tries: u32) -> SimDisk {
        let disk = SimDisk::new();
        disk.set_limits(Limits { burst_turns: 2, burst_gap: 50, ..Limits::WITHOUT_BACKGROUND });
        disk.set_waiting_line(true);
        disk.set_lingering(Some(failing_tries));
        disk
    }

    fn config() -> Config {
        let config = Config::new().durability(Durability::Os).snapshots(SnapshotPolicy::Never);
        config.compaction(CompactionPolicy::Manual).connection_timeout(Duration::ZERO)
    }

    fn open_with(disk: &SimDisk, config: &Config) -> Engine {
        Engine::open(Arc::new(disk.clone()), Path::new(PATH), config).unwrap()
    }

    fn put(engine: &Engine, key: &str) -> crate::Result<()> {
        let mut request = Request::default();
        request.push(format!("\0{key}").as_bytes(), Action::Put(b"value"));
        engine.commit(request).map(drop).map_err(|failure| failure.error())
    }

    /// A handle in the middle of a burst.
    fn in_a_burst(disk: &SimDisk, config: &Config) -> Engine {
        let engine = open_with(disk, config);
        burst(&engine);
        engine
    }

    fn burst(engine: &Engine) {
        (0..4).for_each(|n| put(engine, &format!("burst-{n}")).unwrap());
    }

    fn has_lock(disk: &SimDisk) -> bool {
        !disk.locks().is_empty()
    }

    fn file_of(disk: &SimDisk) -> Arc<dyn DiskFile> {
        disk.open(Path::new(PATH), Access::ReadWrite).unwrap()
    }

    #[test]
    fn a_burst_takes_the_lock_once() {
        let disk = lingering_disk(1);
        let clock = disk.stop_clock();
        let engine = open_with(&disk, &config());
        put(&engine, "first").unwrap();
        let locks = |act: &dyn Fn()| {
            let before = [Verb::TryLock, Verb::Unlock].map(|verb| disk.calls_of(verb));
            act();
            let after = [Verb::TryLock, Verb::Unlock].map(|verb| disk.calls_of(verb));
            [after[0] - before[0], after[1] - before[1]]
        };
        // The opening was a turn too, and no time has passed since.
        assert_eq!(locks(&|| (0..100).for_each(|n| put(&engine, &n.to_string()).unwrap())), [1, 0]);
        assert!(has_lock(&disk));
        // Writes that are further from one another each take the lock and release it.
        clock.advance(Duration::from_micros(51));
        assert_eq!(locks(&|| put(&engine, "late").unwrap()), [0, 1]);
        for _ in 0..10 {
            clock.advance(Duration::from_micros(51));
            assert_eq!(locks(&|| put(&engine, "slow").unwrap()), [1, 1]);
        }
    }

    #[test]
    fn a_lock_lingers_only_after_short_turns_without_a_sync() {
        let disk = lingering_disk(1);
        disk.stop_clock();
        let engine = in_a_burst(&disk, &config());
        let calls: [(&str, &dyn Fn()); 4] = [
            ("sync", &|| engine.writing.solo(engine.context.deadline(), |turn| turn.make_durable()).unwrap()),
            ("compaction", &|| _ = engine.maintenance.compact(&mut |_| ControlFlow::Continue(())).unwrap()),
            ("reopening", &|| engine.reopen().unwrap()),
            ("close", &|| engine.close().unwrap()),
        ];
        for (name, call) in calls {
            assert!(has_lock(&disk), "before the {name}");
            call();
            assert!(!has_lock(&disk), "after the {name}");
            if name != "close" {
                burst(&engine);
            }
        }
        for config in [config().durability(Durability::Sync), config().lock_mode(LockMode::Exclusive)] {
            let engine = in_a_burst(&disk, &config);
            assert_eq!(has_lock(&disk), config.get_lock_mode() == LockMode::Exclusive);
            assert_eq!(disk.end_lingering(), 0, "{config:?}");
            engine.close().unwrap();
        }
    }

    #[test]
    fn a_dropped_or_killed_handle_releases_its_lingering_lock() {
        for killed in [false, true] {
            let disk = lingering_disk(u32::MAX);
            disk.stop_clock();
            let engine = in_a_burst(&disk, &config());
            assert!(has_lock(&disk));
            if killed {
                disk.kill()
            } else {
                drop(engine)
            }
            put(&open_with(&disk.process(), &config()), "other").unwrap();
        }
    }

    /// The system releases the lock after a moment, whether or not this handle makes another call.
    #[test]
    fn others_write_as_soon_as_the_lock_has_gone() {
        for failing_tries in [0, 1, 5] {
            let disk = lingering_disk(failing_tries);
            disk.stop_clock();
            let engine = in_a_burst(&disk, &config());
            let other = in_a_burst(&disk.process(), &config());
            put(&engine, "back").unwrap();
            put(&other, "and forth").unwrap();
            put(&engine, "and back").unwrap();
            for key in ["back", "and forth", "and back"] {
                for engine in [&engine, &other] {
                    let full = format!("\0{key}");
                    assert!(engine.reading.current().unwrap().find(full.as_bytes()).unwrap().is_some(), "{key}");
                }
            }
        }
    }

    #[test]
    fn a_burst_ends_when_another_process_waits() {
        let disk = lingering_disk(u32::MAX);
        let clock = disk.stop_clock();
        let engine = in_a_burst(&disk, &config());
        // By turns, on a clock that stands still.
        let waiting = file_of(&disk.process());
        let line = waiting.waiting_line().unwrap();
        assert!(line.try_place(0).unwrap());
        let turns = (0..100).take_while(|_| has_lock(&disk) && put(&engine, "turn").is_ok()).count();
        assert!(turns <= 16, "{turns} turns while another process waits");
        assert!(!has_lock(&disk));
        line.leave_place(0);
        // By time, with the first turn after 20 µs. That turn stands in line itself.
        burst(&engine);
        assert!(has_lock(&disk));
        assert!(line.try_place(0).unwrap());
        clock.advance(LOOK);
        let took = disk.calls_of(Verb::TryLock);
        put(&engine, "after a look").unwrap();
        assert!(!has_lock(&disk) && disk.calls_of(Verb::TryLock) > took, "it took the lock again, as others do");
        // While others wait, no lock lingers.
        for _ in 0..5 {
            clock.advance(LOOK);
            put(&engine, "beside others").unwrap();
            assert!(!has_lock(&disk));
        }
    }

    #[test]
    fn a_turn_that_had_to_wait_does_not_let_the_lock_linger() {
        let disk = lingering_disk(1);
        disk.stop_clock();
        let engine = in_a_burst(&disk, &config());
        let other = in_a_burst(&disk.process(), &config());
        put(&engine, "had to wait").unwrap();
        assert!(!has_lock(&disk));
        drop(other);
    }

    /// Otherwise each group would extend the file, or there would be no space for its end mark.
    #[test]
    fn the_files_length_is_asked_for_once_the_lock_was_released() {
        let disk = lingering_disk(u32::MAX);
        disk.stop_clock();
        let config = config().read_mode(ReadMode::Pread);
        let engine = in_a_burst(&disk, &config);
        let before = disk.calls_of(Verb::Len);
        burst(&engine);
        assert_eq!(disk.calls_of(Verb::Len), before, "no other handle can have changed it");
        let len = disk.contents(PATH).unwrap().len();
        assert_eq!(disk.end_lingering(), 1);
        open_with(&disk.process(), &config).close().unwrap();
        assert!(disk.contents(PATH).unwrap().len() < len, "the other handle has shortened the file");
        put(&engine, "next").unwrap();
        assert_eq!(crate::sync::lock(&engine.writing.writer).file_len, disk.contents(PATH).unwrap().len() as u64);
    }

    #[test]
    fn a_handle_that_is_poisoned_in_a_burst_releases_the_lock() {
        let disk = lingering_disk(u32::MAX);
        disk.stop_clock();
        let engine = in_a_burst(&disk, &config());
        disk.fail(When::next().of(Verb::WriteAt), Fault::Short(20), Repeat::Once);
        disk.fail(When::nth(2).of(Verb::WriteAt), Fault::Os(libc::ENOSPC), Repeat::Once);
        disk.fail(When::next().of(Verb::SyncData), Fault::Os(libc::EIO), Repeat::Once);
        put(&engine, "failing").unwrap_err();
        assert!(!has_lock(&disk), "after the failing turn itself");
        assert!(matches!(put(&engine, "refused"), Err(Error::Poisoned { .. })));
        assert!(!has_lock(&disk));
    }

    /// Another process replaces the file while the lock of the old one lingers: not a process of this library, which would wait.
    #[test]
    fn a_lingering_lock_is_no_reason_to_write_into_a_file_without_a_name() {
        let disk = lingering_disk(u32::MAX);
        let clock = disk.stop_clock();
        let engine = in_a_burst(&disk, &config());
        let foreign = disk.process();
        foreign.rename(Path::new(PATH), Path::new("/away")).unwrap();
        clock.advance(Duration::from_secs(1));
        assert!(matches!(put(&engine, "lost"), Err(Error::Replaced { .. })));
        assert!(!has_lock(&disk));
    }
}
