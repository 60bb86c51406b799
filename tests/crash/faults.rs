//! Every call of every operation fails once, or from then on until the operation is over.

use crate::life::Weather;
use crate::ops::{Filler, Kept, Op, Place, Setup, Value};
use crate::plan::{Act, Calls, Failure, Move, Step, batch, call, close, open, put};
use crate::storm::{check, setting};

/// What may fail.
fn operations() -> Vec<Move> {
    let place = Place { bucket: 0, key: 0 };
    let value = Value { len: 24, filler: Filler::Noise };
    let reader = Move { handle: 2, act: Act::Open(Setup::READER) };
    vec![
        put(0, 24),
        put(1, 24),
        put(2, 24),
        batch(0, 24),
        batch(1, 600),
        put(1, 70_000),
        call(0, Op::Update(place, value)),
        call(1, Op::DeletePrefix { bucket: 0, prefix: 0 }),
        call(1, Op::Sync),
        call(0, Op::Compact),
        call(1, Op::Compact),
        call(1, Op::Verify),
        call(1, Op::List { bucket: 0, prefix: 0, how: 0 }),
        close(0),
        close(1),
        open(2, Kept::Os),
        reader,
    ]
}

/// Fails one call after the other of each operation, beside another process and in a file that has all kinds of
/// records; afterwards everything goes on. Without `CASKFILE_CRASH_SEEDS`, only one failure in so many is tried.
fn fail_every_call(calls: Calls, failures: &[Failure], most: u8, one_in: u32) {
    let one_in = if setting("CASKFILE_CRASH_SEEDS").is_some() { 1 } else { one_in };
    let mut number = 0;
    for during in operations() {
        for &failure in failures {
            for at in 1..=most {
                for forever in [false, true] {
                    number += 1;
                    if number % one_in != 0 {
                        continue;
                    }
                    let steps = [
                        Step::Calm(open(0, Kept::Sync)),
                        Step::Calm(put(0, 24)),
                        Step::Calm(open(1, Kept::Os)),
                        Step::Calm(put(1, 24)),
                        Step::Calm(put(0, 24)),
                        Step::Calm(batch(1, 24)),
                        Step::Fail { at, calls, failure, forever, during: during.clone() },
                        Step::Calm(put(0, 24)),
                        Step::Calm(put(1, 24)),
                        Step::Calm(open(2, Kept::Sync)),
                        Step::Calm(put(2, 24)),
                    ];
                    check(|_| {}, &steps, 5, 1, Weather { outcomes: 1, one_in: 8, lives: 1, ..Weather::CALM });
                }
            }
        }
    }
}

#[test]
fn an_input_or_output_error_at_any_call_is_told_and_loses_nothing_acknowledged() {
    fail_every_call(Calls::Any, &[Failure::InputOutput], 40, 3);
}

#[test]
fn a_full_disk_at_any_write_or_change_of_length_leaves_a_store_that_goes_on_when_there_is_space() {
    fail_every_call(Calls::Writes, &[Failure::NoSpace], 6, 1);
    fail_every_call(Calls::Lengths, &[Failure::NoSpace], 3, 1);
}

#[test]
fn a_short_write_or_read_is_gone_on_with() {
    let short = [1, 8, 24, 40, 56, 64, 112].map(Failure::Short);
    fail_every_call(Calls::Writes, &short, 3, 5);
    fail_every_call(Calls::Reads, &short[..3], 2, 5);
}

#[test]
fn a_sync_that_fails_poisons_its_handle_and_nobody_elses_acknowledgements_rest_on_it() {
    fail_every_call(Calls::Syncs, &[Failure::InputOutput, Failure::NoSpace], 4, 1);
}
