//! Backends that mistake how long pairs live.

use std::time::Duration;

use caskfile::{Error, KvPair, PutOptions, Store};

use super::{Calls, Fault, RIGHT};
use crate::conformance::memory::whole;

pub const FAULTS: &[Fault] = &[
    Fault {
        does: "put_with returns no number",
        refused_by: "expiring::put_with_returns_the_pair_that_get_returns",
        says: "put_with must return the pair that get returns",
        calls: Calls {
            put_with: |handle, key, value, options| {
                whole::put_with(&handle.right, key, value, options).map(|pair| KvPair { last_index: 0, ..pair })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "put_with keeps the number of the old pair",
        refused_by: "expiring::put_with_returns_the_pair_that_get_returns",
        says: "put_with must get a new last_index",
        calls: Calls {
            put_with: |handle, key, value, options| {
                let old = handle.right.get(key).map(|pair| pair.last_index);
                let pair = whole::put_with(&handle.right, key, value, options)?;
                let last_index = old.unwrap_or(pair.last_index);
                handle.right.pairs()?.values.insert(key.to_vec(), (value.to_vec(), last_index));
                Ok(KvPair { last_index, ..pair })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a time to live is a nanosecond",
        refused_by: "expiring::a_pair_is_there_until_its_time_is_over",
        says: "get of a key that is there must succeed|a pair whose time is not over must be",
        calls: Calls {
            put_with: |handle, key, value, options| {
                let ttl = options.get_ttl().map(|_| Duration::from_nanos(1));
                whole::put_with(&handle.right, key, value, &PutOptions::new().ttl(ttl))
            },
            ..RIGHT
        },
    },
    Fault {
        does: "list shows pairs whose time is over",
        refused_by: "expiring::a_pair_is_absent_once_its_time_is_over",
        says: "a pair whose time is over must not be listed",
        calls: Calls {
            put_with: |handle, key, value, options| {
                let pair = whole::put_with(&handle.right, key, value, options)?;
                handle.own.pairs.lock().unwrap().insert(key.to_vec(), pair.clone());
                Ok(pair)
            },
            list: |handle, prefix| {
                let mut listed = handle.right.list(prefix)?;
                let over = handle.own.pairs.lock().unwrap();
                listed.extend(over.values().filter(|pair| handle.right.get(&pair.key).is_err()).cloned());
                Ok(listed)
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a swap finds a pair whose time is over",
        refused_by: "expiring::a_pair_is_absent_once_its_time_is_over",
        says: "atomic_put with a pair whose time is over must be Err(Error::KeyNotFound), but gave Err(KeyModified)",
        calls: Calls {
            atomic_put: |handle, key, value, previous| match handle.right.atomic_put(key, value, previous) {
                Err(Error::KeyNotFound) => Err(Error::KeyModified),
                result => result,
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a put leaves the end of the pair before",
        refused_by: "expiring::a_plain_put_makes_the_pair_stay",
        says: "a later put without a time to live must make the pair stay",
        calls: Calls {
            put: |handle, key, value| {
                let mut pairs = handle.right.pairs_for(key)?;
                let end = pairs.ends.get(key).copied();
                pairs.set(key, value);
                end.map(|end| pairs.ends.insert(key.to_vec(), end));
                Ok(())
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a time of zero is for ever",
        refused_by: "expiring::a_time_of_zero_is_refused",
        says: "put_with a time to live of zero must be Err(Error::ZeroTtl), but gave Ok",
        calls: Calls {
            put_with: |handle, key, value, options| {
                let ttl = options.get_ttl().filter(|ttl| !ttl.is_zero());
                whole::put_with(&handle.right, key, value, &PutOptions::new().ttl(ttl))
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a time of zero deletes",
        refused_by: "expiring::a_time_of_zero_is_refused",
        says: "a put_with that is refused must write nothing",
        calls: Calls {
            put_with: |handle, key, value, options| {
                let result = whole::put_with(&handle.right, key, value, options);
                if matches!(result, Err(Error::ZeroTtl)) {
                    handle.right.delete(key)?;
                }
                result
            },
            ..RIGHT
        },
    },
    Fault {
        does: "put_with takes an empty key",
        refused_by: "expiring::put_with_refuses_what_put_refuses",
        says: "put_with an empty key must be Err(Error::KeyLength { len: 0, .. }), but gave Ok",
        calls: Calls {
            put_with: |handle, key, value, options| match key {
                b"" => Ok(handle.right.pairs()?.set(key, value)),
                key => whole::put_with(&handle.right, key, value, options),
            },
            ..RIGHT
        },
    },
    Fault {
        does: "put_with looks at the key before it looks whether the store is closed",
        refused_by: "expiring::put_with_refuses_what_put_refuses",
        says: "put_with an empty key after close must be Err(Error::Closed), but gave Err(KeyLength",
        calls: Calls {
            put_with: |handle, key, value, options| match key {
                b"" => Err(Error::KeyLength { len: 0, max: 1000 }),
                key => whole::put_with(&handle.right, key, value, options),
            },
            ..RIGHT
        },
    },
];
