//! Promises of time, on a clock that the tests move.

mod intervals;
mod waits;
