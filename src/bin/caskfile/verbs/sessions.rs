//! `sessions`.

use std::io::Write;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caskfile::{SessionKey, SessionState, SessionStatus};
use serde_json::json;

use crate::escape::{as_text, escaped};
use crate::exit::Exit;
use crate::failure::Result;
use crate::json_line::Line;
use crate::open::ReadFrom;
use crate::session::{Output, Session, stdout_failure};

/// List the sessions of all processes, how long each lives if it is not renewed, and its keys
///
/// Each line is a session: its number, its state, its time to live, the time that is left, and its keys. The state is `live`, `over`, or
/// `unknown` (it was renewed on another machine, in a container with a boot identity of its own, or before this machine was started; or
/// there is no /proc here). A lock has its token after the key; each lock that is
/// held has a session of its own. A session whose process has died is live here until its deadline, or until a write has found out.
#[derive(clap::Args)]
pub struct Sessions {
    #[command(flatten)]
    from: ReadFrom,
}

impl Sessions {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let sessions = self.from.open(session)?.sessions()?;
        let mut output = session.output()?;
        for status in &sessions {
            if session.json { object(status, &mut output) } else { row(status, &mut output) }
                .map_err(stdout_failure)?;
        }
        output.flush().map_err(stdout_failure)?;
        Ok(Exit::Done)
    }
}

/// A state in one word, and the time that is left.
fn state(status: &SessionStatus) -> (&'static str, Option<Duration>) {
    match status.state {
        SessionState::Live(left) => ("live", Some(left)),
        SessionState::Over => ("over", None),
        _ => ("unknown", None),
    }
}

fn row(status: &SessionStatus, out: &mut Output) -> std::io::Result<()> {
    let (state, left) = state(status);
    let time = |time: Option<Duration>| time.map_or("-".to_owned(), |time| format!("{} s", time.as_secs_f64()));
    write!(out, "{}\t{state}\t{}\t{}", status.session, time(status.ttl), time(left))?;
    for key in &status.keys {
        write!(out, "\t{}", shown(key))?;
    }
    writeln!(out)
}

/// A key with its bucket and its token.
fn shown(key: &SessionKey) -> String {
    let bucket = if key.bucket.is_empty() { String::new() } else { format!("{}/", escaped(&key.bucket)) };
    let token = key.token.map_or_else(String::new, |token| format!(" (lock, token {token})"));
    format!("{bucket}{}{token}", escaped(&key.key))
}

fn object(status: &SessionStatus, out: &mut Output) -> std::io::Result<()> {
    let (state, left) = state(status);
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let mut line = Line::begin(out).number("session", status.session).text("state", state);
    for (name, time) in [("ttl_ms", status.ttl), ("left_ms", left)] {
        if let Some(time) = time {
            line = line.number(name, milliseconds(time));
        }
    }
    let keys = status.keys.iter().map(|key| {
        let mut object = json!({ "last_index": key.last_index });
        // As in the lines of `export`, which leave out the default bucket.
        let names = [("bucket", &key.bucket), ("key", &key.key)];
        for (name, bytes) in names.into_iter().filter(|(name, bytes)| *name == "key" || !bytes.is_empty()) {
            match as_text(bytes) {
                Some(text) => object[name] = text.into(),
                None => object[format!("{name}_base64")] = STANDARD.encode(bytes).into(),
            }
        }
        if let Some(token) = key.token {
            object["token"] = token.into();
        }
        object
    });
    line.objects("keys", &keys.collect::<Vec<_>>()).end()
}
