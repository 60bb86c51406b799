//! Keys of 216 bytes, of which the first 200 are the same in all: what comparisons and a key's length cost.

use super::list::{first, several};
use super::{Setting, VALUE, rate, read};
use crate::data::{Keys, NARROW, shuffled, uniform, value_into};
use crate::engine::{Mode, Result};

const COMMON: usize = 200;

pub fn run(setting: &Setting) -> Result<()> {
    let engine = setting.open(Mode::Unsynced)?;
    let engine = &*engine;
    let mut keys = Keys::long(COMMON);
    let mut bytes = Vec::new();
    setting.row(
        "long-put",
        rate(&shuffled(setting.keys, setting.seed), |number| {
            bytes.clear();
            value_into(number, 1, VALUE, &mut bytes);
            engine.put(keys.key(number), &bytes)
        }),
    );
    let numbers = uniform(setting.keys, setting.draws(), setting.seed);
    setting.row("long-get", rate(&numbers, |number| read(engine, &mut keys, &mut bytes, number, 1..=1)));
    setting.row("long-list-first", first(setting, engine, &mut keys));
    setting.row("long-list-100", several(setting, engine, &mut keys, NARROW, 1));
    Ok(())
}
