//! The references that the crash tests compare with, shown wrong stores, wrong answers and wrong receipts: each must be refused. A
//! reference that takes everything for right would let every bug through.

use std::collections::BTreeMap;
use std::ops::Bound;

use caskfile::KvPair;

use crate::common::history::{BatchPart, Bytes, Call, Change, History, Key, Pair, Refusal, State, predict};
use crate::common::ops::Whole;
use crate::common::player::{Answer, Made, Receipt, answer, check_receipt};
use crate::common::small_history;

fn key(name: &str) -> Key {
    (0, name.as_bytes().to_vec())
}

fn bytes(text: &str) -> Bytes {
    text.as_bytes().into()
}

fn put(name: &str, value: &str) -> Change {
    (key(name), Some(bytes(value)))
}

fn gone(name: &str) -> Change {
    (key(name), None)
}

/// Commits a change whose puts get these indexes.
fn commit(history: &mut History, changes: &[Change], indexes: &[u64]) -> Result<usize, String> {
    let puts = changes.iter().filter(|(_, value)| value.is_some()).map(|(key, _)| key.clone());
    let indexes: BTreeMap<Key, u64> = puts.zip(indexes.iter().copied()).collect();
    history.commit(changes, |key| Ok(indexes.get(key).copied()))
}

/// Four changes, of which the first two are durable: a put, a batch, a delete and a put of a new key.
fn history() -> History {
    let mut history = History::default();
    commit(&mut history, &[put("a", "1")], &[10]).unwrap();
    let durable = commit(&mut history, &[put("b", "2"), put("c", "3")], &[11, 12]).unwrap();
    history.durable_up_to(durable);
    commit(&mut history, &[gone("a")], &[]).unwrap();
    commit(&mut history, &[put("d", "4")], &[14]).unwrap();
    history
}

fn state(pairs: &[(&str, &str, u64)]) -> State {
    pairs.iter().map(|(name, value, index)| (key(name), Pair { value: bytes(value), index: *index })).collect()
}

#[test]
fn the_model_takes_the_states_that_a_power_cut_may_leave() {
    for (at, found) in [
        (2, state(&[("a", "1", 10), ("b", "2", 11), ("c", "3", 12)])),
        (3, state(&[("b", "2", 11), ("c", "3", 12)])),
        (4, state(&[("b", "2", 11), ("c", "3", 12), ("d", "4", 14)])),
    ] {
        assert_eq!(history().find(&found, None), Ok(at));
    }
    // With what was under way, or without it.
    let pending = Call::Write(vec![BatchPart::Put(key("e"), bytes("5")), BatchPart::Delete(key("b"))]);
    assert_eq!(history().find(&state(&[("c", "3", 12), ("d", "4", 14), ("e", "5", 15)]), Some(&pending)), Ok(5));
    assert_eq!(history().find(&state(&[("b", "2", 11), ("c", "3", 12), ("d", "4", 14)]), Some(&pending)), Ok(4));
}

#[test]
fn the_model_refuses_every_wrong_store() {
    for (what, found) in [
        ("nothing is left", state(&[])),
        ("an acknowledged batch is gone", state(&[("a", "1", 10)])),
        ("half of a batch is there", state(&[("a", "1", 10), ("b", "2", 11)])),
        ("half of a batch is gone later", state(&[("c", "3", 12), ("d", "4", 14)])),
        ("a deleted key is back", state(&[("a", "1", 10), ("b", "2", 11), ("c", "3", 12), ("d", "4", 14)])),
        ("a value is another one", state(&[("b", "2", 11), ("c", "x", 12)])),
        ("two values are exchanged", state(&[("b", "3", 11), ("c", "2", 12)])),
        ("an index is another one", state(&[("b", "2", 11), ("c", "3", 13)])),
        ("an index differs in its highest bits", state(&[("b", "2", 11), ("c", "3", 12 | 1 << 40)])),
        ("a key is there that no call wrote", state(&[("b", "2", 11), ("c", "3", 12), ("e", "5", 15)])),
        ("a value has lost its end", state(&[("b", "2", 11), ("c", "", 12)])),
    ] {
        let refused = history().find(&found, None);
        let why = refused.expect_err(what);
        assert!(why.contains("the store is in none of its states from 2 to 4"), "{what}: {why}");
    }
    let in_another_bucket =
        state(&[("b", "2", 11)]).into_iter().chain([((1, b"c".to_vec()), Pair { value: bytes("3"), index: 12 })]);
    history().find(&in_another_bucket.collect(), None).expect_err("a pair is in another bucket");
}

