//! Power cuts, kills and failing calls on the simulated disk.
//!
//! Whatever happens, the store is a prefix of its history that holds everything acknowledged as durable, with no half
//! batch and nothing that was deleted, and an index that anybody has seen is never handed out again.
//!
//! `CASKFILE_CRASH_SEEDS` says how many seeds each test tries, `CASKFILE_CRASH_SEED` with which to begin (alone: this
//! one only), and `CASKFILE_CRASH_SECONDS` for how long each of the random ones goes on instead. A sequence that fails
//! is made shorter as far as it goes, and printed with its seed and the command that plays it again.

#[path = "common/dice.rs"]
mod dice;
#[path = "crash/groups.rs"]
mod groups;
#[path = "common/history.rs"]
mod history;
#[path = "crash/life.rs"]
mod life;
#[path = "common/ops.rs"]
mod ops;
#[path = "crash/plan.rs"]
mod plan;
#[path = "common/player.rs"]
mod player;
#[path = "crash/sequences.rs"]
mod sequences;
#[path = "crash/stories.rs"]
mod stories;
#[path = "crash/storm.rs"]
mod storm;
