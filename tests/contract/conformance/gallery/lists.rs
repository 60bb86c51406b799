//! Backends with wrong listings.

use std::cmp::Ordering;

use caskfile::{Error, KvPair, Result, Store};

use super::{Calls, Fault, Handle, RIGHT};

/// Lists the keys that match in the fault's way.
fn matching(handle: &Handle, matches: impl Fn(&[u8]) -> bool) -> Result<Vec<KvPair>> {
    let mut listed = handle.right.list(b"")?;
    listed.retain(|pair| matches(&pair.key));
    Ok(listed)
}

macro_rules! matched_by {
    ($matches:expr) => {
        Calls {
            list: |handle, prefix| {
                let matches: fn(&[u8], &[u8]) -> bool = $matches;
                matching(handle, |key| matches(key, prefix))
            },
            ..RIGHT
        }
    };
}

macro_rules! ordered_by {
    ($compare:expr) => {
        Calls {
            list: |handle, prefix| {
                let compare: fn(&KvPair, &KvPair) -> Ordering = $compare;
                let mut listed = handle.right.list(prefix)?;
                listed.sort_by(compare);
                Ok(listed)
            },
            ..RIGHT
        }
    };
}

macro_rules! changed_by {
    ($change:expr) => {
        Calls {
            list: |handle, prefix| {
                let change: fn(&mut Vec<KvPair>) = $change;
                let mut listed = handle.right.list(prefix)?;
                change(&mut listed);
                Ok(listed)
            },
            ..RIGHT
        }
    };
}

/// Returns the listing from before, unless it is out of date in the eyes of the fault.
fn cached(handle: &Handle, prefix: &[u8], fresh: impl Fn(&[KvPair], &[KvPair]) -> bool) -> Result<Vec<KvPair>> {
    let now = handle.right.list(b"")?;
    let mut cached = handle.house.notes.listing.lock().unwrap();
    if cached.as_ref().is_none_or(|cached| !fresh(cached, &now)) {
        *cached = Some(now);
    }
    Ok(cached.iter().flatten().filter(|pair| pair.key.starts_with(prefix)).cloned().collect())
}

