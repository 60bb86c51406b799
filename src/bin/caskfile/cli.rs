//! The command line as a whole: its verbs, its help.

use clap::{Parser, Subcommand};

use crate::exit::{self, Exit};
use crate::failure::{Failure, Result};
use crate::session::{Common, Session};
use crate::verbs;

const ABOUT: &str = "Keys and values in one file that any number of processes share";

const AFTER_HELP: &str = "\
Start with:
  caskfile put my.cask colour blue     makes the store if it is not there
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
    ($($(#[$doc:meta])* $name:ident($type:path)),* $(,)?) => {
        #[derive(Subcommand)]
        pub enum Verb {
            $($(#[$doc])* $name($type)),*
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
    /// Set the value of a key
    Put(verbs::put::Put),
    /// Write the value of a key to stdout: its bytes as they are, or something readable on a terminal
    Get(verbs::get::Get),
    /// Remove keys; removing one that is absent is no error
    Delete(verbs::delete::Delete),
    /// Tell by the exit code whether a key is there: 0 if it is, 1 if not
    Exists(verbs::exists::Exists),
    /// List keys and values in the order of the keys
    #[command(visible_alias = "ls")]
    List(verbs::list::List),
    /// Set a value only if nobody changed the key meanwhile, and print its new index
    #[command(visible_alias = "compare-and-swap")]
    Cas(verbs::cas::Cas),
    /// Remove all keys that start with a prefix
    DeletePrefix(verbs::delete_prefix::DeletePrefix),
    /// List the buckets, and how many keys each has
    Buckets(verbs::buckets::Buckets),
    /// Apply operations from stdin together or not at all, with conditions
    Batch(verbs::batch::Batch),
    /// Read pairs from a file or stdin into the store, as many as there are
    Import(verbs::import::Import),
    /// Write all pairs to stdout, as they were at one moment
    Export(verbs::export::Export),
    /// Show how many keys there are, how large the file is, and how much of it compaction would give back
    Stats(verbs::stats::Stats),
    /// Read the whole file and check every record
    Verify(verbs::verify::Verify),
    /// Rewrite the file without what was replaced or deleted
    Compact(verbs::compact::Compact),
    /// Copy the store as it is at one moment to another file, or to stdout, while others write
    Backup(verbs::backup::Backup),
    /// Copy what still verifies of a damaged store to a new one
    Salvage(verbs::salvage::Salvage),
    /// Write completions for a shell to stdout
    Completions(verbs::completions::Completions),
    /// Write the man page to stdout, in roff
    Man(verbs::man::Man),
}

/// Ends the process with clap's message about a command line that it does not understand, or with the help that was
/// asked for; and with a hint for who put the file first, as with sqlite3.
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
    fn the_command_line_is_consistent_and_every_verb_says_what_it_does() {
        let command = Cli::command();
        command.clone().debug_assert();
        for verb in command.get_subcommands() {
            assert!(verb.get_about().is_some(), "{}", verb.get_name());
        }
    }
}
