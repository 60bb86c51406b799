//! The command `caskfile`: a store's keys and values from a shell.
//!
//! A verb is a file in `verbs/`. What all of them share: `session` (what is a terminal, where output goes), `open` (how
//! the store is opened), `failure` and `exit` (how it ends). What several of them share: `escape`, `record`,
//! `delimited` and `format` (pairs as text, there and back), `input` and `lines` (the input, and its pieces), `look`,
//! `picture` and `explore` (a file's bytes), `value`, `report`, `progress`, `interrupt`.

mod cli;
mod delimited;
mod escape;
mod exit;
mod explore;
mod failure;
mod format;
mod input;
mod interrupt;
mod lines;
mod look;
mod open;
mod picture;
mod progress;
mod record;
mod report;
mod session;
mod value;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::try_parse().unwrap_or_else(|error| cli::explain(error));
    let session = session::Session::new(cli.common);
    let exit = cli.verb.run(&session).unwrap_or_else(|failure| {
        failure.print(session.json);
        failure.exit()
    });
    ExitCode::from(exit.code())
}
