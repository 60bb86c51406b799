//! What a writer does, recorded: operations whose calls a game lets happen piece by piece.

use std::path::Path;
use std::sync::Arc;

use caskfile::disk::sim::{Cue, Fault, Recording, Repeat, SimDisk, Verb, When};
use caskfile::disk::{Access, Disk};
use caskfile::{Batch, Cask, Config, Durability, ReadMode};

use crate::common::dice::Dice;
use crate::common::history::State;
use crate::common::player::read_all;
use crate::life::STORE;

pub struct Film {
    pub name: &'static str,
    /// The disk before the first call, with nothing open.
    pub base: SimDisk,
    pub recording: Recording,
    /// The number of calls after each operation.
    ends: Vec<usize>,
    /// What the store holds before the first operation and after each.
    pub states: Vec<State>,
    /// A writer that opens the disk before the first call has nothing to recover.
    pub tidy: bool,
    /// Places at which a write is worth interrupting.
    cues: Vec<Cue>,
}

/// The process that is recorded, with the handle that it has open.
struct Writer {
    disk: SimDisk,
    config: Config,
    cask: Cask,
    /// A second handle, which does not sync.
    other: Option<Cask>,
}

impl Writer {
    fn new(disk: &SimDisk, durability: Durability) -> Writer {
        Writer::of(disk.process(), durability)
    }

    fn of(disk: SimDisk, durability: Durability) -> Writer {
        let config = Config::new().durability(durability);
        let cask = Cask::open_on(Arc::new(disk.clone()), STORE, &config).unwrap();
        Writer { disk, config, cask, other: None }
    }

    fn put(&self, key: &str, value: &[u8]) {
        self.cask.put(key, value).unwrap();
    }

    fn write(&self, parts: &[(&str, Option<Vec<u8>>)]) {
        self.cask.write(&batch(parts)).unwrap();
    }

    fn open_again(&mut self) {
        self.cask.close().unwrap();
        self.cask = Cask::open_on(Arc::new(self.disk.clone()), STORE, &self.config).unwrap();
    }

    fn put_by_another_handle(&mut self, key: &str, value: &[u8]) {
        let config = Config::new().durability(Durability::Os);
        let open = || Cask::open_on(Arc::new(self.disk.clone()), STORE, &config).unwrap();
        self.other.get_or_insert_with(open).put(key, value).unwrap();
    }

    /// A put whose first bytes reach the file before the disk is full.
    fn put_in_vain(&self, key: &str, value: &[u8], written: usize) {
        self.disk.fail(When::nth(1).of(Verb::WriteAt).by(&self.disk), Fault::Short(written), Repeat::Once);
        self.disk.fail(When::nth(2).of(Verb::WriteAt).by(&self.disk), Fault::Os(libc::ENOSPC), Repeat::Once);
        self.cask.put(key, value).unwrap_err();
        self.disk.clear_faults();
    }
}

type Act = fn(&mut Writer);

/// The length of the end mark.
const END_MARK: usize = 8;

fn noise(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + len) as u8 | 1).collect()
}

fn batch(parts: &[(&str, Option<Vec<u8>>)]) -> Batch {
    let mut batch = Batch::new();
    for (key, value) in parts {
        match value {
            Some(value) => batch.put(key, value),
            None => batch.delete(key),
        };
    }
    batch
}

/// A write that a killed process has left half done.
fn left_by_a_killed_writer(disk: &SimDisk, written: usize, write: impl Fn(&Cask) -> caskfile::Result<()>) {
    let writer = Writer::new(disk, Durability::Os);
    writer.put("k/1", b"the last one that it finished");
    writer.disk.fail(When::nth(1).of(Verb::WriteAt).by(&writer.disk), Fault::Kill(written), Repeat::Once);
    write(&writer.cask).unwrap_err();
}

