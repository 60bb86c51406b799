//! Several processes or handles on one store, some of which are killed or forked.

#[path = "../common/mod.rs"]
mod common;

mod beside_a_writer;
mod bursts;
// Signals, limits of other processes, and locks on bytes that only Linux has.
#[cfg(target_os = "linux")]
mod contended;
mod counters;
mod creators;
// Looks into /proc and sets limits that other systems name differently.
#[cfg(target_os = "linux")]
mod forks;
mod histories;
mod killed;
// Signals, and locks on bytes that only Linux has.
#[cfg(target_os = "linux")]
mod locks;
#[cfg(target_os = "linux")]
mod namespaces;
mod on_time;
mod points;
mod side_by_side;
mod successors;
mod taken_away;
mod taking_turns;
// Counts on inotify and epoll.
#[cfg(target_os = "linux")]
mod watches;
