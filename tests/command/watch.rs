//! `watch`: changes as they come, from a shell.

use caskfile::{Batch, Cask, Config, Durability};
use serde_json::{Value, json};

use super::run::{Running, Shell};
use crate::common::patience::in_finite_time;

/// Starts `watch`, and returns once it has begun.
fn start(shell: &Shell, options: &[&str]) -> Running {
    let mut watching = start_at_once(shell, &[&["--json", "s"], options].concat());
    let begun = watching.next();
    assert_eq!((&begun["op"], &begun["changes"]), (&json!("end"), &json!(0)));
    watching
}

fn start_at_once(shell: &Shell, options: &[&str]) -> Running {
    shell.start(&[&["watch"], options].concat())
}

/// The lines of the next unit, with the one that ends it.
fn unit(watching: &mut Running) -> Vec<Value> {
    let mut lines = vec![watching.next()];
    while lines.last().unwrap()["op"] != "end" {
        lines.push(watching.next());
    }
    lines
}

fn open(shell: &Shell) -> Cask {
    Cask::open(shell.directory.join("s")).unwrap()
}

fn end(position: u64, changes: u64) -> Value {
    json!({ "op": "end", "position": position, "changes": changes })
}

#[test]
fn each_write_comes_as_lines_and_an_end_until_a_signal() {
    in_finite_time(|| {
        for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
            let shell = Shell::new();
            let cask = open(&shell);
            cask.put("k1", "before").unwrap();
            let mut watching = start(&shell, &["k"]);
            let put = cask.put("k2", "text").unwrap();
            assert_eq!(
                unit(&mut watching),
                [json!({ "op": "put", "key": "k2", "value": "text", "last_index": put }), end(put, 1)]
            );
            cask.put("other", "not asked for").unwrap();
            let mut batch = Batch::new();
            batch.delete("k1").put("x", "").put(b"k\xff", b"\0");
            let last = cask.write(&batch).unwrap().last_index().unwrap();
            assert_eq!(
                unit(&mut watching),
                [
                    json!({ "op": "delete", "key": "k1", "last_index": last - 2 }),
                    json!({ "op": "put", "key_base64": "a/8=", "value_base64": "AA==", "last_index": last }),
                    end(last, 2)
                ]
            );
            // It sleeps now, or is about to.
            let ended = watching.stopped_by(name);
            assert_eq!((ended.code, ended.stderr.as_str()), (Some(code), ""));
            cask.close().unwrap();
        }
    });
}

#[test]
fn rows_have_the_position_so_that_a_batch_can_be_told() {
    in_finite_time(|| {
        let shell = Shell::new();
        let cask = open(&shell);
        let first = cask.put("a", "1").unwrap();
        let mut batch = Batch::new();
        batch.delete("a").put("b\t", "two\nlines").bucket("log").put("c", "3");
        let last = cask.write(&batch).unwrap().last_index().unwrap();
        let after = first.to_string();
        let options = ["--after", &after, "-n", "1", "-q"];
        let line = |more: &[&'static str]| [&["watch", "s"], &options[..], more].concat();
        let batch_at = last - 1;
        let shown = shell.ok_text(&line(&[]));
        assert_eq!(shown, format!("{last}\tdelete\ta\n{last}\tput\tb\\t\ttwo\\nlines\n"));
        assert_eq!(shell.ok_text(&line(&["b"])), format!("{last}\tput\tb\\t\ttwo\\nlines\n"));
        assert_eq!(shell.ok_text(&line(&["--keys", "b"])), format!("{last}\tput\tb\\t\n"));
        assert_eq!(shell.ok_text(&line(&["-b", "log"])), format!("{last}\tput\tc\t3\n"));
        let shown = shell.ok_text(&line(&["--all-buckets"]));
        assert_eq!(shown, format!("{last}\tdelete\t\ta\n{last}\tput\t\tb\\t\ttwo\\nlines\n{last}\tput\tlog\tc\t3\n"));
        let shown = shell.ok_text(&line(&["--all-buckets", "--json", "c"]));
        let lines: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let put = json!({ "op": "put", "bucket": "log", "key": "c", "value": "3", "last_index": last });
        assert_eq!(lines, [end(first, 0), put, end(last, 1)]);
        assert_eq!(batch_at, cask.get("b\t").unwrap().last_index);
        // The note says where it begins.
        let ran = shell.run(&["watch", "s", "--after", &after, "--count", "0"]);
        assert_eq!((ran.code, ran.stderr), (Some(0), format!("watching s after {first}\n")));
        cask.close().unwrap();
    });
}

#[test]
fn a_listing_comes_first_and_what_follows_without_a_gap() {
    in_finite_time(|| {
        let shell = Shell::new();
        let cask = open(&shell);
        cask.put("b", "1").unwrap();
        let first = cask.put("a", "2").unwrap();
        let mut watching = start_at_once(&shell, &["--json", "--snapshot", "s"]);
        let listed = |key: &str, value: &str, last_index: u64| json!({ "op": "put", "key": key, "value": value, "last_index": last_index, "listing": true });
        let mut ended = end(first, 2);
        ended["listing"] = true.into();
        assert_eq!(unit(&mut watching), [listed("a", "2", first), listed("b", "1", first - 1), ended]);
        let next = cask.delete("b").map(|()| first + 1).unwrap();
        assert_eq!(unit(&mut watching), [json!({ "op": "delete", "key": "b", "last_index": next }), end(next, 1)]);
        assert_eq!(watching.stopped_by("TERM").code, Some(143));

        // An empty listing has its end, and a position.
        let shown = shell.ok_text(&["watch", "s", "nothing", "--json", "--snapshot", "--count", "1"]);
        let mut ended = end(next, 0);
        ended["listing"] = true.into();
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), ended);
        assert_eq!(shell.ok_text(&["watch", "s", "-s", "-n1"]), format!("{next}\tput\ta\t2\n"));
        cask.close().unwrap();
    });
}

