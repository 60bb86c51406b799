//! Bytes on the disk for each key: loaded, while and after everything is overwritten three times, and after compaction.

use std::time::Instant;

use super::{Setting, VALUE, load, load_watched, verify};
use crate::data::{Keys, shuffled};
use crate::engine::{Mode, Result};

const OVERWRITES: u64 = 3;

/// The store's length is measured once in this many batches.
const LOOK: usize = 100;

pub fn run(setting: &Setting) -> Result<()> {
    let mut keys = Keys::short();
    let per_key = |setting: &Setting| Ok(setting.bytes_on_disk()? as f64 / setting.keys as f64);
    let engine = setting.open(Mode::Unsynced)?;
    load(&*engine, &mut keys, setting.keys, 1, setting.seed)?;
    engine.close()?;
    setting.row("space-loaded", per_key(setting));

    let engine = setting.open(Mode::Unsynced)?;
    let mut peak = 0;
    for version in 2..=1 + OVERWRITES {
        load_watched(&*engine, &mut keys, setting.keys, version, setting.seed + version, &mut |batch| {
            if batch % LOOK == 0 {
                peak = peak.max(setting.bytes_of_store()?);
            }
            Ok(())
        })?;
    }
    peak = peak.max(setting.bytes_of_store()?);
    engine.close()?;
    setting.row("space-peak", Ok(peak as f64 / setting.keys as f64));
    setting.row("space-overwritten", per_key(setting));

    let engine = setting.open(Mode::Unsynced)?;
    let started = Instant::now();
    let compacted = engine.compact(setting.keys);
    let took = started.elapsed().as_secs_f64();
    let user_bytes = (setting.keys * (16 + VALUE)) as f64;
    let is_compacted = compacted.is_ok();
    setting.row("compact", compacted.map(|()| user_bytes / took / 1e9));
    if is_compacted {
        setting.row("space-compacted", per_key(setting));
    }
    let engine = setting.open(Mode::Unsynced)?;
    verify(&*engine, &shuffled(setting.keys, setting.seed), 1 + OVERWRITES)
}
