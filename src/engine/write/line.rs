//! The line of processes that wait for the file's lock.
//!
//! A place in the line is a lock too, on a single byte far beyond the end of the file. A process takes the place after the last
//! one that is taken, and keeps it. The process in the lowest place is next, and it alone tries for the file's lock. This costs
//! one system call where no other process waits, needs no file of its own, and leaves nothing when a process dies. Any number
//! of processes can stand in line.
//!
//! How often a process looks depends on how many are ahead of it, on how fast the line moves, and on how long nothing has
//! moved. So the work of all of them together stays small: a process in place n looks about 4 ln n times until it is next.
//! `benches/fairness.rs` measures the waits.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::disk::{Clock, DiskFile, PLACES, WaitingLine};
use crate::engine::context::{LONGEST_PAUSE, PART_OF_STANDSTILL};

/// How often the next process checks whether the lock is free. Each place further back adds as much, since no turn takes less.
const NEXT_PAUSE: Duration = Duration::from_micros(20);

/// A process waits a quarter of the time that the places ahead are expected to take. So it is not late even if the line becomes
/// four times as fast.
const PART_OF_TURNS: u32 = 4;

/// How long a process waits for the next one to take the lock. That one may have been stopped.
pub(super) const COURTESY: Duration = Duration::from_millis(20);

/// Attempts to take the last place before the next pause.
const ATTEMPTS: usize = 16;

/// A place in the line for a file's lock. Given up when dropped.
pub(crate) struct Line<'f> {
    /// `None` if the disk has no waiting line: then every process is next.
    places: Option<&'f dyn WaitingLine>,
    clock: &'f Clock,
    /// `None` if no place could be taken.
    place: Option<u64>,
    /// The lowest place ahead that another description has. `None` if this one is next.
    pub(crate) ahead: Option<u64>,
    /// When `ahead` last changed.
    pub(crate) since: Instant,
    /// The time between the last two moves of the line, for each place that it moved.
    turn: Duration,
}

impl<'f> Line<'f> {
    /// The line for the file's lock.
    pub(super) fn new(file: &'f dyn DiskFile, clock: &'f Clock) -> Line<'f> {
        Line::of(file.waiting_line(), clock)
    }

    pub(crate) fn of(places: Option<&'f dyn WaitingLine>, clock: &'f Clock) -> Line<'f> {
        let (since, turn) = (clock.now(), Duration::ZERO);
        Line { places, clock, place: None, ahead: None, since, turn }
    }

    /// Takes a place, if this has none yet, and checks which places are ahead.
    pub(crate) fn look(&mut self) {
        if self.place.is_none() {
            self.place = self.join();
        }
        let end = self.place.unwrap_or(PLACES);
        let places = self.places;
        let taken = |among| places?.place_of_another(among);
        // While the lowest place is taken, it stays the lowest.
        let unmoved = self.ahead.filter(|&ahead| taken(0..ahead + 1).is_some());
        let ahead = unmoved.or_else(|| lowest_before(end, taken));
        if ahead != self.ahead {
            if let Some(before) = self.ahead {
                let moved = ahead.unwrap_or(end).saturating_sub(before);
                self.turn = self.clock.since(self.since) / u32::try_from(moved).unwrap_or(u32::MAX).max(1);
            }
            (self.ahead, self.since) = (ahead, self.clock.now());
        }
    }

    fn join(&self) -> Option<u64> {
        let (places, mut first) = (self.places?, 0);
        for _ in 0..ATTEMPTS {
            let place = end_of_line(first, |among| places.place_of_another(among));
            // If the system refuses such locks, every process is next.
            if place >= PLACES || places.try_place(place).unwrap_or(true) {
                return (place < PLACES).then_some(place);
            }
            first = place + 1;
        }
        None
    }

    /// The most places that can be ahead.
    fn distance(&self) -> u32 {
        let (Some(place), Some(ahead)) = (self.place, self.ahead) else { return 0 };
        u32::try_from(place - ahead).unwrap_or(u32::MAX)
    }

    /// How long to wait until the next look.
    pub(crate) fn pause(&self) -> Duration {
        let distance = self.distance();
        let shortest = NEXT_PAUSE.saturating_mul(distance.saturating_add(1));
        let turns = (self.turn / PART_OF_TURNS).saturating_mul(distance.saturating_sub(1));
        let standstill = self.clock.since(self.since) / PART_OF_STANDSTILL;
        shortest.max(turns).max(standstill).min(LONGEST_PAUSE)
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if let (Some(places), Some(place)) = (self.places, self.place) {
            places.leave_place(place);
        }
    }
}

