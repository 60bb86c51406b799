//! Sessions whose owner is gone, or whose file was replaced: what others do with what is left of them.

use std::path::Path;
use std::sync::Arc;

use caskfile::disk::Disk;
use caskfile::disk::sim::{Choices, SimDisk};
use caskfile::{Batch, Cask, Config, Error, Limits};

use crate::sessions::{Store, begin, config, open, options, shows};

/// Nothing but its byte says that the owner is dead, and a read does not ask for that. A call that does, and is refused for it, leaves the
/// end in the log. Otherwise a caller that reads, tries and reads again would do so for ever.
#[test]
fn a_refusal_that_rests_on_a_dead_owner_ends_its_session_for_readers_too() {
    type Call = fn(&Cask) -> Result<(), Error>;
    let calls: [(&str, Call); 4] = [
        // Those that do not try again come first: they fail where the others would not end.
        ("delete_if", |cask| cask.delete_if("key", cask.get("key")?.last_index).map(drop)),
        ("a batch", |cask| cask.write(Batch::new().expect_last_index("key", cask.get("key")?.last_index)).map(drop)),
        ("update", |cask| cask.update("key", |_| b"new".to_vec()).map(drop)),
        ("remove", |cask| cask.remove("key").map(drop)),
    ];
    for (name, call) in calls {
        for is_other_boot in [false, true] {
            let store = Store::new();
            let ((process, a), (container, b)) = (store.open(), store.open());
            // A handle that has not written anything has more to do before its first record.
            if name == "remove" {
                b.put("plain", "").unwrap();
            }
            let session = begin(&a);
            session.put(&a, "key", "value").unwrap();
            if is_other_boot {
                container.set_boot([9; 16]);
            }
            process.kill();
            drop(session);
            assert!(b.exists("key").unwrap(), "{name}: reads do not ask for the owner");
            let done = call(&b);
            // An update takes the key for absent, and sets it.
            let is_set = name == "update";
            let is_granted = is_set || name == "remove";
            assert_eq!(done.is_ok(), is_granted, "{name}, {is_other_boot}: {done:?}");
            let (_, reader) = store.open();
            for cask in [&b, &reader] {
                assert_eq!(cask.exists("key").unwrap(), is_set, "{name}, {is_other_boot}");
                assert!(cask.sessions().unwrap().is_empty(), "{name}, {is_other_boot}");
            }
        }
    }
}

/// Readers cannot compare the deadlines of a boot before, so they show the pairs until a writer has ended the sessions.
#[test]
fn after_a_power_cut_the_first_write_hides_the_pairs_of_the_sessions_that_it_ended() {
    let store = Store::new();
    let (_, a) = store.open();
    a.put("plain", "").unwrap();
    let lock = a.lock("lock", &options()).unwrap();
    let _held = lock.lock(None).unwrap();
    a.sync().unwrap();
    let disk = store.disk.reboot(&mut Choices::keep_all());
    disk.set_clock(&store.clock);
    disk.set_limits(Limits { least_running_cost: u64::MAX, renewal_look: u64::MAX, ..Limits::REAL });
    let reader = Cask::open_on(Arc::new(disk.process()), "/store", &Config::new().read_only(true)).unwrap();
    let writer = open(&disk.process());
    assert_eq!(shows(&reader), ["lock", "plain"]);
    writer.put("plain", "").unwrap();
    assert_eq!((shows(&writer), shows(&reader)), (vec!["plain".to_owned()], vec!["plain".to_owned()]));
}

/// Each store begins with the same numbers.
#[test]
fn the_end_of_a_session_ends_no_other_one_in_a_file_that_has_replaced_its_own() {
    for by_close in [false, true] {
        let disk = SimDisk::new();
        disk.set_limits(Limits { least_running_cost: u64::MAX, renewal_look: u64::MAX, ..Limits::REAL });
        disk.stop_clock();
        let (a, other) = (open(&disk.process()), SimDisk::from_seed(2));
        let one = a.lock("lock", &options()).unwrap();
        let held = one.lock(None).unwrap();
        Cask::open_on(Arc::new(other.clone()), "/store", &config()).unwrap().close().unwrap();
        disk.set_contents("/new", other.contents("/store").unwrap());
        disk.rename(Path::new("/new"), Path::new("/store")).unwrap();
        let b = open(&disk.process());
        let two = b.lock("lock", &options()).unwrap();
        let next = two.lock(None).unwrap();
        assert_eq!(held.token(), next.token(), "the numbers are the same");
        a.reopen().unwrap();
        if by_close {
            a.close().unwrap();
        } else {
            assert!(matches!(one.unlock(), Err(Error::NotHeld)));
        }
        b.write(Batch::new().expect_held(&next).put("fenced", "")).unwrap();
        assert!(next.is_held() && b.exists("lock").unwrap(), "{by_close}");
    }
}
