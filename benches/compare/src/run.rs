//! Runs every family with every engine in a process of its own, round by round, engines in turn.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::engine::{Kind, Result};
use crate::results::{FAILED, Figure, Line, Run};
use crate::workloads::{ALL, Family};
use crate::{RunArguments, engines, process};

pub fn run(arguments: &RunArguments) -> Result<()> {
    let kinds: Vec<_> = engines::all().into_iter().filter(|kind| is_chosen(&arguments.engines, kind.name)).collect();
    let families: Vec<_> = ALL.iter().filter(|family| is_chosen(&arguments.families, family.name)).collect();
    if kinds.is_empty() || families.is_empty() {
        return Err("nothing is left to run".into());
    }
    let directory = Directory::new(arguments.directory.as_deref())?;
    let mut results = File::create(&arguments.results)?;
    write(&mut results, &Line::Run(about(arguments, &kinds, &directory.0)?))?;
    let started = Instant::now();
    for round in 0..arguments.rounds {
        for family in &families {
            // The engine that comes first in one round comes later in the next.
            let mut kinds: Vec<_> = kinds.iter().copied().filter(|kind| (family.wants)(kind)).collect();
            let count = kinds.len().max(1);
            kinds.rotate_left(round * count / arguments.rounds % count);
            for kind in kinds {
                let seconds = started.elapsed().as_secs();
                eprintln!(
                    "{seconds:>6} s  round {} of {}  {:<10} {}",
                    round + 1,
                    arguments.rounds,
                    family.name,
                    kind.name
                );
                for figure in child(arguments, family, kind, round, &directory)? {
                    write(&mut results, &Line::Figure(figure))?;
                }
            }
        }
    }
    Ok(())
}

fn is_chosen(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|chosen| chosen == name)
}

fn write(results: &mut File, line: &Line) -> Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    Ok(results.write_all(text.as_bytes())?)
}

fn child(
    arguments: &RunArguments,
    family: &Family,
    kind: &Kind,
    round: usize,
    directory: &Directory,
) -> Result<Vec<Figure>> {
    let store = directory.0.join("store");
    std::fs::create_dir(&store)?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["child", kind.name, family.name])
        .arg(&store)
        .arg(format!("--keys={}", arguments.keys))
        .arg(format!("--seconds={}", arguments.seconds))
        .arg(format!("--seed={}", round + 1))
        .stdin(Stdio::null());
    let output = limited(&mut command, Duration::from_secs(arguments.limit))?;
    std::fs::remove_dir_all(&store)?;
    // So that no engine pays for what another has left to be written.
    process::sync(&directory.0)?;

    let mut figures = Vec::new();
    // An engine may have something to say on the output, too.
    for line in String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.starts_with("{\"")) {
        let mut figure: serde_json::Value = serde_json::from_str(line)?;
        figure["round"] = round.into();
        figure["engine"] = kind.name.into();
        figures.push(serde_json::from_value(figure)?);
    }
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        eprintln!("          {} in {}: {}: {reason}", kind.name, family.name, output.status);
        let missing = Some(format!("{}: {reason}", output.status));
        let row = format!("{}{FAILED}", family.name);
        figures.push(Figure { round, engine: kind.name.to_owned(), row, value: None, missing });
    }
    Ok(figures)
}

/// The output of a process, which is killed if it takes too long.
fn limited(command: &mut Command, limit: Duration) -> Result<Output> {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let id = child.id().cast_signed();
    let (ended, end) = mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let output = child.wait_with_output();
        let _ = ended.send(());
        output
    });
    if end.recv_timeout(limit).is_err() {
        // SAFETY: a signal to a child that has not been waited for, or is just being.
        unsafe { libc::kill(id, libc::SIGKILL) };
    }
    Ok(waiter.join().map_err(|_| "the thread that waits has panicked")??)
}

/// Facts that a reader needs to judge the figures.
fn about(arguments: &RunArguments, kinds: &[&Kind], directory: &Path) -> Result<Run> {
    let text = |program: &str, arguments: &[&str]| -> Option<String> {
        let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let directory = directory.to_string_lossy();
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let line = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let machine = BTreeMap::from([
        ("processor".to_owned(), line(&file("/proc/cpuinfo"), "model name")),
        ("threads".to_owned(), std::thread::available_parallelism()?.to_string()),
        ("memory".to_owned(), line(&file("/proc/meminfo"), "MemTotal")),
        ("kernel".to_owned(), file("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("file system".to_owned(), text("findmnt", &["-n", "-o", "FSTYPE", "-T", &directory]).unwrap_or_default()),
        ("load before".to_owned(), file("/proc/loadavg").trim().to_owned()),
    ]);
    let mut versions = locked_versions();
    versions.insert("rustc".to_owned(), text("rustc", &["--version"]).unwrap_or_default().replace("rustc ", ""));
    if let Some(version) = text("dpkg-query", &["-W", "-f", "${Version}", "librocksdb-dev"]) {
        versions.insert("rocksdb".to_owned(), version);
    }
    Ok(Run {
        date: text("date", &["-u", "+%F"]).unwrap_or_default(),
        commit: text("git", &["describe", "--always", "--dirty"]).unwrap_or_default(),
        command: arguments.to_string(),
        keys: arguments.keys,
        rounds: arguments.rounds,
        note: arguments.note.clone(),
        machine,
        versions,
        modes: kinds.iter().map(|kind| (kind.name.into(), (kind.unsynced.into(), kind.durable.into()))).collect(),
    })
}

/// Of the engines' crates, as they are locked.
fn locked_versions() -> BTreeMap<String, String> {
    let crates = ["candystore", "fjall", "heed", "libsqlite3-sys", "lmdb-master-sys", "redb", "rusqlite", "sled"];
    let quoted = |line: Option<&str>| line.and_then(|line| line.split('"').nth(1)).unwrap_or_default().to_owned();
    let packages = include_str!("../Cargo.lock").split("[[package]]").map(|package| {
        let mut lines = package.trim().lines();
        (quoted(lines.next()), quoted(lines.next()))
    });
    packages.filter(|(name, _)| crates.contains(&name.as_str())).collect()
}

/// Where stores are made; removed with all that is in it.
struct Directory(PathBuf);

impl Directory {
    fn new(parent: Option<&Path>) -> Result<Directory> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = parent.join(format!("caskfile-compare-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Directory(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
