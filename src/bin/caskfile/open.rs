//! How verbs open the store: read-only, or for writing.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use caskfile::{Cask, CompactionPolicy, Config, Durability, LockMode, PutOptions};

use crate::escape::escaped;
use crate::failure::{Failure, Result, missing_file, shell_word};
use crate::progress::while_busy;
use crate::session::Session;

/// The store of a verb that only reads. It is opened read-only: no lock is taken, and no byte changes.
#[derive(Debug, clap::Args)]
pub struct ReadFrom {
    /// The store's file
    #[arg(value_name = "STORE", value_hint = clap::ValueHint::FilePath)]
    pub store: PathBuf,
}

impl ReadFrom {
    pub fn open(&self, session: &Session) -> Result<Cask> {
        open(session, &self.store, &Config::new().read_only(true))
    }
}

/// Opening may have to read the whole file, and to wait for the lock.
fn open(session: &Session, path: &Path, config: &Config) -> Result<Cask> {
    open_or(session, path, config, |path| format!("`caskfile put {path} KEY VALUE` makes one"))
}

/// Opens the store, and writes a note if that created it.
pub fn open_or_create(session: &Session, path: &Path, config: &Config) -> Result<Cask> {
    let was_there = is_there(path);
    let cask = open(session, path, config)?;
    if !was_there {
        session.note(format!("created {}", path.display()));
    }
    Ok(cask)
}

/// Opens the store; `how` says how to make one.
fn open_or(session: &Session, path: &Path, config: &Config, how: impl Fn(&str) -> String) -> Result<Cask> {
    let opened = while_busy(session, "opening", false, || Cask::open_with(path, config));
    opened.map_err(|error| match missing_file(&error).map(|path| shell_word(path.as_os_str())) {
        // Probably a first try.
        Some(path) => Failure::from(error).hint(format!("there is no store yet; {}", how(&path))),
        None => error.into(),
    })
}

/// The store of a verb that waits for changes. It is opened read-only.
#[derive(Debug, clap::Args)]
pub struct WaitAt {
    /// The store's file
    #[arg(value_name = "STORE", value_hint = clap::ValueHint::FilePath)]
    pub store: PathBuf,

    /// Create the store if it is not there yet, and wait for its first writer
    #[arg(long)]
    create: bool,
}

impl WaitAt {
    /// Opens the store read-only, or with `to_sync` so that it can be synced.
    pub fn open(&self, session: &Session, to_sync: bool) -> Result<Cask> {
        if self.create && !is_there(&self.store) {
            open(session, &self.store, &Config::new())?.close()?;
            session.note(format!("created {}", self.store.display()));
        }
        // A watch that syncs does not compact the store at its end.
        let to_sync_with = || Config::new().create(false).compaction(CompactionPolicy::Manual);
        let config = if to_sync { to_sync_with() } else { Config::new().read_only(true) };
        open_or(session, &self.store, &config, |_| "--create makes one, and waits for its first writer".to_owned())
    }
}

/// Whether the file exists and is not empty.
fn is_there(store: &Path) -> bool {
    store.metadata().is_ok_and(|metadata| metadata.len() > 0)
}

/// The bucket of a verb.
#[derive(Debug, clap::Args)]
pub struct Bucket {
    /// The bucket, a namespace of its own in the store [default: the one without a name]
    #[arg(short, long, value_name = "NAME")]
    bucket: Option<OsString>,
}

impl Bucket {
    /// The name, empty for the default bucket.
    pub fn name(&self, session: &Session) -> Result<Vec<u8>> {
        Ok(self.chosen(session)?.unwrap_or_default())
    }

    /// `None` if the option was not given.
    pub fn chosen(&self, session: &Session) -> Result<Option<Vec<u8>>> {
        self.bucket.as_deref().map(|name| session.bytes(name)).transpose()
    }

    /// ` --bucket NAME` if it was given, for a command in a hint.
    pub fn option(&self) -> String {
        self.bucket.as_deref().map_or(String::new(), |name| format!(" --bucket {}", shell_word(name)))
    }

    /// Its name in messages.
    pub fn shown(&self) -> String {
        match &self.bucket {
            Some(name) => format!("bucket `{}`", escaped(name.as_bytes())),
            None => "the default bucket".to_owned(),
        }
    }
}

/// The store of a verb that writes, and how it is opened.
#[derive(Debug, clap::Args)]
pub struct WriteTo {
    /// The store's file
    #[arg(value_name = "STORE", value_hint = clap::ValueHint::FilePath)]
    pub store: PathBuf,

    /// How long to wait while another writer has the store: seconds, or with a unit (250ms, 2m), or `none` for ever
    #[arg(long, value_name = "TIME", default_value = "10", value_parser = parse_timeout)]
    timeout: Timeout,