/// The lowest of the places before `end` that are taken.
fn lowest_before(end: u64, taken: impl Fn(Range<u64>) -> Option<u64>) -> Option<u64> {
    std::iter::successors(taken(0..end), |&found| taken(0..found)).last()
}

/// The first place at or after `first` that is free along with all places after it. Takes about 2 log2 n looks in a line of n
/// places.
fn end_of_line(first: u64, taken: impl Fn(Range<u64>) -> Option<u64>) -> u64 {
    let Some(found) = taken(first..PLACES) else { return first };
    // Places from `high` on are free when they are looked at, and the place before `low` is taken.
    let (mut low, mut reach) = (found + 1, 1);
    let mut high = loop {
        let high = low.saturating_add(reach).min(PLACES);
        let Some(found) = taken(high..PLACES) else { break high };
        (low, reach) = (found + 1, reach * 2);
    };
    while low < high {
        let middle = low + (high - low) / 2;
        match taken(middle..PLACES) {
            Some(found) => low = found + 1,
            None => high = middle,
        }
    }
    low
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::cell::Cell;
    use std::sync::{Arc, LazyLock};

    use super::*;
    use crate::disk::scratch::Scratch;
    use crate::disk::{Access, Disk, RealDisk};
    use crate::patience::with_a_deadline;

    /// Opens one empty file `count` times.
    fn descriptions(scratch: &Scratch, count: usize) -> Vec<Arc<dyn DiskFile>> {
        let path = scratch.0.join("door");
        drop(RealDisk.create_new(&path, 0o600).unwrap());
        (0..count).map(|_| RealDisk.open(&path, Access::ReadWrite).unwrap()).collect()
    }

    fn line(file: &dyn DiskFile) -> Line<'_> {
        static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::default);
        Line::new(file, &CLOCK)
    }

    fn stand<'f>(files: &'f [Arc<dyn DiskFile>]) -> Vec<Line<'f>> {
        let mut lines: Vec<Line<'f>> = files.iter().map(|file| line(&**file)).collect();
        lines.iter_mut().for_each(Line::look);
        lines
    }

    /// The place of each line, and the one ahead of it.
    fn places(lines: &mut [Line<'_>]) -> Vec<(Option<u64>, Option<u64>)> {
        lines.iter_mut().map(|line| (line.look(), (line.place, line.ahead)).1).collect()
    }

    #[test]
    fn waiting_processes_are_next_in_the_order_of_their_arrival() {
        let scratch = Scratch::new();
        let files = descriptions(&scratch, 5);
        let mut lines = stand(&files[..4]);
        assert_eq!(places(&mut lines), [(Some(0), None), (Some(1), Some(0)), (Some(2), Some(0)), (Some(3), Some(0))]);
        // A late process does not take a gap in the middle.
        lines.remove(1);
        let mut late = line(&*files[4]);
        late.look();
        assert_eq!((late.place, late.distance()), (Some(4), 4));
        lines.remove(0);
        assert_eq!(places(&mut lines), [(Some(2), None), (Some(3), Some(2))]);
        late.look();
        assert_eq!((late.place, late.distance()), (Some(4), 2));
        drop(lines);
        late.look();
        assert_eq!((late.place, late.ahead), (Some(4), None));
        drop(late);
        assert_eq!(files[0].waiting_line().unwrap().place_of_another(0..PLACES), None);
        assert_eq!(places(&mut stand(&files[..1])), [(Some(0), None)]);
    }

    #[test]
    fn of_any_number_in_line_one_is_next() {
        let scratch = Scratch::new();
        let files = descriptions(&scratch, 300);
        let mut lines = stand(&files);
        for next in 0..300 {
            let places = places(&mut lines[next..]);
            assert!(places.iter().zip(next as u64..).all(|(&(place, _), expected)| place == Some(expected)));
            assert_eq!(places.iter().filter(|(_, ahead)| ahead.is_none()).count(), 1);
            assert_eq!(places[0].1, None);
            lines[next] = line(&*files[next]);
        }
    }

    #[test]
    fn processes_that_join_at_the_same_time_get_different_places() {
        let Some(()) = with_a_deadline(processes_that_join_at_the_same_time_get_different_places) else { return };
        let scratch = Scratch::new();
        let files = descriptions(&scratch, 40);
        let mut lines: Vec<_> = files.iter().map(|file| line(&**file)).collect();
        std::thread::scope(|scope| lines.iter_mut().for_each(|line| drop(scope.spawn(move || line.look()))));
        lines.iter_mut().for_each(Line::look);
        let mut places: Vec<_> = lines.iter().map(|line| line.place.unwrap()).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 40);
    }

    /// The system answers with any place that is taken, not with the lowest.
    #[test]
    fn both_ends_of_a_long_line_are_found_with_few_looks() {
        for (from, to) in [(0, 0), (0, 1), (7, 8), (0, 150), (1000, 5000), (PLACES - 3, PLACES)] {
            for gap in [1, 2, 7] {
                let taken: std::collections::BTreeSet<u64> = (from..to).step_by(gap).collect();
                let looks = Cell::new(0);
                let look = |among: Range<u64>, any: fn(usize) -> usize| {
                    looks.set(looks.get() + 1);
                    let found: Vec<u64> =
                        if among.is_empty() { Vec::new() } else { taken.range(among).copied().collect() };
                    found.get(any(found.len())).copied()
                };
                for any in [|_| 0, |len| len / 2] {
                    looks.set(0);
                    let end = end_of_line(0, |among| look(among, any));
                    assert_eq!(end, taken.last().map_or(0, |last| last + 1));
                    assert_eq!(lowest_before(PLACES, |among| look(among, any)), taken.first().copied());
                    assert!(looks.get() <= 3 * 13 + 2, "{} looks for {from}..{to}", looks.get());
                }
            }
        }
    }

    #[test]
    fn a_pause_is_longer_further_back_and_at_a_standstill() {
        let scratch = Scratch::new();
        let files = descriptions(&scratch, 1);
        let at = |place, ahead, still: Duration, turn| {
            let since = Instant::now().checked_sub(still).unwrap();
            Line { place: Some(place), ahead, since, turn, ..line(&*files[0]) }.pause()
        };
        let (soon, turn) = (Duration::ZERO, Duration::from_micros(200));
        assert!(at(0, None, soon, Duration::ZERO) < 2 * NEXT_PAUSE);
        assert!(at(1, Some(0), soon, turn) < 3 * NEXT_PAUSE, "the second process must be awake when the first is done");
        assert!(at(101, Some(0), soon, turn) >= 100 * turn / PART_OF_TURNS);
        assert!(at(0, None, Duration::from_millis(50), turn) >= Duration::from_millis(1));
        assert_eq!(at(0, None, Duration::from_secs(1), turn), LONGEST_PAUSE);
        assert_eq!(at(PLACES - 1, Some(0), soon, Duration::MAX), LONGEST_PAUSE);
    }

    #[test]
    fn a_foreign_lock_on_the_whole_file_is_no_place() {
        use std::os::fd::AsRawFd;

        let scratch = Scratch::new();
        let files = descriptions(&scratch, 1);
        let foreign = std::fs::OpenOptions::new().read(true).write(true).open(scratch.0.join("door")).unwrap();
        // The whole file, whatever its length.
        // SAFETY: all fields are integers, for which zero is a valid value.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = libc::F_WRLCK as libc::c_short;
        // SAFETY: the descriptor is open, and `lock` is ours.
        assert_eq!(unsafe { libc::fcntl(foreign.as_raw_fd(), libc::F_OFD_SETLK, &lock) }, 0);
        assert_eq!(files[0].waiting_line().unwrap().place_of_another(0..PLACES), None);
        assert_eq!(places(&mut stand(&files)), [(None, None)]);
        drop(foreign);
        assert_eq!(places(&mut stand(&files)), [(Some(0), None)]);
    }
}
