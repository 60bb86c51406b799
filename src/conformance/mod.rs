//! The contract of [`Store`] as a suite for the tests of any backend (feature `testing`).
//!
//! A [`Fixture`] opens the backend's stores, and [`run`] checks every promise on a fresh, empty one. Each promise is a public
//! function too, which can be run alone, and [`PROMISES`] lists them, so that a backend can make a test of each.
//!
//! ```
//! use std::sync::Arc;
//!
//! use caskfile::conformance::{self, Fixture};
//! use caskfile::{Config, Durability, Store, new_store};
//!
//! struct OneFile(std::path::PathBuf);
//!
//! impl Fixture for OneFile {
//!     fn open(&self) -> Arc<dyn Store> {
//!         // Without syncs the suite is quick.
//!         new_store("caskfile", &self.0, &Config::new().durability(Durability::Os)).unwrap()
//!     }
//!
//!     fn persistent(&self) -> bool {
//!         true
//!     }
//! }
//!
//! impl Drop for OneFile {
//!     fn drop(&mut self) {
//!         let _ = std::fs::remove_file(&self.0);
//!     }
//! }
//!
//! let mut files = 0;
//! conformance::run(|| {
//!     files += 1;
//!     OneFile(std::env::temp_dir().join(format!("caskfile-doc-conformance-{}-{files}", std::process::id())))
//! });
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::{Error, KvPair, LockOptions, PutOptions, Result, Store};

/// Succeeds only on the error that the contract names for this case.
macro_rules! assert_refused {
    ($result:expr, $error:pat $(if $guard:expr)?, $what:expr) => {
        match $result {
            Err($error) $(if $guard)? => {}
            other => panic!("{} must be Err({}), but gave {other:?}", $what, stringify!($error $(if $guard)?)),
        }
    };
}

pub mod atomic;
pub mod beside;
pub mod calls;
pub mod closing;
mod effort;
pub mod expiring;
pub mod feeds;
pub mod index;
pub mod keys;
pub mod list;
pub mod locks;
pub mod pairs;
pub mod reopened_locks;
pub mod reopening;
pub mod shared_feeds;
pub mod shared_locks;
pub mod sharing;
pub mod threads;
pub mod tree_feeds;
pub mod trees;

/// How long something may take that must happen, so that a backend which never does it is refused. Nothing is refused for being slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// A place for one store of a backend: a file, a namespace of a server, a map.
///
/// It must be empty at the beginning. A method that fails panics.
///
/// ```
/// use std::sync::Arc;
///
/// use caskfile::conformance::{Fixture, PROMISES};
/// use caskfile::{Config, Store, new_store};
///
/// struct OneFile(std::path::PathBuf);
///
/// impl Fixture for OneFile {
///     fn open(&self) -> Arc<dyn Store> {
///         new_store("caskfile", &self.0, &Config::new()).unwrap()
///     }
/// }
///
/// let path = std::env::temp_dir().join(format!("caskfile-doc-fixture-{}", std::process::id()));
/// let fixture = OneFile(path.clone());
/// let promise = PROMISES.iter().find(|promise| promise.name == "pairs::an_empty_value_is_a_value").unwrap();
/// assert!(promise.applies_to(&fixture));
/// (promise.check)(&fixture);
/// # std::fs::remove_file(path).unwrap();
/// ```
pub trait Fixture {
    /// Opens the store. If the fixture is [`persistent`](Fixture::persistent) or [`shared`](Fixture::shared), each call
    /// returns a new handle of the same store; otherwise it is called once.
    fn open(&self) -> Arc<dyn Store>;

    /// Returns whether pairs survive the closing of the store. The default is `false`; the promises of [`reopening`] are not
    /// checked then.
    fn persistent(&self) -> bool {
        false
    }

    /// Returns whether several handles may be open and write at once. The default is `false`; the promises of [`sharing`] are
    /// not checked then.
    fn shared(&self) -> bool {
        false
    }

    /// Returns other stores beside this one, which share its file or its server: other buckets, or other roots. They must be empty at the
    /// beginning. Each call returns handles of the same stores. The default is none; the promises of [`beside`] are not checked then.
    fn neighbours(&self) -> Vec<Arc<dyn Store>> {
        Vec::new()
    }

