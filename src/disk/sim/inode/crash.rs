//! What a power cut leaves of one file.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Change, Contents, Crash, Inode};
use crate::disk::sim::choices::{Choices, Random};

impl Inode {
    /// Returns the file as it is after a power cut.
    pub(in crate::disk::sim) fn crashed(&self, choices: &mut Choices, crash: Crash) -> Inode {
        choices.next_subject();
        let mut survivor = Inode::with_contents(self.after_power_cut(choices, crash), self.durable_attributes.clone());
        if self.attributes != self.durable_attributes && choices.pick(1) == 1 {
            survivor.attributes.clone_from(&self.attributes);
            survivor.durable_attributes.clone_from(&self.attributes);
        }
        survivor
    }

    /// Mixes the durable contents with some of the unsynced changes.
    ///
    /// The *length* is one that the file has had since the last sync, or in the middle of a write that made it longer.
    /// Each *sector* holds what it has held at some moment since the last sync. So a sector is never torn (smaller
    /// sectors do that), but it can be older or newer than its neighbour, and than the length. There is one rule
    /// between the two: if the chosen length had cut a sector off before the file grew again, the sector has lost its
    /// old bytes. Journals ensure that.
    pub(super) fn after_power_cut(&self, choices: &mut Choices, crash: Crash) -> Arc<Contents> {
        if self.unsynced.is_empty() {
            return Arc::clone(&self.durable);
        }
        let mut contents = (*self.durable).clone();
        let kept_lengths = choices.pick(self.unsynced.len() as u64) as usize;
        let mut length = contents.len();
        let mut longest = length;
        for (at, change) in self.unsynced.iter().enumerate() {
            if at < kept_lengths {
                length = change.length_after(length);
            }
            longest = longest.max(change.length_after(0));
        }
        if let Some(write @ Change::Write { .. }) = self.unsynced.get(kept_lengths) {
            let whole_sectors = (write.length_after(length).max(1) - 1) / crash.sector;
            let already = length / crash.sector;
            match choices.pick(whole_sectors.saturating_sub(already)) {
                0 => {}
                more => length = (already + more) * crash.sector,
            }
        }
        contents.set_len(longest);
        for (start, history) in self.sector_histories(crash.sector) {
            if start >= length {
                // The rest is cut off anyway.
                break;
            }
            let cut_off = |&at: &usize| at < kept_lengths && matches!(self.unsynced[at], Change::SetLen(_));
            let least = history.iter().rposition(cut_off).map_or(0, |last| last + 1);
            let kept = least + choices.pick((history.len() - least) as u64) as usize;
            if crash.garbage && kept == 0 && choices.pick(1) == 0 {
                let never_written = self.durable.len().max(start)..contents.len().min(start + crash.sector);
                let mut garbage = vec![0; never_written.end.saturating_sub(never_written.start) as usize];
                Random::from_seed(start).fill(&mut garbage);
                contents.write(never_written.start, &garbage);
            }
            for &at in &history[..kept] {
                self.unsynced[at].apply_within(&mut contents, start, start + crash.sector);
            }
        }
        contents.set_len(length);
        Arc::new(contents)
    }

    /// Returns an upper bound for the number of outcomes of a power cut without garbage.
    pub(in crate::disk::sim) fn outcomes(&self, crash: Crash) -> u64 {
        let attributes = if self.attributes == self.durable_attributes { 1 } else { 2 };
        if self.unsynced.is_empty() {
            return attributes;
        }
        let mut length = self.durable.len();
        let mut lengths = 1;
        for change in &self.unsynced {
            let already = length / crash.sector;
            length = change.length_after(length);
            // A write can have made the file longer by some of its sectors.
            let written = matches!(change, Change::Write { .. });
            lengths += 1 + if written { ((length.max(1) - 1) / crash.sector).saturating_sub(already) } else { 0 };
        }
        let sectors = self.sector_histories(crash.sector).into_values().map(|history| history.len() as u64 + 1);
        sectors.fold(attributes.saturating_mul(lengths), u64::saturating_mul)
    }

    /// Returns the unsynced changes of each sector, as positions in `unsynced`, by the sector's offset. A hole that was
    /// cut off counts as unchanged: otherwise the space by which a file was extended would add a question for each
    /// sector.
    fn sector_histories(&self, sector: u64) -> BTreeMap<u64, Vec<usize>> {
        let mut histories = BTreeMap::<u64, Vec<usize>>::new();
        let mut length = self.durable.len();
        for (at, change) in self.unsynced.iter().enumerate() {
            let changed = match change {
                Change::Write { offset, bytes } => *offset..*offset + bytes.len() as u64,
                Change::SetLen(len) => *len..length,
                Change::Punch(range) => range.start..range.end.min(length),
                Change::Grow(_) => 0..0,
            };
            length = change.length_after(length);
            if changed.is_empty() {
                continue;
            }
            let written = matches!(change, Change::Write { .. });
            // After the last written byte there are only holes.
            let data_end =
                histories.last_key_value().map_or(0, |(start, _)| start + sector).max(self.durable.data_len());
            let end = if written { changed.end } else { changed.end.min(data_end) };
            let sector_of = |position: u64| position / sector * sector;
            let mut start = sector_of(changed.start);
            while start < end {
                if !written {
                    // The next one that has more than zeros. A file may have been extended by many that have not.
                    let changed = histories.range(start..).next().map(|(&start, _)| start);
                    let durable = self.durable.next_data(start).map(sector_of);
                    let Some(next) = changed.into_iter().chain(durable).min().filter(|&next| next < end) else { break };
                    start = next;
                }
                histories.entry(start).or_default().push(at);
                start += sector;
            }
        }
        histories
    }
}
