//! The golden files, and how a verb that shows one has to end.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::run::{Ran, Shell};

pub struct Golden {
    pub path: PathBuf,
    pub name: String,
    pub bytes: Vec<u8>,
    /// What is written beside it.
    pub expected: Value,
}

pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

pub fn all() -> Vec<Golden> {
    let paths = directory().read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<Golden> = paths.filter(|path| path.extension().is_some_and(|e| e == "cask")).map(read).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

pub fn named(name: &str) -> Golden {
    read(directory().join(name).with_extension("cask"))
}

fn read(path: PathBuf) -> Golden {
    let expected = serde_json::from_slice(&fs::read(path.with_extension("json")).unwrap()).unwrap();
    let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
    Golden { bytes: fs::read(&path).unwrap(), path, name, expected }
}

impl Golden {
    /// Runs a verb over it, and returns what that writes to stdout; `None` if this is no store and it has to say so.
    pub fn shown(&self, shell: &Shell, verb: &[&str]) -> Option<String> {
        let path = self.path.to_str().unwrap();
        let ran = shell.run(&[verb, &[path]].concat());
        let code = match self.expected["verdict"].as_str().unwrap() {
            "Corrupt" | "Truncated" => 5,
            "NotCaskfile" | "UnsupportedVersion" | "UnsupportedRecord" => 6,
            _ if self.expected["snapshot"]["differs"] == true => 5,
            _ => 0,
        };
        // Records of a later version may follow damage. They are then the reason that the rest is not shown.
        let later = self.name.contains("damaged") && ran.code == Some(6);
        assert!(ran.code == Some(code) || later, "{}: {:?}: {}", self.name, ran.code, ran.stderr);
        let text = String::from_utf8(ran.stdout.clone()).unwrap();
        if self.expected["verdict"] == "NotCaskfile" {
            Ran::failed(ran, 6);
            return None;
        }
        assert_eq!(ran.stderr.is_empty(), code == 0, "{}: {}", self.name, ran.stderr);
        if self.expected["verdict"] == "Truncated" {
            assert!(
                ran.stderr.contains("end is missing") && ran.stderr.contains("copy the whole file again"),
                "{}",
                ran.stderr
            );
        }
        Some(text)
    }
}
