//! Power cuts, kills and failing calls on the simulated disk.
//!
//! In every case, the store is a prefix of its history. It holds everything that was acknowledged as durable, no half
//! batch and no deleted pair, and a sequence number that was seen is never assigned again.
//!
//! `CASKFILE_CRASH_SEEDS` says how many seeds each test tries, `CASKFILE_CRASH_SEED` with which to begin (alone: this
//! one only), and `CASKFILE_CRASH_SECONDS` how many seconds each random test goes on instead. A sequence that fails is
//! made as short as possible, and printed with its seed and the command that plays it again.

#[path = "../common/mod.rs"]
mod common;

mod counts;
mod expiry;
mod groups;
mod halves;
mod held;
mod interleavings;
mod life;
mod locks;
mod losses;
mod numbers;
mod oracles;
mod plan;
mod roots;
mod sequences;
mod snapshots;
mod stories;
mod storm;
mod watches;
mod worlds;

#[global_allocator]
static ALLOCATOR: common::counted_memory::Counting = common::counted_memory::Counting;
