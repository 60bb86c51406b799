//! What must become of a damaged file, worked out from the undamaged one without looking at a single checksum.
//!
//! From the first damaged record or batch on everything is lost, which is only accepted if nothing that is left proves
//! that it had been on stable storage.

use std::ops::Range;

use super::anatomy::{FILE_HEADER, Pairs, RECORD_HEADER, Record, SYNCED_TO, records, replay};

#[derive(Debug, PartialEq)]
pub enum Expected {
    /// The file header cannot be used.
    Foreign,
    Corrupt,
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
        match (lost_from, proof) {
            (Some(lost), Some(proof)) if proof > lost => Expected::Corrupt,
            _ => Expected::Holds(replay(&self.records[..unit])),
        }
    }
}
