//! Damaged and malformed files: what opening, reading, verification, salvage and inspection make of them.

#[path = "../common/mod.rs"]
mod common;

mod bad_snapshots;
mod damaged_files;
mod found_by_fuzzing;
mod inspection;
mod lost_tails;
mod malformed;
mod malformed_cost;
mod reports;
mod salvaged;
mod snapshots;
mod truncated;
mod under_a_handle;

#[global_allocator]
static ALLOCATOR: common::counted_memory::Counting = common::counted_memory::Counting;
