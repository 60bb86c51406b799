//! The command `caskfile`, as a shell sees it: `cargo test --features cli --test command`.

#[path = "../common/mod.rs"]
mod common;

mod boltdb;
mod dump;
mod exits;
mod expiry;
mod explore;
mod figures;
mod follow;
mod golden;
mod hex;
mod importing;
mod lock;
mod map;
mod million;
mod pty;
mod read_only;
mod refusals;
mod run;
mod streams;
mod terminal;
mod verbs;
mod wait;
mod watch;