    /// When a write returns: `sync` (it is on stable storage), `os` (the operating system has it), or a time such as
    /// `100ms` (a power cut loses at most that much). At the end of the command everything is on stable storage
    /// [default: sync; for `import`: os]
    #[arg(long, value_name = "WHEN", value_parser = parse_durability)]
    durability: Option<Durability>,

    /// Keep other writers out until the command ends, instead of taking turns with them
    #[arg(long)]
    exclusive: bool,
}

/// Whether a verb creates the store if it is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    Create,
    Refuse,
}

impl WriteTo {
    /// Whether the file exists and is not empty.
    pub fn is_there(&self) -> bool {
        is_there(&self.store)
    }

    /// Opens the store, and writes a note if that created it.
    pub fn open(&self, session: &Session, missing: Missing) -> Result<Cask> {
        self.open_durable(session, missing, Durability::Sync)
    }

    /// Opens the store, with `default` as the durability if none was given.
    pub fn open_durable(&self, session: &Session, missing: Missing, default: Durability) -> Result<Cask> {
        let config = Config::new()
            .connection_timeout(self.timeout.0)
            .durability(self.durability.unwrap_or(default))
            .lock_mode(if self.exclusive { LockMode::Exclusive } else { LockMode::PerWrite })
            .create(false);
        if missing == Missing::Refuse {
            return open(session, &self.store, &config);
        }
        open_or_create(session, &self.store, &config.create(true))
    }

    /// Syncs everything, with any durability, and closes the store.
    pub fn close(&self, cask: &Cask) -> Result<()> {
        if self.durability.is_some_and(|durability| durability != Durability::Sync) {
            // Closing syncs too, but gives up without an error if it does not get the lock in time.
            cask.sync()?;
        }
        Ok(cask.close()?)
    }
}

/// How long a pair counts.
#[derive(clap::Args)]
pub struct Ttl {
    /// How long the key has this value: seconds, or with a unit (250ms, 2m, 8h, 30d); then it is absent
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    ttl: Option<Duration>,
}

impl Ttl {
    pub fn options(&self) -> Option<PutOptions> {
        self.ttl.map(|ttl| PutOptions::new().ttl(ttl))
    }
}

pub fn parse_ttl(text: &str) -> std::result::Result<Duration, String> {
    match parse_duration(text) {
        Ok(ttl) if ttl.is_zero() => Err("give more than 0: a key has its value for some time".into()),
        ttl => ttl,
    }
}

/// Its own type, since clap takes an `Option` for an argument that may be absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout(pub Option<Duration>);

pub fn parse_timeout(text: &str) -> std::result::Result<Timeout, String> {
    if text == "none" { Ok(Timeout(None)) } else { parse_duration(text).map(|time| Timeout(Some(time))) }
}

fn parse_durability(text: &str) -> std::result::Result<Durability, String> {
    match text {
        "sync" => Ok(Durability::Sync),
        "os" => Ok(Durability::Os),
        _ => parse_duration(text)
            .map(Durability::Interval)
            .map_err(|_| "give `sync`, `os`, or a time such as 100ms".into()),
    }
}

fn parse_duration(text: &str) -> std::result::Result<Duration, String> {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0), ("", 1.0)];
    units
        .into_iter()
        .find_map(|(unit, seconds)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * seconds))
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "give seconds (10, 0.5) or a time with a unit (250ms, 2m)".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_a_unit() {
        for (text, milliseconds) in
            [("10", 10_000), ("0", 0), ("0.5", 500), ("250ms", 250), ("2m", 120_000), ("1h", 3_600_000)]
        {
            assert_eq!(parse_timeout(text), Ok(Timeout(Some(Duration::from_millis(milliseconds)))), "{text}");
        }
        assert_eq!(parse_timeout("none"), Ok(Timeout(None)));
        for wrong in ["", "-1", "ten", "1 week", "nan", "inf", "1e300"] {
            assert!(parse_timeout(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_to_live_is_some_time() {
        assert_eq!(parse_ttl("30d"), Ok(Duration::from_secs(30 * 24 * 60 * 60)));
        assert_eq!(parse_ttl("0.001ms"), Ok(Duration::from_micros(1)));
        for wrong in ["0", "0ms", "0.0000000001", "none", "-1"] {
            assert!(parse_ttl(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durabilities_are_read() {
        assert_eq!(parse_durability("sync"), Ok(Durability::Sync));
        assert_eq!(parse_durability("os"), Ok(Durability::Os));
        assert_eq!(parse_durability("100ms"), Ok(Durability::Interval(Duration::from_millis(100))));
        assert!(parse_durability("always").is_err());
    }
}
