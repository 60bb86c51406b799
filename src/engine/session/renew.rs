//! The threads that renew the sessions of a handle, and find out that one is lost.
//!
//! They run while the handle is open and has ever had a session. One renews each session at a third of its time to live, and waits for the
//! file's lock until the session's deadline, five seconds at most. After a failure it tries again. The other looks ten times a second
//! whether a session is over: by its own clock, or because the log says so. It also has sessions renewed soon after a compaction: until then,
//! other processes cannot find out that their owner is gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::disk::FileIdentity;
use crate::engine::context::Context;
use crate::engine::deadline::{Deadline, Patience};
use crate::engine::maintain::Maintenance;
use crate::engine::write::Writing;
use crate::engine::write::live::LiveSession;
use crate::fork::Background;
use crate::sync::thread::Builder;
use crate::sync::{Mutex, lock};
use crate::{Error, Result};

/// A session is renewed this many times in its time to live.
const RENEWALS: u64 = 3;

/// The longest time between two renewals.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The longest wait for the file's lock, before this looks whether the handle closes. A new wait begins at the end of the line of
/// writers, so a short one may never get a turn.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// A pause after a renewal that has failed.
const AFTER_FAILURE: Duration = Duration::from_millis(20);

/// The threads, once there is a session: one that renews, and one that looks for losses, since the other may wait for the file's lock.
#[derive(Default)]
pub(crate) struct Renewal {
    threads: Mutex<Vec<Background>>,
}

impl Renewal {
    /// Starts the threads, if there are none yet.
    pub(super) fn begin(&self, writing: &Arc<Writing>, maintenance: &Arc<Maintenance>) -> Result<()> {
        let look = writing.context.limits.renewal_look();
        let mut threads = lock(&self.threads);
        if look == u64::MAX {
            return Ok(());
        }
        let tasks: [Task; 2] = [("caskfile-renew", Keeper::renew_all), ("caskfile-losses", Keeper::look_out)];
        for (name, run) in tasks.into_iter().skip(threads.len()) {
            let keeper = Keeper {
                writing: Arc::clone(writing),
                maintenance: Arc::clone(maintenance),
                look: Duration::from_millis(look),
            };
            let started = Builder::new().name(name.to_owned()).spawn(move || run(&keeper));
            let started = started.map_err(|e| Error::io("start a thread", &writing.context.path, e))?;
            threads.push(Background::new(started));
        }
        Ok(())
    }

    /// Ends all sessions, for a handle that closes, and waits for the thread.
    pub(crate) fn end(&self, writing: &Writing, patience: &Patience) {
        if !writing.registry.is_here() {
            return;
        }
        writing.registry.stop();
        let threads = std::mem::take(&mut *lock(&self.threads));
        threads.into_iter().for_each(Background::join);
        let sessions = writing.registry.all();
        if sessions.is_empty() {
            return;
        }
        // If this fails, the sessions are over at the end of their time to live, or once their byte is free.
        let _ = writing.solo_with(patience, |turn| {
            turn.end_sessions(&sessions)?;
            turn.settle_without_sync()
        });
        sessions.iter().for_each(|live| writing.registry.lose(live.session));
    }
}

struct Keeper {
    writing: Arc<Writing>,
    maintenance: Arc<Maintenance>,
    look: Duration,
}

