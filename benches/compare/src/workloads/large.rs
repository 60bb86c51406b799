//! Values of 4 KiB and of 1 MiB, in gigabytes a second.

use std::time::{Duration, Instant};

use super::{Setting, rate};
use crate::data::{Keys, check, shuffled, sum, value_into};
use crate::engine::{Engine, Mode, Result};

pub fn run(setting: &Setting) -> Result<()> {
    let engine = setting.open(Mode::Unsynced)?;
    for (name, len, count, passes) in [
        ("4k", 4 << 10, (setting.keys / 50).clamp(1000, 20_000), 10),
        ("1m", 1 << 20, (setting.keys / 5000).clamp(20, 200), 5),
    ] {
        let numbers = shuffled(count, setting.seed);
        let put = put(&*engine, &numbers, len);
        let is_stored = put.is_ok();
        setting.row(&format!("put-{name}"), put);
        if is_stored {
            setting.row(&format!("get-{name}"), get(&*engine, &numbers, len, passes));
        } else {
            setting.row(&format!("get-{name}"), Err("refused".into()));
        }
    }
    Ok(())
}

/// Gigabytes a second, the making of values left out.
fn put(engine: &dyn Engine, numbers: &[u32], len: usize) -> Result<f64> {
    let mut keys = Keys::short();
    let mut bytes = Vec::new();
    let mut took = Duration::ZERO;
    for &number in numbers {
        bytes.clear();
        value_into(number as usize, len as u64, len, &mut bytes);
        let key = keys.key(number as usize);
        let started = Instant::now();
        engine.put(key, &bytes)?;
        took += started.elapsed();
    }
    Ok((numbers.len() * len) as f64 / took.as_secs_f64() / 1e9)
}

/// Every byte is compared once before the time is taken, and summed up while it is.
fn get(engine: &dyn Engine, numbers: &[u32], len: usize, passes: usize) -> Result<f64> {
    let mut keys = Keys::short();
    let mut buffer = Vec::new();
    let version = len as u64;
    let mut sums = vec![0; numbers.len()];
    let mut pass = |look: &mut dyn FnMut(usize, &[u8])| {
        rate(numbers, |number| {
            let is_there = engine.get(keys.key(number), &mut buffer, &mut |value| look(number, value))?;
            is_there.then_some(()).ok_or_else(|| format!("key {number} is lost").into())
        })
    };
    pass(&mut |number, value| {
        check(number, version..=version, len, value);
        sums[number] = sum(value);
    })?;
    let started = Instant::now();
    for _ in 0..passes {
        pass(&mut |number, value| assert_eq!(sum(value), sums[number], "key {number}: damaged"))?;
    }
    Ok((numbers.len() * passes * len) as f64 / started.elapsed().as_secs_f64() / 1e9)
}
