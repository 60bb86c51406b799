//! The command `caskfile-etcd`: copies a store from a file into a cluster, and back.

use std::process::ExitCode;
use std::sync::Arc;

use caskfile::{Config, Error, Store, new_store};
use caskfile_etcd::{EtcdConfig, Present, copy};

const USAGE: &str = "\
Copies the pairs of a store to another one. A store is the path of a file, or etcd:HOST:PORT[,HOST:PORT...].

usage: caskfile-etcd copy [OPTIONS] FROM TO

  --replace        give keys that TO has with another value the value of FROM; without it they stay
  --prefix TEXT    only keys that begin with this text
  --bucket NAME    the bucket, in both stores; the one with the empty name otherwise
  --root TEXT      what all keys begin with in etcd: caskfile/ otherwise
  --user NAME      the user of the cluster; the password is in CASKFILE_ETCD_PASSWORD
  --timeout SECS   how long a call to the cluster may take: 10 otherwise

The pairs of FROM are those of one moment. Each is written under a condition, so a copy beside other writers loses nothing of theirs,
and a copy that was broken off can be made again. A file that is not there is created as TO, and refused as FROM. last_index is not copied.
Pairs with a time to live and keys of locks are left out.

exit codes: 0 all of FROM is in TO; 1 TO has kept other values; 2 wrong usage; 3 a store has failed
";

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    if words.first().is_none_or(|word| word != "copy") {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    }
    words.remove(0);
    let options = match Options::of(words) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("caskfile-etcd: {wrong}; --help says more");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(kept) => ExitCode::from(u8::from(kept > 0)),
        Err(error) => {
            eprintln!("caskfile-etcd: {error:#}");
            ExitCode::from(3)
        }
    }
}

#[derive(Debug, Default)]
struct Options {
    stores: Vec<String>,
    present: Present,
    prefix: String,
    bucket: String,
    root: Option<String>,
    user: Option<String>,
    timeout: Option<u64>,
}

impl Options {
    fn of(words: Vec<String>) -> Result<Options, String> {
        let mut options = Options::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--replace" => options.present = Present::Replace,
                "--prefix" => options.prefix = value()?,
                "--bucket" => options.bucket = value()?,
                "--root" => options.root = Some(value()?),
                "--user" => options.user = Some(value()?),
                "--timeout" => {
                    let seconds = value()?;
                    options.timeout = Some(seconds.parse().map_err(|_| format!("{seconds} is no number of seconds"))?);
                }
                "--" => options.stores.extend(words.by_ref()),
                option if option.starts_with("--") => return Err(format!("there is no option {option}")),
                _ => options.stores.push(word),
            }
        }
        match options.stores.len() {
            2 => Ok(options),
            count => Err(format!("it takes two stores, not {count}")),
        }
    }

    /// Opens a store; `create` for a file that may be new.
    fn open(&self, address: &str, create: bool) -> caskfile::Result<Arc<dyn Store>> {
        let mut config = Config::new().bucket(&self.bucket).create(create).read_only(!create);
        if let Some(seconds) = self.timeout {
            config = config.connection_timeout(std::time::Duration::from_secs(seconds));
        }
        let Some(endpoints) = address.strip_prefix("etcd:") else { return new_store("caskfile", address, &config) };
        let mut etcd = EtcdConfig::new(endpoints.split(','));
        if let Some(root) = &self.root {
            etcd = etcd.root(root.as_str());
        }
        if let Some(user) = &self.user {
            etcd = etcd.user(user, std::env::var("CASKFILE_ETCD_PASSWORD").unwrap_or_default());
        }
        Ok(Arc::new(etcd.open(&config)?))
    }
}

/// Copies, says what was done, and returns how many keys have kept other values.
fn run(options: &Options) -> Result<u64, Error> {
    let (from, to) = (options.open(&options.stores[0], false)?, options.open(&options.stores[1], true)?);
    let copied = copy(&*from, &*to, options.prefix.as_bytes(), options.present)?;
    println!(
        "{} written, {} were there with the same value, {} kept with another value, {} left out (a time to live, or a lock)",
        copied.written, copied.same, copied.kept, copied.left_out
    );
    to.close()?;
    Ok(copied.kept)
}
