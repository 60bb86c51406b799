//! YCSB's first three mixes, without a sync: skewed reads, with every second (A), every twentieth (B) or no call (C) an
//! update of a whole value.

use super::{Setting, VALUE, loaded, read, together};
use crate::data::{Keys, value_into, zipf};
use crate::engine::Result;

pub fn run(setting: &Setting) -> Result<()> {
    let engine = loaded(setting, &mut Keys::short())?;
    let engine = &*engine;
    let draws = setting.draws() / 2;
    let numbers = [zipf(setting.keys, draws, 1), zipf(setting.keys, draws, 2)];
    for (name, every) in [("c", None), ("b", Some(20)), ("a", Some(2))] {
        for threads in [1, 2] {
            let figure = together(threads, |thread| {
                let mut keys = Keys::short();
                let mut bytes = Vec::new();
                for (at, &number) in numbers[thread].iter().enumerate() {
                    let number = number as usize;
                    if every.is_some_and(|every| at % every == 0) {
                        bytes.clear();
                        value_into(number, at as u64 + 1, VALUE, &mut bytes);
                        engine.put(keys.key(number), &bytes)?;
                    } else {
                        read(engine, &mut keys, &mut bytes, number, 1..=draws as u64)?;
                    }
                }
                Ok(draws)
            });
            setting.row(&format!("ycsb-{name}-{threads}"), figure.map(|done| done.rate()));
        }
    }
    Ok(())
}
