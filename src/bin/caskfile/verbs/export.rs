//! `export`.

use std::io::Write;

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::format::{Format, FormatOptions};
use crate::numbers::plural;
use crate::open::{Bucket, ReadFrom};
use crate::progress::{Progress, Unit};
use crate::session::{Session, stdout_failure};

/// How often the progress bar is updated.
const PAIRS_PER_LOOK: u64 = 1024;

/// Write all pairs to stdout, as they were at one moment
///
/// The pairs of all buckets, in the order in which they were set. Pairs that have expired are left out, and so are those of sessions,
/// which end with their process; those that will expire take their moment along, except with tsv. `caskfile import` reads them into another store. With
/// --bucket, the pairs of one bucket. The lines do not name it then, so that they can go into any other bucket, unless
/// --bucket-column is given.
#[derive(clap::Args)]
pub struct Export {
    #[command(flatten)]
    from: ReadFrom,
    #[command(flatten)]
    bucket: Bucket,
    #[command(flatten)]
    format: FormatOptions,
}

impl Export {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let format = self.format.format(None)?;
        if session.json && !matches!(format, Format::Ndjson) {
            return Err(Failure::usage("--json and --format tsv exclude each other").hint("leave one of them away"));
        }
        let chosen = self.bucket.chosen(session)?;
        let cask = self.from.open(session)?;
        // Before the first line, since output to a pipe cannot be taken back.
        if chosen.is_none() && !format.names_buckets() && cask.stats()?.buckets > 1 {
            return Err(unnamed_bucket());
        }
        let mut pairs = cask.scan_by_index()?;
        let mut progress = Progress::new(session, "exporting", Unit::Keys, Some(pairs.len() as u64), true);
        let mut output = session.output()?;
        let (mut looked_at, mut written, mut expiring, mut owned) = (0, 0, 0, 0);
        while let Some(next) = pairs.next_ref() {
            let (bucket, pair) = next?;
            looked_at += 1;
            if looked_at % PAIRS_PER_LOOK == 0 {
                progress.set(looked_at);
            }
            let named = match &chosen {
                Some(name) if name != bucket => continue,
                // An empty column would send the pairs to the default bucket.
                _ if self.format.bucket_column => Some(bucket),
                Some(_) => None,
                None if format.names_buckets() => Some(bucket),
                None if bucket.is_empty() => None,
                // The only bucket is not the default one, or a writer has just made one.
                None => {
                    // Without writing the rest of the buffer.
                    drop(output.into_parts());
                    return Err(unnamed_bucket());
                }
            };
            if pair.session().is_some() {
                owned += 1;
                continue;
            }
            format
                .check(named, pair.key, pair.value)
                .map_err(|problem| Failure::input(problem).hint("leave --no-escapes away"))?;
            format.write(named, pair, &mut output).map_err(stdout_failure)?;
            written += 1;
            expiring += u64::from(pair.expires_at.is_some());
        }
        output.flush().map_err(stdout_failure)?;
        drop(progress);
        session.note(format!("exported {}", plural(written, "pair")));
        if owned > 0 {
            let pairs = plural(owned, "pair");
            session.note(format!("left out {pairs} of sessions: locks and others, which end with their process"));
        }
        if expiring > 0 && !format.has_expiry() {
            let pairs = plural(expiring, "pair");
            session.note(format!("{pairs} will expire, and this format does not say when: --format ndjson does"));
        }
        Ok(Exit::Done)
    }
}

fn unnamed_bucket() -> Failure {
    Failure::usage("the store has buckets, and lines of this format do not name them; the export is not complete").hint(
        "add --bucket-column for a first field with the name, or choose one with --bucket NAME (--bucket '' for the \
         default one), or use --format ndjson",
    )
}