#[test]
fn the_model_refuses_half_of_what_was_under_way() {
    let pending = Call::Write(vec![
        BatchPart::Put(key("e"), bytes("5")),
        BatchPart::Delete(key("b")),
        BatchPart::Put(key("f"), bytes("6")),
    ]);
    let kept = [("c", "3", 12), ("d", "4", 14)];
    for (what, more) in [
        ("without the delete", vec![("b", "2", 11), ("e", "5", 15), ("f", "6", 17)]),
        ("without the last put", vec![("e", "5", 15)]),
        ("without the first put", vec![("f", "6", 17)]),
        ("with an index that was seen", vec![("e", "5", 14), ("f", "6", 17)]),
        ("with indexes in the wrong order", vec![("e", "5", 18), ("f", "6", 17)]),
        ("with another value", vec![("e", "6", 15), ("f", "6", 17)]),
    ] {
        let found = state(&[&kept[..], &more].concat());
        history().find(&found, Some(&pending)).expect_err(what);
    }
    let refused = Call::AtomicPut(key("b"), bytes("x"), Some(3));
    let found = state(&[("b", "x", 15), ("c", "3", 12), ("d", "4", 14)]);
    history().find(&found, Some(&refused)).expect_err("a swap that must be refused has happened");
}

#[test]
fn the_model_refuses_an_index_that_was_seen_before() {
    for (what, changes, indexes) in [
        ("an index for the second time", vec![put("e", "5")], vec![14]),
        ("an index below one that was seen", vec![put("e", "5")], vec![13]),
        ("one index for two records", vec![put("e", "5"), put("f", "6")], vec![15, 15]),
        ("indexes in the wrong order", vec![put("e", "5"), put("f", "6")], vec![16, 15]),
        ("a put that is not there", vec![put("e", "5")], vec![]),
    ] {
        commit(&mut history(), &changes, &indexes).expect_err(what);
    }
    let mut seen = history();
    seen.see(&key("b"), &Pair { value: bytes("2"), index: 11 }).unwrap();
    seen.see(&key("b"), &Pair { value: bytes("x"), index: 11 }).expect_err("one index stands for two values");
    seen.see(&key("e"), &Pair { value: bytes("2"), index: 11 }).expect_err("one index stands for two keys");
    // What a power cut took was seen all the same.
    let mut cut = history();
    cut.settle_at(2);
    commit(&mut cut, &[put("e", "5")], &[14]).expect_err("the index of a write that a power cut took");
}