    /// Returns a time to live of a lock that is short for the backend, and that it keeps as it is: the promises about renewals wait until
    /// it is over. The default is a second. A shorter one makes the suite quicker, unless renewals come too late on a busy machine.
    fn short_ttl(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// Returns how long the promises about locks wait for what must happen. The default is half a minute. Nothing is refused for being
    /// slow, so it is long beside what the backend needs.
    fn patience(&self) -> Duration {
        PATIENCE
    }

    /// Looks for damage, after each promise that was kept and when all handles are dropped. The default does nothing.
    fn check(&self) {}
}

/// What a promise needs from a fixture. See [`Fixture`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Needs {
    /// One handle.
    Nothing,
    /// [`Fixture::persistent`].
    Persistent,
    /// [`Fixture::shared`].
    Shared,
    /// [`Fixture::neighbours`].
    Neighbours,
}

/// A call that an implementation of [`Store`] need not have.
///
/// ```
/// use caskfile::conformance::Call;
///
/// # let path = std::env::temp_dir().join(format!("caskfile-doc-call-{}", std::process::id()));
/// let cask = caskfile::Cask::open(&path)?;
/// assert!(Call::Watch.is_supported_by(&cask));
/// assert_eq!(Call::WatchTree.name(), "watch_tree");
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// [`Store::put_with`].
    PutWith,
    /// [`Store::delete_tree`].
    DeleteTree,
    /// [`Store::watch`].
    Watch,
    /// [`Store::watch_tree`].
    WatchTree,
    /// [`Store::new_lock`].
    NewLock,
}

impl Call {
    const ALL: [Call; 5] = [Call::PutWith, Call::DeleteTree, Call::Watch, Call::WatchTree, Call::NewLock];

    /// Returns the name of the method. See [`Call`] for an example.
    pub fn name(self) -> &'static str {
        match self {
            Call::PutWith => "put_with",
            Call::DeleteTree => "delete_tree",
            Call::Watch => "watch",
            Call::WatchTree => "watch_tree",
            Call::NewLock => "new_lock",
        }
    }

    /// Makes the call, with the key `"key"`, and returns whether the store has it. The store may have a pair more or less after that.
    ///
    /// See [`Call`] for an example.
    pub fn is_supported_by(self, store: &dyn Store) -> bool {
        let result = match self {
            Call::PutWith => store.put_with(b"key", b"", &PutOptions::new()).map(drop),
            Call::DeleteTree => store.delete_tree(b"key").map(drop),
            Call::Watch => store.watch(b"key").map(drop),
            Call::WatchTree => store.watch_tree(b"key").map(drop),
            Call::NewLock => store.new_lock(b"key", &LockOptions::new()).map(drop),
        };
        !matches!(result, Err(Error::CallNotSupported { .. }))
    }
}

/// One promise of the contract. See [`Fixture`] for an example.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Promise {
    /// Its group and its sentence: `"list::the_empty_prefix_lists_everything"`.
    pub name: &'static str,
    /// What it needs from a fixture.
    pub needs: Needs,
    /// The call that it is about, if a store need not have that.
    pub call: Option<Call>,
    /// Panics if the promise is broken. The fixture must be a fresh one.
    pub check: fn(&dyn Fixture),
}

impl Promise {
    /// Returns whether the fixture has what the promise [`needs`](Promise::needs). See [`Fixture`] for an example.
    pub fn applies_to(&self, fixture: &dyn Fixture) -> bool {
        match self.needs {
            Needs::Nothing => true,
            Needs::Persistent => fixture.persistent(),
            Needs::Shared => fixture.shared(),
            Needs::Neighbours => !fixture.neighbours().is_empty(),
        }
    }
}

macro_rules! call {
    (Required) => {
        None
    };
    ($call:ident) => {
        Some(Call::$call)
    };
}

macro_rules! promises {
    ($($group:ident($needs:ident, $call:ident) { $($name:ident,)+ })+) => {
        &[$($(Promise {
            name: concat!(stringify!($group), "::", stringify!($name)),
            needs: Needs::$needs,
            call: call!($call),
            check: $group::$name,
        },)+)+]
    };
}

