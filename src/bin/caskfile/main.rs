//! The command `caskfile`: a store's keys and values from a shell.
//!
//! Each verb is a file in `verbs/`. All verbs use `session` (terminals, pipes, output), `open` (how the store is opened),
//! `failure` and `exit` (how the command ends). Several use `escape`, `record`, `json_line`, `delimited` and `format`
//! (pairs as text, written and read), `input` and `lines` (the input), `look`, `picture` and `explore` (a file's bytes),
//! `conflict`, `value`, `report`, `numbers`, `progress`, `interrupt`, `signals`, `waiting`.

mod cli;
mod conflict;
mod delimited;
mod escape;
mod exit;
mod explore;
mod failure;
mod format;
mod input;
mod interrupt;
mod json_line;
mod lines;
mod look;
mod moment;
mod numbers;
mod open;
mod picture;
mod progress;
mod record;
mod report;
mod session;
mod signals;
mod value;
mod verbs;
mod waiting;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

fn main() -> ExitCode {
    let cli = cli::Cli::try_parse().unwrap_or_else(|error| cli::explain(error));
    let session = session::Session::new(cli.common, cli::Cli::command);
    let code = cli.verb.run(&session).map_or_else(
        |failure| {
            failure.print(session.json);
            failure.code()
        },
        |exit| exit.code(),
    );
    ExitCode::from(code)
}
