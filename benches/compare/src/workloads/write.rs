//! Single writes without a sync, and bulk loading.

use std::time::Instant;

use super::{Setting, VALUE, load as load_all, rate, verify};
use crate::data::{Keys, shuffled, value, value_into};
use crate::engine::{Mode, Result};
use crate::process;

/// Each kind of write goes to a part of the keys of its own, so that it is known what each must hold in the end.
pub fn run(setting: &Setting) -> Result<()> {
    let engine = setting.open(Mode::Unsynced)?;
    let engine = &*engine;
    let mut keys = Keys::short();
    let mut bytes = Vec::new();
    let written = process::written_bytes(&setting.directory);
    let numbers = shuffled(setting.keys, setting.seed);
    setting.row(
        "put",
        rate(&numbers, |number| {
            bytes.clear();
            value_into(number, 1, VALUE, &mut bytes);
            engine.put(keys.key(number), &bytes)
        }),
    );
    setting.row("put-written", setting.written_since(written, numbers.len()));
    verify(engine, &numbers, 1)?;

    let part = numbers.len() / 4;
    let numbers = shuffled(setting.keys, setting.seed + 1);
    let (overwritten, rest) = numbers.split_at(part);
    let (swapped, rest) = rest.split_at(part);
    let (deleted, kept) = rest.split_at(part);
    setting.row(
        "overwrite",
        rate(overwritten, |number| {
            bytes.clear();
            value_into(number, 2, VALUE, &mut bytes);
            engine.put(keys.key(number), &bytes)
        }),
    );
    verify(engine, overwritten, 2)?;
    setting.row(
        "swap",
        rate(swapped, |number| {
            bytes.clear();
            value_into(number, 1, VALUE, &mut bytes);
            value_into(number, 2, VALUE, &mut bytes);
            let (old, new) = bytes.split_at(VALUE);
            engine.swap(keys.key(number), old, new)?.then_some(()).ok_or_else(|| "a swap was refused".into())
        }),
    );
    verify(engine, swapped, 2)?;
    if let Some(&number) = kept.first() {
        let key = keys.key(number as usize);
        let stale = value(number as usize, 7, VALUE);
        if setting.kind.name != "floor-log" && engine.swap(key, &stale, &stale)? {
            return Err("a swap with another value was not refused".into());
        }
    }
    setting.row("delete", rate(deleted, |number| engine.delete(keys.key(number))));
    verify(engine, kept, 1)?;
    for &number in deleted.iter().take(1000) {
        if engine.exists(keys.key(number as usize)).unwrap_or(false) {
            return Err(format!("key {number} is still there").into());
        }
    }
    Ok(())
}

pub fn load(setting: &Setting) -> Result<()> {
    let memory = process::memory()?;
    let engine = setting.open(Mode::Unsynced)?;
    let took = load_all(&*engine, &mut Keys::short(), setting.keys, 1, setting.seed)?;
    setting.row("load", Ok(setting.keys as f64 / took.as_secs_f64()));
    let now = process::memory()?;
    setting.row("load-memory", Ok(now.anonymous.saturating_sub(memory.anonymous) as f64 / setting.keys as f64));
    setting.row("load-memory-peak", Ok(now.peak.saturating_sub(memory.resident) as f64 / setting.keys as f64));
    verify(&*engine, &shuffled(setting.keys, setting.seed), 1)?;
    let started = Instant::now();
    engine.close()?;
    setting.row("load-close", Ok(started.elapsed().as_secs_f64() * 1e3));
    Ok(())
}
