//! The end of a pair, as [`PutOptions`] say it.

use std::time::{Duration, UNIX_EPOCH};

use super::write::request::Until;
use crate::format::{MAX_EXPIRING_VALUE_LEN, MAX_VALUE_LEN};
use crate::store::{Expires, PutOptions};
use crate::{Error, Result};

/// The last deadline that a record can have.
const LAST_DEADLINE: Duration = Duration::from_millis(u64::MAX);

/// A time to live from which on a pair stays. With a shorter one, its deadline fits, whatever the clock shows before that year.
const LONGEST_TTL: Duration = Duration::from_millis(1 << 63);

impl PutOptions {
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
