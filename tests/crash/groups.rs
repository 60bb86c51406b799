//! What the batches of one group may be answered: the order in which they are decided, and what is decided again when a
//! write fails.

use caskfile::Error;

use crate::common::history::{BatchPart, Call, Change, Refusal, State, apply, is_found, predict};

/// What a batch of a group was answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answered {
    Done(Option<u64>),
    Refused(Refusal),
    /// It has changed nothing.
    Failed,
    /// Nothing is known.
    InDoubt,
}

impl Answered {
    pub fn of(answer: &Result<Option<u64>, Error>) -> Answered {
        match answer {
            Ok(index) => Answered::Done(*index),
            Err(Error::Poisoned { .. }) => Answered::InDoubt,
            Err(error) => Refusal::of(error).map_or(Answered::Failed, Answered::Refused),
        }
    }
}

/// The states after each batch that has changed something, if the answers can be explained: each batch is decided when
/// its turn comes, or, if it writes nothing, in the end.
pub fn explain(start: &State, batches: &[Vec<BatchPart>], answers: &[Answered], found: &State) -> Option<Vec<State>> {
    let (Some(batch), Some(answer)) = (batches.first(), answers.first()) else {
        return is_found(start, found).then(Vec::new);
    };
    let call = Call::Write(batch.clone());
    let (now, in_the_end) = (predict(&call, start), predict(&call, found));
    let unchanged = || explain(start, &batches[1..], &answers[1..], found);
    let changed = |changes: &[Change], last_index| {
        let next = apply(start, changes, last_index);
        let mut states = explain(&next, &batches[1..], &answers[1..], found)?;
        states.insert(0, next);
        Some(states)
    };
    match (answer, &now) {
        (Answered::Done(Some(index)), Ok(changes)) if !changes.is_empty() => changed(changes, Some(*index)),
        (Answered::Done(Some(_)), _) => None,
        (Answered::Done(None), _) => [&now, &in_the_end].contains(&&Ok(Vec::new())).then(unchanged)?,
        (Answered::Refused(refusal), _) => {
            [&now, &in_the_end].into_iter().any(|said| said.as_ref() == Err(refusal)).then(unchanged)?
        }
        (Answered::Failed, _) => unchanged(),
        (Answered::InDoubt, Ok(changes)) if !changes.is_empty() => changed(changes, None).or_else(unchanged),
        (Answered::InDoubt, _) => unchanged(),
    }
}
