//! The command `caskfile`, as a shell sees it: `cargo test --features cli --test cli`.

mod common;

#[path = "cli/exits.rs"]
mod exits;
#[path = "cli/importing.rs"]
mod importing;
#[path = "common/patience.rs"]
mod patience;
#[path = "cli/pty.rs"]
mod pty;
#[path = "cli/read_only.rs"]
mod read_only;
#[path = "cli/run.rs"]
mod run;
#[path = "cli/streams.rs"]
mod streams;
#[path = "cli/terminal.rs"]
mod terminal;
#[path = "cli/verbs.rs"]
mod verbs;
