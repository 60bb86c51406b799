//! Promises about several handles that are open at once, in one process or in several.

use super::calls::Game;
use super::threads::{count_with, create_with, list_with, number_with, read_with, see_with, use_pairs_with};
use super::{Fixture, create, get, list, ok, put};
use crate::{Error, Store};

/// A call that starts after a write has returned sees it, through any handle.
pub fn one_handle_reads_what_another_wrote(fixture: &dyn Fixture) {
    let (one, other) = (fixture.open(), fixture.open());
    put(&*one, b"key", b"value");
    assert_eq!(get(&*other, b"key"), get(&*one, b"key"), "a put must be seen through every handle");
    let replaced = ok(other.atomic_put(b"key", b"new", Some(&get(&*other, b"key"))), "atomic_put");
    assert_eq!(list(&*one, b""), [replaced], "an atomic_put must be listed through every handle");
    ok(one.delete(b"key"), "delete");
    assert!(!ok(other.exists(b"key"), "exists"), "a delete must be seen through every handle");
    assert_refused!(other.get(b"key"), Error::KeyNotFound, "get of a key that another handle deleted");
    assert_eq!(list(&*other, b""), [], "a delete must be seen by list through every handle");
}

/// One sequence for the store, not one for each handle.
pub fn last_index_grows_across_handles(fixture: &dyn Fixture) {
    let handles = [fixture.open(), fixture.open(), fixture.open()];
    let mut highest = 0;
    for turn in 0..12 {
        // Each write uses another handle and another key than the one before.
        let key = [b"a", b"b"][turn % 2];
        put(&*handles[turn % 3], key, b"value");
        let pair = get(&*handles[(turn + 1) % 3], key);
        assert!(
            pair.last_index > highest,
            "last_index must grow across handles, but {highest} was followed by {pair:?}"
        );
        highest = pair.last_index;
    }
}

/// A pair belongs to the store, not to the handle that read it.
pub fn a_pair_of_one_handle_swaps_through_another(fixture: &dyn Fixture) {
    let (one, other) = (fixture.open(), fixture.open());
    let created = create(&*one, b"key", b"value");
    let swapped = ok(other.atomic_put(b"key", b"new", Some(&created)), "atomic_put with another handle's pair");
    ok(one.atomic_delete(b"key", Some(&swapped)), "atomic_delete with another handle's pair");
}

/// A handle that has not read the key since does not trust its old pair.
pub fn a_pair_that_another_handle_made_stale_is_refused(fixture: &dyn Fixture) {
    let (one, other) = (fixture.open(), fixture.open());
    let stale = create(&*one, b"key", b"value");
    put(&*other, b"key", b"value");
    assert_refused!(
        one.atomic_put(b"key", b"x", Some(&stale)),
        Error::KeyModified,
        "swapping what another handle wrote"
    );
    ok(other.delete(b"key"), "delete");
    assert_refused!(one.atomic_put(b"key", b"x", Some(&stale)), Error::KeyNotFound, "swapping what another deleted");
    let current = create(&*other, b"key", b"value");
    assert_refused!(one.atomic_put(b"key", b"x", None), Error::KeyExists, "creating what another handle created");
    assert_refused!(one.atomic_delete(b"key", Some(&stale)), Error::KeyModified, "deleting what another re-created");
    assert_eq!(get(&*one, b"key"), current, "a refused write must leave the pair as it is");
}

/// Handles that were opened separately are closed separately.
pub fn closing_one_handle_leaves_the_other_open(fixture: &dyn Fixture) {
    let (one, other) = (fixture.open(), fixture.open());
    put(&*one, b"key", b"value");
    ok(one.close(), "close");
    assert_refused!(one.get(b"key"), Error::Closed, "get on the closed handle");
    assert_eq!(get(&*other, b"key").value, b"value", "the other handle must stay open");
    put(&*other, b"key", b"new");
    assert_eq!(get(&*fixture.open(), b"key").value, b"new", "what the other handle writes must be kept");
}

/// Compare-and-swap works between handles as between threads.
pub fn concurrent_increments_through_several_handles_are_all_counted(fixture: &dyn Fixture) {
    let handles = [fixture.open(), fixture.open(), fixture.open()];
    count_with(&handles.each_ref().map(|store| &**store as &dyn Store));
}

/// Creating works between handles as between threads.
pub fn one_of_the_concurrent_creators_through_several_handles_wins(fixture: &dyn Fixture) {
    let handles = [fixture.open(), fixture.open(), fixture.open()];
    create_with(&handles.each_ref().map(|store| &**store as &dyn Store));
}

/// A pair is good for one write, whichever handle uses it.
pub fn one_of_the_concurrent_users_of_a_pair_through_several_handles_wins(fixture: &dyn Fixture) {
    let handles = [fixture.open(), fixture.open(), fixture.open()];
    use_pairs_with(&handles.each_ref().map(|store| &**store as &dyn Store));
}

/// One sequence for the store, also when several handles write at once.
pub fn no_two_concurrent_writes_through_several_handles_get_the_same_last_index(fixture: &dyn Fixture) {
    let handles = [fixture.open(), fixture.open(), fixture.open()];
    number_with(&handles.each_ref().map(|store| &**store as &dyn Store));
}

/// Listings and reads beside a writer that has another handle.
pub fn reads_beside_another_handle_show_one_moment_and_whole_writes(fixture: &dyn Fixture) {
    let (one, other) = (fixture.open(), fixture.open());
    list_with(&*one, &*other);
    read_with(&*one, &*other);
    ok(one.delete(b"key"), "delete");
    for key in [b"k/m", b"k/a", b"k/z"] {
        ok(one.delete(key), "delete");
    }
    see_with(&*one, &*other);
}

/// As [`calls::random_calls_agree_with_a_map`](super::calls::random_calls_agree_with_a_map), through three handles in turn.
pub fn random_calls_through_several_handles_agree_with_a_map(fixture: &dyn Fixture) {
    Game::new(0x5eed).play(fixture, 3);
}
