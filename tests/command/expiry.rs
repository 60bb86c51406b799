//! Keys that expire: every verb treats one that has expired as absent, and shows when the others will.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use caskfile::{Cask, Config, Durability, PutOptions};
use serde_json::{Value, json};

use super::golden;
use super::run::Shell;
use crate::common::files::bytes::{FileBytes, record};
use crate::common::files::layout::{PUT, PUT_WITH, with_deadline};
use crate::common::patience::in_finite_time;

/// 2100-01-01 00:00 UTC, in milliseconds since 1970.
const YEAR_2100: u64 = 4_102_444_800_000;

fn objects(text: &[u8]) -> Vec<Value> {
    let lines = std::str::from_utf8(text).unwrap().lines();
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

fn milliseconds(moment: SystemTime) -> u64 {
    moment.duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn until(expires_at: u64) -> PutOptions {
    PutOptions::new().expires_at(UNIX_EPOCH + Duration::from_millis(expires_at))
}

/// A store with `stays`, `goes`, which expires in 2100, and `gone` in two buckets, which has expired. A write of the library
/// would remove that at once.
fn store(shell: &Shell) -> Cask {
    let (gone, goes) = (with_deadline(1, b"1"), with_deadline(YEAR_2100, b"3"));
    let file = FileBytes::new(0)
        .push(record(0, PUT_WITH, 1, b"\0gone", &gone))
        .push(record(0, PUT, 2, b"\0stays", b"2"))
        .push(record(0, PUT_WITH, 3, b"\0goes", &goes))
        .push(record(0, PUT_WITH, 4, b"\x01bgone", &gone));
    let path = shell.directory.join("s");
    std::fs::write(&path, file.end()).unwrap();
    Cask::open_with(&path, &Config::new().create(false)).unwrap()
}

#[test]
fn a_put_with_a_time_to_live_expires_after_it() {
    let shell = Shell::new();
    for (time, hours) in [("1h", 1), ("2d", 48)] {
        let before = milliseconds(SystemTime::now());
        shell.ok(&["put", "s", "k", "v", "--ttl", time]);
        let after = milliseconds(SystemTime::now());
        let shown = &objects(&shell.ok(&["get", "s", "k", "--json"]))[0];
        let expires_at = shown["expires_at"].as_u64().unwrap_or_else(|| panic!("{shown}"));
        let ttl = hours * 60 * 60 * 1000;
        assert!((before + ttl..=after + ttl + 1).contains(&expires_at), "{expires_at} is not in {time} from {before}");
        assert_eq!(&objects(&shell.ok(&["list", "s", "--json"]))[0], shown);
    }
    // A put without one takes it away.
    shell.ok(&["put", "s", "k", "v"]);
    let shown = &objects(&shell.ok(&["get", "s", "k", "--json"]))[0];
    assert_eq!(shown.get("expires_at"), None);
    for wrong in ["0", "0ms", "soon", "-1"] {
        assert!(shell.fails(2, &["put", "s", "k", "v", &format!("--ttl={wrong}")]).contains("--ttl"), "{wrong}");
    }
}

#[test]
fn a_value_and_its_deadline_are_of_one_record() {
    in_finite_time(|| {
        let shell = Shell::new();
        let cask = Cask::open_with(shell.directory.join("s"), &Config::new().durability(Durability::Os)).unwrap();
        cask.put("k", "stays").unwrap();
        let (is_over, options) = (AtomicBool::new(false), until(YEAR_2100));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    cask.put_with("k", "goes", &options).unwrap();
                    cask.put("k", "stays").unwrap();
                }
            });
            let shown = (0..30).map(|round| {
                let verb = if round % 2 == 0 { "get" } else { "wait" };
                objects(&shell.ok(&[verb, "s", "k", "--json"])).remove(0)
            });
            let shown: Vec<Value> = shown.collect();
            is_over.store(true, Ordering::Relaxed);
            for pair in shown {
                assert_eq!(pair.get("expires_at").is_some(), pair["value"] == "goes", "{pair}");
            }
        });
        cask.close().unwrap();
    });
}