#[test]
fn the_model_predicts_each_refusal() {
    let state = history().last().as_ref().clone();
    let swap = |name: &str, index| Call::AtomicPut(key(name), bytes("x"), index);
    let delete = |name: &str, index| Call::AtomicDelete(key(name), index);
    let batch = |parts: Vec<BatchPart>| Call::Write(parts);
    let conflict = |op, refusal| Refusal::Conflict(op, Box::new(refusal));
    for (call, refusal) in [
        (swap("b", None), Refusal::KeyExists),
        (swap("b", Some(12)), Refusal::KeyModified),
        (swap("a", Some(10)), Refusal::KeyNotFound),
        (delete("b", None), Refusal::PreviousNotSpecified),
        (delete("a", None), Refusal::PreviousNotSpecified),
        (delete("b", Some(10)), Refusal::KeyModified),
        (delete("a", Some(10)), Refusal::KeyNotFound),
        (
            batch(vec![BatchPart::Put(key("x"), bytes("")), BatchPart::ExpectAbsent(key("b"))]),
            conflict(1, Refusal::KeyExists),
        ),
        (batch(vec![BatchPart::ExpectSeq(key("b"), 12)]), conflict(0, Refusal::KeyModified)),
        (batch(vec![BatchPart::ExpectSeq(key("a"), 10)]), conflict(0, Refusal::KeyNotFound)),
    ] {
        assert_eq!(predict(&call, &state), Err(refusal), "{call:?}");
    }
    for call in
        [swap("b", Some(11)), swap("a", None), delete("b", Some(11)), batch(vec![BatchPart::ExpectSeq(key("b"), 11)])]
    {
        assert!(predict(&call, &state).is_ok(), "{call:?}");
    }
}

/// The answers of reads, each changed in every way that a wrong read could change it.
#[test]
fn the_player_tells_wrong_answers_from_right_ones() {
    let state = state(&[("a", "1", 10), ("aa", "2", 11), ("b", "3", 9)]);
    let pair = |name: &str, value: &str, index| KvPair::new(name, value, index);
    let (a, aa, b) = (pair("a", "1", 10), pair("aa", "2", 11), pair("b", "3", 9));
    let named = |pair: &KvPair| (Vec::new(), pair.clone());
    let pairs = |pairs: &[&KvPair]| Answer::Pairs(pairs.iter().copied().cloned().collect());
    let all = Call::List(0, Vec::new(), 0);
    let some = Call::List(0, b"a".to_vec(), 0);
    let range = Call::Range(0, Bound::Excluded(b"a".to_vec()), Bound::Included(b"b".to_vec()), 0);
    let get = Call::Get(key("a"), 0);
    for (call, right, wrong) in [
        (
            &all,
            pairs(&[&a, &aa, &b]),
            vec![
                pairs(&[&a, &aa]),
                pairs(&[&aa, &a, &b]),
                pairs(&[&a, &aa, &aa, &b]),
                pairs(&[&a, &aa, &pair("b", "x", 9)]),
                pairs(&[&a, &aa, &pair("b", "3", 8)]),
            ],
        ),
        (&some, pairs(&[&a, &aa]), vec![pairs(&[&aa]), pairs(&[&a]), pairs(&[&a, &aa, &b]), pairs(&[])]),
        (&range, pairs(&[&aa, &b]), vec![pairs(&[&a, &aa, &b]), pairs(&[&aa])]),
        (
            &get,
            Answer::Pair(Some((bytes("1"), 10))),
            vec![Answer::Pair(None), Answer::Pair(Some((bytes("1"), 11))), Answer::Pair(Some((bytes("2"), 10)))],
        ),
        (&Call::Get(key("a"), 2), Answer::There(true), vec![Answer::There(false)]),
        (&Call::Get(key("c"), 2), Answer::There(false), vec![Answer::There(true)]),
        (&Call::Stats, Answer::Keys(3), vec![Answer::Keys(2), Answer::Keys(4)]),
        (&Call::Len(0), Answer::Keys(3), vec![Answer::Keys(2), Answer::Keys(4)]),
        (&Call::Len(1), Answer::Keys(0), vec![Answer::Keys(3)]),
        (
            &Call::Counts,
            Answer::Lens(vec![3, 0, 0]),
            vec![Answer::Lens(vec![2, 0, 0]), Answer::Lens(vec![2, 1, 0]), Answer::Lens(vec![3, 1, 0])],
        ),
        (&Call::Verify, Answer::Keys(3), vec![Answer::Keys(0)]),
        (
            &Call::Whole(Whole::ByIndex),
            Answer::Whole(vec![named(&b), named(&a), named(&aa)]),
            vec![Answer::Whole(vec![named(&a), named(&aa), named(&b)]), Answer::Whole(vec![named(&b), named(&a)])],
        ),
    ] {
        assert_eq!(answer(call, &state), right, "{call:?}");
        for wrong in wrong {
            assert_ne!(answer(call, &state), wrong, "{call:?}");
        }
    }
}

