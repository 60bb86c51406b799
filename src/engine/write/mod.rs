//! Writing: the queue, the file lock, the turn, and what a turn does.

pub(crate) mod commit;
pub(crate) mod file_lock;
pub(crate) mod numbering;
pub(crate) mod queue;
pub(crate) mod sync;
pub(crate) mod turn;