#[test]
fn a_key_that_has_expired_is_absent_for_every_verb() {
    let shell = Shell::new();
    let cask = store(&shell);
    let log_end = cask.stats().unwrap().log_end;
    assert!(shell.fails(1, &["get", "s", "gone"]).contains("no key `gone`"));
    shell.fails(1, &["exists", "s", "gone"]);
    assert_eq!(shell.ok_text(&["list", "s"]), "goes\t3\nstays\t2\n");
    assert_eq!(shell.ok_text(&["list", "s", "-b", "b"]), "");
    assert_eq!(shell.ok_text(&["buckets", "s"]), "\t2\n");
    let stats = &objects(&shell.ok(&["stats", "s", "--json"]))[0];
    assert_eq!((&stats["keys"], &stats["buckets"]), (&json!(2), &json!(1)));
    assert_eq!((&stats["expiring_keys"], &stats["expired_keys"]), (&json!(1), &json!(2)));
    assert_eq!(shell.ok_text(&["wait", "s", "gone", "--gone"]), "");
    assert_eq!(cask.stats().unwrap().log_end, log_end, "verbs that read have changed the store");

    let index = cask.list("").unwrap()[0].last_index.to_string();
    shell.fails(3, &["cas", "s", "gone", "x", "--if-last-index", &index]);
    shell.ok(&["cas", "s", "gone", "back", "--if-absent"]);
    assert_eq!(shell.ok(&["get", "s", "gone"]), b"back");
}

#[test]
fn a_list_shows_when_keys_expire() {
    let shell = Shell::new();
    let cask = store(&shell);
    assert_eq!(shell.ok_text(&["list", "s", "--expires-at"]), "2100-01-01T00:00:00Z\tgoes\t3\n\tstays\t2\n");
    let pairs = objects(&shell.ok(&["list", "s", "--json", "--keys"]));
    assert_eq!(
        pairs[0],
        json!({"key": "goes", "last_index": cask.get("goes").unwrap().last_index, "expires_at": YEAR_2100})
    );
    assert_eq!(pairs[1].get("expires_at"), None);
}

#[test]
fn compare_and_swap_sets_a_time_to_live_under_its_condition() {
    let shell = Shell::new();
    let first = shell.ok_text(&["cas", "s", "k", "1", "--if-absent", "--ttl", "1h"]);
    shell.fails(3, &["cas", "s", "k", "2", "--if-absent", "--ttl", "1h"]);
    shell.fails(3, &["cas", "s", "k", "2", "--if-last-index", "1", "--ttl", "1h"]);
    let second = shell.ok_text(&["cas", "s", "k", "2", "--if-last-index", first.trim(), "--ttl", "2h"]);
    let shown = &objects(&shell.ok(&["get", "s", "k", "--json"]))[0];
    assert_eq!((&shown["value"], shown["last_index"].to_string()), (&json!("2"), second.trim().to_owned()));
    assert!(shown["expires_at"].is_u64(), "{shown}");
}

#[test]
fn lines_of_a_batch_may_say_when_a_key_expires() {
    let shell = Shell::new();
    let lines = format!(
        "{{\"op\":\"put\",\"key\":\"a\",\"value\":\"1\",\"ttl_ms\":3600000}}\n\
         {{\"op\":\"put\",\"key\":\"b\",\"value\":\"2\",\"expires_at\":{YEAR_2100},\"if_absent\":true}}\n\
         {{\"op\":\"put\",\"key\":\"c\",\"value\":\"3\"}}\n"
    );
    let before = milliseconds(SystemTime::now());
    shell.feed(lines.as_bytes(), &["batch", "s"]).succeeded();
    let pairs = objects(&shell.ok(&["list", "s", "--json"]));
    assert!(pairs[0]["expires_at"].as_u64() >= Some(before + 3_600_000), "{}", pairs[0]);
    assert_eq!((&pairs[1]["expires_at"], pairs[2].get("expires_at")), (&json!(YEAR_2100), None));
    let wrong = b"{\"op\":\"put\",\"key\":\"a\",\"value\":\"1\",\"ttl_ms\":0}\n";
    assert!(shell.feed(wrong, &["batch", "s"]).failed(7).contains("ttl_ms"));
}

