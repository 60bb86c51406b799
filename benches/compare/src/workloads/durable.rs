//! Puts that survive a power cut once they have returned, to a store that holds all keys.

use std::time::Instant;

use super::{Setting, VALUE, load, rate, together, verify};
use crate::data::{Keys, shuffled, value_into};
use crate::engine::{Mode, Result};
use crate::process;

pub fn run(setting: &Setting) -> Result<()> {
    let rows = [(1, "durable-1"), (2, "durable-2"), (8, "durable-8"), (32, "durable-32")];
    let engine = match setting.open(Mode::Durable) {
        Ok(engine) => engine,
        Err(error) => {
            let reason = format!("{error:#}");
            for (_, row) in rows {
                setting.row(row, Err(reason.clone().into()));
            }
            return Ok(());
        }
    };
    let engine = &*engine;
    load(engine, &mut Keys::short(), setting.keys, 1, setting.seed)?;
    let numbers = shuffled(setting.keys, setting.seed);
    for (version, (threads, row)) in (2..).zip(rows) {
        let written = process::written_bytes(&setting.directory);
        let each = numbers.len() / threads;
        let figure = together(threads, |thread| {
            let mut keys = Keys::short();
            let mut bytes = Vec::new();
            let started = Instant::now();
            let mut calls = 0;
            for &number in numbers[thread * each..][..each].iter().cycle() {
                bytes.clear();
                value_into(number as usize, version, VALUE, &mut bytes);
                engine.put(keys.key(number as usize), &bytes)?;
                calls += 1;
                if started.elapsed() >= setting.time {
                    break;
                }
            }
            Ok(calls)
        });
        if let (1, Ok(done)) = (threads, &figure) {
            setting.row("durable-written", setting.written_since(written, done.calls));
        }
        setting.row(row, figure.map(|done| done.rate()));
        // The first key of each thread was put, however slow the engine is.
        let firsts: Vec<u32> = (0..threads).map(|thread| numbers[thread * each]).collect();
        verify(engine, &firsts, version)?;
    }
    // A single swap, since a compare-and-swap that lasts is what the contract is about.
    let count = numbers.len().min(500);
    let mut keys = Keys::short();
    let last = numbers[numbers.len() - count..].to_vec();
    let mut bytes = Vec::new();
    for &number in &last {
        bytes.clear();
        value_into(number as usize, 6, VALUE, &mut bytes);
        engine.put(keys.key(number as usize), &bytes)?;
    }
    setting.row(
        "durable-swap",
        rate(&last, |number| {
            bytes.clear();
            value_into(number, 6, VALUE, &mut bytes);
            value_into(number, 7, VALUE, &mut bytes);
            let (old, new) = bytes.split_at(VALUE);
            engine.swap(keys.key(number), old, new)?.then_some(()).ok_or_else(|| "a swap was refused".into())
        }),
    );
    Ok(())
}
