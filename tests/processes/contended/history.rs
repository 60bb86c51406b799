//! What the log says of a lock and of the writes of its holders, beside what the holders noted: whether both can be true.

use std::collections::{BTreeMap, BTreeSet};

/// A change in the log, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The lock was taken: the sequence number of this is the token.
    Taken { token: u64 },
    /// The holder has given the lock's key another value.
    Rewritten { token: u64 },
    /// The lock's key is gone.
    Gone,
    /// A batch with the condition that the lock is held.
    Written { token: u64, count: u64, seq: u64 },
}

/// What a holder noted. Times are of the clock that all processes share, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// It has the lock, at this time or earlier.
    Begins { token: u64, at: u64 },
    /// It had the lock at this time: it asked [`is_held`](caskfile::Held::is_held) later.
    Holds { token: u64, at: u64 },
    /// It is about to write.
    Tries { token: u64, count: u64 },
    /// The write has succeeded.
    Wrote { token: u64, count: u64, seq: u64 },
    /// The write was refused, because the lock is not held.
    Refused { token: u64, count: u64 },
    /// It is about to release the lock.
    Ends { token: u64 },
}

impl Note {
    /// A line of its own.
    pub fn to_line(self) -> String {
        let (word, numbers) = match self {
            Note::Begins { token, at } => ("begins", [token, at, 0]),
            Note::Holds { token, at } => ("holds", [token, at, 0]),
            Note::Tries { token, count } => ("tries", [token, count, 0]),
            Note::Wrote { token, count, seq } => ("wrote", [token, count, seq]),
            Note::Refused { token, count } => ("refused", [token, count, 0]),
            Note::Ends { token } => ("ends", [token, 0, 0]),
        };
        format!("{word} {} {} {}\n", numbers[0], numbers[1], numbers[2])
    }

    pub fn from_line(line: &str) -> Note {
        let (word, numbers) = line.split_once(' ').expect("a word, and numbers");
        let numbers: Vec<u64> = numbers.split(' ').map(|number| number.parse().expect("a number")).collect();
        let (token, second, third) = (numbers[0], numbers[1], numbers[2]);
        match word {
            "begins" => Note::Begins { token, at: second },
            "holds" => Note::Holds { token, at: second },
            "tries" => Note::Tries { token, count: second },
            "wrote" => Note::Wrote { token, count: second, seq: third },
            "refused" => Note::Refused { token, count: second },
            "ends" => Note::Ends { token },
            other => panic!("{other}"),
        }
    }
}

/// Looks for what no lock can have done. Notes are in the order of each thread; those of several threads may stand in any order.
pub fn check(log: &[Change], notes: &[Note]) -> Result<(), String> {
    let written = check_log(log)?;
    let taken: BTreeSet<u64> = log.iter().filter_map(|change| taken(*change)).collect();
    check_writes(&written, notes)?;
    check_holders(&taken, notes)
}

fn taken(change: Change) -> Option<u64> {
    match change {
        Change::Taken { token } => Some(token),
        _ => None,
    }
}

/// The log alone: tokens rise, each write is of the holder at its place, and each counts on from the last one. Returns the token and the
/// sequence number of each count.
fn check_log(log: &[Change]) -> Result<BTreeMap<u64, (u64, u64)>, String> {
    let (mut last, mut holder, mut count_before) = (0, None, 0);
    let mut written = BTreeMap::new();
    for &change in log {
        match change {
            Change::Taken { token } => {
                if token <= last {
                    return Err(format!("token {token} comes after {last}"));
                }
                (last, holder) = (token, Some(token));
            }
            Change::Gone => holder = None,
            Change::Rewritten { token } | Change::Written { token, .. } if holder != Some(token) => {
                return Err(format!("{change:?} while the holder is {holder:?}"));
            }
            Change::Rewritten { .. } => {}
            Change::Written { token, count, seq } => {
                if count != count_before + 1 {
                    return Err(format!("{change:?} after {count_before}: a holder has not seen the last write"));
                }
                count_before = count;
                written.insert(count, (token, seq));
            }
        }
    }
    Ok(written)
}

/// What was acknowledged is in the log, what was refused is not, and what is there was tried.
fn check_writes(written: &BTreeMap<u64, (u64, u64)>, notes: &[Note]) -> Result<(), String> {
    let mut tried = BTreeSet::new();
    for &note in notes {
        match note {
            Note::Tries { token, count } => {
                tried.insert((token, count));
            }
            Note::Wrote { token, count, seq } if written.get(&count) != Some(&(token, seq)) => {
                return Err(format!("{note:?} was acknowledged, and the log has {:?}", written.get(&count)));
            }
            // The same holder may have succeeded with its next try, under another count.
            Note::Refused { token, count } if written.get(&count).is_some_and(|&(by, _)| by == token) => {
                return Err(format!("{note:?}, and it is in the log"));
            }
            _ => {}
        }
    }
    let untried = written.iter().find(|&(&count, &(token, _))| !tried.contains(&(token, count)));
    untried.map_or(Ok(()), |(count, of)| Err(format!("no process wrote count {count} of {of:?}")))
}

