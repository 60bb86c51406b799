//! Readers that look while another process is in the middle of something.

use std::sync::Arc;

use caskfile::disk::sim::{Repeat, SimDisk, Verb, When};
use caskfile::{Cask, Config, Error};

const STORE: &str = "/store";

fn open(disk: &SimDisk, config: &Config) -> Result<Cask, Error> {
    Cask::open_on(Arc::new(disk.clone()), STORE, config)
}

fn read_only() -> Config {
    Config::new().read_only(true)
}

/// The reader comes to the log's end, and before it looks what lies beyond, two more groups are there, the second of
/// which states that the first is on stable storage: so a proof lies beyond an end. It was a busy writer, not damage,
/// and it stays busy while the reader looks again.
#[test]
fn a_writer_that_goes_on_while_a_reader_opens_or_verifies_is_no_damage() {
    let disk = SimDisk::new();
    let (reader, writer) = (disk.process(), open(&disk, &Config::new()).unwrap());
    writer.put("key", "0").unwrap();
    let write_before_each_look_beyond = |looks: u64| {
        let writer = writer.clone();
        for look in 1..=looks {
            let writer = writer.clone();
            disk.before(When::nth(look).of(Verb::NextData).by(&reader), Repeat::Once, move |_| {
                writer.put("key", "1").unwrap();
                writer.put("key", "2").unwrap();
            });
        }
    };

    write_before_each_look_beyond(4);
    let cask = open(&reader, &read_only()).unwrap();
    assert_eq!(cask.get("key").unwrap().value, b"2");
    write_before_each_look_beyond(4);
    assert!(cask.verify().unwrap().records > 8);
}
