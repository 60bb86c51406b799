//! Power cuts, kills and failing calls on the simulated disk.
//!
//! Whatever happens, the store is a prefix of its history that holds everything acknowledged as durable, with no half
//! batch and nothing that was deleted, and an index that was seen is never handed out again.
//!
//! `CASKFILE_CRASH_SEEDS` says how many seeds each test tries, `CASKFILE_CRASH_SEED` with which to begin (alone: this
//! one only), and `CASKFILE_CRASH_SECONDS` for how long each of the random ones goes on instead. A sequence that fails
//! is made shorter as far as it goes, and printed with its seed and the command that plays it again.

#[path = "../common/mod.rs"]
mod common;

mod groups;
mod interleavings;
mod life;
mod losses;
mod plan;
mod sequences;
mod stories;
mod storm;
mod worlds;

#[global_allocator]
static ALLOCATOR: common::counted_memory::Counting = common::counted_memory::Counting;
