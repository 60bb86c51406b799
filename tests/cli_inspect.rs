//! The verbs that show a file's bytes, as a shell sees them: `cargo test --features cli --test cli_inspect`.

mod common;

#[path = "cli_inspect/dump.rs"]
mod dump;
#[path = "cli_inspect/explore.rs"]
mod explore;
#[path = "cli_inspect/follow.rs"]
mod follow;
#[path = "cli_inspect/golden.rs"]
mod golden;
#[path = "cli_inspect/hex.rs"]
mod hex;
#[path = "cli_inspect/map.rs"]
mod map;
#[path = "common/patience.rs"]
mod patience;
#[path = "cli/pty.rs"]
mod pty;
#[path = "cli/run.rs"]
#[allow(dead_code, reason = "shared with the tests of the other verbs")]
mod run;
