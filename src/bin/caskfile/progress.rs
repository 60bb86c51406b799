//! A progress bar on stderr, for people only.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::session::Session;

/// Shorter work has no bar.
const PATIENCE: Duration = Duration::from_millis(300);

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub enum Unit {
    Bytes,
    Keys,
}

/// A bar that appears if the work takes longer, and disappears at the end.
pub struct Progress {
    began: Instant,
    shown: bool,
    unit: Unit,
    /// `None` if the end is not known.
    total: Option<u64>,
    what: &'static str,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `to_stdout` says that the verb writes data to stdout meanwhile.
    pub fn new(session: &Session, what: &'static str, unit: Unit, total: Option<u64>, to_stdout: bool) -> Progress {
        Progress { began: Instant::now(), shown: session.shows_progress(to_stdout), unit, total, what, bar: None }
    }

    pub fn set(&mut self, position: u64) {
        if !self.shown || (self.bar.is_none() && self.began.elapsed() < PATIENCE) {
            return;
        }
        self.bar.get_or_insert_with(|| new_bar(self.unit, self.total, self.what)).set_position(position);
    }

    /// Sets the position, and a total that may have changed.
    pub fn set_of(&mut self, position: u64, total: u64) {
        if self.total.replace(total) != Some(total) {
            if let Some(bar) = &self.bar {
                bar.set_length(total);
            }
        }
        self.set(position);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Does work that reports no progress. A spinner turns if it takes longer.
pub fn while_busy<T>(session: &Session, what: &'static str, to_stdout: bool, work: impl FnOnce() -> T) -> T {
    if !session.shows_progress(to_stdout) {
        return work();
    }
    std::thread::scope(|scope| {
        let (working, done) = channel::<()>();
        scope.spawn(move || {
            let mut bar = None;
            let mut wait = PATIENCE;
            while done.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                bar.get_or_insert_with(|| spinner(what)).tick();
                wait = TICK;
            }
            bar.inspect(ProgressBar::finish_and_clear);
        });
        let result = work();
        drop(working);
        result
    })
}

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(100);

fn spinner(what: &'static str) -> ProgressBar {
    bar_like("{msg} {spinner} {elapsed}", None, what)
}

fn new_bar(unit: Unit, total: Option<u64>, what: &'static str) -> ProgressBar {
    let figures = match (unit, total) {
        (Unit::Bytes, Some(_)) => "{binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}",
        (Unit::Bytes, None) => "{binary_bytes}, {binary_bytes_per_sec}",
        (Unit::Keys, Some(_)) => "{human_pos} of {human_len} keys",
        (Unit::Keys, None) => "{human_pos} keys",
    };
    let template = match total {
        Some(_) => format!("{{msg}} [{{bar:30}}] {{percent:>3}} %  {figures}, {{eta}} left"),
        None => format!("{{msg}} {{spinner}} {figures}, {{elapsed}}"),
    };
    bar_like(&template, total, what)
}

/// Without colours, so that NO_COLOR need not turn them off.
fn bar_like(template: &str, total: Option<u64>, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr())
        .with_style(style.progress_chars("=> ").tick_chars("|/-\\ "))
        .with_message(what)
}
