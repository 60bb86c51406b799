//! The plan of a group: what each request writes, or why it is refused.

use std::collections::{BTreeSet, HashMap};
use std::io;

use super::outcome::{Failure, Outcome, Written};
use super::request::{Action, Condition, Holding, Request, no_memory};
use super::turn::Turn;
use crate::memory::make_room;
use crate::{Error, Result};

/// The writes and outcomes of a group.
#[derive(Default)]
pub(super) struct Plan<'r> {
    /// The operations to be written, request by request.
    pub(super) writes: Vec<(&'r [u8], Action<&'r [u8]>)>,
    pub(super) verdicts: Vec<Verdict>,
    /// Which of the first `known` of `writes` is the last one of each key.
    changed: HashMap<&'r [u8], usize>,
    known: usize,
}

/// The writes and the outcome of one request.
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    /// How many of the plan's writes are this request's.
    pub(super) writes: usize,
    /// Where the last of them ends in the log, once they are laid out.
    pub(super) end: Option<u64>,
}

impl<'r> Plan<'r> {
    /// Decides each request, in the order of the queue.
    pub(super) fn of(turn: &Turn<'_>, requests: &'r [Request<'_>]) -> Plan<'r> {
        let mut plan = Plan { verdicts: Vec::with_capacity(requests.len()), ..Plan::default() };
        for request in requests {
            let first = plan.writes.len();
            let outcome = plan.decide(turn, request);
            if outcome.is_err() {
                plan.withdraw(first);
            }
            plan.verdicts.push(Verdict { outcome, writes: plan.writes.len() - first, end: None });
        }
        plan
    }

    /// Adds what a request writes, if its conditions hold.
    fn decide(&mut self, turn: &Turn<'_>, request: &'r Request<'_>) -> Outcome {
        for (op, (key, condition, _)) in request.ops().enumerate() {
            let Some(condition) = condition else { continue };
            if let Err(cause) = self.check_condition(turn, key, condition)? {
                return Err(Failure::Condition { op, cause });
            }
        }
        let mut written = Written::default();
        make_room(&mut self.writes, request.len()).map_err(|_| no_memory(&turn.writing.context.path))?;
        for (op, (key, _, action)) in request.ops().enumerate() {
            match action {
                Action::Put(_) | Action::PutUntil(..) => {}
                Action::PutOwned(_, Holding { session, nonce, .. }) => {
                    if !turn.ask(|view| Ok(turn.is_live(view, session, nonce)))? {
                        return Err(Error::SessionOver.into());
                    }
                }
                Action::Delete if self.seq_of(turn, key)?.is_some() => written.deleted += 1,
                // Nothing is written then, so no operation has an index.
                Action::Delete if request.len() == 1 => continue,
                Action::Delete => {
                    make_room(&mut written.absent, 1).map_err(|_| no_memory(&turn.writing.context.path))?;
                    // A batch has far fewer operations.
                    written.absent.push(op as u32);
                    continue;
                }
                Action::Keep => continue,
            }
            self.writes.push((key, action));
        }
        Ok(written)
    }

    fn check_condition(
        &mut self,
        turn: &Turn<'_>,
        key: &[u8],
        condition: Condition,
    ) -> Result<std::result::Result<(), Error>> {
        if let Condition::Held(holding) = condition {
            return Ok(if self.is_held(turn, key, holding)? { Ok(()) } else { Err(Error::NotHeld) });
        }
        Ok(match (condition, self.seq_of(turn, key)?) {
            (Condition::Absent, None) => Ok(()),
            (Condition::Absent, Some(_)) => Err(Error::KeyExists),
            (Condition::Seq(_), None) => Err(Error::KeyNotFound),
            (Condition::Seq(expected), Some(seq)) if seq == Some(expected) => Ok(()),
            (Condition::Seq(_), Some(_)) => Err(Error::KeyModified),
            (Condition::Held(_), _) => Err(Error::NotHeld),
        })
    }

    /// The sequence number of a key's record, if the key is there; `Some(None)` if this group puts it, so that it has none yet. A
    /// key that is over is not there.
    fn seq_of(&mut self, turn: &Turn<'_>, key: &[u8]) -> Result<Option<Option<u64>>> {
        if let Some(change) = self.change(key).map_err(|_| no_memory(&turn.writing.context.path))? {
            return Ok((change != Action::Delete).then_some(None));
        }
        turn.ask(|view| {
            let found = view.find(key)?.filter(|&position| !turn.is_over(view, position));
            found.map(|position| view.reader.header(position).map(|header| Some(header.seq))).transpose()
        })
    }

    /// Whether the pair is this lock, and its session lives. The session's number, its random number and the token must agree: a lock
    /// that its holder has lost and taken again has another token.
    fn is_held(&mut self, turn: &Turn<'_>, key: &[u8], holding: Holding) -> Result<bool> {
        let change = self.change(key).map_err(|_| no_memory(&turn.writing.context.path))?;
        let is_other = |change| !matches!(change, Action::PutOwned(_, own) if own == holding);
        if change.is_some_and(is_other) {
            return Ok(false);
        }
        turn.ask(|view| {
            let is_owner = || -> Result<bool> {
                let owner = view.find(key)?.and_then(|position| view.keys.lifetimes.sessions.owner(position));
                Ok(owner == Some(holding.owner()))
            };
            Ok((change.is_some() || is_owner()?) && turn.is_live(view, holding.session, holding.nonce))
        })
    }

    /// What the group does with the key, if it changes it.
    fn change(&mut self, key: &[u8]) -> io::Result<Option<Action<&'r [u8]>>> {
        let new = self.writes.iter().enumerate().skip(self.known);
        self.changed.try_reserve(new.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.changed.extend(new.map(|(at, &(key, _))| (key, at)));
        self.known = self.writes.len();
        Ok(self.changed.get(key).map(|&at| self.writes[at].1))
    }

    /// The requests that are not refused.
    pub(super) fn granted<'q>(
        &self,
        requests: &'q [Request<'q>],
    ) -> impl Iterator<Item = &'q Request<'q>> + use<'q, '_, 'r> {
        requests.iter().zip(&self.verdicts).filter(|(_, verdict)| verdict.outcome.is_ok()).map(|(request, _)| request)
    }

    /// The deletes of keys that are over could not be written: a request that rests on one of them gets the error.
    pub(super) fn refuse_where_over(&mut self, requests: &[Request<'_>], over: &[&[u8]], error: &Error) {
        for (request, verdict) in requests.iter().zip(&mut self.verdicts) {
            if verdict.outcome.is_ok() && request.ops().any(|(key, ..)| over.binary_search(&key).is_ok()) {
                verdict.outcome = Err(error.clone().into());
            }
        }
    }

    /// The sessions for which the granted requests write.
    pub(super) fn sessions(&self) -> BTreeSet<u64> {
        let session = |&(_, action): &(_, Action<_>)| match action {
            Action::PutOwned(_, holding) => Some(holding.session),
            _ => None,
        };
        self.writes.iter().filter_map(session).collect()
    }

    /// A session is over although its requests were granted and written: they get the error.
    pub(super) fn refuse_of_session(&mut self, requests: &[Request<'_>], session: u64, error: &Error) {
        let is_of =
            |action: Action<&[u8]>| matches!(action, Action::PutOwned(_, holding) if holding.session == session);
        for (request, verdict) in requests.iter().zip(&mut self.verdicts) {
            if verdict.outcome.is_ok() && request.ops().any(|(.., action)| is_of(action)) {
                verdict.outcome = Err(error.clone().into());
            }
        }
    }

    /// Takes the writes of a refused request back.
    fn withdraw(&mut self, first: usize) {
        self.writes.truncate(first);
        if self.known > first {
            self.changed.clear();
            self.known = 0;
        }
    }

    /// Decides requests by the log alone, after the write of their group has failed: a request that has something to write gets
    /// the error. If the content of the log is unknown, every request gets it.
    ///
    /// Requests whose records reached the file keep their outcomes. Every request from the first lost one on may have been
    /// decided by a change that is lost.
    pub(super) fn decide_again(&mut self, turn: &Turn<'_>, requests: &[Request<'_>], error: &Error) {
        let log_end = turn.view().map_or(0, |view| view.tail.end);
        let is_lost = |verdict: &Verdict| verdict.writes > 0 && verdict.end.is_none_or(|end| end > log_end);
        let kept = self.verdicts.iter().position(is_lost).unwrap_or(requests.len());
        for (request, verdict) in requests.iter().zip(&mut self.verdicts).skip(kept) {
            verdict.outcome = decide_alone(turn, request, error);
        }
    }

    pub(super) fn into_outcomes(self) -> Vec<Outcome> {
        self.verdicts.into_iter().map(|verdict| verdict.outcome).collect()
    }
}

fn decide_alone(turn: &Turn<'_>, request: &Request<'_>, error: &Error) -> Outcome {
    turn.writing.syncs.check_poison()?;
    let mut plan = Plan::default();
    let outcome = plan.decide(turn, request)?;
    if plan.writes.is_empty() { Ok(outcome) } else { Err(error.clone().into()) }
}