#[test]
fn the_player_refuses_wrong_receipts() {
    let receipt = |index, deleted| Receipt { index, tells: true, deleted, ..Receipt::default() };
    check_receipt(&receipt(Some(15), None), 1, Some(15), 14).unwrap();
    check_receipt(&receipt(None, None), 0, None, 14).unwrap();
    check_receipt(&Receipt { deleted: Some(3), ..Receipt::default() }, 3, None, 14).unwrap();
    for (what, receipt, changes, last_put) in [
        ("no index for a change", receipt(None, None), 1, Some(15)),
        ("an index for nothing", receipt(Some(15), None), 0, None),
        ("an index that was handed out before", receipt(Some(14), None), 1, None),
        ("another index than that of the pair", receipt(Some(16), None), 1, Some(15)),
        ("an index for too few operations", Receipt { records: Some(2), ..receipt(Some(15), None) }, 3, Some(15)),
        ("too few deleted keys", Receipt { deleted: Some(2), ..Receipt::default() }, 3, None),
        ("too many deleted keys", Receipt { deleted: Some(4), ..Receipt::default() }, 3, None),
    ] {
        check_receipt(&receipt, changes, last_put, 14).expect_err(what);
    }
    let found = state(&[("a", "1", 10), ("b", "2", 11)]);
    let made = |keys, last_index| Made { keys, last_index, of_one_moment: true }.check(&found);
    made(2, 11).unwrap();
    made(1, 11).expect_err("a copy with more keys than it says");
    made(3, 11).expect_err("a copy with fewer keys than it says");
    made(2, 10).expect_err("a copy with a higher index than it says");
}

#[test]
fn the_small_model_refuses_every_wrong_store() {
    let (one, two, three) = (Some((1, 10)), Some((2, 11)), Some((3, 12)));
    let mut history = small_history::History::new();
    for (change, found) in [
        (vec![(0, Some(1))], [one, None, None]),
        (vec![(1, Some(2)), (2, Some(3))], [one, two, three]),
        (vec![(0, None)], [None, two, three]),
    ] {
        history.pending = Some(change);
        history.commit(&found).unwrap();
    }
    history.acknowledge(2);
    for right in [[one, two, three], [None, two, three]] {
        history.allows(&right).unwrap();
    }
    for (what, wrong) in [
        ("nothing is left", [None, None, None]),
        ("an acknowledged batch is gone", [one, None, None]),
        ("half of a batch is there", [one, two, None]),
        ("half of a batch is gone", [None, None, three]),
        ("a value is another one", [None, two, Some((2, 12))]),
        ("an index is another one", [None, two, Some((3, 13))]),
        ("a key has another key's pair", [None, three, two]),
    ] {
        history.allows(&wrong).expect_err(what);
    }
    let mut pending = history.clone();
    pending.pending = Some(vec![(0, Some(4)), (1, None)]);
    pending.allows(&[Some((4, 13)), None, three]).unwrap();
    pending.allows(&[None, two, three]).unwrap();
    for (what, wrong) in [
        ("half of what was under way", [Some((4, 13)), two, three]),
        ("the other half", [None, None, three]),
        ("an index that was seen", [Some((4, 12)), None, three]),
        ("another value", [Some((5, 13)), None, three]),
    ] {
        pending.allows(&wrong).expect_err(what);
        pending.clone().commit(&wrong).expect_err(what);
    }
    // What was found after a power cut does not give its indexes back.
    let mut later = history.after([one, two, three], true);
    later.pending = Some(vec![(0, Some(5))]);
    later.allows(&[Some((5, 12)), two, three]).expect_err("the index of a write that a power cut took");
}
