//! The pages against the code: docs/FORMAT.md, the reader that was written from it, and docs/INTERNALS.md.

#[path = "../common/mod.rs"]
mod common;

mod arrows;
mod internals;
mod rules;
mod second_reader;
mod sessions;
mod snapshots;
mod writing;

/// The path of a golden file.
fn golden_file(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}
