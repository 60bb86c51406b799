//! `buckets`.

use std::io::Write;

use crate::delimited::Delimited;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::open::ReadFrom;
use crate::record::Line;
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
        let (mut output, mut lines) = (session.output()?, Vec::new());
        for (name, keys) in buckets {
            if session.json {
                Line::begin(&mut lines).bytes("bucket", &name).number("keys", keys).end();
                continue;
            }
            let name: &[u8] = if session.to_terminal && name.is_empty() { b"(default)" } else { &name };
            Delimited::PLAIN.write(&[name, keys.to_string().as_bytes()], &mut lines).map_err(Failure::input)?;
        }
        output.write_all(&lines).and_then(|()| output.flush()).map_err(stdout_failure)?;
        Ok(Exit::Done)
    }
}
