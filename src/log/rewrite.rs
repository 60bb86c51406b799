//! Rewriting the part of the log that no proof covers, and checking it.

use super::LogFile;
use super::chunks::each_expected_piece;
use super::run::Run;
use super::scan::{Scanner, Step, Stop};
use crate::Result;

/// Writes a part of the log again: the same bytes to the same place.
///
/// If a sync failed before this handle was opened, the kernel may hold pages that look clean and never reached the
/// disk. Rewriting makes them dirty, and the next sync writes them.
pub(crate) fn write_again(log: &LogFile, from: u64, to: u64) -> Result<()> {
    each_expected_piece(log, from, to, |at, piece| {
        log.file.write_all(at, piece).map_err(|e| log.io("rewrite the tail", e))
    })
}

/// Makes sure that the rewritten part is still what was replayed. A record starts at `from`.
pub(crate) fn check_again(log: &LogFile, from: u64, previous_seq: u64, to: u64) -> Result<()> {
    let mut walked = walk_to(Scanner::resume(log, from, previous_seq)?, to)?;
    if walked.is_err() {
        // No writer states that the file is synced up to the middle of a record. A foreign program may have, and then
        // the walk did not begin at a record.
        walked = walk_to(Scanner::from_start(log)?, to)?;
    }
    walked.map_err(|stop| stop.is_damage_in(log))
}

/// Walks from `from`, where a record starts, to `to`. Returns the end of the last complete unit, and the sequence
/// number of its last record. Needs no lock: [`check_again`] judges the rest under the lock.
pub(crate) fn whole_up_to(log: &LogFile, from: u64, previous_seq: u64, to: u64) -> Result<(u64, u64)> {
    let mut scanner = Scanner::resume(log, from, previous_seq)?;
    let (mut reached, mut unit) = ((from, previous_seq), Run::default());
    while reached.0 < to && matches!(scanner.step(&mut unit)?, Step::Unit) {
        let Some(last) = unit.entries.last() else { break };
        let end = last.end();
        if end > to {
            break;
        }
        reached = (end, last.header.seq);
    }
    Ok(reached)
}

/// Whether everything up to `to` can be read. If not, returns where the walk stopped.
fn walk_to(mut scanner: Scanner<'_>, to: u64) -> Result<std::result::Result<(), Stop>> {
    let mut reached = 0;
    let stop = scanner.walk(|unit| {
        reached = unit.end().unwrap_or(reached);
        Ok(())
    })?;
    Ok(if reached < to { Err(stop) } else { Ok(()) })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Draft, PLAIN, open};
    use super::*;
    use crate::Error;

    fn closed(draft: &Draft) -> Vec<u8> {
        [&draft.bytes[..], &[0; 8]].concat()
    }

    /// Flips a bit of the value of the record at `offset`, which has a short key.
    fn damaged(mut bytes: Vec<u8>, offset: u64) -> Vec<u8> {
        bytes[offset as usize + 27] ^= 1;
        bytes
    }

    fn rewrite(log: &LogFile, from: u64, previous_seq: u64, to: u64) -> Result<()> {
        write_again(log, from, to)?;
        check_again(log, from, previous_seq, to)
    }

    #[test]
    fn a_statement_may_name_the_middle_of_a_record() {
        // Found by fuzzing: a store with such a statement opened, and then refused every write as corrupt.
        let mut draft = Draft::new();
        let first = draft.put(PLAIN, "a");
        draft.synced_to(first + 8);
        let (bytes, end) = (closed(&draft), draft.end());
        let log = open(bytes.clone());
        rewrite(&log, first + 8, 0, end).unwrap();
        let mut found = vec![0; bytes.len()];
        log.read_exact(0, &mut found).unwrap();
        assert_eq!(found, bytes);

        let damaged = open(damaged(bytes, first));
        assert!(matches!(rewrite(&damaged, first + 8, 0, end), Err(Error::Corrupt { offset, .. }) if offset == first));
    }

    #[test]
    fn a_rewritten_part_is_checked_to_its_end() {
        let mut draft = Draft::new();
        let first = draft.put(PLAIN, "a");
        let second = draft.put(PLAIN, "b");
        let third = draft.put(PLAIN, "c");
        let (bytes, end) = (closed(&draft), draft.end());
        rewrite(&open(bytes.clone()), first, 0, end).unwrap();
        for at in [second, third] {
            let error = rewrite(&open(damaged(bytes.clone(), at)), first, 0, end).unwrap_err();
            assert!(matches!(error, Error::Corrupt { offset, .. } if offset == at), "{error}");
        }
    }
}
