//! What the simulated disk promises to tests: [`crash`] checks what a power cut leaves, [`rules`] what processes may not do,
//! and [`control`] the other controls.

use std::path::Path;
use std::sync::Arc;

use super::{Choices, SimDisk};
use crate::disk::{Access, Disk, DiskFile};

mod control;
mod crash;
mod rules;

const STORE: &str = "/store";

/// Returns a disk with one file, whose contents are durable.
fn disk_with(synced: &[u8]) -> (SimDisk, Arc<dyn DiskFile>) {
    let disk = SimDisk::new();
    disk.set_contents(STORE, synced.to_vec());
    let file = open(&disk);
    (disk, file)
}

fn open(disk: &SimDisk) -> Arc<dyn DiskFile> {
    disk.open(Path::new(STORE), Access::ReadWrite).expect("open the store")
}

/// Returns all outcomes of a power cut now, in order and each once.
fn outcomes<T: Ord>(disk: &SimDisk, look: impl Fn(&SimDisk) -> T) -> Vec<T> {
    let mut choices = Choices::exhaustive();
    let mut seen = Vec::new();
    loop {
        seen.push(look(&disk.reboot(&mut choices)));
        if !choices.advance() {
            break;
        }
    }
    seen.sort();
    seen.dedup();
    seen
}

/// Returns the store's possible contents as text, with `.` for a zero.
fn contents_after_cut(disk: &SimDisk) -> Vec<String> {
    outcomes(disk, |disk| match disk.contents(STORE) {
        Some(bytes) => String::from_utf8(bytes).expect("text").replace('\0', "."),
        None => "(no file)".to_string(),
    })
}

fn names_after_cut(disk: &SimDisk) -> Vec<String> {
    outcomes(disk, |disk| disk.paths().iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" "))
}
