//! How long the slowest of all puts takes while a store grows from nothing: what an index that grows in jumps costs, or a
//! compaction that makes writers wait.

use std::time::Instant;

use super::{Setting, VALUE};
use crate::data::{Keys, shuffled, value_into};
use crate::engine::{Mode, Result};

pub fn run(setting: &Setting) -> Result<()> {
    let engine = setting.open(Mode::Unsynced)?;
    let mut keys = Keys::short();
    let mut bytes = Vec::new();
    let mut times = Vec::with_capacity(setting.keys);
    for number in shuffled(setting.keys, setting.seed) {
        bytes.clear();
        value_into(number as usize, 1, VALUE, &mut bytes);
        let key = keys.key(number as usize);
        let started = Instant::now();
        engine.put(key, &bytes)?;
        times.push(started.elapsed().as_nanos() as u64);
    }
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize] as f64 / 1e6;
    setting.row("grow-longest", Ok(at(1.0)));
    setting.row("grow-99.99", Ok(at(0.9999)));
    Ok(())
}
