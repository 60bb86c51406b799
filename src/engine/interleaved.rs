//! Threads, run one at a time in orders that a checker chooses.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --lib interleaved` tries all orders of up to three threads in the queue;
//! `RUSTFLAGS="--cfg shuttle" cargo test --lib interleaved` tries many orders of threads that use a whole store on the
//! simulated disk. Both find deadlocks as well. See `docs/TESTING.md`.

#[cfg(loom)]
mod queue;
#[cfg(shuttle)]
mod threads;
