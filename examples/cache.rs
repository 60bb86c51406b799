//! A cache that several processes share, in which an answer stays for a while.
//!
//! ```text
//! cargo run --release --example cache
//! ```
//!
//! Asking is slow, so an answer is kept with a time to live. This program starts itself again as three workers. All of them need
//! the same answers at the same time; each question is asked once, by one of them, until its answer is over. The store needs no
//! process that tidies up: an answer that is over is absent for every process, and the next writes remove it from the log.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use caskfile::{Batch, Cask, Change, Error, OptionalExt, PutOptions, WatchFrom};

type Result<T> = std::result::Result<T, Box<dyn StdError>>;

/// How long an answer is good.
const FRESH: Duration = Duration::from_millis(400);
/// How long a worker may take to find an answer. If it dies, another one takes its question after this time.
const ASKING: Duration = Duration::from_secs(5);
/// How long it takes.
const SLOW: Duration = Duration::from_millis(50);

const QUESTIONS: [&str; 3] = ["price of tin", "price of copper", "price of zinc"];
const WORKERS: usize = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match &arguments[..] {
        [] => run(),
        [role, store] if role == "worker" => work(Path::new(store)),
        _ => Err("usage: cache".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cache: {error:#}");
            ExitCode::FAILURE
        }
    }
}

// A worker.

/// Answers all questions, and prints which of them it had to ask.
fn work(store: &Path) -> Result<()> {
    let answers = Cask::open(store)?.bucket("answers")?;
    for question in QUESTIONS {
        let (answer, asked) = answer(&answers, question)?;
        let how = if asked { "asked" } else { "cached" };
        println!("{how}\t{question}\t{answer}");
    }
    Ok(())
}

/// The answer to a question, and whether this process has asked it.
fn answer(answers: &Cask, question: &str) -> Result<(String, bool)> {
    let asking = format!("asking {question}");
    // Before the first look, so that no change is missed between the look and the wait.
    let mut changes = answers.changes(question, WatchFrom::Now)?;
    let mark = loop {
        if let Some(pair) = answers.get(question).optional()? {
            return Ok((String::from_utf8(pair.value)?, false));
        }
        // One process asks. The mark of a process that died while it asked is over some day, and then the next one asks.
        let mut mark = Batch::new();
        mark.expect_absent(question).expect_absent(&asking).put_with(&asking, "", &PutOptions::new().ttl(ASKING));
        match answers.write(&mark) {
            Ok(applied) => break applied.last_index().ok_or("the mark was not written")?,
            Err(Error::BatchConflict { .. }) => drop(changes.next_timeout(Some(ASKING))?),
            Err(error) => return Err(error.into()),
        }
    };
    let found = ask(question);
    let mut batch = Batch::new();
    batch.put_with(question, &found, &PutOptions::new().ttl(FRESH)).delete_if(&asking, mark);
    match answers.write(&batch) {
        // The mark is over, since this took too long. Another process may have the question now: its mark and its answer stay.
        Ok(_) | Err(Error::BatchConflict { .. }) => Ok((found, true)),
        Err(error) => Err(error.into()),
    }
}

/// Stands for a slow service.
fn ask(question: &str) -> String {
    std::thread::sleep(SLOW);
    format!("{} a ton", 1000 + 7 * question.len())
}

// The first process.

fn run() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("caskfile-cache-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let checked = check(&directory.join("cache.cask"));
    std::fs::remove_dir_all(&directory)?;
    checked
}

fn check(store: &PathBuf) -> Result<()> {
    let answers = Cask::open(store)?.bucket("answers")?;
    let mut changes = answers.changes("price", WatchFrom::Now)?;
    for round in 1..=2 {
        let asked = all_workers(store)?;
        println!(
            "round {round}: {WORKERS} workers needed {} answers and asked {asked} times",
            WORKERS * QUESTIONS.len()
        );
        // An answer may be over before the last worker needs it, on a busy machine. It is asked again then.
        if asked < QUESTIONS.len() {
            return Err("an answer came from nowhere".into());
        }
        // The handle sleeps, and sees each answer go when it is over.
        let mut left = answers.list("price")?.len();
        let mut gone = 0;
        while left > 0 {
            // Not for ever: the last delete may have come between the list and this wait.
            let Some(unit) = changes.next_timeout(Some(ASKING))? else { break };
            for change in unit.into_changes()? {
                gone += usize::from(matches!(change, Change::Delete { .. }));
            }
            left = answers.list("price")?.len();
        }
        println!("all answers are over: the store has {left}, and {gone} deletes were seen");
    }
    Ok(())
}

/// Runs all workers at once, and returns how often they asked.
fn all_workers(store: &Path) -> Result<usize> {
    let start = || {
        Command::new(std::env::current_exe()?)
            .args(["worker".as_ref(), store.as_os_str()])
            .stdout(Stdio::piped())
            .spawn()
    };
    let workers: Vec<Child> = (0..WORKERS).map(|_| start()).collect::<std::io::Result<_>>()?;
    let mut asked = 0;
    for worker in workers {
        let output = worker.wait_with_output()?;
        let lines = String::from_utf8(output.stdout)?;
        if !output.status.success() || lines.lines().count() != QUESTIONS.len() {
            return Err(format!("a worker ended with {} after {lines:?}", output.status).into());
        }
        asked += lines.lines().filter(|line| line.starts_with("asked")).count();
    }
    Ok(asked)
}