/// All films. The store's file is mapped by another process, or not, when they are made.
pub fn films(reads: ReadMode) -> Vec<Arc<Film>> {
    let shot = |name, durability, prepare: fn(&SimDisk), acts: &[Act]| {
        Arc::new(Film::new(name, reads, durability, prepare, acts))
    };
    let one_each = |name, durability, acts: &[Act]| Arc::new(Film::of_one_write_each(name, durability, acts));
    let (sync, os) = (Durability::Sync, Durability::Os);
    let nothing = |_: &SimDisk| {};
    let no_longer = |disk: &SimDisk| disk.fail(When::next().of(Verb::SetLen), Fault::Os(libc::EFBIG), Repeat::Forever);
    vec![
        shot("puts without a sync", os, nothing, &[|w| w.put("a", &noise(40)), |w| w.put("b", &noise(9))]),
        shot(
            "puts that prove each other",
            sync,
            nothing,
            &[|w| w.put("a", &noise(40)), |w| w.put("b", &noise(300)), |w| w.put("a", &noise(8))],
        ),
        shot(
            "a sync after puts",
            os,
            nothing,
            &[
                |w| w.put("a", &noise(100)),
                |w| w.put("ab", &noise(20)),
                |w| w.cask.sync().unwrap(),
                |w| w.put("b", &noise(20)),
            ],
        ),
        shot(
            "two handles, one of which syncs",
            sync,
            nothing,
            &[
                |w| w.put("a", &noise(40)),
                |w| w.put_by_another_handle("b", &noise(60)),
                |w| w.put("a", &noise(41)),
                |w| w.put_by_another_handle("k/1", &noise(8)),
                |w| w.put("ab", &noise(90)),
            ],
        ),
        shot(
            "values that end in zeros",
            sync,
            nothing,
            &[
                |w| w.put("a", &[0; 40]),
                |w| w.put("b", &[vec![7; 600], vec![0; 5_000]].concat()),
                |w| w.put("k/1", &[&noise(480)[..], &[0; 32]].concat()),
                |w| w.put("a", &noise(30)),
            ],
        ),
        shot(
            "long groups",
            sync,
            nothing,
            &[
                |w| {
                    let parts = [("a", noise(30_000)), ("b", vec![0; 36_000]), ("k/1", noise(20))];
                    w.write(&parts.map(|(key, value)| (key, Some(value))));
                },
                |w| w.put("ab", &[vec![0; 66_000], vec![1]].concat()),
            ],
        ),
        shot(
            "batches",
            sync,
            nothing,
            &[
                |w| w.write(&[("a", Some(noise(50))), ("b", None), ("k/1", Some(noise(9)))]),
                |w| assert_eq!(w.cask.delete_prefix("k/").unwrap(), 1),
                |w| w.write(&[("ab", Some(noise(600))), ("b", Some(vec![0; 64]))]),
                |w| w.cask.delete("a").unwrap(),
                |w| w.write(&[("ab", Some(noise(9))), ("b", Some(noise(2_000)))]),
            ],
        ),
        shot(
            "a torn record is cut off",
            sync,
            |disk| left_by_a_killed_writer(disk, 60, |cask| cask.put("a", noise(100)).map(drop)),
            &[|w| w.put("a", &noise(100)), |w| w.put("b", &noise(100))],
        ),
        shot(
            "a torn batch is cut off",
            os,
            |disk| {
                left_by_a_killed_writer(disk, 400, |cask| {
                    cask.write(&batch(&[("a", Some(noise(100))), ("b", Some(noise(100))), ("k/2", Some(noise(200)))]))
                        .map(drop)
                });
            },
            &[
                |w| w.write(&[("a", Some(noise(100))), ("b", Some(noise(99)))]),
                |w| w.put("b", &noise(100)),
                |w| w.cask.sync().unwrap(),
            ],
        ),
        shot(
            "writes that break off",
            os,
            nothing,
            &[
                |w| w.put_in_vain("a", &noise(100), 70),
                |w| w.put("a", &noise(100)),
                |w| w.put_in_vain("b", &noise(3_000), 2_000),
                |w| w.put("b", &noise(3_000)),
            ],
        ),
        shot(
            "no room to extend the file",
            os,
            no_longer,
            &[
                |w| w.put("a", &[7; 20]),
                |w| w.put("b", &[vec![7; 900], vec![0; 9_000]].concat()),
                |w| w.write(&[("a", Some(vec![0; 600])), ("k/1", Some(noise(20)))]),
            ],
        ),
        shot(
            "a compaction",
            sync,
            nothing,
            &[|w| w.put("a", &noise(200)), |w| assert!(w.cask.compact().is_ok()), |w| w.put("b", &noise(100))],
        ),
        shot(
            "closing and opening",
            sync,
            nothing,
            &[
                |w| w.put("a", &noise(30)),
                Writer::open_again,
                |w| w.put("b", &noise(30)),
                |w| w.cask.reopen().unwrap(),
                |w| w.put("a", &noise(50)),
            ],
        ),
        shot(
            "a long torn batch is cut off",
            sync,
            |disk| {
                left_by_a_killed_writer(disk, 10_500, |cask| {
                    // A reader that begins with a page reads the second record by a call of its own.
                    let parts = [("a", 4_070), ("b", 3_500), ("k/2", 3_500)].map(|(key, len)| (key, Some(noise(len))));
                    cask.write(&batch(&parts)).map(drop)
                });
            },
            &[
                // After the mark with which a writer begins, the later records lie where those of the torn batch were.
                |w| w.write(&[("a", 4_046), ("b", 3_500), ("k/2", 3_500)].map(|(key, len)| (key, Some(vec![9; len])))),
                |w| w.put("b", &noise(3_500)),
            ],
        ),
        shot(
            "a long torn batch of two is cut off",
            sync,
            |disk| {
                left_by_a_killed_writer(disk, 6_500, |cask| {
                    cask.write(&batch(&[("a", 4_070), ("k/2", 3_500)].map(|(key, len)| (key, Some(noise(len))))))
                        .map(drop)
                });
            },
            &[
                |w| w.write(&[("a", 4_046), ("k/2", 3_500)].map(|(key, len)| (key, Some(vec![9; len])))),
                |w| w.put("b", &noise(3_500)),
            ],
        ),
        one_each(
            "puts in one write each",
            os,
            &[
                |w| w.put("a", &noise(40)),
                |w| w.put("b", &[9; 16]),
                |w| w.put("a", &[vec![7; 30], vec![0; 70]].concat()),
                |w| w.put("k/1", &[0; 600]),
            ],
        ),
        one_each(
            "synced groups in one write each",
            sync,
            &[
                |w| w.put("a", &[vec![7; 4_000], vec![0; 9_000]].concat()),
                |w| w.write(&[("a", Some(noise(50))), ("b", None), ("k/1", Some(vec![0; 5_000]))]),
                |w| w.put("b", &noise(90)),
            ],
        ),
    ]
}