#[test]
fn an_export_leaves_out_what_has_expired_and_an_import_keeps_when_the_rest_will() {
    let shell = Shell::new();
    let cask = store(&shell);
    let lines = shell.ok(&["export", "s"]);
    let exported = objects(&lines);
    let keys: Vec<&str> = exported.iter().map(|pair| pair["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["stays", "goes"]);
    assert_eq!((exported[0].get("expires_at"), &exported[1]["expires_at"]), (None, &json!(YEAR_2100)));

    shell.feed(&lines, &["import", "copy"]).succeeded();
    let copy = Cask::open(shell.directory.join("copy")).unwrap();
    assert_eq!(copy.list("").unwrap().len(), 2);
    for key in ["stays", "goes"] {
        assert_eq!(copy.expires_at(key).unwrap(), cask.expires_at(key).unwrap(), "{key}");
    }

    // The other format says that it cannot.
    let ran = shell.run(&["export", "s", "--format", "tsv"]);
    assert_eq!((ran.code, &ran.stdout[..]), (Some(0), &b"stays\t2\ngoes\t3\n"[..]));
    assert!(ran.stderr.contains("1 pair will expire"), "{}", ran.stderr);
}

#[test]
fn an_imported_pair_that_has_expired_takes_the_place_of_the_one_before() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "k", "of the store"]);
    let lines = "{\"key\":\"k\",\"value\":\"1\",\"expires_at\":1}\n\
                 {\"key\":\"l\",\"value\":\"2\"}\n\
                 {\"key\":\"l\",\"value\":\"3\",\"expires_at\":1}\n\
                 {\"key\":\"m\",\"value\":\"4\",\"expires_at\":1}\n\
                 {\"key\":\"m\",\"value\":\"5\"}\n";
    let ran = shell.feed(lines.as_bytes(), &["import", "s"]);
    assert!(
        ran.stderr.contains("imported 2 pairs") && ran.stderr.contains("3 more pairs had expired"),
        "{}",
        ran.stderr
    );
    assert_eq!(shell.ok_text(&["list", "s"]), "m\t5\n");
    let report = objects(&shell.feed(lines.as_bytes(), &["import", "s", "--json"]).succeeded());
    assert_eq!((&report[0]["records"], &report[0]["expired"]), (&json!(2), &json!(3)));
}

#[test]
fn a_watch_shows_when_a_key_expires() {
    let shell = Shell::new();
    let cask = store(&shell);
    let last = cask.put_with("new", "5", &until(YEAR_2100)).unwrap().last_index;
    let lines = objects(&shell.ok(&["watch", "s", "new", "--snapshot", "--count", "1", "--json"]));
    let put = lines.iter().find(|line| line["op"] == "put").unwrap();
    assert_eq!((&put["last_index"], &put["expires_at"]), (&json!(last), &json!(YEAR_2100)));
}

#[test]
fn dump_and_hex_show_the_deadline_of_a_record() {
    let shell = Shell::new();
    let golden = golden::named("put-with");
    let rows = golden.shown(&shell, &["dump"]).unwrap();
    let row = rows.lines().find(|row| row.contains("  e  ")).unwrap();
    assert!(row.contains("put-with") && row.ends_with("5  until 2100-01-01T00:00:00Z"), "{row}");
    let row = rows.lines().find(|row| row.contains("  g  ")).unwrap();
    assert!(row.ends_with("  7"), "{row}");

    let lines = golden.shown(&shell, &["dump", "--json"]).unwrap();
    let lines = objects(lines.as_bytes());
    let of = |key: &str| lines.iter().find(|line| line["key"] == key).unwrap();
    assert_eq!(
        (&of("e")["deadline"], &of("e")["value"], &of("e")["value_len"]),
        (&json!(YEAR_2100), &json!("5"), &json!(25))
    );
    assert_eq!(of("g").get("deadline"), None);
    // A reader of the page has no clock: what is over is live until a write removes it.
    assert_eq!((&of("f")["class"], &of("f")["deadline"]), (&json!("live"), &json!(1_800_000_000_000_u64)));

    let rows = golden.shown(&shell, &["hex"]).unwrap();
    for row in ["; deadline: 2100-01-01T00:00:00Z", "; deadline: none", "; session: none", "; acquired: none"] {
        assert!(rows.contains(row), "{row} is not in {rows}");
    }
}
