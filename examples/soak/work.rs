//! The workers.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use caskfile::{Batch, Cask, Durability, Error, LockMode, OptionalExt};

use crate::check::Checker;
use crate::dice::Dice;
use crate::plan::{ACCOUNTS, COUNTER, Kind, account, key, operation, scratch, sequence_key, sequence_of, value};
use crate::sleepers::End;
use crate::tally::{Slot, Tally};
use crate::{Place, Result, config, sleepers};

/// Works until standard input ends.
pub fn run(name: &str, place: &Place) -> Result<()> {
    let (done, end) = (Arc::new(AtomicBool::new(false)), Arc::new(End::default()));
    let (stop, stopper) = (Arc::clone(&done), Arc::clone(&end));
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        stop.store(true, Ordering::Relaxed);
        if let Ok(Some(stopper)) = stopper.lock().as_deref() {
            stopper.stop();
        }
    });
    let tally = place.tally(name)?;
    let (role, number) = name.split_once('-').ok_or("no such worker")?;
    match role {
        "writer" => Writer::new(place, number.parse()?, tally)?.work(&done),
        "reader" => read(place, number == "1", &tally, &done),
        "backup" => back_up(place, &tally, &done),
        "sleeper" => sleepers::sleep(place, number >= "2", &tally, &done, &end),
        "counter" => sleepers::count(place, number, &tally, &done),
        "compactor" => sleepers::compact(place, &tally, &done),
        _ => Err("no such role".into()),
    }
}

struct Writer {
    number: u64,
    cask: Cask,
    tally: Tally,
    dice: Dice,
}

impl Writer {
    fn new(place: &Place, number: u64, tally: Tally) -> Result<Writer> {
        let durability = match number {
            0 | 1 => Durability::Sync,
            2 => Durability::Interval(Duration::from_millis(5)),
            _ => Durability::Os,
        };
        let config = config().durability(durability).lock_mode(LockMode::PerWrite);
        let cask = Cask::open_with(place.store(), &config)?;
        Ok(Writer { number, cask, tally, dice: Dice::new(std::process::id().into()) })
    }

    fn work(mut self, done: &AtomicBool) -> Result<()> {
        // Where the previous one was killed: perhaps after the last acknowledged operation, and never before it.
        let pair = self.cask.get(sequence_key(self.number)).optional()?;
        let mut sequence = pair.and_then(|pair| sequence_of(&pair.value)).unwrap_or(0);
        let acknowledged = self.tally.get(Slot::Sequence)?;
        if !(acknowledged..=acknowledged + 1).contains(&sequence) {
            return Err(format!("{acknowledged} was acknowledged, {sequence} is there").into());
        }
        while !done.load(Ordering::Relaxed) {
            sequence += 1;
            self.operate(sequence)?;
            self.tally.set(Slot::Sequence, sequence)?;
            match self.dice.below(60) {
                0..4 => self.increment()?,
                4..8 => self.transfer()?,
                8..12 => self.scratch()?,
                12 => self.cask.sync()?,
                13 if self.dice.below(20) == 0 => self.cask.reopen()?,
                14 if self.dice.below(50) == 0 => self.compact()?,
                15 if self.dice.below(5) == 0 => drop(self.cask.verify()?),
                _ => std::thread::sleep(Duration::from_micros(self.dice.below(1000))),
            }
        }
        Ok(self.cask.close()?)
    }

    fn operate(&mut self, sequence: u64) -> Result<()> {
        let (kind, changes) = operation(self.number, sequence);
        let own = sequence_key(self.number);
        let new = value(self.number, sequence, &own);
        let previous = self.cask.get(&own).optional()?;
        let index = match (kind, previous) {
            (Kind::Put, _) => {
                self.cask.put(&own, new)?;
                self.cask.get(&own)?.last_index
            }
            (Kind::Swap, previous) => self.cask.atomic_put(&own, new, previous.as_ref())?.last_index,
            (Kind::Batch | Kind::BatchIf, previous) => {
                let mut batch = Batch::new();
                if let (Kind::BatchIf, Some(previous)) = (kind, previous) {
                    batch.expect_last_index(&own, previous.last_index);
                }
                for (number, is_set) in changes {
                    let key = key(self.number, number);
                    match is_set {
                        true => batch.put(&key, value(self.number, sequence, &key)),
                        false => batch.delete(&key),
                    };
                }
                batch.put(&own, new);
                self.cask.write(&batch)?.last_index().ok_or("a batch with a put wrote nothing")?
            }
        };
        self.expect_higher(index)
    }

