//! What `cas` and `delete` say if a condition does not hold.

use std::ffi::OsStr;

use caskfile::Error;

use crate::exit::Exit;
use crate::failure::{Failure, shell_word};
use crate::open::{Bucket, WriteTo};
use crate::session::Session;

/// The failure of a condition that does not hold: a conflict, also if the key is absent.
pub fn conflict(session: &Session, to: &WriteTo, bucket: &Bucket, key: &OsStr, error: Error) -> Failure {
    let what = match error {
        Error::KeyNotFound => "is not there (any more)",
        Error::KeyExists => "is there already",
        Error::KeyModified => "has another last_index: it was changed meanwhile",
        other => return other.into(),
    };
    let (store, key) = (shell_word(to.store.as_os_str()), shell_word(key));
    let options = format!("{}{}", session.escaped_option(), bucket.option());
    let hyphen = if key.starts_with('-') { "-- " } else { "" };
    Failure::new(Exit::Conflict, format!("{}: the key {key} {what}; nothing was written", to.store.display())).hint(
        format!(
            "`caskfile get --last-index{options} {store} {hyphen}{key}` shows its last_index and value now: decide again with these"
        ),
    )
}