/// Every promise of the contract. See [`Fixture`] for an example.
pub const PROMISES: &[Promise] = promises! {
    pairs(Nothing, Required) {
        get_returns_what_was_put,
        get_of_an_absent_key_is_key_not_found,
        exists_finds_present_keys_only,
        put_replaces_any_value,
        put_leaves_other_keys_as_they_are,
        an_empty_value_is_a_value,
        a_value_is_any_bytes,
        a_value_of_any_length_comes_back_whole,
        a_value_of_a_mebibyte_comes_back_whole,
        a_value_at_the_limit_is_kept_and_a_longer_one_refused,
        delete_removes_the_key_and_no_other,
        delete_of_an_absent_key_is_ok,
    }
    keys(Nothing, Required) {
        a_key_is_any_bytes,
        keys_that_look_alike_are_different_keys,
        long_keys_that_differ_in_one_byte_are_different_keys,
        every_call_refuses_an_empty_key,
        a_key_at_the_limit_is_kept_and_a_longer_one_refused,
        the_limit_of_keys_counts_bytes,
    }
    list(Nothing, Required) {
        without_a_match_the_list_is_empty,
        the_empty_prefix_lists_everything,
        the_key_that_equals_the_prefix_belongs_to_it,
        a_prefix_is_bytes_and_not_a_path,
        a_prefix_matches_only_its_own_bytes,
        a_prefix_of_0xff_bytes_lists_its_keys,
        a_prefix_longer_than_any_key_finds_nothing,
        keys_come_in_the_order_of_their_bytes,
        a_listing_holds_what_get_returns,
        a_listing_has_each_key_once,
        a_listing_of_thousands_of_pairs_is_complete,
        a_listing_shows_every_change_since_the_last_one,
    }
    atomic(Nothing, Required) {
        atomic_put_without_previous_creates_the_key,
        atomic_put_without_previous_refuses_a_key_that_exists,
        atomic_put_with_the_current_pair_replaces_it,
        atomic_put_with_previous_of_an_absent_key_is_key_not_found,
        atomic_put_with_a_stale_pair_is_key_modified,
        atomic_delete_with_the_current_pair_deletes_it,
        atomic_delete_without_previous_is_refused,
        atomic_delete_of_an_absent_key_is_key_not_found,
        atomic_delete_with_a_stale_pair_is_key_modified,
        a_pair_stays_stale_after_delete_and_re_create,
        only_last_index_of_the_previous_pair_is_compared,
        any_other_last_index_is_refused,
    }
    index(Nothing, Required) {
        last_index_grows_with_each_write_to_any_key,
        last_index_grows_across_delete_and_re_create,
        no_two_pairs_share_a_last_index,
        the_same_value_again_gets_a_new_last_index,
        last_index_stays_while_nothing_is_written,
    }
    calls(Nothing, Required) {
        random_calls_agree_with_a_map,
    }
    closing(Nothing, Required) {
        closing_twice_is_ok,
        every_call_after_close_is_closed,
        closed_comes_before_every_other_error,
        close_closes_every_clone_of_the_handle,
        a_close_beside_calls_ends_them,
    }
    threads(Nothing, Required) {
        concurrent_increments_are_all_counted,
        one_of_the_concurrent_creators_wins,
        one_of_the_concurrent_users_of_a_pair_wins,
        no_two_concurrent_writes_get_the_same_last_index,
        every_listing_is_one_moment,
        reads_beside_a_writer_show_whole_writes,
        a_write_that_has_returned_is_seen_by_every_thread,
        writes_beside_a_key_leave_it_as_it_is,
    }
    reopening(Persistent, Required) {
        reopening_keeps_pairs_and_their_last_index,
        reopening_keeps_deletions,
        dropping_the_last_handle_keeps_all_writes,
        no_last_index_is_assigned_again_after_reopening,
        a_pair_from_before_reopening_still_swaps,
        a_stale_pair_from_before_reopening_is_refused,
        reopening_keeps_thousands_of_pairs,
        a_closed_handle_does_not_disturb_the_next_one,
        a_close_beside_writers_keeps_what_they_wrote,
        random_calls_across_reopening_agree_with_a_map,
    }
    sharing(Shared, Required) {
        one_handle_reads_what_another_wrote,
        last_index_grows_across_handles,
        a_pair_of_one_handle_swaps_through_another,
        a_pair_that_another_handle_made_stale_is_refused,
        closing_one_handle_leaves_the_other_open,
        concurrent_increments_through_several_handles_are_all_counted,
        one_of_the_concurrent_creators_through_several_handles_wins,
        one_of_the_concurrent_users_of_a_pair_through_several_handles_wins,
        no_two_concurrent_writes_through_several_handles_get_the_same_last_index,
        reads_beside_another_handle_show_one_moment_and_whole_writes,
        random_calls_through_several_handles_agree_with_a_map,
    }
    expiring(Nothing, PutWith) {
        put_with_returns_the_pair_that_get_returns,
        a_pair_is_there_until_its_time_is_over,
        a_pair_is_absent_once_its_time_is_over,
        a_plain_put_makes_the_pair_stay,
        a_time_of_zero_is_refused,
        put_with_refuses_what_put_refuses,
    }
    trees(Nothing, DeleteTree) {
        delete_tree_takes_what_list_lists_and_says_how_many,
        delete_tree_without_a_match_is_ok,
        delete_tree_of_the_empty_prefix_empties_the_store,
        delete_tree_of_0xff_bytes_takes_its_keys,
        delete_tree_after_close_is_closed,
    }
    feeds(Nothing, Watch) {
        a_watch_begins_with_the_present_state,
        a_watch_reports_each_change_of_its_key_in_order,
        a_deleted_key_is_absent_and_no_empty_value,
        a_watch_reports_no_other_key,
        no_change_is_lost_between_the_first_state_and_the_watch,
        a_watch_reports_nothing_while_nothing_changes,
        a_write_ends_a_wait,
        a_stopped_watch_ends_and_no_other,
        close_ends_a_watch,
        watch_refuses_an_empty_key,
    }
    tree_feeds(Nothing, WatchTree) {
        a_tree_feed_begins_with_its_list,
        a_tree_feed_reports_puts_and_deletions_in_order,
        a_tree_feed_reports_keys_of_its_prefix_only,
        no_change_is_lost_between_the_list_and_the_feed,
        a_tree_feed_gives_what_list_returns,
        a_tree_feed_ends_when_it_is_stopped_and_when_the_store_is_closed,
    }
    shared_feeds(Shared, WatchTree) {
        a_tree_feed_reports_what_another_handle_writes,
    }
    locks(Nothing, NewLock) {
        a_lock_has_one_holder,
        a_lock_can_be_taken_again_after_unlock,
        the_token_rises_with_each_holder,
        the_key_has_the_value_of_its_holder,
        a_key_that_is_left_has_no_owner,
        unlock_by_a_stranger_is_refused,
        a_lock_that_was_taken_away_is_lost_and_says_so,
        a_renewal_does_not_take_a_lock_back,
        a_lock_is_held_for_longer_than_its_time_to_live,
        a_stopped_wait_ends_and_no_other,
        unlock_ends_a_wait,
        close_ends_waits_and_locks,
        dropping_a_lock_releases_it,
        threads_take_turns,
        new_lock_writes_nothing_and_refuses_what_it_cannot_take,
    }
    shared_locks(Shared, NewLock) {
        a_lock_keeps_out_every_handle,
        the_loss_of_a_lock_is_reported_to_another_handle,
        closing_a_handle_frees_its_locks,
        threads_of_several_handles_take_turns,
    }
    beside(Neighbours, Required) {
        writes_leave_a_store_beside_as_it_is,
    }
    beside(Neighbours, DeleteTree) {
        delete_tree_leaves_a_store_beside_as_it_is,
    }
    beside(Neighbours, Watch) {
        a_watch_reports_no_write_to_a_store_beside,
    }
    beside(Neighbours, WatchTree) {
        a_tree_feed_reports_no_write_to_a_store_beside,
    }
    beside(Neighbours, NewLock) {
        a_lock_keeps_out_none_of_a_store_beside,
    }
    reopened_locks(Persistent, NewLock) {
        a_lock_is_free_after_reopening_and_its_token_rises,
    }
};