#[test]
fn it_goes_on_in_the_compacted_file() {
    in_finite_time(|| {
        let shell = Shell::new();
        let cask = open(&shell);
        let mut watching = start(&shell, &["k"]);
        for round in 0..3 {
            for _ in 0..2 {
                let put = cask.put("k", round.to_string()).unwrap();
                assert_eq!(unit(&mut watching)[1], end(put, 1));
            }
            let unseen = cask.put("k", "before the compaction").unwrap();
            cask.compact().unwrap();
            assert_eq!(unit(&mut watching)[1], end(unseen, 1));
        }
        let ended = watching.stopped_by("INT");
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(130), ""));
        cask.close().unwrap();
    });
}

#[test]
fn a_position_that_is_gone_is_10_and_says_what_to_do() {
    let shell = Shell::new();
    let cask = open(&shell);
    let first = cask.put("k", "1").unwrap();
    let last = cask.put("k", "2").unwrap();
    cask.compact().unwrap();
    let error = shell.fails(10, &["watch", "s", "--after", &first.to_string()]);
    assert!(error.contains(&format!("only those after {last}")) && error.contains("--snapshot"), "{error}");
    let error = shell.fails(10, &["watch", "s", "--after", &(last + 1000).to_string()]);
    assert!(error.contains("was taken back") && error.contains("--snapshot"), "{error}");
    let ran = shell.run(&["watch", "--json", "s", "--after", &first.to_string()]);
    let said: Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!((&said["code"], &said["error"]), (&json!(10), &json!("lost")));
    shell.fails(2, &["watch", "s", "--after", "1", "--snapshot"]);
    shell.fails(2, &["watch", "s", "--all-buckets", "--bucket", "log"]);
    shell.ok(&["watch", "s", "--after", &last.to_string(), "--count", "0", "-q"]);
    cask.close().unwrap();
}

#[test]
fn a_watch_that_slept_through_two_compactions_ends_with_10() {
    in_finite_time(|| {
        let shell = Shell::new();
        let cask = open(&shell);
        let watching = start(&shell, &[]);
        watching.signal("STOP");
        for _ in 0..2 {
            cask.put("k", "").unwrap();
            cask.put("k", "").unwrap();
            cask.compact().unwrap();
        }
        watching.signal("CONT");
        let ended = watching.ended();
        assert_eq!(ended.code, Some(10), "{}", ended.stderr);
        cask.close().unwrap();
    });
}

#[test]
fn it_ends_with_its_reader_while_nothing_changes() {
    in_finite_time(|| {
        for options in [&["--json", "s"][..], &["-s", "s"]] {
            let shell = Shell::new();
            let cask = open(&shell);
            cask.put("k", "v").unwrap();
            let mut watching = start_at_once(&shell, options);
            watching.line();
            let ended = watching.closed();
            assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
            cask.close().unwrap();
        }
    });
}

