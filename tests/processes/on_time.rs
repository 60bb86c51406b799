//! Promises of time, on a clock that the tests move.

mod busy;
mod in_line;
mod intervals;
mod noticed;
mod waits;
