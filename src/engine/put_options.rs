//! [`PutOptions`]: what a put says beside key and value.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::write::request::Until;
use crate::format::{MAX_EXPIRING_VALUE_LEN, MAX_VALUE_LEN};
use crate::{Error, Result};

/// Options of a put: see [`Cask::put_with`](crate::Cask::put_with).
///
/// The last call of [`PutOptions::ttl`] and [`PutOptions::expires_at`] counts.
///
/// ```
/// use std::time::Duration;
///
/// let options = caskfile::PutOptions::new().ttl(Duration::from_secs(60));
/// assert_ne!(options, caskfile::PutOptions::default());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use = "options do nothing until a put has them"]
pub struct PutOptions {
    expires: Option<Expires>,
}

/// The last deadline that a record can have.
const LAST_DEADLINE: Duration = Duration::from_millis(u64::MAX);

/// A time to live from which on a pair stays. With a shorter one, its deadline fits, whatever the clock shows before that year.
const LONGEST_TTL: Duration = Duration::from_millis(1 << 63);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expires {
    After(Duration),
    At(SystemTime),
}

impl PutOptions {
    /// Returns the default options. A put with them is the same as a plain [`Cask::put`](crate::Cask::put).
    ///
    /// ```
    /// assert_eq!(caskfile::PutOptions::new(), caskfile::PutOptions::default());
    /// ```
    pub fn new() -> PutOptions {
        PutOptions::default()
    }

    /// Sets how long the pair lives, at least, from the writer's look at the clock on: the call returns later than that, so the caller
    /// has less. The end is rounded up to a whole millisecond. With `None`, as by default, it stays until it is replaced or deleted. Zero is an
    /// [error](crate::Error::ZeroTtl) of the put. A time of more than 292 million years is as good as `None`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use caskfile::PutOptions;
    ///
    /// let for_a_minute = PutOptions::new().ttl(Duration::from_secs(60));
    /// assert_eq!(for_a_minute.ttl(None), PutOptions::new());
    /// ```
    pub fn ttl(mut self, ttl: impl Into<Option<Duration>>) -> PutOptions {
        self.expires = ttl.into().map(Expires::After);
        self
    }

    /// Sets when the pair is over, rounded up to a whole millisecond; `None`, as by default, for never. A time in the past is
    /// allowed: the pair is written, and is over at once. One that is more than 584 million years after 1970 is as good as `None`.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-options-expires-at-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use std::time::{Duration, SystemTime};
    ///
    /// use caskfile::PutOptions;
    ///
    /// let midnight = SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800); // of 2100
    /// cask.put_with("offer", "two for one", &PutOptions::new().expires_at(midnight))?;
    /// assert_eq!(cask.expires_at("offer")?, Some(midnight));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn expires_at(mut self, at: impl Into<Option<SystemTime>>) -> PutOptions {
        self.expires = at.into().map(Expires::At);
        self
    }

    /// Checks options and length. Returns when the pair expires.
    pub(super) fn until(&self, value_len: usize) -> Result<Option<Until>> {
        let until = match self.expires {
            None => None,
            Some(Expires::After(Duration::ZERO)) => return Err(Error::ZeroTtl),
            Some(Expires::After(ttl)) => Some(Until::After(ttl)).filter(|_| ttl < LONGEST_TTL),
            Some(Expires::At(at)) => {
                let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
                Some(Until::At(at)).filter(|_| at <= LAST_DEADLINE)
            }
        };
        let max = if until.is_some() { MAX_EXPIRING_VALUE_LEN } else { MAX_VALUE_LEN };
        if value_len > max {
            return Err(Error::ValueTooLong { len: value_len, max });
        }
        Ok(until)
    }
}
