//! [`PutOptions`]: what a put says beside key and value.

use std::time::{Duration, SystemTime};

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
    pub(crate) expires: Option<Expires>,
}

/// When a pair is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expires {
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

    /// Returns the time to live that was set, for a backend that implements [`Store::put_with`](crate::Store::put_with). `None` if the
    /// pair stays, or if a [moment](PutOptions::get_expires_at) was set.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use caskfile::PutOptions;
    ///
    /// let minute = Duration::from_secs(60);
    /// assert_eq!(PutOptions::new().ttl(minute).get_ttl(), Some(minute));
    /// assert_eq!(PutOptions::new().get_ttl(), None);
    /// ```
    pub fn get_ttl(&self) -> Option<Duration> {
        match self.expires {
            Some(Expires::After(ttl)) => Some(ttl),
            _ => None,
        }
    }

    /// Returns the moment that was set, for a backend that implements [`Store::put_with`](crate::Store::put_with). `None` if the pair
    /// stays, or if a [time to live](PutOptions::get_ttl) was set.
    ///
    /// ```
    /// use std::time::SystemTime;
    ///
    /// use caskfile::PutOptions;
    ///
    /// let now = SystemTime::now();
    /// assert_eq!(PutOptions::new().expires_at(now).get_expires_at(), Some(now));
    /// assert_eq!(PutOptions::new().get_expires_at(), None);
    /// ```
    pub fn get_expires_at(&self) -> Option<SystemTime> {
        match self.expires {
            Some(Expires::At(at)) => Some(at),
            _ => None,
        }
    }
}