/// The name of a thread, and what it does.
type Task = (&'static str, fn(&Keeper));

/// When a session is to be renewed next.
struct Due {
    session: u64,
    at: Instant,
}

fn interval(live: &LiveSession) -> Duration {
    Duration::from_millis((live.ttl / RENEWALS).max(1)).min(LONGEST)
}

impl Keeper {
    fn context(&self) -> &Context {
        &self.writing.context
    }

    fn renew_all(&self) {
        let (registry, clock) = (&self.writing.registry, &self.context().clock);
        let mut dues: Vec<Due> = Vec::new();
        loop {
            let (sessions, all) = {
                let mut state = registry.lock();
                if state.stop {
                    return;
                }
                (state.sessions.clone(), std::mem::take(&mut state.renew_soon))
            };
            let now = clock.now();
            dues.retain(|due| sessions.iter().any(|live| live.session == due.session));
            for live in &sessions {
                if !dues.iter().any(|due| due.session == live.session) {
                    dues.push(Due { session: live.session, at: now + interval(live) });
                }
            }
            let is_due =
                |live: &&Arc<LiveSession>| all || dues.iter().any(|due| due.session == live.session && due.at <= now);
            let due: Vec<_> = sessions.iter().filter(is_due).cloned().collect();
            if !due.is_empty() {
                let pause = match self.renew(&due) {
                    Ok(()) => None,
                    Err(Error::Closed) => return,
                    Err(_) => Some(AFTER_FAILURE),
                };
                let now = clock.now();
                for live in &due {
                    if let Some(of) = dues.iter_mut().find(|of| of.session == live.session) {
                        of.at = now + pause.unwrap_or_else(|| interval(live));
                    }
                }
            }
            let next = dues.iter().map(|due| due.at.saturating_duration_since(clock.now())).min();
            let state = registry.lock();
            let is_changed = state.stop || state.renew_soon || state.sessions.len() != sessions.len();
            if !is_changed {
                let most = next.unwrap_or(LONGEST).max(Duration::from_millis(1));
                drop(clock.wait(&registry.changed, state, most));
            }
        }
    }

    fn look_out(&self) {
        let (registry, clock) = (&self.writing.registry, &self.context().clock);
        let mut moved_to = None;
        loop {
            let sessions = {
                let state = registry.lock();
                if state.stop {
                    return;
                }
                state.sessions.clone()
            };
            self.look_for_losses(&sessions);
            self.follow(&sessions, &mut moved_to);
            let ends = self.until_a_deadline(&sessions);
            let state = registry.lock();
            if !state.stop && state.sessions.is_empty() == sessions.is_empty() {
                // Without sessions there is nothing to look at until one comes.
                let most = if sessions.is_empty() { LONGEST } else { self.look.min(ends.unwrap_or(LONGEST)) };
                drop(clock.wait(&registry.changed, state, most.max(Duration::from_millis(1))));
            }
        }
    }

    /// Reports the sessions that are over by this process's clock, or by the log.
    fn look_for_losses(&self, sessions: &[Arc<LiveSession>]) {
        if sessions.is_empty() {
            return;
        }
        let now = self.context().machine_time();
        let view = self.writing.reading.current().ok();
        let is_ended = |live: &LiveSession| {
            view.as_ref().is_some_and(|view| {
                let sessions = &view.keys.lifetimes.sessions;
                let has_record = sessions.newest(live.session).is_some_and(|newest| newest.record.nonce == live.nonce);
                let is_taken = live.lock.as_ref().is_some_and(|lock| {
                    let position = view.find(&lock.key);
                    // What cannot be read decides nothing.
                    position.is_ok_and(|position| position.and_then(|at| sessions.owner(at)) != Some(lock.owner))
                });
                !has_record || is_taken
            })
        };
        let lost: Vec<u64> =
            sessions.iter().filter(|live| !live.is_live(now) || is_ended(live)).map(|live| live.session).collect();
        drop(view);
        lost.into_iter().for_each(|session| self.writing.registry.lose(session));
    }

    /// Has the sessions renewed that name another file than the one with the log. Once for each file: where the owner's byte cannot be
    /// held, they never name it.
    fn follow(&self, sessions: &[Arc<LiveSession>], moved_to: &mut Option<FileIdentity>) {
        let Some(view) = (!sessions.is_empty()).then(|| self.writing.reading.current().ok()).flatten() else { return };
        let (log, known) = (&view.reader.log, &view.keys.lifetimes.sessions);
        let names_another = |live: &Arc<LiveSession>| {
            known.newest(live.session).is_some_and(|newest| newest.record.base_seq != log.header.base_seq)
        };
        if *moved_to != Some(log.identity) && sessions.iter().any(names_another) {
            *moved_to = Some(log.identity);
            drop(view);
            self.writing.registry.renew_soon();
        }
    }

    fn until_a_deadline(&self, sessions: &[Arc<LiveSession>]) -> Option<Duration> {
        let now = self.context().machine_time()?;
        sessions.iter().map(|live| Duration::from_millis(live.deadline().saturating_sub(now.ms))).min()
    }

    fn renew(&self, sessions: &[Arc<LiveSession>]) -> Result<()> {
        // After the first deadline, there is one session less to renew.
        let most = self.until_a_deadline(sessions).unwrap_or_default();
        // A close waits for this thread.
        let patience = self.context().config.get_connection_timeout().unwrap_or(LONGEST_WAIT);
        let most = most.min(patience.clamp(SHORTEST_WAIT, LONGEST_WAIT));
        let deadline = Deadline::of_a_try(&self.context().clock, most);
        self.writing.in_session_turn(&deadline, |turn| turn.renew(sessions))?;
        // A store in which nothing else is written would grow.
        self.maintenance.begin_if_due();
        Ok(())
    }
}
