//! Waiting for the file's lock, and for one's place in the queue, with a limit.
//!
//! `flock` has no timed form, so the lock is polled; and who polls loses against a process that takes the lock again
//! right after it has given it up, for seconds. So those who wait stand in line: there are places, which are locks too,
//! on single bytes far beyond the end of the file. Who comes takes the place behind the last that is taken, and steps
//! forward when the one ahead has; who has the first place is next, and it alone tries for the file's lock. It costs one
//! system call where nobody waits, needs no file of its own, leaves nothing behind when a process dies, and the limits of
//! time stay exact. Nothing depends on it: the file's lock is what protects the file.
//!
//! Measured on two cores with a sync of 0.1 ms, processes that put durably as fast as they can: with one place only, and
//! chance behind it, 1 in 100 puts of eight processes waited longer than 60 times what a put alone takes, and the longest
//! wait was 105 to 157 times that; in line it is 20 to 29 and 34 to 71, with as many puts in all. See
//! `benches/fairness.rs`.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Engine;
use crate::disk::{DiskFile, PLACES};
use crate::log::LogFile;
use crate::{Error, Result};

/// The end of a call's patience. It begins when somebody first asks what is left of it: who need not wait need not look at
/// a clock.
#[derive(Debug)]
pub(crate) struct Deadline {
    began: Cell<Option<Instant>>,
    /// `None`: for ever.
    timeout: Option<Duration>,
}

impl Deadline {
    pub(crate) fn after(timeout: Option<Duration>) -> Deadline {
        Deadline { began: Cell::new(None), timeout }
    }

    /// How long to wait yet: `None` for ever, zero if the time is over.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.timeout.map(|timeout| timeout.saturating_sub(self.waited()))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.left() == Some(Duration::ZERO)
    }

    pub(crate) fn waited(&self) -> Duration {
        if let Some(began) = self.began.get() {
            return began.elapsed();
        }
        self.began.set(Some(Instant::now()));
        Duration::ZERO
    }
}

/// Whoever is next looks this often whether it is its turn.
const NEXT_PAUSE: Duration = Duration::from_micros(20);

/// Those behind it look more seldom, as a turn takes as long as a sync: so much for each place, up to this.
const PLACE_PAUSE: Duration = Duration::from_micros(20);
const LONGEST_PAUSE: Duration = Duration::from_micros(160);

/// And so long they wait for somebody ahead who neither takes the lock nor steps forward: it may have been stopped.
const COURTESY: Duration = Duration::from_millis(20);

/// A handle that waits for long reads this often what others have written meanwhile: what is left to be read when it gets
/// the lock keeps all others waiting.
const READ_PAUSE: Duration = Duration::from_millis(10);

/// After a turn without a sync for which it had to wait, a handle leaves the lock to others for this long. Its next turn
/// would be over before anybody else looked whether somebody is next.
pub(crate) const REST: Duration = Duration::from_micros(200);

impl Engine {
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::after(self.config.get_connection_timeout())
    }

    pub(crate) fn lock_timeout(&self, deadline: &Deadline) -> Error {
        Error::LockTimeout { path: self.path.to_path_buf(), waited: deadline.waited() }
    }

    /// Pauses before another try at a lock that somebody else has.
    pub(crate) fn wait_a_moment(&self, deadline: &Deadline) -> Result<()> {
        if deadline.is_over() {
            return Err(self.lock_timeout(deadline));
        }
        self.disk.pause(deadline.left().map_or(LONGEST_PAUSE, |left| left.min(LONGEST_PAUSE)));
        Ok(())
    }

    /// Takes the file's lock; `true` if it had to wait for it. Tries at least once, however little time is left.
    ///
    /// Whoever comes while somebody stands in line stands behind them, also if it has just had the lock itself: that it
    /// wins it again each time, because the others are asleep when it gives it up, cannot happen.
    pub(crate) fn wait_for_lock(&self, log: &LogFile, deadline: &Deadline) -> Result<bool> {
        let file = &*log.file;
        let try_lock = || file.try_lock().map_err(|e| log.io("lock", e));
        if (file.place_behind_another(0).is_none() || deadline.is_over()) && try_lock()? {
            return Ok(false);
        }
        let (mut line, began) = (Line::new(file), Instant::now());
        let mut read = began;
        let outcome = loop {
            line.step();
            if line.place == Some(0) || deadline.is_over() || line.since.elapsed() >= COURTESY {
                match try_lock() {
                    Ok(false) => {}
                    Ok(true) => break Ok(true),
                    Err(error) => break Err(error),
                }
            }
            if deadline.is_over() {
                break Err(self.lock_timeout(deadline));
            }
            if read.elapsed() >= READ_PAUSE {
                // Errors are left to the turn, as in `Turn::approach`.
                let _ = self.take_in_early();
                read = Instant::now();
            }
            let pause = line.pause();
            self.disk.pause(deadline.left().map_or(pause, |left| left.min(pause)));
        };
        drop(line);
        let nanoseconds = began.elapsed().as_nanos() as u64;
        self.counters.lock_waits.fetch_add(1, Ordering::Relaxed);
        self.counters.lock_waited.fetch_add(nanoseconds, Ordering::Relaxed);
        outcome
    }
}

