//! [`Pieces`]: an iterator over the pieces of a file.

use std::iter::FusedIterator;

use super::layout::{Is, Region};
use super::{Class, Inspection, Piece, Record, Slot};
use crate::Result;
use crate::format::{
    ALIGNMENT, Ancillary, EXPIRY_LEN, Expiry, Flags, Kind, Place, RECORD_HEADER_LEN, RawRecordHeader, RecordHeader,
    Root, SESSION_LEN, SLOT_LEN, SLOTS, SessionRecord, Verdict, expiry_of, padded,
};
use crate::format::{Damage, snapshot};
use crate::log::LogFile;
use crate::log::scan::has_form;
use crate::log::search::{body_crc, next_header};
use crate::log::window::Window;

/// An iterator over the pieces of a file, in their order: see [`Inspection::pieces`].
///
/// An item is an error if the file cannot be read, or has changed since the inspection read it. It is the last item then.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-pieces-{}", std::process::id()));
/// # caskfile::Cask::open(&path)?.put("key", "value")?;
/// use caskfile::inspect::Inspection;
///
/// let inspection = Inspection::open(&path)?;
/// let mut end = 0;
/// for piece in inspection.pieces() {
///     let piece = piece?;
///     assert_eq!(piece.start, end);
///     end = piece.end;
/// }
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
pub struct Pieces<'i> {
    inspection: &'i Inspection,
    /// The regions that are not done.
    regions: &'i [Region],
    at: u64,
    window: Window,
    /// The sequence number of the record before.
    previous_seq: u64,
    /// Where the batch starts that the next record belongs to.
    batch: Option<u64>,
    /// The end of the padding that starts at `at`.
    padding_end: Option<u64>,
}

