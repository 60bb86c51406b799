//! `import --format boltdb`.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use caskfile::Durability;
use caskfile::boltdb::{BoltError, BoltFile, ImportOptions};
use serde_json::json;

use super::{end_if_stuck, place, refused};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::input::LinesInto;
use crate::interrupt::Interrupt;
use crate::numbers::plural;
use crate::open::Missing;
use crate::progress::{Progress, Unit, while_busy};
use crate::session::Session;

pub(super) fn import(into: &LinesInto, options: &ImportOptions, session: &Session) -> Result<Exit> {
    let Some(path) = into.input_path() else {
        return Err(Failure::usage("a BoltDB file cannot come from stdin, since its pages are read in any order")
            .hint("give its path after that of the store"));
    };
    let file = BoltFile::open_with(path, into.to.timeout()).map_err(not_begun)?;
    let checked = while_busy(session, "checking", false, || file.check(options)).map_err(not_begun)?;
    let total = checked.contents().bytes;
    let cask = into.to.open_durable(session, Missing::Create, Durability::Os)?;
    let interrupt = Interrupt::watch()?;
    let began = Instant::now();
    let written_bytes = Arc::<AtomicU64>::default();
    let of_bytes = Arc::clone(&written_bytes);
    end_if_stuck(&interrupt, session.json, move |failure| {
        let written = if of_bytes.load(Ordering::Relaxed) == 0 { Some(0) } else { None };
        reached(failure, written, false)
    });
    let mut progress = Progress::new(session, "importing", Unit::Bytes, Some(total), false);
    let imported = checked.import(&cask, |now| {
        progress.set(now.done);
        written_bytes.store(now.done, Ordering::Relaxed);
        if interrupt.received().is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    drop(progress);
    // What is in the store is worth a sync, also if the import has failed.
    let closed = cask.sync().map_err(Failure::from).and_then(|()| into.to.close(&cask));
    let contents = imported.map_err(|error| stopped(error, &interrupt, closed.is_ok()))?;
    closed.map_err(|failure| failure.and("; run the same import again"))?;

    let seconds = began.elapsed().as_secs_f64();
    session.note(format!(
        "imported {} of {} in {seconds:.2} s ({:.1} MB/s)",
        plural(contents.pairs, "pair"),
        plural(contents.buckets, "bucket"),
        contents.bytes as f64 / 1e6 / seconds
    ));
    if session.json {
        session.write_json(&json!({
            "buckets": contents.buckets, "records": contents.pairs, "bytes": contents.bytes,
        }))?;
    }
    Ok(Exit::Done)
}

/// The failure of an import that has written nothing.
fn not_begun(error: BoltError) -> Failure {
    of_file(&error).and("; nothing was written")
}

/// The failure of reading a BoltDB file.
fn of_file(error: &BoltError) -> Failure {
    let exit = match error {
        BoltError::Io { .. } => Exit::Io,
        BoltError::Locked { .. } => Exit::Locked,
        _ => Exit::Input,
    };
    let failure = Failure::new(exit, format!("{error:#}"));
    match *error {
        BoltError::Locked { .. } => {
            failure.hint("stop the program that has it open, or wait longer with --timeout TIME")
        }
        BoltError::NotBolt { .. } => failure.hint("--format ndjson and --format tsv read lines"),
        BoltError::Cut { .. } => failure.hint("copy the whole file again from where it came from"),
        BoltError::Damaged { page, offset, .. } => failure.fact("page", page).fact("offset", offset),
        BoltError::Refused { page, offset, .. } => failure.fact("page", page).fact("offset", offset),
        _ => failure,
    }
}

/// The failure of an import that may have written something.
fn stopped(error: BoltError, interrupt: &Interrupt, synced: bool) -> Failure {
    let (failure, written) = match error {
        BoltError::Store { written, cause } => (refused(cause), Some(written)),
        BoltError::Cancelled { written, .. } => {
            let exit = interrupt.received().unwrap_or(Exit::Interrupted);
            (Failure::new(exit, format!("stopped by {}", exit.cause())), Some(written))
        }
        error => (of_file(&error), None),
    };
    reached(failure, written, synced)
}

/// Adds to the failure of an import how many pairs it has written, if that is known.
fn reached(failure: Failure, written: Option<u64>, synced: bool) -> Failure {
    let place = place(synced);
    let failure = match written {
        Some(written) => failure.and(&format!("; {place}: {}", plural(written, "pair"))).fact("records", written),
        None => failure.and(&format!("; {place}: some of the pairs")),
    };
    failure.hint("run the same import again: pairs that are there get the same values")
}
