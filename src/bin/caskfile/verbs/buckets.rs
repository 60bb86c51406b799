//! `buckets`.

use std::io::Write;

use crate::delimited::Delimited;
use crate::exit::Exit;
use crate::failure::Result;
use crate::json_line::Line;
use crate::open::ReadFrom;
use crate::session::{Session, stdout_failure};

/// List the buckets, and how many keys each has
#[derive(clap::Args)]
pub struct Buckets {
    #[command(flatten)]
    from: ReadFrom,
}

impl Buckets {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let cask = self.from.open(session)?;
        let mut buckets = Vec::new();
        for bucket in cask.scan_buckets()? {
            let (name, pairs) = bucket?;
            buckets.push((name, pairs.len() as u64));
        }
        buckets.sort_unstable();
        let mut output = session.output()?;
        for (name, keys) in buckets {
            if session.json {
                let line = Line::begin(&mut output).bytes("bucket", &name).number("keys", keys);
                line.end().map_err(stdout_failure)?;
                continue;
            }
            let name: &[u8] = if session.to_terminal && name.is_empty() { b"(default)" } else { &name };
            let line = Delimited::PLAIN.write(&[name, keys.to_string().as_bytes()], &mut output);
            line.map_err(stdout_failure)?;
        }
        output.flush().map_err(stdout_failure)?;
        Ok(Exit::Done)
    }
}