/// Each holder is in the log, and none holds the lock after the next one has begun.
fn check_holders(taken: &BTreeSet<u64>, notes: &[Note]) -> Result<(), String> {
    let mut begun = BTreeMap::new();
    for &note in notes {
        if let Note::Begins { token, at } = note {
            if !taken.contains(&token) {
                return Err(format!("{note:?} is not in the log"));
            }
            if begun.insert(token, at).is_some() {
                return Err(format!("two holders have token {token}"));
            }
        }
    }
    // For each token, when the first holder with a higher one had the lock at the latest.
    let (mut superseded, mut earliest) = (BTreeMap::new(), u64::MAX);
    for (&token, &at) in begun.iter().rev() {
        superseded.insert(token, earliest);
        earliest = earliest.min(at);
    }
    for &note in notes {
        if let Note::Holds { token, at } = note {
            let until = superseded.get(&token).ok_or_else(|| format!("{note:?}, and it never began"))?;
            if at > *until {
                return Err(format!("{note:?}, and another one had the lock at {until}"));
            }
        }
    }
    Ok(())
}

/// A history of two holders that none can object to.
fn sound() -> (Vec<Change>, Vec<Note>) {
    let log = vec![
        Change::Taken { token: 10 },
        Change::Written { token: 10, count: 1, seq: 11 },
        Change::Rewritten { token: 10 },
        Change::Gone,
        Change::Taken { token: 20 },
        Change::Written { token: 20, count: 2, seq: 21 },
        Change::Taken { token: 30 },
        // Its process was killed before it could note that it had succeeded.
        Change::Written { token: 30, count: 3, seq: 31 },
    ];
    let notes = vec![
        Note::Begins { token: 20, at: 200 },
        Note::Holds { token: 20, at: 290 },
        Note::Tries { token: 20, count: 2 },
        Note::Wrote { token: 20, count: 2, seq: 21 },
        Note::Begins { token: 10, at: 100 },
        Note::Tries { token: 10, count: 1 },
        Note::Wrote { token: 10, count: 1, seq: 11 },
        Note::Holds { token: 10, at: 150 },
        Note::Ends { token: 10 },
        Note::Tries { token: 10, count: 3 },
        Note::Refused { token: 10, count: 3 },
        Note::Begins { token: 30, at: 300 },
        Note::Tries { token: 30, count: 3 },
    ];
    (log, notes)
}

#[test]
fn the_checker_accepts_a_sound_history_and_notes_survive_their_lines() {
    let (log, notes) = sound();
    check(&log, &notes).unwrap();
    for note in notes {
        assert_eq!(Note::from_line(note.to_line().trim_end()), note);
    }
}

/// Each of these changes one thing of the sound history.
#[test]
fn the_checker_refuses_every_broken_history() {
    type Break = fn(&mut Vec<Change>, &mut Vec<Note>);
    let broken: &[(&str, Break)] = &[
        ("comes after", |log, _| log[4] = Change::Taken { token: 10 }),
        ("comes after", |log, _| log[4] = Change::Taken { token: 9 }),
        // A past holder writes: after the release, and after the next one has come.
        ("while the holder is None", |log, _| log.swap(3, 1)),
        ("while the holder is Some(30)", |log, _| log[7] = Change::Written { token: 20, count: 3, seq: 31 }),
        ("while the holder is Some(20)", |log, _| log.insert(5, Change::Rewritten { token: 10 })),
        // Two holders have read the same count.
        ("has not seen the last write", |log, _| log[5] = Change::Written { token: 20, count: 1, seq: 21 }),
        // The last write of the log is lost, and then the one before.
        ("was acknowledged", |log, _| log.retain(|change| !matches!(change, Change::Written { count: 2.., .. }))),
        ("was acknowledged", |_, notes| notes[3] = Note::Wrote { token: 20, count: 2, seq: 22 }),
        ("it is in the log", |_, notes| notes[3] = Note::Refused { token: 20, count: 2 }),
        ("no process wrote", |_, notes| notes.truncate(12)),
        ("is not in the log", |_, notes| notes.push(Note::Begins { token: 15, at: 1 })),
        ("two holders", |_, notes| notes.push(Note::Begins { token: 10, at: 101 })),
        // Each believes to have the lock at the same time.
        ("another one had the lock", |_, notes| notes[7] = Note::Holds { token: 10, at: 201 }),
        ("another one had the lock", |_, notes| notes[1] = Note::Holds { token: 20, at: 301 }),
        ("it never began", |_, notes| notes.push(Note::Holds { token: 40, at: 1 })),
    ];
    for (reason, alter) in broken {
        let (mut log, mut notes) = sound();
        alter(&mut log, &mut notes);
        let refusal = check(&log, &notes).expect_err(reason);
        assert!(refusal.contains(reason), "{refusal}, and not: {reason}");
    }
}
