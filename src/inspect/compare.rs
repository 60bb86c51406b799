//! [`Comparison`]: the snapshot of a file against the keys that a walk over its log has found.
//!
//! Opening believes a snapshot whose checksums hold. Only a fault in a program makes one that holds and is wrong, so
//! verification is where that shows.

use crate::format::Root;
use crate::format::snapshot::{Covered, Snapshot, StoredPart, tables_in_part};
use crate::index::{Frozen, stored_order};
use crate::log::LogFile;
use crate::log::read::Reader;
use crate::replay::KeySpace;
use crate::report::WrongSnapshot;
use crate::{Error, Result};

/// The comparison of the snapshot to which a root leads.
pub(super) enum Comparison {
    /// There is nothing to compare, or nothing more.
    Done(Option<WrongSnapshot>),
    /// The walk has not come to where the snapshot ends.
    Ahead { at: u64, snapshot: Snapshot },
}

impl Comparison {
    /// The comparison before the walk. A snapshot of a later version is not compared.
    pub(super) fn of(log: &LogFile, root: Option<Root>) -> Result<Comparison> {
        let Some(root) = root.filter(|root| root.snapshot != 0) else { return Ok(Comparison::Done(None)) };
        let at = root.snapshot;
        let Some(value) = log.snapshot_value(&root)? else {
            return Ok(Comparison::wrong(
                at,
                "no SNAPSHOT stands there before the root's offset, or its checksums do not hold",
            ));
        };
        Ok(match log.decode_snapshot(&value, &root) {
            Some(snapshot) => Comparison::Ahead { at, snapshot },
            None if Snapshot::is_of_later_version(&value) => Comparison::Done(None),
            None => Comparison::wrong(at, "its fields contradict one another, or the file"),
        })
    }

    fn wrong(at: u64, detail: impl Into<String>) -> Comparison {
        Comparison::Done(Some(WrongSnapshot { offset: at, detail: detail.into() }))
    }

    /// Compares, if the walk has come to where the snapshot ends: the reader's end follows `records` records, the last of which
    /// has the number `last_seq`, and the last put or delete `last_event`.
    pub(super) fn reach(
        &mut self,
        reader: &Reader,
        records: u64,
        (last_seq, last_event): (u64, u64),
        keys: &KeySpace,
    ) -> Result<()> {
        let Comparison::Ahead { at, snapshot } = self else { return Ok(()) };
        let (log, end) = (&reader.log, reader.end);
        if end < snapshot.covered.end {
            return Ok(());
        }
        let found = Covered {
            end,
            previous_seq: last_seq,
            // It need not be stated.
            last_event: snapshot.covered.last_event.map(|_| last_event),
            records,
            keys: keys.index.len() as u64,
            live_bytes: keys.live_bytes(),
        };
        let mut difference = difference_of_totals(&snapshot.covered, &found);
        if difference.is_none() {
            difference = difference_of_parts(log, snapshot, &keys.index.freeze())?;
        }
        if difference.is_none() {
            difference = difference_of_order(reader, snapshot, keys)?;
        }
        if difference.is_none() {
            difference = difference_of_lifetimes(reader, snapshot, keys)?;
        }
        *self = Comparison::Done(difference.map(|detail| WrongSnapshot { offset: *at, detail }));
        Ok(())
    }

    /// What is wrong, at the end of a walk that has found no damage.
    pub(super) fn result(&self) -> Option<WrongSnapshot> {
        match self {
            Comparison::Done(wrong) => wrong.clone(),
            Comparison::Ahead { at, snapshot } => {
                let detail = format!("it covers the log up to {}, which the log does not reach", snapshot.covered.end);
                Some(WrongSnapshot { offset: *at, detail })
            }
        }
    }
}

fn difference_of_totals(stated: &Covered, found: &Covered) -> Option<String> {
    if stated.end != found.end {
        return Some(format!("it covers the log up to {}, where no record or batch ends", stated.end));
    }
    let totals = [
        ("records", stated.records, found.records),
        ("keys", stated.keys, found.keys),
        ("live bytes", stated.live_bytes, found.live_bytes),
    ];
    let differs = totals.into_iter().find(|(_, stated, found)| stated != found);
    let of_number = || {
        let (stated, found) = (stated.previous_seq, found.previous_seq);
        (stated != found)
            .then(|| format!("it ends after the record with seq {stated}, and the log there with seq {found}"))
    };
    let of_event = || {
        let (stated, found) = (stated.last_event?, found.last_event?);
        (stated != found).then(|| format!("it states {stated} as the seq of the last event, and the log has {found}"))
    };
    differs
        .map(|(what, stated, found)| format!("it counts {stated} {what}, and the log has {found}"))
        .or_else(of_number)
        .or_else(of_event)
}

fn difference_of_parts(log: &LogFile, snapshot: &Snapshot, found: &Frozen) -> Result<Option<String>> {
    let covered = log.start()..snapshot.covered.end;
    let tables = tables_in_part(snapshot.part_bits);
    for (number, part) in snapshot.parts.iter().enumerate() {
        let stored = match part {
            StoredPart { count: 0, .. } => vec![Vec::new(); tables],
            part => match log.stored_part(part, snapshot.part_bits, &covered) {
                Err(Error::Corrupt { .. }) => {
                    return Ok(Some(format!("part {number} of its image, at {}, does not verify", part.offset)));
                }
                stored => stored?,
            },
        };
        let differs =
            stored.iter().enumerate().any(|(table, words)| *words != found.sorted_words(number * tables + table));
        if differs {
            return Ok(Some(format!("part {number} of its image, at {}, has not the keys of the log", part.offset)));
        }
    }
    Ok(None)
}

fn difference_of_order(reader: &Reader, snapshot: &Snapshot, keys: &KeySpace) -> Result<Option<String>> {
    let Some(order) = &snapshot.order else { return Ok(None) };
    let found = keys.index.build_sorted(reader, || Ok(()))?;
    let difference = stored_order(snapshot, reader.log.start(), reader)
        .and_then(|stored| stored.map_or(Ok(None), |stored| found.first_difference(&stored, reader)));
    match difference {
        Ok(rank) => Ok(rank.map(|rank| {
            format!(
                "its order, whose directory is at {}, is not that of the log from key number {rank} on",
                order.directory
            )
        })),
        Err(Error::Corrupt { offset, .. }) => Ok(Some(format!("the part of its order at {offset} does not verify"))),
        Err(error) => Err(error),
    }
}

fn difference_of_lifetimes(reader: &Reader, snapshot: &Snapshot, keys: &KeySpace) -> Result<Option<String>> {
    let stated = snapshot.lifetimes.as_deref().unwrap_or_default();
    let found = keys.lifetimes.positions();
    if !stated.iter().map(|lifetime| lifetime.offset).eq(found.iter().copied()) {
        let (stated, found) = (stated.len(), found.len());
        return Ok(Some(format!("its {stated} records with a deadline or of sessions are not the {found} of the log")));
    }
    for lifetime in stated {
        if reader.header(lifetime.offset)?.header_crc != lifetime.header_crc {
            return Ok(Some(format!("it states another checksum than the record at {} has", lifetime.offset)));
        }
    }
    Ok(None)
}
