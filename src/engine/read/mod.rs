//! Reading: the current view, keeping up with other processes, and scans.

pub(crate) mod by_index;
mod partial_tail;
pub(crate) mod scan;
pub(crate) mod sharded;
pub(crate) mod view;
