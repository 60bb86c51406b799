//! Bytes on the disk for each key: loaded, after everything was overwritten three times, and after compaction.

use std::time::Instant;

use super::{Setting, VALUE, load, verify};
use crate::data::{Keys, shuffled};
use crate::engine::{Mode, Result};

const OVERWRITES: u64 = 3;

pub fn run(setting: &Setting) -> Result<()> {
    let mut keys = Keys::short();
    let per_key = |setting: &Setting| Ok(setting.bytes_on_disk()? as f64 / setting.keys as f64);
    let engine = setting.open(Mode::Unsynced)?;
    load(&*engine, &mut keys, setting.keys, 1, setting.seed)?;
    engine.close()?;
    setting.row("space-loaded", per_key(setting));

    let engine = setting.open(Mode::Unsynced)?;
    for version in 2..=1 + OVERWRITES {
        load(&*engine, &mut keys, setting.keys, version, setting.seed + version)?;
    }
    engine.close()?;
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