/// What [`run`] has left out.
///
/// ```
/// use caskfile::conformance::{self, Fixture};
/// # use std::sync::Arc;
/// # use caskfile::{Config, Durability, Store, new_store};
/// # struct OneFile(std::path::PathBuf);
/// # impl Fixture for OneFile {
/// #     fn open(&self) -> Arc<dyn Store> {
/// #         new_store("caskfile", &self.0, &Config::new().durability(Durability::Os)).unwrap()
/// #     }
/// # }
/// # impl Drop for OneFile {
/// #     fn drop(&mut self) {
/// #         let _ = std::fs::remove_file(&self.0);
/// #     }
/// # }
/// # let mut files = 0;
/// # let fresh = || {
/// #     files += 1;
/// #     OneFile(std::env::temp_dir().join(format!("caskfile-doc-outcome-{}-{files}", std::process::id())))
/// # };
///
/// let outcome = conformance::run(fresh);
/// // A backend that has every call of the contract.
/// assert!(outcome.not_supported.is_empty());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The calls that the backend does not have: their promises were not checked.
    pub not_supported: Vec<Call>,
    /// How many promises were checked, and kept.
    pub kept: usize,
}

/// Checks every promise that applies, each on a new fixture from `fresh`. The [module](self) has an example. Returns what was left out
/// because the backend returns [`Error::CallNotSupported`].
///
/// Goes on after a broken promise, so that one run shows them all. A promise that a call waits, and never ends, is broken after half a
/// minute, if the backend keeps to the timeout.
///
/// Cost: some twenty thousand small writes, most of them from several threads at once; more if the backend is fast.
///
/// # Panics
///
/// If promises are broken, with their names. The panic of each is printed when it happens.
pub fn run<F: Fixture>(mut fresh: impl FnMut() -> F) -> Outcome {
    let (mut broken, mut kept) = (Vec::new(), 0);
    let not_supported: Vec<Call> = {
        let fixture = fresh();
        let store = fixture.open();
        Call::ALL.into_iter().filter(|call| !call.is_supported_by(&*store)).collect()
    };
    for promise in PROMISES.iter().filter(|promise| promise.call.is_none_or(|call| !not_supported.contains(&call))) {
        let fixture = fresh();
        if !promise.applies_to(&fixture) {
            continue;
        }
        // The fixture and its stores are not used after a panic.
        let result = catch_unwind(AssertUnwindSafe(|| {
            (promise.check)(&fixture);
            fixture.check();
        }));
        match result {
            Ok(()) => kept += 1,
            Err(_) => broken.push(promise.name),
        }
    }
    assert!(broken.is_empty(), "promises of the contract that are broken: {broken:#?}");
    Outcome { not_supported, kept }
}

