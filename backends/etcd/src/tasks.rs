//! [`Tasks`]: the runtime of a store, on a thread of its own.

use std::future::Future;
use std::io;
use std::sync::mpsc;

use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;

/// Runs the tasks of a store. Callers wait for them on a channel of the standard library, which is allowed everywhere: in a task of
/// another runtime, where `block_on` would panic, in `spawn_blocking`, and in a thread without a runtime.
pub(crate) struct Tasks {
    /// Taken by `drop`.
    runtime: Option<Runtime>,
    /// A forked child has the runtime's memory, but not its thread.
    process: u32,
}

impl Tasks {
    pub(crate) fn new() -> io::Result<Tasks> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("caskfile-etcd").enable_all().build()?;
        Ok(Tasks { runtime: Some(runtime), process: std::process::id() })
    }

    /// Returns whether this is the process that opened the store.
    pub(crate) fn are_here(&self) -> bool {
        std::process::id() == self.process
    }

    /// Runs a future and waits for its result. `None` if it has panicked.
    pub(crate) fn wait<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.spawn(async move {
            // The receiver waits until it has the result, or this sender is dropped by a panic.
            let _ = sender.send(future.await);
        });
        receiver.recv().ok()
    }

    /// Runs a future beside the callers.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let runtime = self.runtime.as_ref().expect("it is taken by drop only");
        runtime.spawn(future).abort_handle()
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        match self.are_here() {
            // Does not wait, so a store can be dropped in a task of any runtime, this one included.
            true => runtime.shutdown_background(),
            false => std::mem::forget(runtime),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_a_task_is_no_result_and_the_next_task_runs() {
        let tasks = Tasks::new().unwrap();
        assert_eq!(tasks.wait(async { 1 }), Some(1));
        let panicked: Option<()> = tasks.wait(async { panic!("on purpose") });
        assert_eq!(panicked, None);
        assert_eq!(tasks.wait(async { 2 }), Some(2));
    }

    #[test]
    fn it_is_used_and_dropped_inside_of_other_runtimes() {
        let other = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        other.block_on(async {
            let tasks = Tasks::new().unwrap();
            assert_eq!(tasks.wait(async { 1 }), Some(1));
            let tasks = tokio::task::spawn_blocking(move || {
                assert_eq!(tasks.wait(async { 2 }), Some(2));
                tasks
            });
            drop(tasks.await.unwrap());
        });
        // The last owner can be a task of the runtime itself.
        let tasks = std::sync::Arc::new(Tasks::new().unwrap());
        let (sender, receiver) = mpsc::channel();
        let own = std::sync::Arc::clone(&tasks);
        tasks.spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            drop(own);
            sender.send(()).unwrap();
        });
        drop(tasks);
        receiver.recv().unwrap();
    }
}
