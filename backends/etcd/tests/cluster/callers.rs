//! Callers of every kind: tasks of other runtimes, threads that block, panics, and a close beside waiting calls.

use std::sync::Arc;
use std::time::Duration;

use caskfile::{Config, Error, LockOptions, Store, new_store};
use tokio::runtime::Builder;

use crate::server::{PATIENCE, shared};

/// Every kind of call, with what it needs from a runtime.
fn use_all(store: &dyn Store) {
    store.put(b"key", b"value").unwrap();
    let pair = store.get(b"key").unwrap();
    store.atomic_put(b"key", b"new", Some(&pair)).unwrap();
    assert_eq!(store.list(b"").unwrap().len(), 1);
    let mut feed = store.watch_tree(b"").unwrap();
    assert!(feed.next_timeout(Some(PATIENCE)).unwrap().is_some());
    assert!(feed.try_next().unwrap().is_none());
    let lock = store.new_lock(b"lock", &LockOptions::new()).unwrap();
    assert!(lock.lock(None).unwrap().is_held());
    lock.unlock().unwrap();
    store.delete_tree(b"").unwrap();
}

#[test]
fn calls_and_drops_are_allowed_in_tasks_in_blocking_threads_and_outside() {
    let open = |root: &str| shared().store(root);
    for threads in [1, 2] {
        let mut builder = if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
        let runtime = builder.enable_all().build().unwrap();
        runtime.block_on(async {
            // In the outermost task, in a task, and in a thread that may block.
            let store = open("callers/1/");
            use_all(&store);
            let store = tokio::spawn(async move {
                use_all(&store);
                store
            });
            let store = store.await.unwrap();
            let store = tokio::task::spawn_blocking(move || {
                use_all(&store);
                store
            });
            let store = store.await.unwrap();
            store.close().unwrap();
            drop(store);

            let store = open("callers/2/");
            let feed = store.watch(b"key").unwrap();
            let lock = store.new_lock(b"lock", &LockOptions::new()).unwrap();
            let held = lock.lock(None).unwrap();
            drop(store);
            assert!(held.is_held());
            drop((feed, lock));
            assert!(!held.is_held());
        });
        let store = open("callers/3/");
        runtime.spawn(async move { drop(store) });
        drop(runtime);
    }
    use_all(&open("callers/4/"));
}

#[test]
fn a_panic_of_a_caller_leaves_the_store_as_it_is() {
    let store = shared().store("panics/");
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    let clone = store.clone();
    let panicked = runtime.block_on(runtime.spawn(async move {
        let lock = clone.new_lock(b"lock", &LockOptions::new()).unwrap();
        let _held = lock.lock(None).unwrap();
        let _feed = clone.watch(b"key").unwrap();
        panic!("on purpose");
    }));
    assert!(panicked.unwrap_err().is_panic());
    // The panic has dropped the lock, and so released it.
    assert!(store.new_lock(b"lock", &LockOptions::new()).unwrap().try_lock().unwrap().is_some());
    use_all(&store);
}

#[test]
fn a_close_ends_all_that_wait() {
    let store = shared().store("closing/");
    let holder = shared().store("closing/");
    let held = holder.new_lock(b"taken", &LockOptions::new()).unwrap();
    held.lock(None).unwrap();
    let own = store.new_lock(b"own", &LockOptions::new()).unwrap();
    let own_held = own.lock(None).unwrap();
    std::thread::scope(|scope| {
        let mut waiting = Vec::new();
        for number in 0..3 {
            let store = &store;
            waiting.push(scope.spawn(move || match number {
                0 => {
                    let mut feed = store.watch(b"key").unwrap();
                    feed.next_timeout(None).unwrap();
                    feed.next_timeout(None).map(drop)
                }
                1 => {
                    let mut feed = store.watch_tree(b"").unwrap();
                    while feed.next_timeout(None)?.is_some() {}
                    Ok(())
                }
                _ => store.new_lock(b"taken", &LockOptions::new()).unwrap().lock(None).map(drop),
            }));
        }
        std::thread::sleep(Duration::from_millis(300));
        store.close().unwrap();
        for waiting in waiting {
            assert!(matches!(waiting.join().unwrap(), Err(Error::Closed)));
        }
    });
    assert!(!own_held.is_held() && own_held.loss().is_lost());
    // The close has given it back.
    let other = holder.new_lock(b"own", &LockOptions::new()).unwrap();
    assert!(other.try_lock().unwrap().is_some());
}

#[test]
fn a_forked_child_is_refused_and_disturbs_nothing() {
    let store = shared().store("forked/");
    store.put(b"key", b"value").unwrap();
    // SAFETY: the child makes calls that are refused before they take a lock or allocate much, and ends without cleaning up.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = matches!(store.get(b"key"), Err(Error::Forked { .. }))
            && matches!(store.put(b"key", b"x"), Err(Error::Forked { .. }));
        drop(store);
        // SAFETY: it ends the process.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    let mut status = 0;
    // SAFETY: it writes to the integer.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
    assert_eq!(store.get(b"key").unwrap().value, b"value");
}

#[test]
fn a_program_changes_its_backend_by_changing_a_string() {
    shared().config().root("by name/").register("etcd").unwrap();
    let file = std::env::temp_dir().join(format!("caskfile-etcd-by-name-{}", std::process::id()));
    for (backend, address) in [("caskfile", file.as_os_str()), ("etcd", "".as_ref())] {
        let store: Arc<dyn Store> = new_store(backend, address, &Config::new()).unwrap();
        use_all(&*store);
        store.close().unwrap();
    }
    std::fs::remove_file(file).unwrap();
}