/// A place in the line of those who wait for a file's lock. Given up when dropped.
struct Line<'f> {
    file: &'f dyn DiskFile,
    /// `None` if there was no room.
    place: Option<u32>,
    /// When that place was taken.
    since: Instant,
}

impl Line<'_> {
    fn new(file: &dyn DiskFile) -> Line<'_> {
        Line { file, place: None, since: Instant::now() }
    }

    /// Stands behind the last, or steps forward as far as the places ahead are free.
    fn step(&mut self) {
        while let Some(ahead) = self.place.map_or_else(|| Some(self.behind_the_last()), |place| place.checked_sub(1)) {
            // Where nobody can tell who stands where, everybody is next.
            if ahead >= PLACES || !self.file.try_place(ahead).unwrap_or(true) {
                return;
            }
            self.leave();
            (self.place, self.since) = (Some(ahead), Instant::now());
        }
    }

    fn behind_the_last(&self) -> u32 {
        let mut last = 0;
        while let Some(behind) = self.file.place_behind_another(last).filter(|&behind| behind > last) {
            last = behind;
        }
        last
    }

    fn pause(&self) -> Duration {
        match self.place {
            Some(place) => (NEXT_PAUSE + PLACE_PAUSE * place).min(LONGEST_PAUSE),
            None => LONGEST_PAUSE,
        }
    }

    fn leave(&mut self) {
        if let Some(place) = self.place.take() {
            self.file.leave_place(place);
        }
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::disk::scratch::Scratch;
    use crate::disk::{Access, Disk, RealDisk};

    /// As many open descriptions of one empty file as are wanted.
    fn descriptions(scratch: &Scratch, count: usize) -> Vec<Arc<dyn DiskFile>> {
        let path = scratch.0.join("door");
        drop(RealDisk.create_new(&path, 0o600).unwrap());
        (0..count).map(|_| RealDisk.open(&path, Access::ReadWrite).unwrap()).collect()
    }

    fn stand<'f>(files: &'f [Arc<dyn DiskFile>]) -> Vec<Line<'f>> {
        let mut lines: Vec<Line<'f>> = files.iter().map(|file| Line::new(&**file)).collect();
        lines.iter_mut().for_each(Line::step);
        lines
    }

    fn places(lines: &mut [Line<'_>]) -> Vec<Option<u32>> {
        lines.iter_mut().map(|line| (line.step(), line.place).1).collect()
    }

    #[test]
    fn those_who_wait_step_forward_in_the_order_in_which_they_came() {
        let scratch = Scratch::new();
        let files = descriptions(&scratch, 5);
        let mut lines = stand(&files[..4]);
        assert_eq!(places(&mut lines), [Some(0), Some(1), Some(2), Some(3)]);
        // Whoever gives up in the middle leaves a gap, which is not for who comes last.
        lines.remove(1);
        let mut late = Line::new(&*files[4]);
        late.step();
        assert_eq!(late.place, Some(4));
        lines.remove(0);
        // Looked at from the front.
        assert_eq!(places(&mut lines), [Some(0), Some(1)]);
        late.step();
        assert_eq!(late.place, Some(2));
        drop(lines);
        late.step();
        assert_eq!(late.place, Some(0));
        drop(late);
        assert_eq!(files[0].place_behind_another(0), None);
    }

    #[test]
    fn who_finds_no_room_in_line_has_no_place_until_there_is_room() {
        let scratch = Scratch::new();
        let files = descriptions(&scratch, PLACES as usize + 1);
        let mut lines = stand(&files);
        let mut outside = lines.pop().unwrap();
        assert_eq!(outside.place, None);
        assert_eq!(outside.pause(), LONGEST_PAUSE);
        lines.remove(0);
        assert_eq!(places(&mut lines), (0..PLACES - 1).map(Some).collect::<Vec<_>>());
        outside.step();
        assert_eq!(outside.place, Some(PLACES - 1));
    }

    #[test]
    fn a_foreign_programs_lock_on_the_whole_file_is_nobodys_place() {
        use std::os::fd::AsRawFd;

        let scratch = Scratch::new();
        let files = descriptions(&scratch, 1);
        let foreign = std::fs::OpenOptions::new().read(true).write(true).open(scratch.0.join("door")).unwrap();
        // From the start to the end, however long the file gets.
        // SAFETY: all fields are numbers, of which zero is one.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = libc::F_WRLCK as libc::c_short;
        // SAFETY: the descriptor is open, and `lock` is ours.
        assert_eq!(unsafe { libc::fcntl(foreign.as_raw_fd(), libc::F_OFD_SETLK, &lock) }, 0);
        assert_eq!(files[0].place_behind_another(0), None);
        assert_eq!(stand(&files)[0].place, None);
        drop(foreign);
        assert_eq!(stand(&files)[0].place, Some(0));
    }
}
