//! Look-ups, with everything in the page cache.

use super::{Setting, loaded, rate, read, together};
use crate::data::{Keys, shuffled, uniform, zipf};
use crate::engine::{Engine, Result};

pub fn run(setting: &Setting) -> Result<()> {
    let mut keys = Keys::short();
    let engine = loaded(setting, &mut keys)?;
    let engine = &*engine;
    // Warms up and checks every value before anything is timed.
    let mut buffer = Vec::new();
    rate(&shuffled(setting.keys, setting.seed), |number| read(engine, &mut keys, &mut buffer, number, 1..=1))?;

    let draws = setting.draws();
    let even = [uniform(setting.keys, draws, 1), uniform(setting.keys, draws, 2)];
    let skewed = [zipf(setting.keys, draws, 1), zipf(setting.keys, draws, 2)];
    type Call = fn(&dyn Engine, &mut Keys, &mut Vec<u8>, usize) -> Result<()>;
    let calls: [(&str, &[Vec<u32>; 2], Call); 4] = [
        ("get", &even, |engine, keys, buffer, number| read(engine, keys, buffer, number, 1..=1)),
        ("zipf", &skewed, |engine, keys, buffer, number| read(engine, keys, buffer, number, 1..=1)),
        ("miss", &even, |engine, keys, buffer, number| {
            let is_there = engine.get(keys.absent(number), buffer, &mut |_| ())?;
            (!is_there).then_some(()).ok_or_else(|| "a key is there that was never put".into())
        }),
        ("exists", &even, |engine, keys, _, number| {
            engine.exists(keys.key(number))?.then_some(()).ok_or_else(|| format!("key {number} is lost").into())
        }),
    ];
    for (name, numbers, call) in calls {
        for threads in [1, 2] {
            let figure = together(threads, |thread| {
                let mut keys = Keys::short();
                let mut buffer = Vec::new();
                rate(&numbers[thread], |number| call(engine, &mut keys, &mut buffer, number))?;
                Ok(numbers[thread].len())
            });
            setting.row(&format!("{name}-{threads}"), figure.map(|done| done.rate()));
        }
    }
    Ok(())
}
