//! What is told through the crate `log`, if the feature `log` is on.
//!
//! Told is what nobody is told otherwise: an error that a call returns is left to its caller. The target is `caskfile`,
//! every message begins with the path, and none has a key or a value in it.
//!
//! | level | event |
//! | --- | --- |
//! | error | a handle is poisoned: a sync or a cut has failed |
//! | warn | a torn tail was cut off, and where it was kept; closing or a compaction in the background has failed |
//! | info | compacted; backed up; salvaged; reopened; another process has cut the log; a leftover was removed |
//! | debug | opened; closed; another process has compacted the store |

/// `event!(warn, "…", …)`: as the macros of `log`; without the feature, nothing, but the same things are in use.
macro_rules! event {
    ($level:ident, $($message:tt)+) => {{
        #[cfg(feature = "log")]
        ::log::$level!(target: "caskfile", $($message)+);
        #[cfg(not(feature = "log"))]
        let _ = || format_args!($($message)+).to_string();
    }};
}

pub(crate) use event;
