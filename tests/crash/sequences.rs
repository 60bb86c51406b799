//! Random sequences.

use crate::life::Weather;
use crate::plan::Kind;
use crate::storm::sweep;

#[test]
fn after_a_power_cut_at_any_call_the_store_is_a_prefix_of_its_history() {
    sweep("any call", Kind::Everything, 6, 10, Weather { outcomes: 2, lives: 3, ..Weather::CALM });
}

#[test]
#[ignore = "takes longer than the default run has: cargo test --release --test crash -- --ignored"]
fn processes_that_alternate_with_different_durabilities_lose_only_what_was_not_durable() {
    sweep("turns", Kind::Peace, 4, 20, Weather { outcomes: 2, one_in: 2, lives: 2, ..Weather::CALM });
}

#[test]
#[ignore = "takes longer than the default run has: cargo test --release --test crash -- --ignored"]
fn long_sequences_survive_power_cuts_now_and_then() {
    sweep("long", Kind::Everything, 3, 80, Weather { outcomes: 2, one_in: 16, lives: 3, ..Weather::CALM });
}

#[test]
#[ignore = "takes longer than the default run has: cargo test --release --test crash -- --ignored"]
fn short_sequences_survive_every_power_cut_there_can_be() {
    let weather = Weather { exhaustive: Some(60), lives: 1, sectors: &[512, 64], ..Weather::CALM };
    sweep("every outcome", Kind::Everything, 5, 3, weather);
}

#[test]
#[ignore = "takes longer than the default run has: cargo test --release --test crash -- --ignored"]
fn recoveries_of_recoveries_survive_power_cuts_at_any_call() {
    let weather = Weather { outcomes: 1, one_in: 12, lives: 4, later_one_in: 6, ..Weather::CALM };
    sweep("recoveries", Kind::Everything, 3, 8, weather);
}
