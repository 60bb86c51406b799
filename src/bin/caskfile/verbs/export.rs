//! `export`.

use std::io::Write;

use caskfile::Scan;

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::format::{Format, FormatOptions};
use crate::open::{Bucket, ReadFrom};
use crate::progress::{Progress, Unit};
use crate::report::plural;
use crate::session::{Output, Session, stdout_failure};

/// How often the progress bar is told.
const PAIRS_PER_LOOK: u64 = 1024;

/// Write all pairs to stdout, as they were at one moment
///
/// The pairs of all buckets, in the order of their keys: what `caskfile import` reads into another store. With --bucket it is the pairs of one bucket, and the lines do not name it, so that they can go into
/// any other.
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
        let chosen = self.bucket.chosen(session)?;
        let cask = self.from.open(session)?;
        let mut progress = Progress::new(session, "exporting", Unit::Keys, Some(cask.stats()?.keys), true);
        let mut to =
            Writer { format, output: session.output()?, line: Vec::new(), written: 0, progress: &mut progress };
        match chosen {
            Some(name) => to.write(None, cask.bucket(name)?.scan("")?)?,
            None => {
                let mut buckets = cask.scan_buckets()?.peekable();
                // The default bucket, if it has a key, comes first.
                let default = buckets.next_if(|bucket| matches!(bucket, Ok((name, _)) if name.is_empty()));
                if !format.names_buckets() && matches!(buckets.peek(), Some(Ok(_))) {
                    return Err(Failure::usage("the store has buckets, and lines of this format do not name them")
                        .hint(
                            "add --bucket-column for a first field with the name, or choose one with --bucket NAME \
                         (--bucket '' for the default one), or use --format ndjson",
                        ));
                }
                for bucket in default.into_iter().chain(buckets) {
                    let (name, pairs) = bucket?;
                    to.write(Some(&name), pairs)?;
                }
            }
        }
        to.output.flush().map_err(stdout_failure)?;
        let written = to.written;
        drop(progress);
        session.note(format!("exported {}", plural(written, "pair")));
        Ok(Exit::Done)
    }
}

struct Writer<'p> {
    format: Format,
    output: Output,
    line: Vec<u8>,
    written: u64,
    progress: &'p mut Progress,
}

impl Writer<'_> {
    fn write(&mut self, bucket: Option<&[u8]>, mut pairs: Scan) -> Result<()> {
        while let Some(pair) = pairs.next_ref() {
            let pair = pair?;
            self.line.clear();
            self.format
                .write(bucket, pair.key, pair.value, pair.last_index, &mut self.line)
                .map_err(|problem| Failure::input(problem).hint("leave --no-escapes away"))?;
            self.output.write_all(&self.line).map_err(stdout_failure)?;
            self.written += 1;
            if self.written % PAIRS_PER_LOOK == 0 {
                self.progress.set(self.written);
            }
        }
        Ok(())
    }
}
