//! A service that takes on a new configuration as soon as another process has written it.
//!
//! ```text
//! cargo run --release --example reload
//! ```
//!
//! The first process is the operator. It writes a configuration, starts the service (this program, started again), and changes
//! the configuration while the service runs: one setting, two at once, one less, and one after a compaction. The service answers
//! each line of its input with the configuration that it has, and ends with its input.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::io::{BufRead, BufReader, Write, stdin};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use caskfile::{Batch, Cask, Change, Config, Error, Stopper, Watch, WatchFrom};

type Settings = BTreeMap<String, String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match &arguments[..] {
        [] => operate(),
        [role, store] if role == "service" => serve(Path::new(store)),
        _ => Err("usage: reload".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reload: {error:#}");
            ExitCode::FAILURE
        }
    }
}

// The service.

/// The configuration of now. A thread keeps it up to date until this is dropped.
struct Configuration {
    now: Arc<Mutex<Arc<Settings>>>,
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
}

impl Configuration {
    fn follow(store: &Cask) -> caskfile::Result<Configuration> {
        let mut watch = store.changes("config/", WatchFrom::Snapshot)?;
        let now = Arc::default();
        // The listing comes without waiting, so the service never runs without a configuration.
        take_on_next(&mut watch, &now)?;
        let (stopper, followed) = (watch.stopper(), Arc::clone(&now));
        let thread = std::thread::spawn(move || {
            let error = loop {
                if let Err(error) = take_on_next(&mut watch, &followed) {
                    break error;
                }
                println!("reloaded");
            };
            match error {
                Error::Stopped => {}
                // `Compacted` and `Undone` mean: begin again with `WatchFrom::Snapshot`. `Replaced` means: open the store again.
                // A supervisor that starts this service again does both.
                error => {
                    eprintln!("service: {error:#}");
                    std::process::exit(1);
                }
            }
        });
        Ok(Configuration { now, stopper, thread: Some(thread) })
    }

    /// A request that has begun keeps the configuration that it began with.
    fn now(&self) -> Arc<Settings> {
        Arc::clone(&self.now.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Configuration {
    fn drop(&mut self) {
        self.stopper.stop();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Waits for the next write to the configuration, and takes it on as a whole: what one batch has written is never seen in part.
fn take_on_next(watch: &mut Watch, now: &Mutex<Arc<Settings>>) -> caskfile::Result<()> {
    let Some(unit) = watch.next_timeout(None)? else { return Ok(()) };
    let changes = unit.into_changes()?;
    let mut settings = Settings::clone(&now.lock().unwrap_or_else(PoisonError::into_inner));
    for change in changes {
        let name = String::from_utf8_lossy(change.key()).into_owned();
        match change {
            Change::Put(pair) => settings.insert(name, String::from_utf8_lossy(&pair.value).into_owned()),
            Change::Delete { .. } => settings.remove(&name),
        };
    }
    *now.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    Ok(())
}

fn serve(path: &Path) -> Result<(), Box<dyn StdError>> {
    // Reading only: the service takes no lock, and the file may belong to another user.
    let store = Cask::open_with(path, &Config::new().read_only(true))?;
    let configuration = Configuration::follow(&store)?;
    println!("ready");
    for request in stdin().lines() {
        println!("{}: {:?}", request?, configuration.now());
    }
    Ok(())
}

// The operator.

fn operate() -> Result<(), Box<dyn StdError>> {
    let path = std::env::temp_dir().join(format!("caskfile-reload-{}.cask", std::process::id()));
    let result = change_settings(&path);
    let _ = std::fs::remove_file(path);
    result
}

fn change_settings(path: &Path) -> Result<(), Box<dyn StdError>> {
    let store = Cask::open(path)?;
    store.write(Batch::new().put("config/host", "localhost").put("config/port", "80"))?;

    let mut service = Command::new(std::env::current_exe()?);
    let mut service = service.arg("service").arg(path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut requests = service.stdin.take().ok_or("no pipe")?;
    let mut answers = BufReader::new(service.stdout.take().ok_or("no pipe")?).lines();
    let mut next = move || answers.next().ok_or("the service has ended")?.map_err(Box::<dyn StdError>::from);
    let mut expect = |line: &str| -> Result<(), Box<dyn StdError>> {
        let answer = next()?;
        println!("service: {answer}");
        if answer == line { Ok(()) } else { Err(format!("this was expected: {line}").into()) }
    };

    expect("ready")?;
    writeln!(requests, "first")?;
    expect(r#"first: {"config/host": "localhost", "config/port": "80"}"#)?;

    store.put("config/port", "8080")?;
    expect("reloaded")?;
    store.put("a key of something else", "")?;
    store.write(Batch::new().put("config/host", "example.org").put("config/port", "443"))?;
    expect("reloaded")?;
    writeln!(requests, "second")?;
    expect(r#"second: {"config/host": "example.org", "config/port": "443"}"#)?;

    store.compact()?;
    store.delete("config/host")?;
    expect("reloaded")?;
    writeln!(requests, "third")?;
    expect(r#"third: {"config/port": "443"}"#)?;

    drop(requests);
    if !service.wait()?.success() {
        return Err("the service has failed".into());
    }
    store.close()?;
    Ok(())
}
