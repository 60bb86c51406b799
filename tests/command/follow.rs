//! `dump --follow`: records as they come.

use std::io::{BufRead, Read, Write};

use caskfile::{Batch, Cask, Config, Durability};
use serde_json::Value;

use super::run::{Running, Shell};
use crate::common::patience::in_finite_time;

fn follow(shell: &Shell, options: &[&str]) -> Running {
    shell.start(&[&["dump", "--json", "--follow", "s"], options].concat())
}

/// The next record that is about a key: its kind, key and sequence number.
fn next_keyed(following: &mut Running) -> (String, String, u64) {
    loop {
        let line = following.next();
        if let Some(key) = line["key"].as_str() {
            return (line["kind"].as_str().unwrap().into(), key.into(), line["seq"].as_u64().unwrap());
        }
    }
}

fn put(cask: &Cask, key: &str) -> (String, String, u64) {
    cask.put(key, "value").unwrap();
    ("put".into(), key.into(), cask.get(key).unwrap().last_index)
}

#[test]
fn records_come_as_written_until_a_signal() {
    in_finite_time(|| {
        for (name, code) in [("INT", 130), ("TERM", 143)] {
            let shell = Shell::new();
            let cask = Cask::open(shell.directory.join("s")).unwrap();
            let before = put(&cask, "before");
            let mut following = follow(&shell, &[]);
            assert_eq!(next_keyed(&mut following), before);
            for key in ["a", "b", "a"] {
                let written = put(&cask, key);
                assert_eq!(next_keyed(&mut following), written);
            }
            let mut batch = Batch::new();
            batch.delete("a").put("c", "d");
            let last = cask.write(&batch).unwrap().last_index().unwrap();
            assert_eq!(next_keyed(&mut following), ("delete".into(), "a".into(), last - 1));
            assert_eq!(next_keyed(&mut following), ("put".into(), "c".into(), last));
            let ended = following.stopped_by(name);
            assert_eq!((ended.code, ended.stderr.as_str()), (Some(code), ""));
            cask.close().unwrap();
        }
    });
}

#[test]
fn a_compaction_is_followed_and_no_record_shown_twice() {
    in_finite_time(|| {
        let shell = Shell::new();
        let cask = Cask::open(shell.directory.join("s")).unwrap();
        let mut written: Vec<_> = ["a", "b", "a"].map(|key| put(&cask, key)).into();
        let mut following = follow(&shell, &[]);
        let mut shown: Vec<_> = (0..written.len()).map(|_| next_keyed(&mut following)).collect();
        for round in 0..3 {
            written.push(put(&cask, &format!("before {round}")));
            cask.compact().unwrap();
            written.push(put(&cask, &format!("behind {round}")));
            shown.extend([next_keyed(&mut following), next_keyed(&mut following)]);
        }
        assert_eq!(shown, written);
        let ended = following.stopped_by("INT");
        assert_eq!(ended.code, Some(130));
        assert!(ended.stderr.contains("compacted"), "{}", ended.stderr);
        cask.close().unwrap();
    });
}

#[test]
fn every_key_comes_once_beside_a_compacting_writer() {
    in_finite_time(|| {
        let shell = Shell::new();
        let config = Config::new().durability(Durability::Os);
        let cask = Cask::open_with(shell.directory.join("s"), &config).unwrap();
        let mut following = follow(&shell, &[]);
        let mut last_index = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..1500 {
                    cask.put(format!("{number}"), "value").unwrap();
                    cask.put("again and again", "value").unwrap();
                    if number % 200 == 99 {
                        cask.compact().unwrap();
                    }
                }
            });
            // Keys that are never replaced are in every file.
            for number in 0..1500 {
                let (_, key, seq) = loop {
                    let next = next_keyed(&mut following);
                    assert!(next.2 > last_index, "{next:?} behind {last_index}");
                    last_index = next.2;
                    if next.1 != "again and again" {
                        break next;
                    }
                };
                assert_eq!((key, seq), (number.to_string(), cask.get(format!("{number}")).unwrap().last_index));
            }
        });
        assert_eq!(following.stopped_by("INT").code, Some(130));
        cask.close().unwrap();
    });
}

#[test]
fn it_ends_with_its_reader_or_its_store() {
    in_finite_time(|| {
        let shell = Shell::new();
        let cask = Cask::open(shell.directory.join("s")).unwrap();
        let first = put(&cask, "k");
        let mut following = follow(&shell, &[]);
        assert_eq!(next_keyed(&mut following), first);
        // Nothing is written meanwhile, and still it notices.
        assert_eq!(following.closed().code, Some(0));

        let mut following = follow(&shell, &["--from-seq", &first.2.to_string()]);
        assert_eq!(following.next()["seq"], first.2);
        cask.close().unwrap();
        std::fs::rename(shell.directory.join("s"), shell.directory.join("t")).unwrap();
        let ended = following.ended();
        assert_eq!(ended.code, Some(9), "{}", ended.stderr);
        assert!(ended.stderr.contains("moved, removed or replaced"), "{}", ended.stderr);
    });
}

#[test]
fn damage_ends_it_when_it_was_shown() {
    in_finite_time(|| {
        let shell = Shell::new();
        std::fs::copy(super::golden::named("damaged").path, shell.directory.join("s")).unwrap();
        let ran = shell.run(&["dump", "--follow", "s"]);
        assert_eq!(ran.code, Some(5), "{}", ran.stderr);
        assert!(String::from_utf8(ran.stdout).unwrap().contains("corrupt"));
    });
}

#[test]
fn damage_that_comes_later_is_shown_and_ends_it() {
    in_finite_time(|| {
        let shell = Shell::new();
        let original = shell.directory.join("t");
        let cask = Cask::open(&original).unwrap();
        let first = put(&cask, "a");
        let before = std::fs::read(&original).unwrap();
        for key in ["b", "damaged", "c"] {
            put(&cask, key);
        }
        cask.close().unwrap();
        super::exits::damage(&original, b"damaged");
        let after = std::fs::read(&original).unwrap();

        let path = shell.directory.join("s");
        std::fs::write(&path, before).unwrap();
        let mut following = follow(&shell, &[]);
        assert_eq!(next_keyed(&mut following), first);
        std::fs::File::options().write(true).open(&path).unwrap().write_all(&after).unwrap();
        let mut classes = Vec::new();
        for line in following.lines.by_ref().lines() {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            classes.push(line["class"].as_str().unwrap().to_owned());
        }
        let ended = following.ended();
        assert!(classes.starts_with(&["live", "corrupt", "live"].map(String::from)), "{classes:?} {}", ended.stderr);
        assert_eq!(ended.code, Some(5), "{}", ended.stderr);
    });
}

#[test]
fn it_goes_on_after_a_compaction_that_it_slept_through() {
    in_finite_time(|| {
        let shell = Shell::new();
        let cask = Cask::open(shell.directory.join("s")).unwrap();
        let first = put(&cask, "a");
        let mut following = follow(&shell, &[]);
        assert_eq!(next_keyed(&mut following), first);
        following.signal("STOP");
        for _ in 0..2 {
            put(&cask, "missed");
            put(&cask, "missed");
            cask.compact().unwrap();
        }
        let kept = ("put".into(), "missed".into(), cask.get("missed").unwrap().last_index);
        following.signal("CONT");
        // It may have read the first of them before the signal.
        while next_keyed(&mut following) != kept {}
        let last = put(&cask, "b");
        assert_eq!(next_keyed(&mut following), last);
        assert_eq!(following.stopped_by("INT").code, Some(130));
        cask.close().unwrap();
    });
}
