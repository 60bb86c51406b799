//! The state file of a command-line tool: which files of a directory have changed since the last run.
//!
//! ```text
//! state STORE DIRECTORY
//! ```
//!
//! The store remembers the length and the time of each file. A run lists what is new, changed or gone, and remembers that, in one
//! batch: a run that is killed has noted all of its findings or none. Two runs at the same time are no problem.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

use caskfile::{Batch, Cask, Config, Durability};
use caskfile_programs::typed::{Result, Typed};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Seen {
    len: u64,
    modified: u128,
}

/// All files below a directory.
fn walk(directory: &Path, found: &mut HashMap<String, Seen>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            walk(&entry.path(), found)?;
        } else {
            let modified = metadata.modified()?.duration_since(UNIX_EPOCH)?.as_nanos();
            found.insert(entry.path().display().to_string(), Seen { len: metadata.len(), modified });
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, directory] = &arguments[..] else { return Err("usage: state STORE DIRECTORY".into()) };
    // What a power cut takes, the next run finds again.
    let cask = Cask::open_with(store, &Config::new().bucket("files").durability(Durability::Os))?;
    let mut found = HashMap::new();
    walk(Path::new(directory), &mut found)?;

    let mut batch = Batch::new();
    let report = |what: &str, path: &str| println!("{what} {path}");
    for seen in Typed::<Seen>::new(cask.clone()).scan(directory)? {
        let (path, before, index) = seen?;
        match found.remove(&path) {
            Some(now) if now == before => {}
            Some(now) => {
                report("changed", &path);
                batch.put_if(&path, serde_json::to_vec(&now)?, index);
            }
            None => {
                report("gone", &path);
                batch.delete_if(&path, index);
            }
        }
    }
    for (path, now) in &found {
        report("new", path);
        batch.put_new(path, serde_json::to_vec(now)?);
    }
    match cask.write(&batch) {
        Err(error) if error.is_conflict() => eprintln!("another run was faster: it has noted what changed"),
        written => drop(written?),
    }
    eprintln!("{} files", cask.len()?);
    Ok(cask.close()?)
}
