//! Outcomes: what each request of a group gets.

use std::io;

use crate::Error;

/// The result of a request.
pub(crate) type Outcome = Result<Written, Failure>;

/// A request that was committed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Written {
    /// The sequence number of its last record; `None` if there was nothing to write.
    pub(crate) last_index: Option<u64>,
    /// How many keys it removed.
    pub(crate) deleted: u64,
    /// The operations, by their place in the request, that are deletions of absent keys and wrote no record. Empty if the request
    /// has only one operation.
    pub(crate) absent: Vec<u32>,
}

/// A request that was not committed.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// A condition does not hold: the position of its operation in the request, and the error.
    Condition {
        op: usize,
        cause: Error,
    },
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Error(error)
    }
}

impl Failure {
    /// The error for a call that makes only one condition.
    pub(crate) fn error(self) -> Error {
        match self {
            Failure::Condition { cause, .. } => cause,
            Failure::Error(error) => error,
        }
    }

    /// The error for a batch, which names the operation whose condition does not hold.
    pub(crate) fn batch_error(self) -> Error {
        match self {
            Failure::Condition { op, cause } => Error::BatchConflict { op, cause: Box::new(cause) },
            Failure::Error(error) => error,
        }
    }
}

/// The outcome of work whose leader has panicked.
pub(super) fn abandoned() -> Outcome {
    Err(Error::indeterminate("write", io::Error::other("the thread that was writing for this one panicked")).into())
}
