//! Events for the crate `log`, with the feature `log`.
//!
//! Only what no caller learns otherwise is an event: an error that a call returns is not one. The target is `caskfile`.
//! Every message begins with the path, and none contains a key or a value.
//!
//! | level | event |
//! | --- | --- |
//! | error | a sync or a cut has failed, which poisons the handle |
//! | warn | a torn tail was cut off, and where it was kept; closing or a compaction in the background has failed |
//! | info | compacted; backed up; salvaged; reopened; another process has cut the log; a leftover was removed |
//! | debug | opened; closed; another process has compacted the store |

/// `event!(warn, "…", …)` calls the macro of `log`. Without the feature it does nothing, but its arguments count as used.
macro_rules! event {
    ($level:ident, $($message:tt)+) => {{
        #[cfg(feature = "log")]
        ::log::$level!(target: "caskfile", $($message)+);
        #[cfg(not(feature = "log"))]
        let _ = || format_args!($($message)+).to_string();
    }};
}

pub(crate) use event;