/// Unwraps a result that must be `Ok` here.
#[track_caller]
fn ok<T>(result: Result<T>, what: &str) -> T {
    result.unwrap_or_else(|error| panic!("{what} must succeed, but gave Err({error:?})"))
}

#[track_caller]
fn put(store: &dyn Store, key: &[u8], value: &[u8]) {
    ok(store.put(key, value), "put");
}

#[track_caller]
fn get(store: &dyn Store, key: &[u8]) -> KvPair {
    ok(store.get(key), "get of a key that is there")
}

#[track_caller]
fn create(store: &dyn Store, key: &[u8], value: &[u8]) -> KvPair {
    ok(store.atomic_put(key, value, None), "atomic_put that creates")
}

#[track_caller]
fn list(store: &dyn Store, prefix: &[u8]) -> Vec<KvPair> {
    ok(store.list(prefix), "list")
}

#[track_caller]
fn listed_keys(store: &dyn Store, prefix: &[u8]) -> Vec<Vec<u8>> {
    list(store, prefix).into_iter().map(|pair| pair.key).collect()
}

#[cfg(test)]
mod tests {
    use super::PROMISES;

    #[test]
    fn the_list_of_promises_leaves_no_function_out() {
        let groups = [
            ("atomic", include_str!("atomic.rs")),
            ("beside", include_str!("beside.rs")),
            ("calls", include_str!("calls.rs")),
            ("closing", include_str!("closing.rs")),
            ("expiring", include_str!("expiring.rs")),
            ("feeds", include_str!("feeds.rs")),
            ("index", include_str!("index.rs")),
            ("keys", include_str!("keys.rs")),
            ("list", include_str!("list.rs")),
            ("locks", include_str!("locks.rs")),
            ("pairs", include_str!("pairs.rs")),
            ("reopened_locks", include_str!("reopened_locks.rs")),
            ("reopening", include_str!("reopening.rs")),
            ("shared_feeds", include_str!("shared_feeds.rs")),
            ("shared_locks", include_str!("shared_locks.rs")),
            ("sharing", include_str!("sharing.rs")),
            ("threads", include_str!("threads.rs")),
            ("tree_feeds", include_str!("tree_feeds.rs")),
            ("trees", include_str!("trees.rs")),
        ];
        let mut written: Vec<String> = Vec::new();
        for (group, source) in groups {
            let names = source.lines().filter_map(|line| line.strip_prefix("pub fn ")?.split('(').next());
            written.extend(names.map(|name| format!("{group}::{name}")));
        }
        written.sort();

        let mut listed: Vec<&str> = PROMISES.iter().map(|promise| promise.name).collect();
        listed.sort();
        assert_eq!(listed, written);
    }
}