    /// Also across a kill and a new start.
    fn expect_higher(&self, index: u64) -> Result<()> {
        let last = self.tally.get(Slot::LastIndex)?;
        if index <= last {
            return Err(format!("index {index} after {last}").into());
        }
        Ok(self.tally.set(Slot::LastIndex, index)?)
    }

    fn increment(&mut self) -> Result<()> {
        self.tally.add(Slot::Incrementing)?;
        let pair = self.cask.update(COUNTER, |pair| {
            let count = pair.map_or(0, |pair| String::from_utf8_lossy(&pair.value).parse().unwrap_or(0));
            (count + 1_u64).to_string().into_bytes()
        })?;
        self.tally.add(Slot::Incremented)?;
        self.expect_higher(pair.last_index)
    }

    /// From one account to another, unless another process comes in between.
    fn transfer(&mut self) -> Result<()> {
        let from = self.dice.below(ACCOUNTS);
        let to = (from + 1 + self.dice.below(ACCOUNTS - 1)) % ACCOUNTS;
        let pairs = [self.cask.get(account(from))?, self.cask.get(account(to))?];
        let [rich, poor] = pairs.each_ref().map(|pair| String::from_utf8_lossy(&pair.value).parse::<u64>());
        let (rich, poor) = (rich?, poor?);
        let sum = self.dice.below(rich + 1);
        let mut batch = Batch::new();
        for pair in &pairs {
            batch.expect_last_index(&pair.key, pair.last_index);
        }
        batch.put(account(from), (rich - sum).to_string()).put(account(to), (poor + sum).to_string());
        match self.cask.write(&batch) {
            Ok(_) => Ok(self.tally.add(Slot::Transfers)?),
            Err(Error::BatchConflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn scratch(&mut self) -> Result<()> {
        let prefix = scratch(self.number);
        let bucket = self.cask.bucket(format!("bucket-{}", self.dice.below(3)))?;
        for number in 0..self.dice.below(10) {
            bucket.put(format!("{prefix}{number}"), vec![7; self.dice.below(3000) as usize])?;
        }
        match self.dice.below(3) {
            0 => drop(bucket.delete_prefix(&prefix)?),
            1 => bucket.delete(format!("{prefix}3"))?,
            _ => {}
        }
        Ok(())
    }

    fn compact(&mut self) -> Result<()> {
        match self.cask.compact() {
            Ok(_) | Err(Error::CompactionOvertaken { .. }) | Err(Error::CompactionRefused { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn read(place: &Place, keeps_open: bool, tally: &Tally, done: &AtomicBool) -> Result<()> {
    let mut checker = Checker::new(place)?;
    let open = || Cask::open_with(place.store(), &config().read_only(true));
    let mut cask = open()?;
    while !done.load(Ordering::Relaxed) {
        if !keeps_open {
            cask = open()?;
        }
        let floor = checker.floor()?;
        checker.check(&cask, &floor)?;
        tally.add(Slot::Looks)?;
        if tally.get(Slot::Looks)? % 50 == 0 {
            cask.verify()?;
            caskfile::verify(place.store())?;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Three ways to make a copy, one after the other, always under the same name.
fn back_up(place: &Place, tally: &Tally, done: &AtomicBool) -> Result<()> {
    let mut checker = Checker::new(place)?;
    let cask = Cask::open_with(place.store(), &config().read_only(true))?;
    while !done.load(Ordering::Relaxed) {
        let _ = std::fs::remove_file(place.backup());
        let floor = checker.floor()?;
        match tally.get(Slot::Looks)? % 3 {
            0 => drop(cask.backup(place.backup())?),
            1 => drop(cask.compact_to(place.backup())?),
            _ => {
                let mut stream = std::fs::File::create_new(place.backup())?;
                cask.backup_to(&mut stream)?;
            }
        }
        // One that lacks its end is not sound.
        caskfile::verify(place.backup())?;
        let copy = Cask::open_with(place.backup(), &config())?;
        if copy.stats()?.torn_bytes > 0 {
            return Err("a backup has a torn tail".into());
        }
        checker.check(&copy, &floor)?;
        copy.close()?;
        tally.add(Slot::Looks)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
