//! Random sequences.

use caskfile::Limits;
use caskfile::disk::Disk;
use caskfile::disk::sim::SimDisk;

use crate::life::Weather;
use crate::plan::Kind;
use crate::storm::{sweep, sweep_on};

#[test]
fn a_power_cut_at_any_call_leaves_a_prefix() {
    sweep("any call", Kind::Everything, 30, 10, Weather { outcomes: 2, lives: 3, ..Weather::CALM });
}

#[test]
fn alternating_durabilities_lose_only_what_was_not_durable() {
    sweep("turns", Kind::Peace, 15, 20, Weather { outcomes: 2, one_in: 2, lives: 2, ..Weather::CALM });
}

/// Locks linger, and other processes take writes between them.
#[test]
fn processes_whose_locks_linger_lose_only_what_was_not_durable() {
    let linger = |disk: &SimDisk| {
        disk.set_waiting_line(true);
        disk.set_lingering(Some(1));
        disk.set_limits(Limits { burst_turns: 0, burst_gap: u64::MAX, ..*disk.limits() });
    };
    let weather = Weather { outcomes: 2, one_in: 2, lives: 2, ..Weather::CALM };
    sweep_on(linger, "lingering", Kind::Everything, 15, 20, weather);
}

#[test]
fn long_sequences_survive_power_cuts_now_and_then() {
    sweep("long", Kind::Everything, 12, 80, Weather { outcomes: 2, one_in: 16, lives: 3, ..Weather::CALM });
}

#[test]
fn short_sequences_survive_every_power_cut_there_can_be() {
    let weather = Weather { exhaustive: Some(60), lives: 1, sectors: &[512, 64], ..Weather::CALM };
    sweep("every outcome", Kind::Everything, 20, 3, weather);
}

#[test]
fn recoveries_of_recoveries_survive_power_cuts_at_any_call() {
    let weather = Weather { outcomes: 1, one_in: 12, lives: 4, later_one_in: 6, ..Weather::CALM };
    sweep("recoveries", Kind::Everything, 20, 8, weather);
}

#[test]
fn every_answer_to_a_group_of_batches_fits_the_log() {
    sweep("groups", Kind::Groups, 60, 12, Weather { outcomes: 2, one_in: 3, lives: 2, ..Weather::CALM });
}
