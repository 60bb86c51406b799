//! The command line as a whole: its verbs, its help.

use clap::{Parser, Subcommand};

use crate::exit::{self, Exit};
use crate::failure::{Failure, Result};
use crate::session::{Common, Session};
use crate::verbs;

const ABOUT: &str = "Keys and values in one file that any number of processes share";

const AFTER_HELP: &str = "\
Start with:
  caskfile put my.cask colour blue     creates the store if it is not there
  caskfile get my.cask colour
  caskfile list my.cask";

#[derive(Parser)]
#[command(name = "caskfile", version, about = ABOUT, after_help = AFTER_HELP, after_long_help = long_help(), max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,

    #[command(subcommand)]
    pub verb: Verb,
}

fn long_help() -> String {
    format!("{AFTER_HELP}\n\n{}", exit::help())
}

macro_rules! verbs {
    ($($(#[$attribute:meta])* $name:ident($type:path)),* $(,)?) => {
        /// The file of each verb says what it does.
        #[derive(Subcommand)]
        pub enum Verb {
            $($(#[$attribute])* $name($type)),*
        }

        impl Verb {
            pub fn run(self, session: &Session) -> Result<Exit> {
                match self {
                    $(Verb::$name(verb) => verb.run(session)),*
                }
            }
        }
    };
}

verbs! {
    Put(verbs::put::Put),
    Get(verbs::get::Get),
    Delete(verbs::delete::Delete),
    Exists(verbs::exists::Exists),
    #[command(visible_alias = "ls")]
    List(verbs::list::List),
    #[command(visible_alias = "compare-and-swap")]
    Cas(verbs::cas::Cas),
    DeletePrefix(verbs::delete_prefix::DeletePrefix),
    Buckets(verbs::buckets::Buckets),
    Sessions(verbs::sessions::Sessions),
    Batch(verbs::batch::Batch),
    Watch(verbs::watch::Watch),
    Wait(verbs::wait::Wait),
    Lock(verbs::lock::Lock),
    Import(verbs::import::Import),
    Export(verbs::export::Export),
    Stats(verbs::stats::Stats),
    Verify(verbs::verify::Verify),
    Compact(verbs::compact::Compact),
    Backup(verbs::backup::Backup),
    Salvage(verbs::salvage::Salvage),
    Dump(verbs::dump::Dump),
    Hex(verbs::hex::Hex),
    Map(verbs::map::Map),
    Explore(verbs::explore::Explore),
    Completions(verbs::completions::Completions),
    Man(verbs::man::Man),
}

/// Ends the process with clap's message about the command line, or with the help. If the file comes first, as with
/// sqlite3, the message says so.
pub fn explain(error: clap::Error) -> ! {
    use clap::error::ErrorKind;

    let mut arguments = std::env::args_os().skip(1);
    if let (ErrorKind::InvalidSubcommand, Some(file), Some(verb)) = (error.kind(), arguments.next(), arguments.next()) {
        let known = <Verb as Subcommand>::has_subcommand(&verb.to_string_lossy());
        if known {
            let (file, verb) = (file.to_string_lossy(), verb.to_string_lossy());
            Failure::usage(format!("the verb comes first, then the store: caskfile {verb} {file} …")).print(false);
            std::process::exit(Exit::Usage.code().into());
        }
    }
    let is_error = !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if is_error && std::env::args_os().any(|argument| argument == "--json") {
        let message = error.to_string();
        let message = message.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
        Failure::usage(message).print(true);
        std::process::exit(Exit::Usage.code().into());
    }
    error.exit()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_verb_has_its_own_description() {
        let command = Cli::command();
        command.clone().debug_assert();
        let page = include_str!("../../../docs/CLI.md");
        // The description of a group of arguments must not become that of a verb.
        let mut abouts = std::collections::HashSet::new();
        for verb in command.get_subcommands() {
            let about = verb.get_about().unwrap_or_else(|| panic!("{} says nothing", verb.get_name())).to_string();
            let name = verb.get_name();
            assert!(page.contains(&format!("| `{name} ")) || page.contains(&format!("`caskfile {name} ")), "{name}");
            assert!(abouts.insert(about.clone()) && !about.ends_with('.'), "{}: {about}", verb.get_name());
        }
    }
}