impl<'i> Pieces<'i> {
    pub(crate) fn from(inspection: &'i Inspection, start: u64) -> Pieces<'i> {
        let done = inspection.regions.partition_point(|region| region.end <= start && start > 0);
        Pieces {
            inspection,
            regions: &inspection.regions[done..],
            at: start,
            window: Window::new(inspection.log()),
            previous_seq: 0,
            batch: None,
            padding_end: None,
        }
    }

    fn piece(&mut self) -> Result<Option<Piece>> {
        let Some((&region, rest)) = self.regions.split_first() else { return Ok(None) };
        let padding_end = self.padding_end.take();
        let piece = match region.is {
            Is::Plain(class) => {
                let damage = self.inspection.header_damage.filter(|_| class == Class::FileHeader);
                self.plain(class, region.end, damage)
            }
            Is::Roots => {
                let record = self.head_of_record()?.map(|raw| self.record(raw, None)).transpose()?;
                let slots = Some(self.slots()?);
                Piece { record, slots, ..self.plain(Class::Roots, region.end, None) }
            }
            Is::Sound => match padding_end {
                Some(end) => self.plain(Class::Padding, end, None),
                None => self.sound(region.end)?,
            },
            Is::Broken { class, damage } if region.start == region.end => self.plain(class, region.end, damage),
            Is::Broken { class, damage } => {
                let piece = self.broken(class, region.end)?;
                // The walk knew more than the bytes show by themselves.
                let known = damage.filter(|_| piece.start == region.start && piece.damage.is_some());
                Piece { damage: known.or(piece.damage), ..piece }
            }
        };
        self.at = piece.end;
        if self.at >= region.end && self.padding_end.is_none() {
            self.regions = rest;
            if region.is != Is::Sound {
                self.batch = None;
            }
        }
        Ok(Some(piece))
    }

    fn plain(&self, class: Class, end: u64, damage: Option<Damage>) -> Piece {
        Piece { start: self.at, end, class, record: None, damage, slots: None }
    }

    /// What the slots of `ROOTS` are.
    fn slots(&self) -> Result<[Slot; 2]> {
        let log = self.inspection.log();
        let mut bytes = [0; 2 * SLOT_LEN];
        let got = log.read_up_to(SLOTS[0], &mut bytes)?;
        let (root, held) = (Root::of(log.seed, &bytes), Root::in_slots(log.seed, &bytes));
        Ok([0, 1].map(|n| match held[n] {
            Some(_) if held[n] == root => Slot::Root,
            Some(_) => Slot::Earlier,
            None if got >= (n + 1) * SLOT_LEN && bytes[n * SLOT_LEN..][..SLOT_LEN] == [0; SLOT_LEN] => Slot::Empty,
            None => Slot::Broken,
        }))
    }

    /// The numbers in the 24 bytes at `self.at`, if the file has them.
    fn head_of_record(&mut self) -> Result<Option<RawRecordHeader>> {
        let bytes = self.window.get(self.inspection.log(), self.at, RECORD_HEADER_LEN)?;
        Ok(bytes.first_chunk().map(RawRecordHeader::read))
    }

    /// A record that the survey has verified.
    fn sound(&mut self, region_end: u64) -> Result<Piece> {
        let (inspection, start) = (self.inspection, self.at);
        let mut bytes = [0; RECORD_HEADER_LEN];
        let got = self.window.get(inspection.log(), start, RECORD_HEADER_LEN)?;
        bytes[..got.len()].copy_from_slice(got);
        let header = inspection.survey.reader.decode(start, &bytes)?;
        let log = inspection.log();
        let (found, computed) = (header.header_crc, log.seed.header_crc(start, &bytes));
        if found != computed {
            // Another process has cut the log since the survey.
            return Err(log.corrupt(start, Damage::Header { found, computed }));
        }
        let body_holds = (!header.kind.is_loose()).then_some(true);
        let record = self.record(RawRecordHeader::read(&bytes), body_holds)?;
        let class = match header.kind {
            kind if kind.is_put() => {
                let is_live = inspection.survey.keys.index.points_to(&record.full_key, start);
                if is_live { Class::Live } else { Class::Dead }
            }
            Kind::Delete => Class::Tombstone,
            snapshot::IMAGE | snapshot::SNAPSHOT => Class::Snapshot,
            _ => Class::Statement,
        };
        self.previous_seq = header.seq;
        let end = (start + header.record_len()).min(region_end);
        self.padding_end = Some(padded(end).min(region_end)).filter(|&padded| padded > end);
        Ok(Piece { start, end, class, record: Some(record), damage: None, slots: None })
    }

    /// The piece at a place where nothing counts.
    fn broken(&mut self, class: Class, region_end: u64) -> Result<Piece> {
        let (log, start, file_len) = (self.inspection.log(), self.at, self.inspection.file_len());
        let bytes = self.window.get(log, start, RECORD_HEADER_LEN)?;
        let Ok(bytes) = <[u8; RECORD_HEADER_LEN]>::try_from(bytes) else {
            let damage = Damage::BeyondFile { end: start + RECORD_HEADER_LEN as u64, file_len };
            return Ok(self.plain(class, region_end, Some(damage)));
        };
        if class != Class::Corrupt {
            self.previous_seq = self.previous_seq.max(self.inspection.survey.last_seq);
        }
        let after = log.seq_bound(self.previous_seq);
        let verdict = RecordHeader::judge(&bytes, Place { seed: log.seed, offset: start, file_len, after });
        let mut record = self.record(RawRecordHeader::read(&bytes), None)?;
        let whole_end = padded(record.value().end);
        let spelt = RecordHeader::decode(&bytes);
        let (damage, end) = match verdict {
            Verdict::True(header) => {
                self.previous_seq = header.seq;
                (self.check_body(&header, &mut record)?, whole_end)
            }
            // The header is true, and so are its lengths.
            Verdict::Unsupported { .. } => (None, whole_end),
            Verdict::False(damage @ Damage::Sequence { .. }) => {
                spelt.map(|header| self.check_body(&header, &mut record)).transpose()?;
                (Some(damage), whole_end)
            }
            Verdict::False(damage @ (Damage::Lengths { .. } | Damage::BeyondFile { .. })) => {
                (Some(damage), self.next_header(start + RECORD_HEADER_LEN as u64, region_end)?)
            }
            Verdict::False(damage) => {
                let next = self.next_header(start + ALIGNMENT, region_end)?;
                record.header_holds = false;
                // Its lengths lead to the next header, so it is most likely a record with a few wrong bits.
                match spelt.filter(|_| whole_end == next && RecordHeader::plausible(&bytes, after)) {
                    Some(header) => drop(self.check_body(&header, &mut record)?),
                    None => return Ok(self.bytes(class, next, damage)),
                }
                (Some(damage), next)
            }
            Verdict::End => {
                let next = self.next_header(start + ALIGNMENT, region_end)?;
                return Ok(self.bytes(class, next, Damage::Zeros));
            }
        };
        Ok(Piece { start, end: end.min(region_end), class, record: Some(record), damage, slots: None })
    }

    /// Bytes without the form of a record. A batch ends at them.
    fn bytes(&mut self, class: Class, end: u64, damage: Damage) -> Piece {
        self.batch = None;
        self.plain(class, end, Some(damage))
    }

    fn next_header(&self, from: u64, region_end: u64) -> Result<u64> {
        if from >= region_end {
            return Ok(region_end);
        }
        let next = next_header(self.inspection.log(), from, self.previous_seq)?;
        Ok(next.map_or(region_end, |next| next.min(region_end)))
    }

    /// The record whose header is at `self.at`.
    fn record(&mut self, raw: RawRecordHeader, body_holds: Option<bool>) -> Result<Record> {
        let (start, len) = (self.at, RECORD_HEADER_LEN + usize::from(raw.key_len));
        let bytes = self.window.get(self.inspection.log(), start, len)?;
        let full_key = bytes.get(RECORD_HEADER_LEN..).unwrap_or_default().to_vec();
        if raw.is_synced() {
            self.batch = None;
        }
        let batch = self.batch.or(raw.has_more().then_some(start));
        self.batch = batch.filter(|_| raw.has_more());
        let mut record = Record { full_key, batch, ..Record::new(start, raw, body_holds) };
        if record.has_expiry() {
            let bytes = self.window.get(self.inspection.log(), start, len + EXPIRY_LEN)?;
            let expiry = bytes.get(len..).and_then(<[u8]>::first_chunk).and_then(|bytes| expiry_of(raw.kind, bytes));
            let Expiry { deadline, owner } = expiry.unwrap_or_default();
            record.deadline = Some(deadline).filter(|&deadline| deadline > 0);
            record.session = owner.map(|owner| owner.session);
            record.acquired = owner.map(|owner| owner.acquired).filter(|&acquired| acquired > 0);
        } else if record.has_session_form() {
            let bytes = self.window.get(self.inspection.log(), start, len + SESSION_LEN)?;
            let says = bytes.get(len..).and_then(<[u8]>::first_chunk).map(SessionRecord::decode);
            record.session = says.map(|says| says.session);
        }
        Ok(record)
    }

    /// Sets whether the record's body holds, and returns the damage if it does not.
    fn check_body(&self, header: &RecordHeader, record: &mut Record) -> Result<Option<Damage>> {
        let log = self.inspection.log();
        if header.kind.is_loose() {
            return Ok((header.flags != Flags::NONE).then_some(Damage::Form));
        }
        let computed = body_crc(log, record.offset, header)?;
        record.body_holds = computed.map(|computed| computed == header.body_crc);
        Ok(match computed {
            None => Some(Damage::BeyondFile { end: record.value().end, file_len: self.inspection.file_len() }),
            Some(computed) if computed != header.body_crc => Some(Damage::Body { found: header.body_crc, computed }),
            Some(_) if !has_form(header, record.offset, &record.full_key, &beginning(log, header, record)?) => {
                Some(Damage::Form)
            }
            Some(_) => None,
        })
    }
}

/// The beginning of a record's stored value, as far as its form depends on it.
fn beginning(log: &LogFile, header: &RecordHeader, record: &Record) -> Result<Vec<u8>> {
    let needed = match header.kind {
        // One more, so that a longer value has another length here too.
        Kind::Ancillary(Ancillary::SyncedTo) => size_of::<u64>() + 1,
        kind => kind.replayed_len(),
    };
    let mut beginning = vec![0; needed.min(header.value_len as usize)];
    log.read_exact(record.stored().start, &mut beginning)?;
    Ok(beginning)
}

impl Iterator for Pieces<'_> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Result<Piece>> {
        let next = self.piece().transpose();
        if matches!(next, Some(Err(_))) {
            self.regions = &[];
        }
        next
    }
}

impl FusedIterator for Pieces<'_> {}
