//! The pages against the code: docs/FORMAT.md, the reader that was written from it, and docs/INTERNALS.md.

#[path = "../common/mod.rs"]
mod common;

mod arrows;
mod internals;
mod rules;
mod second_reader;
mod writing;