#[test]
fn it_ends_with_its_store() {
    in_finite_time(|| {
        let shell = Shell::new();
        open(&shell).close().unwrap();
        let watching = start(&shell, &[]);
        std::fs::rename(shell.directory.join("s"), shell.directory.join("t")).unwrap();
        let ended = watching.ended();
        assert_eq!(ended.code, Some(9), "{}", ended.stderr);
        assert!(ended.stderr.contains("moved, removed or replaced"), "{}", ended.stderr);
    });
}

#[test]
fn a_missing_store_is_refused_or_created() {
    in_finite_time(|| {
        let shell = Shell::new();
        let error = shell.fails(8, &["watch", "s"]);
        assert!(error.contains("no store yet") && error.contains("--create"), "{error}");
        assert_eq!(crate::common::names(shell.directory.path()), [""; 0]);
        let mut watching = start(&shell, &["--create", "-n1"]);
        shell.ok(&["put", "s", "k", "v"]);
        assert_eq!(watching.next()["key"], "k");
        assert_eq!(watching.next()["op"], "end");
        let ended = watching.ended();
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), "created s\n"));
    });
}

#[test]
fn a_durable_watch_syncs_what_others_did_not() {
    in_finite_time(|| {
        let shell = Shell::new();
        let config = Config::new().durability(Durability::Os);
        let cask = Cask::open_with(shell.directory.join("s"), &config).unwrap();
        let mut watching = start(&shell, &["--durable"]);
        cask.put("k", "v").unwrap();
        let end_of_put = cask.stats().unwrap().log_end;
        assert_eq!(watching.next()["key"], "k");
        cask.get("k").unwrap();
        assert!(cask.stats().unwrap().proven >= end_of_put);
        assert_eq!(watching.stopped_by("TERM").code, Some(143));
        cask.close().unwrap();
    });
}

#[test]
fn a_command_gets_each_write_whole() {
    in_finite_time(|| {
        let shell = Shell::new();
        let cask = open(&shell);
        let first = cask.put("a", "1").unwrap();
        let command = "echo $CASKFILE_POSITION; cat";
        let mut watching = start_at_once(&shell, &["s", "-q", "-x", command, "--after", &first.to_string()]);
        let mut batch = Batch::new();
        batch.put("b", "2").put("c", "3");
        let last = cask.write(&batch).unwrap().last_index().unwrap();
        assert_eq!(watching.line(), format!("{last}\n"));
        assert_eq!(unit(&mut watching).len(), 3);
        cask.delete("a").unwrap();
        assert_eq!(watching.line(), format!("{}\n", last + 1));
        assert_eq!(unit(&mut watching)[0]["op"], "delete");
        let ended = watching.stopped_by("TERM");
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(143), ""));

        // A command that does not read has not failed. The value is more than a pipe holds.
        cask.put("large", vec![b'x'; 1 << 20]).unwrap();
        let line = ["watch", "s", "large", "-q", "--snapshot", "-n1", "--exec", "echo seen"];
        assert_eq!(shell.ok_text(&line), "seen\n");
        cask.close().unwrap();
    });
}

#[test]
fn a_command_that_fails_ends_the_watch_with_its_code() {
    let shell = Shell::new();
    let cask = open(&shell);
    let first = cask.put("a", "1").unwrap();
    let last = cask.put("a", "2").unwrap();
    let after = first.to_string();
    let error = shell.fails(37, &["watch", "s", "--after", &after, "--exec", "cat > /dev/null; exit 37"]);
    let hint = format!("--after {first} begins with this write again, and --after {last} after it");
    assert!(error.contains(&format!("write at position {last}")) && error.contains(&hint), "{error}");
    let ran = shell.run(&["watch", "--json", "s", "--after", &after, "--exec", "kill -9 $$"]);
    let said: Value = serde_json::from_str(ran.stderr.lines().last().unwrap()).unwrap();
    assert_eq!((ran.code, &said["code"], &said["error"]), (Some(137), &json!(137), &json!("command")));
    let error = shell.fails(1, &["watch", "s", "--snapshot", "--exec", "exit 1"]);
    assert!(error.contains("run it again with --snapshot"), "{error}");
    cask.close().unwrap();
}
