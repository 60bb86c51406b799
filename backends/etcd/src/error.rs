//! [`EtcdError`], and what an error of a call says about whether the call has happened.

use std::error::Error as StdError;
use std::time::Duration;

use caskfile::Error;
use tonic::Code;

/// An error of the cluster or of the way to it.
///
/// A call returns it inside a [`caskfile::Error`]: in [`Error::Other`] if nothing was written, in [`Error::Indeterminate`] if that is not
/// known. [`EtcdError::of`] finds it in both.
///
/// ```
/// use caskfile::Config;
/// use caskfile_etcd::{EtcdConfig, EtcdError};
///
/// // No server is there.
/// let config = Config::new().connection_timeout(std::time::Duration::from_millis(200));
/// let error = EtcdConfig::new(["127.0.0.1:1"]).open(&config).unwrap_err();
/// assert!(matches!(EtcdError::of(&error), Some(EtcdError::Unavailable { .. })));
/// assert!(!error.is_indeterminate());
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EtcdError {
    /// No member has carried out the call within the connection timeout. Nothing was written. The same call may succeed later.
    #[error("no member of the cluster has carried out the call in {waited:?}; the last one: {last}")]
    Unavailable {
        /// How long the call tried.
        waited: Duration,
        /// What the last member answered, or why it did not.
        last: String,
    },

    /// The request was sent, and no answer came in time.
    #[error("the request was sent, and no answer came for {waited:?}")]
    NoAnswer {
        /// How long the call waited.
        waited: Duration,
    },

    /// The request was sent, and then the connection broke off, or the member answered that it does not know the outcome.
    #[error("the request was sent, and its outcome is not known: {message}")]
    Unknown {
        /// What the connection or the member said.
        message: String,
    },

    /// The cluster refuses the call: the user may not do this, the disk quota is used up, a limit of the server is lower than that of this
    /// library. Nothing was written.
    #[error("etcd refuses the call: {message}")]
    Refused {
        /// The status in words of gRPC, such as `PermissionDenied`.
        code: String,
        /// The server's message.
        message: String,
    },

    /// The cluster has forgotten what this handle has seen: its revision is lower than before, as after a restore of a snapshot. Every later call
    /// of this handle returns this error. Open the store again, after looking at what is there.
    #[error(
        "the cluster's revision went back from {seen} to {found}: it was restored or made again; open the store again"
    )]
    RevisionBack {
        /// The highest revision that the handle has seen.
        seen: u64,
        /// The revision that the cluster has answered with.
        found: u64,
    },

    /// Another cluster answers at this address. Every later call of this handle returns this error.
    #[error("another cluster answers: {found:x} in place of {seen:x}; open the store again")]
    OtherCluster {
        /// The id of the cluster when the store was opened.
        seen: u64,
        /// The id of the cluster that answers now.
        found: u64,
    },

    /// The configuration cannot be used.
    #[error("{what}")]
    Config {
        /// What is wrong with it.
        what: String,
    },

    /// A task of this library has panicked. That is a mistake of the library.
    #[error("a task of the etcd backend has panicked")]
    Panicked,
}

impl EtcdError {
    /// Returns the error of this backend that is inside of an error of the contract, if there is one. See [`EtcdError`] for an example.
    pub fn of(error: &Error) -> Option<&EtcdError> {
        match error {
            Error::Other(inner) | Error::Indeterminate { cause: inner, .. } => inner.downcast_ref(),
            _ => None,
        }
    }

    /// The wanted revision is no longer there.
    pub(crate) fn is_compacted(&self) -> bool {
        matches!(self, EtcdError::Refused { message, .. } if message.contains("required revision has been compacted"))
    }

    /// The answer is longer than a message may be, here or on the way.
    pub(crate) fn is_answer_too_large(&self) -> bool {
        let too_large =
            |message: &str| message.contains("message length too large") || message.contains("larger than max");
        matches!(self, EtcdError::Refused { message, .. } if too_large(message))
    }

    /// The lease is over, or was revoked.
    pub(crate) fn is_lease_gone(&self) -> bool {
        matches!(self, EtcdError::Refused { message, .. } if message.contains("requested lease not found"))
    }

    pub(crate) fn refused(error: &etcd_client::Error) -> EtcdError {
        match error {
            etcd_client::Error::GRpcStatus(status) => {
                EtcdError::Refused { code: format!("{:?}", status.code()), message: status.message().to_owned() }
            }
            error => EtcdError::Refused { code: "Client".to_owned(), message: error.to_string() },
        }
    }
}

/// Why a call has no result.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// It has not happened and will not.
    NotDone(EtcdError),
    /// It may have happened, may still happen, or never.
    Unknown(EtcdError),
}

impl Failure {
    /// The error of the contract, for this method.
    pub(crate) fn of(self, call: &'static str) -> Error {
        match self {
            Failure::NotDone(error) => Error::other(error),
            Failure::Unknown(error) => Error::indeterminate(call, error),
        }
    }

    /// The error of a call that only reads, of which nothing can have happened.
    pub(crate) fn of_read(self) -> Error {
        match self {
            Failure::NotDone(error) | Failure::Unknown(error) => Error::other(error),
        }
    }

    pub(crate) fn inner(&self) -> &EtcdError {
        match self {
            Failure::NotDone(error) | Failure::Unknown(error) => error,
        }
    }
}

