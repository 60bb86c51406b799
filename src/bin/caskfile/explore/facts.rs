//! [`Facts`]: what the page says about the file as a whole.

use std::path::Path;

use caskfile::Error;
use caskfile::inspect::{Class, Inspection};
use serde::Serialize;

use super::sample::Sample;
use super::table::{Place, Table};
use crate::numbers::{grouped, plural, readable_bytes};

#[derive(Serialize)]
pub struct Facts {
    /// The file's name, which may have any bytes.
    name: Vec<u8>,
    length: u64,
    /// The offset and length of each.
    windows: Vec<(u64, u64)>,
    /// The names of the table's classes, and how many bytes each has in the file.
    classes: Vec<(&'static str, u64)>,
    verdict: &'static str,
    says: String,
    figures: Vec<String>,
    /// A note that the page has a sample of the file; empty if it has all.
    sample: String,
    places: Vec<Place>,
    unlisted_places: u64,
}

impl Facts {
    pub fn of(path: &Path, inspection: &Inspection, sample: &Sample, table: &mut Table) -> Facts {
        let (verdict, says) = verdict(path, inspection, table);
        Facts {
            name: path.file_name().unwrap_or(path.as_os_str()).as_encoded_bytes().to_vec(),
            length: inspection.file_len(),
            windows: table.windows.iter().map(|window| (window.start, window.end - window.start)).collect(),
            classes: table.classes(),
            verdict,
            says,
            figures: figures(inspection, table),
            sample: said_of_sample(inspection, sample, table),
            places: std::mem::take(&mut table.places),
            unlisted_places: table.unlisted_places,
        }
    }

    /// JSON for an HTML file: without a `<`, it ends no script and begins no comment.
    pub fn to_json_in_html(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers").replace('<', r"\u003c")
    }
}

fn verdict(path: &Path, inspection: &Inspection, table: &Table) -> (&'static str, String) {
    let report = match inspection.check() {
        Ok(report) => report,
        Err(Error::Damaged { report, .. }) if report.losses.iter().all(|loss| loss.torn) => {
            let what = report.wrong_snapshot.as_ref().map_or("", |wrong| wrong.detail.as_str());
            return ("damaged", format!("the snapshot of the index is wrong: {what}. All records are there"));
        }
        Err(Error::Damaged { report, .. }) => {
            let lost: Vec<u64> =
                report.losses.iter().filter(|loss| !loss.torn).map(|loss| loss.end - loss.start).collect();
            let places = plural(lost.len() as u64, "place");
            let what = match lost.iter().sum() {
                0 => format!("what had been stored is missing in {places}"),
                bytes => format!("{} in {places} had been stored and cannot be read", readable_bytes(bytes)),
            };
            let then = "The library refuses the file; salvage copies what the replay shows";
            return ("damaged", format!("{what}. {then}"));
        }
        Err(error) => return ("unread", without_path(path, &error)),
    };
    if report.truncated || report.cut_off {
        let what = match report.synced_to.filter(|_| report.truncated) {
            Some(synced_to) => format!("its end is missing: the log had reached {synced_to} at least"),
            None if report.truncated => "its end is missing: the file ends before a log can start".to_owned(),
            None => "it was made as a copy, and the mark that closes a copy is missing".to_owned(),
        };
        return ("truncated", format!("{what}. The library refuses the file; salvage copies what the replay shows"));
    }
    if report.torn_bytes > 0 {
        let bytes = readable_bytes(report.torn_bytes);
        return ("torn", format!("the last {bytes} are no whole record or batch: the next writer cuts them off"));
    }
    let notes = [
        (table.ends_moved, "its last record says that it was compacted into another file"),
        (table.bytes_of(Class::EndMark) < 8, "its end mark is missing, or a part of it"),
    ];
    let notes: Vec<_> = notes.into_iter().filter(|(holds, _)| *holds).map(|(_, note)| note).collect();
    ("whole", notes.join("; "))
}

/// The text of an error without the file's path, since the page may be given to others.
fn without_path(path: &Path, error: &Error) -> String {
    let text = format!("{error:#}");
    let places = [path.to_owned(), path.canonicalize().unwrap_or_default()];
    let stripped = places.iter().find_map(|place| text.strip_prefix(&format!("{}: ", place.display())));
    stripped.unwrap_or(&text).to_owned()
}

fn figures(inspection: &Inspection, table: &Table) -> Vec<String> {
    let mut figures = Vec::new();
    if let Some(header) = inspection.header() {
        figures.push(format!("version {}.{}", header.major, header.minor));
    }
    figures.push(readable_bytes(inspection.file_len()));
    figures.push(plural(table.records + table.records_omitted, "record"));
    figures
}

fn said_of_sample(inspection: &Inspection, sample: &Sample, table: &Table) -> String {
    let held: u64 = table.windows.iter().map(|window| window.end - window.start).sum();
    if sample.is_everything() && sample.clip == u64::MAX {
        return String::new();
    }
    let size = format!("This page holds {} of {}", readable_bytes(held), readable_bytes(inspection.file_len()));
    if sample.is_everything() {
        return format!("{size}: of long values no more than the beginning. All records and keys are there.");
    }
    format!(
        "{size}, and {} of {} records: some from the beginning, some from the end, and others at even distances. The key \
         space lacks what the records that are left out have set.",
        grouped(table.records),
        grouped(table.records + table.records_omitted)
    )
}
