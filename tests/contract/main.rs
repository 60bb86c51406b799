//! What the library promises to a program on a disk that works: the calls, their answers and errors, compaction, copies,
//! closing, memory.

#[path = "../common/mod.rs"]
mod common;

mod automatic;
mod backup;
mod bad_input;
mod budgets;
mod closing;
mod compaction;
mod conformance;
mod dead_sessions;
mod decisions;
#[cfg(feature = "log")]
mod events;
mod expiry;
mod feeds;
mod habits;
mod large_values;
mod limits;
mod memory_kept;
mod memory_of_reads;
mod model;
mod sessions;
mod snapshots;
mod stats;
mod watches;

#[global_allocator]
static ALLOCATOR: common::counted_memory::Counting = common::counted_memory::Counting;