/// What an error of the client says about its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It was not carried out. Another member, or a later time, may do it.
    Passes,
    /// As `Passes`, once the user is authenticated again.
    Authenticate,
    /// It was not carried out, and will not be at any member.
    Refused,
    /// It was carried out, or only read, and its answer is longer than a message may be, at any member.
    TooLarge,
    /// It may have been carried out.
    Unknown,
}

/// Messages with which a member answers before it proposes a request to the others.
const BEFORE_THE_PROPOSAL: [&str; 3] =
    ["etcdserver: no leader", "etcdserver: too many requests", "etcdserver: not capable"];

/// Answers with these codes are given before a proposal, or by every member alike when it is applied and found not to be allowed. Only
/// messages of the server itself count, since a proxy may use the codes in its own way.
const DECIDED: [Code; 8] = [
    Code::InvalidArgument,
    Code::NotFound,
    Code::AlreadyExists,
    Code::PermissionDenied,
    Code::FailedPrecondition,
    Code::OutOfRange,
    Code::ResourceExhausted,
    Code::Unauthenticated,
];

/// Only what certainly was not carried out is `Passes` or `Refused`. Everything else is unknown, such as "request timed out", "leader changed"
/// and a connection that breaks off: the proposal may be in the log of the others.
pub(crate) fn verdict(error: &etcd_client::Error) -> Verdict {
    use etcd_client::Error as E;
    match error {
        E::InvalidArgs(_) | E::InvalidUri(_) | E::InvalidMetadataValue(_) => Verdict::Refused,
        E::TransportError(_) | E::EndpointError(_) => Verdict::Passes,
        E::GRpcStatus(status) if is_of_connecting(status) => Verdict::Passes,
        E::GRpcStatus(status) => verdict_of(status.code(), status.message()),
        _ => Verdict::Unknown,
    }
}

fn verdict_of(code: Code, message: &str) -> Verdict {
    if BEFORE_THE_PROPOSAL.iter().any(|known| message.starts_with(known)) {
        return Verdict::Passes;
    }
    let of_the_server = message.starts_with("etcdserver:");
    if of_the_server && (message.contains("revision of auth store is old") || message.contains("invalid auth token")) {
        return Verdict::Authenticate;
    }
    // The limits of messages: of answers, by the client's library and the server's, and of requests.
    if message.contains("decoded message length too large") || message.contains("send message larger than max") {
        return Verdict::TooLarge;
    }
    let too_large = message.contains("larger than max") || message.contains("message length too large");
    match DECIDED.contains(&code) && (of_the_server || too_large) {
        true => Verdict::Refused,
        false => Verdict::Unknown,
    }
}

/// Whether there was no connection yet that the request could have been sent on.
fn is_of_connecting(status: &tonic::Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_certainly_not_carried_out_may_be_repeated() {
        use Code as C;
        use Verdict as V;
        for (code, message, expected) in [
            (C::Unavailable, "etcdserver: no leader", V::Passes),
            (C::ResourceExhausted, "etcdserver: too many requests", V::Passes),
            (C::Unavailable, "etcdserver: request timed out", V::Unknown),
            (C::Unavailable, "etcdserver: request timed out, possibly due to previous leader failure", V::Unknown),
            (C::Unavailable, "etcdserver: leader changed", V::Unknown),
            (C::Unavailable, "etcdserver: server stopped", V::Unknown),
            (C::Unavailable, "tcp connect error", V::Unknown),
            (C::Unknown, "transport error", V::Unknown),
            (C::Cancelled, "etcdserver: request cancelled", V::Unknown),
            (C::DeadlineExceeded, "etcdserver: context deadline exceeded", V::Unknown),
            (C::Internal, "etcdserver: corrupt cluster", V::Unknown),
            (C::Unknown, "raft proposal dropped", V::Unknown),
            (C::InvalidArgument, "etcdserver: request is too large", V::Refused),
            (C::InvalidArgument, "a proxy says so", V::Unknown),
            (C::NotFound, "etcdserver: requested lease not found", V::Refused),
            (C::PermissionDenied, "etcdserver: permission denied", V::Refused),
            (C::ResourceExhausted, "etcdserver: mvcc: database space exceeded", V::Refused),
            (C::OutOfRange, "etcdserver: mvcc: required revision has been compacted", V::Refused),
            (
                C::OutOfRange,
                "Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes",
                V::TooLarge,
            ),
            (C::ResourceExhausted, "grpc: trying to send message larger than max (9 vs. 8)", V::TooLarge),
            (
                C::OutOfRange,
                "Error, encoded message length too large: found 9 bytes, the limit is: 8 bytes",
                V::Refused,
            ),
            (C::ResourceExhausted, "grpc: received message larger than max (9 vs. 8)", V::Refused),
            (C::Unauthenticated, "etcdserver: invalid auth token", V::Authenticate),
            (C::InvalidArgument, "etcdserver: revision of auth store is old", V::Authenticate),
        ] {
            assert_eq!(verdict_of(code, message), expected, "{code:?}: {message}");
        }
        let io = etcd_client::Error::IoError(std::io::ErrorKind::ConnectionReset.into());
        assert_eq!(verdict(&io), V::Unknown);
    }
}
