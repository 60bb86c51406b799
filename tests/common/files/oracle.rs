//! What must become of a damaged file, worked out from the undamaged one without looking at a single checksum.
//!
//! From the first damaged record or batch on everything is lost, which is only accepted if nothing that is left proves
//! that it had been on stable storage.

use std::ops::Range;

use super::anatomy::{END_MARK, FILE_HEADER, Pairs, RECORD_HEADER, Record, SYNCED_TO, records, replay};
use super::layout::{SLOT_LEN, SLOTS, log_start, slot};

#[derive(Debug, PartialEq)]
pub enum Expected {
    /// The file header cannot be used.
    Foreign,
    Corrupt,
    /// Its head says that its end is missing.
    Truncated,
    Holds(Pairs),
}

/// A file as it was.
pub struct Original {
    pub bytes: Vec<u8>,
    pub records: Vec<Record>,
}

impl Original {
    pub fn new(bytes: Vec<u8>) -> Original {
        Original { records: records(&bytes), bytes }
    }

    /// What it holds.
    pub fn pairs(&self) -> Pairs {
        replay(&self.records)
    }

    /// What must become of a file that has these bytes instead.
    pub fn expected(&self, damaged: &[u8]) -> Expected {
        let differs = |range: Range<usize>| damaged.get(range.clone()) != self.bytes.get(range);
        if differs(0..FILE_HEADER) {
            return Expected::Foreign;
        }
        let start = log_start(&self.bytes);
        let header = FILE_HEADER..FILE_HEADER + RECORD_HEADER;
        if start > FILE_HEADER && differs(header.clone()) {
            return if damaged.len() < header.end { Expected::Truncated } else { Expected::Corrupt };
        }
        // A slot that is not as it was does not hold.
        let slots = SLOTS.into_iter().filter(|&at| start > FILE_HEADER && !differs(at..at + SLOT_LEN));
        let slots = slots.map(|at| slot(&self.bytes, at));
        let stated = slots.filter(|slot| slot.0 > 0).max().map_or(start, |slot| slot.1 as usize);
        if start > FILE_HEADER && damaged.len() < stated + END_MARK {
            return Expected::Truncated;
        }
        let mut unit = 0;
        for (at, record) in self.records.iter().enumerate() {
            if differs(record.at..record.end) {
                break;
            }
            if !record.more {
                unit = at + 1;
            }
        }
        let lost_from = self.records.get(unit).map(|record| record.at);
        // What a header says, it says also if its body is damaged; what a body says, only if that is whole.
        let proves = |record: &&Record| {
            let says = if record.kind == SYNCED_TO { record.end } else { record.at + RECORD_HEADER };
            !differs(record.at..says) && record.end <= damaged.len()
        };
        let proof = self.records[unit..].iter().filter(proves).filter_map(|record| record.proof).max();
        match (lost_from, proof.max(Some(stated))) {
            (Some(lost), _) if stated > lost && damaged[lost..].iter().all(|&byte| byte == 0) => Expected::Truncated,
            (Some(lost), Some(proof)) if proof > lost => Expected::Corrupt,
            _ => Expected::Holds(replay(&self.records[..unit])),
        }
    }
}
