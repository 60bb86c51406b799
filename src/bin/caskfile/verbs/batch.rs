//! `batch`.

use std::io::Read;

use caskfile::Error;
use serde_json::json;

use crate::escape::BYTE_ORDER_MARK;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::format::Filling;
use crate::input::LinesInto;
use crate::numbers::plural;
use crate::open::Missing;
use crate::record::{Change, Condition, Operation};
use crate::session::Session;

/// Apply all operations from stdin at once, or none, with conditions
///
/// Each line is one operation:
///
///   {"op":"put","key":"a","value":"b"}
///   {"op":"delete","key":"a"}
///   {"op":"check","key":"a","if_absent":true}
///
/// A put may have "ttl_ms":N, how many milliseconds the key has this value, or
/// "expires_at":N, until when, in milliseconds since 1970.
/// A put or a delete may have a condition, too: "if_last_index":N (the key's
/// last_index) or "if_absent":true. Conditions are about the store before the
/// batch. A line may name its bucket: "bucket":"log".
/// A batch with a put and no "if_last_index" creates the store if it is not there.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Batch {
    #[command(flatten)]
    into: LinesInto,
}

impl Batch {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let bucket = self.into.bucket.name(session)?;
        let input = self.read(session)?;
        let mut filling = Filling::new(&bucket);
        // Which line each operation of the batch is from.
        let mut lines = Vec::new();
        let mut operations = 0;
        let (mut puts, mut expects_an_index) = (false, false);
        let text = input.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&input);
        for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            if line.trim_ascii().is_empty() {
                continue;
            }
            Operation::parse(line)
                .and_then(|operation| {
                    puts |= matches!(operation.change, Change::Put(..));
                    expects_an_index |= matches!(operation.condition, Some(Condition::Index(_)));
                    add(&operation, &mut filling)
                })
                .map_err(|problem| Failure::input(format!("line {number}: {problem}")))
                .map_err(|failure| failure.hint("nothing was written: correct the line and run it again"))?;
            lines.resize(filling.batch.len(), number);
            operations += 1;
        }
        drop(input);
        // As with `delete` and `cas`: no store is created if nothing could be written to it.
        let missing = if puts && !expects_an_index { Missing::Create } else { Missing::Refuse };
        let cask = self.into.to.open(session, missing)?;
        let applied = cask.write(&filling.batch).map_err(|error| conflict(error, &lines))?;
        self.into.to.close(&cask)?;
        session.note(format!("applied {}", plural(operations, "operation")));
        if session.json {
            session.write_json(&json!({ "operations": operations, "last_index": applied.last_index() }))?;
        }
        Ok(Exit::Done)
    }

    fn read(&self, session: &Session) -> Result<Vec<u8>> {
        let mut input = Vec::new();
        let (mut file, _) = self.into.open_input(session, "operations")?;
        file.read_to_end(&mut input).map_err(|e| self.into.reading_failed(e))?;
        Ok(input)
    }
}

fn add(operation: &Operation<'_>, filling: &mut Filling) -> std::result::Result<(), String> {
    let key = &*operation.key;
    filling.go_to(operation.bucket.as_deref(), key)?;
    match operation.condition {
        Some(Condition::Index(index)) => drop(filling.batch.expect_last_index(key, index)),
        Some(Condition::Absent) => drop(filling.batch.expect_absent(key)),
        None => {}
    }
    match &operation.change {
        Change::Put(value, options) => filling.put(key, value, options.as_ref())?,
        Change::Delete => drop(filling.batch.delete(key)),
        Change::Nothing => {}
    }
    Ok(())
}

/// Names the line whose condition does not hold.
fn conflict(error: Error, lines: &[usize]) -> Failure {
    let Error::BatchConflict { op, cause } = error else { return error.into() };
    let what = match *cause {
        Error::KeyNotFound => "the key is not there",
        Error::KeyExists => "the key is there already",
        _ => "the key has another last_index",
    };
    let number = lines.get(op).copied().unwrap_or_default();
    Failure::new(Exit::Conflict, format!("line {number}: {what}; nothing of the batch was written"))
        .fact("line", number as u64)
        .hint("read the keys again (`caskfile get --last-index …`), and decide again")
}