/// A store that was closed, so that its file ends with the end mark.
fn with_some_pairs() -> SimDisk {
    let disk = SimDisk::new();
    let first = Writer::new(&disk, Durability::Sync);
    for (key, len) in [("a", 20), ("abc", 100), ("b", 9), ("k/1", 30)] {
        first.put(key, &noise(len));
    }
    first.cask.bucket("b").unwrap().put("a", noise(10)).unwrap();
    first.cask.close().unwrap();
    disk
}

impl Film {
    fn new(name: &'static str, reads: ReadMode, durability: Durability, prepare: fn(&SimDisk), acts: &[Act]) -> Film {
        let disk = with_some_pairs();
        prepare(&disk);
        let base = disk.fork();
        // A file that others map is not made shorter.
        let watcher = Config::new().read_only(true).read_mode(reads);
        let _watcher = Cask::open_on(Arc::new(disk.process()), STORE, &watcher).unwrap();
        let process = disk.process();
        // Its opening belongs to its first operation: it may cut off what a killed writer has left.
        process.record();
        let mut writer = Writer::of(process.clone(), durability);
        Film::of(name, base, &process, &mut writer, acts, |_| {})
    }

    /// A film of a writer that knows less than this library's: it writes each operation's bytes in one piece to the end of the
    /// file, which grows by that.
    fn of_one_write_each(name: &'static str, durability: Durability, acts: &[Act]) -> Film {
        let disk = with_some_pairs();
        let (base, shadow) = (disk.fork(), disk.fork());
        let mut writer = Writer::new(&shadow, durability);
        let file = disk.open(Path::new(STORE), Access::ReadWrite).unwrap();
        disk.record();
        Film::of(name, base, &disk, &mut writer, acts, |writer| {
            let log_end = writer.cask.stats().unwrap().log_end as usize;
            let (before, after) = (disk.contents(STORE).unwrap(), shadow.contents(STORE).unwrap());
            let after = &after[..log_end + END_MARK];
            let from = after.iter().zip(&before).position(|(new, old)| new != old).unwrap_or(before.len());
            assert!(file.try_lock().unwrap());
            file.write_all(from as u64, &after[from..]).unwrap();
            file.unlock().unwrap();
        })
    }

