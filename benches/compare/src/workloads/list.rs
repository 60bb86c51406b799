//! Listing by prefix, in key order; every value that is listed is looked at.

use std::time::Instant;

use super::{Setting, VALUE, load};
use crate::data::{FEW, Keys, NARROW, WIDE, check, shuffled, uniform, value_into};
use crate::engine::{Engine, Mode, Result};
use crate::process;

pub fn run(setting: &Setting) -> Result<()> {
    let mut keys = Keys::short();
    let memory = process::memory()?;
    let engine = setting.open(Mode::Unsynced)?;
    load(&*engine, &mut keys, setting.keys, 1, setting.seed)?;
    let engine = &*engine;

    setting.row("list-first", first(setting, engine, &mut keys));
    let anonymous = process::memory()?.anonymous.saturating_sub(memory.anonymous);
    setting.row("list-memory", Ok(anonymous as f64 / setting.keys as f64));

    setting.row("list-10000", several(setting, engine, &mut keys, WIDE, 3));
    setting.row("list-100", several(setting, engine, &mut keys, NARROW, 1));
    setting.row("list-after-put", after_puts(setting, engine, &mut keys));
    Ok(())
}

/// Nanoseconds for a list of few, per key in the store.
pub fn first(setting: &Setting, engine: &dyn Engine, keys: &mut Keys) -> Result<f64> {
    let started = Instant::now();
    list(engine, keys, 0, FEW)?;
    Ok(started.elapsed().as_nanos() as f64 / setting.keys as f64)
}

/// Lists all groups of that size, in no order, and returns pairs a second.
pub fn several(setting: &Setting, engine: &dyn Engine, keys: &mut Keys, group: usize, times: usize) -> Result<f64> {
    let groups = shuffled(setting.keys / group, setting.seed);
    let started = Instant::now();
    for _ in 0..times {
        for &number in &groups {
            list(engine, keys, number as usize * group, group)?;
        }
    }
    Ok((groups.len() * group * times) as f64 / started.elapsed().as_secs_f64())
}

/// Lists the group that starts with a number, and checks that it is complete, in order, and right in every byte.
pub fn list(engine: &dyn Engine, keys: &mut Keys, start: usize, group: usize) -> Result<()> {
    let mut count = 0;
    let mut is_ordered = true;
    let mut last = None;
    engine.list(keys.prefix(start, group), &mut |key, value| {
        let end: [u8; 16] = *key.last_chunk().expect("keys have 16 bytes or more");
        is_ordered &= last < Some(end);
        last = Some(end);
        let number = u64::from_le_bytes(*value.first_chunk().expect("values have 100 bytes")) as usize;
        check(number, 1..=1, VALUE, value);
        is_ordered &= (start..start + group).contains(&number);
        count += 1;
    })?;
    if count == group && is_ordered { Ok(()) } else { Err(format!("listed {count} of {group} pairs").into()) }
}

/// Microseconds for a list of ten that comes after a put of a new key, without the put.
fn after_puts(setting: &Setting, engine: &dyn Engine, keys: &mut Keys) -> Result<f64> {
    let listed = uniform(setting.keys / FEW, 10_000.min(setting.keys / 10), setting.seed);
    let mut bytes = Vec::new();
    let mut took = std::time::Duration::ZERO;
    for (new, &group) in (setting.keys..).zip(&listed) {
        bytes.clear();
        value_into(new, 1, VALUE, &mut bytes);
        engine.put(keys.key(new), &bytes)?;
        let started = Instant::now();
        list(engine, keys, group as usize * FEW, FEW)?;
        took += started.elapsed();
    }
    Ok(took.as_secs_f64() * 1e6 / listed.len() as f64)
}