pub const FAULTS: &[Fault] = &[
    Fault {
        does: "a list without a match is an error",
        refused_by: "list::without_a_match_the_list_is_empty",
        says: "list must succeed, but gave Err(KeyNotFound)",
        calls: Calls {
            list: |handle, prefix| {
                let listed = handle.right.list(prefix)?;
                if listed.is_empty() { Err(Error::KeyNotFound) } else { Ok(listed) }
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a list goes on to the end",
        refused_by: "list::without_a_match_the_list_is_empty",
        says: "a prefix that no key has must list nothing",
        calls: matched_by!(|key, prefix| key >= prefix),
    },
    Fault {
        does: "a prefix may be longer than its key",
        refused_by: "list::without_a_match_the_list_is_empty",
        says: "a prefix longer than the key must not list it",
        calls: matched_by!(|key, prefix| key.iter().zip(prefix).all(|(key, prefix)| key == prefix)),
    },
    Fault {
        does: "the empty prefix lists nothing",
        refused_by: "list::the_empty_prefix_lists_everything",
        says: "the empty prefix must list everything",
        calls: matched_by!(|key, prefix| !prefix.is_empty() && key.starts_with(prefix)),
    },
    Fault {
        does: "the empty prefix lists up to the highest byte",
        refused_by: "list::the_empty_prefix_lists_everything",
        says: "the empty prefix must list everything",
        calls: matched_by!(|key, prefix| key.starts_with(prefix) && key < b"\xff".as_slice()),
    },
    Fault {
        does: "the key that is the prefix is left out",
        refused_by: "list::the_key_that_equals_the_prefix_belongs_to_it",
        says: "the key that equals the prefix must be listed",
        calls: matched_by!(|key, prefix| key.starts_with(prefix) && key != prefix),
    },
    Fault {
        does: "a prefix is a path",
        refused_by: "list::a_prefix_is_bytes_and_not_a_path",
        says: "a prefix must match bytes",
        calls: matched_by!(|key, prefix| {
            let rest = key.strip_prefix(prefix);
            rest.is_some_and(|rest| prefix.is_empty() || prefix.ends_with(b"/") || rest.is_empty() || rest[0] == b'/')
        }),
    },
    Fault {
        does: "a listing is one level deep",
        refused_by: "list::a_prefix_is_bytes_and_not_a_path",
        says: "a prefix must match bytes",
        calls: matched_by!(|key, prefix| key
            .strip_prefix(prefix)
            .is_some_and(|rest| !rest[rest.len().min(1)..].contains(&b'/'))),
    },
    Fault {
        does: "a slash in front of a prefix is dropped",
        refused_by: "list::a_prefix_is_bytes_and_not_a_path",
        says: "a slash in front must not be dropped",
        calls: matched_by!(|key, prefix| key.starts_with(prefix.strip_prefix(b"/").unwrap_or(prefix))),
    },
    Fault {
        does: "letters' case does not count in prefixes",
        refused_by: "list::a_prefix_matches_only_its_own_bytes",
        says: "must match its own bytes and nothing else",
        calls: matched_by!(|key, prefix| key.to_ascii_lowercase().starts_with(&prefix.to_ascii_lowercase())),
    },
    Fault {
        does: "an underscore in a prefix matches any byte",
        refused_by: "list::a_prefix_matches_only_its_own_bytes",
        says: "the prefix \"k_y\" must match its own bytes and nothing else",
        calls: matched_by!(|key, prefix| {
            key.len() >= prefix.len() && key.iter().zip(prefix).all(|(key, prefix)| key == prefix || *prefix == b'_')
        }),
    },
    Fault {
        does: "a percent sign ends a prefix",
        refused_by: "list::a_prefix_matches_only_its_own_bytes",
        says: "must match its own bytes and nothing else",
        calls: matched_by!(|key, prefix| key.starts_with(prefix.split(|byte| *byte == b'%').next().unwrap())),
    },
    Fault {
        does: "a zero ends a prefix",
        refused_by: "list::a_prefix_matches_only_its_own_bytes",
        says: "must match its own bytes and nothing else",
        calls: matched_by!(|key, prefix| key.starts_with(prefix.split(|byte| *byte == 0).next().unwrap())),
    },
    Fault {
        does: "a prefix ends between two characters",
        refused_by: "list::a_prefix_matches_only_its_own_bytes",
        says: "the prefix \"\\xc3\" must match its own bytes and nothing else",
        calls: matched_by!(|key, prefix| std::str::from_utf8(prefix).is_ok() && key.starts_with(prefix)),
    },
    Fault {
        does: "the end of a range is the prefix with a higher last byte",
        refused_by: "list::a_prefix_of_0xff_bytes_lists_its_keys",
        says: "prefix ff",
        calls: matched_by!(|key, prefix| {
            let mut end = prefix.to_vec();
            let last = end.last_mut().map(|last| *last = last.wrapping_add(1));
            key >= prefix && (last.is_none() || key < end.as_slice())
        }),
    },
    Fault {
        does: "a prefix of the highest bytes lists to the end",
        refused_by: "list::a_prefix_of_0xff_bytes_lists_its_keys",
        says: "prefix fe ff",
        calls: matched_by!(|key, prefix| key.starts_with(prefix) || (prefix.ends_with(b"\xff") && key > prefix)),
    },
    Fault {
        does: "a prefix has the limit of a key",
        refused_by: "list::a_prefix_longer_than_any_key_finds_nothing",
        says: "list must succeed, but gave Err(KeyLength",
        calls: Calls {
            list: |handle, prefix| match prefix.len() {
                0..=1000 => handle.right.list(prefix),
                len => Err(Error::KeyLength { len, max: 1000 }),
            },
            ..RIGHT
        },
    },
    Fault {
        does: "short keys come first",
        refused_by: "list::keys_come_in_the_order_of_their_bytes",
        says: "keys must be listed in byte order",
        calls: ordered_by!(|a, b| (a.key.len(), &a.key).cmp(&(b.key.len(), &b.key))),
    },
    Fault {
        does: "keys come in the order in which they were put",
        refused_by: "list::keys_come_in_the_order_of_their_bytes",
        says: "keys must be listed in byte order",
        calls: ordered_by!(|a, b| a.last_index.cmp(&b.last_index)),
    },
    Fault {
        does: "bytes are signed",
        refused_by: "list::keys_come_in_the_order_of_their_bytes",
        says: "keys must be listed in byte order",
        calls: ordered_by!(|a, b| {
            let signed = |pair: &KvPair| pair.key.iter().map(|byte| *byte as i8).collect::<Vec<i8>>();
            signed(a).cmp(&signed(b))
        }),
    },
    Fault {
        does: "keys come in alphabetical order",
        refused_by: "list::keys_come_in_the_order_of_their_bytes",
        says: "keys must be listed in byte order",
        calls: ordered_by!(|a, b| a.key.to_ascii_lowercase().cmp(&b.key.to_ascii_lowercase())),
    },
    Fault {
        does: "new keys come last",
        refused_by: "list::keys_come_in_the_order_of_their_bytes",
        says: "a key put after a listing must be listed in its place",
        calls: Calls {
            list: |handle, prefix| {
                let listed = handle.right.list(prefix)?;
                let seen = handle
                    .house
                    .notes
                    .count
                    .swap(handle.right.pairs()?.last_index, std::sync::atomic::Ordering::Relaxed);
                let (new, mut old): (Vec<_>, Vec<_>) =
                    listed.into_iter().partition(|pair| seen > 0 && pair.last_index > seen);
                old.extend(new);
                Ok(old)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a listing has no values",
        refused_by: "list::a_listing_holds_what_get_returns",
        says: "list must return the pairs that get returns",
        calls: changed_by!(|listed| listed.iter_mut().for_each(|pair| pair.value.clear())),
    },
    Fault {
        does: "a listing has keys without their prefix",
        refused_by: "list::a_listing_holds_what_get_returns",
        says: "list must return the pairs that get returns",
        calls: Calls {
            list: |handle, prefix| {
                let mut listed = handle.right.list(prefix)?;
                listed.iter_mut().for_each(|pair| drop(pair.key.drain(..prefix.len())));
                Ok(listed)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a listing has the first value of each key",
        refused_by: "list::a_listing_has_each_key_once",
        says: "each key once, as it is now",
        calls: Calls {
            put: |handle, key, value| {
                let mut first = handle.house.notes.pairs.lock().unwrap();
                first.entry(key.to_vec()).or_insert(KvPair::new(key, value, 0));
                handle.right.put(key, value)
            },
            list: |handle, prefix| {
                let mut listed = handle.right.list(prefix)?;
                let first = handle.house.notes.pairs.lock().unwrap();
                listed.iter_mut().for_each(|pair| pair.value = first[&pair.key].value.clone());
                Ok(listed)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a listing has a key twice",
        refused_by: "list::a_listing_has_each_key_once",
        says: "each key once, as it is now",
        calls: changed_by!(|listed| listed.extend(listed.last().cloned())),
    },
    Fault {
        does: "a listing ends after 1,000 pairs",
        refused_by: "list::a_listing_of_thousands_of_pairs_is_complete",
        says: "a listing must not end before its last pair",
        calls: changed_by!(|listed| listed.truncate(1_000)),
    },
    Fault {
        does: "a listing ends after 4,096 pairs",
        refused_by: "list::a_listing_of_thousands_of_pairs_is_complete",
        says: "a listing must not end before its last pair",
        calls: changed_by!(|listed| listed.truncate(4_096)),
    },
    Fault {
        does: "a page begins after the first pair that was left",
        refused_by: "list::a_listing_of_thousands_of_pairs_is_complete",
        says: "a long listing must be in byte order, without gaps",
        calls: changed_by!(|listed| {
            if listed.len() > 2_048 {
                listed.remove(2_048);
            }
        }),
    },
    Fault {
        does: "a page begins with the last pair of the one before",
        refused_by: "list::a_listing_of_thousands_of_pairs_is_complete",
        says: "a long listing must be in byte order, without gaps",
        calls: changed_by!(|listed| {
            if listed.len() > 1_024 {
                let again = listed[1_023].clone();
                listed.insert(1_024, again);
            }
        }),
    },
    Fault {
        does: "a listing is renewed when the number of pairs changes",
        refused_by: "list::a_listing_shows_every_change_since_the_last_one",
        says: "a listing must show a put that replaced",
        calls: Calls {
            list: |handle, prefix| cached(handle, prefix, |cached, now| cached.len() == now.len()),
            ..RIGHT
        },
    },
    Fault {
        does: "a listing is renewed when a number grows",
        refused_by: "list::a_listing_shows_every_change_since_the_last_one",
        says: "a listing must show a delete",
        calls: Calls {
            list: |handle, prefix| {
                let highest = |listed: &[KvPair]| listed.iter().map(|pair| pair.last_index).max();
                cached(handle, prefix, |cached, now| highest(cached) >= highest(now))
            },
            ..RIGHT
        },
    },
];