    /// What a process that is recorded does while the writer acts.
    fn of(
        name: &'static str,
        base: SimDisk,
        recorded: &SimDisk,
        writer: &mut Writer,
        acts: &[Act],
        after_each: impl Fn(&Writer),
    ) -> Film {
        let opened = base.fork();
        drop(Writer::new(&opened, Durability::Os));
        let tidy = opened.contents(STORE) == base.contents(STORE);
        let (mut ends, mut states) = (Vec::new(), vec![read_all(&writer.cask).unwrap()]);
        for act in acts {
            act(writer);
            after_each(writer);
            ends.push(recorded.recorded().len());
            states.push(read_all(&writer.cask).unwrap());
        }
        let recording = recorded.recorded();
        let cues = (0..recording.len()).flat_map(|calls| cues_of(calls, recording.written(calls))).collect();
        Film { name, base, recording, ends, states, tidy, cues }
    }

    /// How many operations have returned, and how many have begun.
    pub fn bounds(&self, at: Cue) -> (usize, usize) {
        let returned = self.ends.iter().filter(|&&end| end <= at.calls).count();
        let begun = (0..self.ends.len()).filter(|&act| self.begins(act) < at).count();
        (returned, begun)
    }

    /// The beginning, and the end of each operation.
    pub fn cues_between_operations(&self) -> Vec<Cue> {
        let ends = self.ends.iter().map(|&calls| Cue { calls, bytes: 0 });
        [Cue::default()].into_iter().chain(ends).collect()
    }

    fn begins(&self, act: usize) -> Cue {
        Cue { calls: act.checked_sub(1).map_or(0, |before| self.ends[before]), bytes: 0 }
    }

    /// A place at or after this one.
    pub fn later(&self, at: Cue, dice: &mut Dice) -> Cue {
        let from = self.cues.partition_point(|&cue| cue < at) as u64;
        let left = self.cues.len() as u64 - from;
        if left == 0 {
            return self.recording.end();
        }
        let way = dice.below(5);
        if way == 0 {
            let calls = at.calls + 1 + dice.below(3) as usize;
            return Cue { calls, bytes: 0 }.min(self.recording.end());
        }
        if way == 1 {
            // Whole operations, as between two calls.
            let ends = self.ends.iter().map(|&calls| Cue { calls, bytes: 0 }).filter(|&end| end > at);
            let ends: Vec<_> = ends.chain([self.recording.end()]).collect();
            return dice.choose(&ends);
        }
        // Most often one of the next places: the halves of one write, and what follows directly.
        let near = dice.choose(&[4, 12, 30, left]).min(left);
        let cue = self.cues[(from + dice.below(near)) as usize];
        let len = self.recording.written(cue.calls).len() as u64;
        if len > 0 && dice.one_in(4) { Cue { bytes: dice.below(len) as usize, ..cue }.max(at) } else { cue }
    }
}

/// Before a call, and in a write: in its first header, around its last byte that is not zero, at its end, and in between.
fn cues_of(calls: usize, written: &[u8]) -> Vec<Cue> {
    let len = written.len();
    let data_end = written.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let mut bytes =
        vec![0, 1, 4, 8, 12, 20, 23, 24, 25, 30, len / 3, len / 2, len.saturating_sub(1), len.saturating_sub(8)];
    bytes.extend([len.saturating_sub(9), data_end.saturating_sub(1), data_end, data_end + 1]);
    // Pages, which reach the file one after the other.
    bytes.extend((4096..len).step_by(4096).take(20));
    bytes.retain(|&bytes| bytes == 0 || bytes < len);
    bytes.sort_unstable();
    bytes.dedup();
    bytes.into_iter().map(|bytes| Cue { calls, bytes }).collect()
}
