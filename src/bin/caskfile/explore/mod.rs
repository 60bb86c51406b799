//! The page that `explore` writes: one HTML file that shows a store's bytes, its log, and its keys at any moment of the
//! log. It is complete in itself and uses no network.
//!
//! `sample` decides how much of a long file is in the page, `table` makes the table of pieces, `facts` describes the file
//! as a whole. The rest is the page itself: `page.html`, its style, and its scripts, which find keys and values in the
//! bytes.

mod facts;
mod sample;
mod table;

use std::io::{self, Write};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use base64::write::EncoderWriter;
use caskfile::inspect::Inspection;

use facts::Facts;
use sample::{Sample, Window};
use table::Table;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");

/// Each script uses those before it.
const SCRIPTS: [&str; 11] = [
    include_str!("bytes.js"),
    include_str!("text.js"),
    include_str!("pieces.js"),
    include_str!("fields.js"),
    include_str!("replay.js"),
    include_str!("list.js"),
    include_str!("hex.js"),
    include_str!("lists.js"),
    include_str!("detail.js"),
    include_str!("strip.js"),
    include_str!("page.js"),
];

/// How many bytes are read at once. A multiple of 3, for base64.
const CHUNK: usize = 3 << 16;

/// The contents of a page, without the file's bytes, which are read while it is written.
pub struct Page<'i> {
    inspection: &'i Inspection,
    facts: Facts,
    table: Table,
    nonce: String,
}

impl<'i> Page<'i> {
    /// Reads the file's pieces twice: to find how much there is, and to choose about `room` bytes.
    pub fn new(path: &Path, inspection: &'i Inspection, room: u64) -> caskfile::Result<Page<'i>> {
        let sample = Sample::for_room(inspection, room)?;
        let mut table = Table::of(inspection, &sample)?;
        let facts = Facts::of(path, inspection, &sample, &mut table);
        Ok(Page { inspection, facts, table, nonce: nonce()? })
    }

    /// Writes the page.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut rest = PAGE;
        while let Some((before, (name, after))) =
            rest.split_once("{{").and_then(|(before, rest)| Some((before, rest.split_once("}}")?)))
        {
            out.write_all(before.as_bytes())?;
            self.fill(name, out)?;
            rest = after;
        }
        out.write_all(rest.as_bytes())
    }

    /// Writes the contents of a `{{name}}` of the page.
    fn fill(&self, name: &str, out: &mut impl Write) -> io::Result<()> {
        match name {
            "nonce" => out.write_all(self.nonce.as_bytes()),
            "style" => out.write_all(STYLE.as_bytes()),
            "script" => SCRIPTS.iter().try_for_each(|script| out.write_all(script.as_bytes())),
            "facts" => out.write_all(self.facts.to_json_in_html().as_bytes()),
            "pieces" => in_base64(out, |out| out.write_all(&self.table.rows)),
            "bytes" => in_base64(out, |out| self.table.windows.iter().try_for_each(|window| self.copy(window, out))),
            other => unreachable!("page.html has the unknown name {other}"),
        }
    }

    fn copy(&self, window: &Window, out: &mut impl Write) -> io::Result<()> {
        let mut buffer = [0; CHUNK];
        let mut at = window.start;
        while at < window.end {
            let len = (window.end - at).min(CHUNK as u64) as usize;
            let got = self.inspection.read(at, &mut buffer[..len]).map_err(io::Error::other)?;
            // Another process may have cut the file. Offsets in the page must not move.
            buffer[got..len].fill(0);
            out.write_all(&buffer[..len])?;
            at += len as u64;
        }
        Ok(())
    }
}

/// Base64 has no character with a meaning in HTML.
fn in_base64<W: Write>(
    out: &mut W,
    write: impl FnOnce(&mut EncoderWriter<'_, base64::engine::GeneralPurpose, &mut W>) -> io::Result<()>,
) -> io::Result<()> {
    let mut encoder = EncoderWriter::new(out, &STANDARD);
    write(&mut encoder)?;
    encoder.finish().map(drop)
}

/// The browser runs only scripts with this number, and the writers of a store cannot know it. This is a second protection:
/// keys and values never become markup either.
fn nonce() -> caskfile::Result<String> {
    let mut bytes = [0; 18];
    getrandom::fill(&mut bytes).map_err(caskfile::Error::other)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
