//! caskfile beside other embedded stores, and beside the least that any program must do for the same purpose. See
//! README.md.

mod data;
mod engine;
mod engines;
mod judge;
mod plot;
mod process;
mod report;
mod results;
mod rows;
mod run;
mod table;
mod workloads;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::data::WIDE;
use crate::engine::Result;
use crate::results::Results;
use crate::workloads::Setting;

#[derive(Parser)]
#[command(about = "caskfile beside other embedded stores, and beside the least that any of them must do")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure, write a results file, and show it
    Run(RunArguments),
    /// Show a results file
    Table {
        results: PathBuf,
        /// Every engine's figure, and how far apart the rounds were
        #[arg(long)]
        all: bool,
    },
    /// Write the page and the plots from a results file
    Report {
        results: PathBuf,
        /// Results of the same machine and commit with more keys, for a table of how cost grows
        #[arg(long)]
        larger: Option<PathBuf>,
        /// What `./weight` has printed
        #[arg(long)]
        weight: Option<PathBuf>,
        /// The plots go to a directory beside it
        #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/BENCHMARKS.md"))]
        page: PathBuf,
    },
    /// The engines, the families and the rows that there are
    Names,
    #[command(hide = true)]
    Child(ChildArguments),
}

#[derive(Args)]
struct RunArguments {
    /// Rounded up to a multiple of 10,000
    #[arg(long, default_value_t = 1_000_000, value_parser = keys)]
    keys: usize,
    #[arg(long, default_value_t = 3, value_parser = rounds)]
    rounds: usize,
    /// For each row of durable puts
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// In seconds: what takes longer in one family with one engine is killed
    #[arg(long, default_value_t = 1800)]
    limit: u64,
    /// Only these, separated by commas
    #[arg(long, value_delimiter = ',')]
    engines: Vec<String>,
    /// Only these, separated by commas
    #[arg(long, value_delimiter = ',')]
    families: Vec<String>,
    /// Where stores are made: on a disk, not in memory [default: the system's temporary directory]
    #[arg(long)]
    directory: Option<PathBuf>,
    #[arg(long, default_value = "results.jsonl")]
    results: PathBuf,
    /// What a reader of the figures should know besides
    #[arg(long)]
    note: Option<String>,
}

#[derive(Args)]
struct ChildArguments {
    engine: String,
    family: String,
    directory: PathBuf,
    #[arg(long)]
    keys: usize,
    #[arg(long)]
    seconds: f64,
    #[arg(long)]
    seed: u64,
    #[arg(long)]
    prepare: Option<String>,
}

/// The command that repeats the run, without the places of files on this machine.
impl std::fmt::Display for RunArguments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "run --keys {} --rounds {} --seconds {}", self.keys, self.rounds, self.seconds)?;
        for (option, names) in [("engines", &self.engines), ("families", &self.families)] {
            if !names.is_empty() {
                write!(f, " --{option} {}", names.join(","))?;
            }
        }
        Ok(())
    }
}

fn keys(text: &str) -> Result<usize> {
    let keys: usize = text.replace(['_', ','], "").parse()?;
    if keys == 0 || keys > 1 << 30 {
        return Err("between 1 and 2^30".into());
    }
    Ok(keys.next_multiple_of(WIDE))
}

fn rounds(text: &str) -> Result<usize> {
    Some(text.parse()?).filter(|&rounds| rounds > 0).ok_or_else(|| "one or more".into())
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments)
            .and_then(|()| Results::read(&arguments.results))
            .and_then(|results| table::print(&results, false)),
        Command::Table { results, all } => Results::read(&results).and_then(|results| table::print(&results, all)),
        Command::Report { results, larger, weight, page } => {
            report(&results, larger.as_deref(), weight.as_deref(), &page)
        }
        Command::Names => {
            names();
            Ok(())
        }
        Command::Child(arguments) => child(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn report(results: &Path, larger: Option<&Path>, weight: Option<&Path>, page: &Path) -> Result<()> {
    let larger = larger.map(Results::read).transpose()?;
    let weight = weight.map(std::fs::read_to_string).transpose()?;
    report::write(&Results::read(results)?, larger.as_ref(), weight.as_deref(), page)
}

fn child(arguments: &ChildArguments) -> Result<()> {
    let kind = engines::all().into_iter().find(|kind| kind.name == arguments.engine).ok_or("no such engine")?;
    let family = workloads::ALL.iter().find(|family| family.name == arguments.family).ok_or("no such family")?;
    let setting = Setting {
        kind,
        directory: arguments.directory.clone(),
        keys: arguments.keys,
        time: Duration::from_secs_f64(arguments.seconds),
        seed: arguments.seed,
    };
    match arguments.prepare.as_deref() {
        None => (family.run)(&setting),
        Some(how) => workloads::prepare(&setting, how),
    }
}

fn names() {
    println!("engines (without a sync; durable)");
    for kind in engines::all() {
        println!("  {:<20} {:?}: {}; {}", kind.name, kind.role, kind.unsynced, kind.durable);
    }
    println!("families");
    for family in workloads::ALL {
        println!("  {}", family.name);
    }
    println!("rows");
    for row in rows::GROUPS.iter().flat_map(|group| group.rows) {
        println!("  {:<20} {}", row.id, row.title);
    }
}
