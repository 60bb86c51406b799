//! Two things alive at once: after every step of a random world, one of its processes begins to hold a scan, or a value that
//! was lent to it, and all that are held go on. The other random worlds do the same, more seldom. No power is cut here, so this
//! is quick.

use caskfile::disk::sim::SimDisk;

use crate::common::dice::Dice;
use crate::life::Life;
use crate::plan::{Kind, plan};
use crate::storm::{chosen, command, listing};

fn go_on(kind: Kind, seeds: u64, most: usize) {
    for seed in chosen(seeds) {
        let (mut dice, steps) = (Dice::new(seed), plan(seed, most, kind));
        let disk = SimDisk::from_seed(dice.roll());
        disk.set_maps(!dice.one_in(4));
        let life = Life::new(disk, dice);
        life.hold_often();
        let lived = steps.iter().enumerate().try_for_each(|(at, step)| {
            life.step(step).map_err(|error| format!("step {at}, {step:?}:\n{error}\nafter\n{}", listing(&steps[..at])))
        });
        if let Err(error) = lived.and_then(|()| life.end()) {
            panic!("{}: {error}", command(seed));
        }
    }
}

#[test]
fn what_is_held_shows_its_moment_while_others_act_fail_and_die() {
    go_on(Kind::Everything, 200, 40);
}

#[test]
fn what_is_held_shows_its_moment_while_all_goes_well() {
    go_on(Kind::Peace, 200, 40);
}
