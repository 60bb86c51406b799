//! What every verb does.

use serde_json::{Value, json};

use super::run::Shell;
use crate::common::names;

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn a_first_put_makes_the_store() {
    let shell = Shell::new();
    let ran = shell.run(&["put", "s", "colour", "blue"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), "created s\n"));
    assert_eq!(shell.ok(&["get", "s", "colour"]), b"blue");
    // The second one does not say so, and replaces the value.
    assert_eq!(shell.run(&["put", "s", "colour", "red"]).stderr, "");
    assert_eq!(shell.ok(&["get", "s", "colour"]), b"red");
}

#[test]
fn a_value_comes_unchanged_from_argument_file_or_stdin() {
    let shell = Shell::new();
    for value in [&b""[..], b"\n", b"text", b"text\n", b"\n\n", b"\x00\xff\r\n", b"-"] {
        std::fs::write(shell.directory.join("value"), value).unwrap();
        shell.ok(&["put", "s", "file", "--file", "value"]);
        assert_eq!(shell.ok(&["get", "s", "file"]), value);
        shell.feed(value, &["put", "s", "stdin", "-"]).succeeded();
        assert_eq!(shell.ok(&["get", "s", "stdin"]), value);
    }
    shell.ok(&["put", "s", "negative", "-5"]);
    assert_eq!(shell.ok(&["get", "s", "negative"]), b"-5");
    shell.ok(&["put", "s", "--", "-key", "--value"]);
    assert_eq!(shell.ok(&["get", "s", "--", "-key"]), b"--value");
    shell.ok(&["put", "s", "empty", ""]);
    assert_eq!(shell.ok(&["get", "s", "empty"]), b"");
}

#[test]
fn buckets_are_apart_and_are_listed_with_their_keys() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "k", "plain"]);
    shell.ok(&["put", "s", "k", "logged", "--bucket", "log"]);
    shell.ok(&["put", "s", "l", "logged", "-b", "log"]);
    assert_eq!(shell.ok(&["get", "s", "k", "-b", "log"]), b"logged");
    assert_eq!(shell.ok(&["get", "s", "k"]), b"plain");
    assert_eq!(shell.ok_text(&["buckets", "s"]), "\t1\nlog\t2\n");
    assert_eq!(
        shell.ok_text(&["buckets", "s", "--json"]),
        "{\"bucket\":\"\",\"keys\":1}\n{\"bucket\":\"log\",\"keys\":2}\n"
    );
    shell.ok(&["delete-prefix", "s", "-b", "log", "--all"]);
    assert_eq!(shell.ok_text(&["buckets", "s"]), "\t1\n");
}

#[test]
fn exists_tells_by_its_exit_code_and_says_nothing() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "there", ""]);
    assert_eq!(shell.ok(&["exists", "s", "there"]), b"");
    assert_eq!(shell.fails(1, &["exists", "s", "not there"]), "");
    assert_eq!(json_of(&shell.ok(&["exists", "s", "there", "--json"])), json!({ "exists": true }));
    assert_eq!(json_of(&shell.run(&["exists", "s", "x", "--json"]).stdout), json!({ "exists": false }));
}

#[test]
fn keys_are_deleted_together_and_absent_ones_are_fine() {
    let shell = Shell::new();
    for key in ["a", "b", "c"] {
        shell.ok(&["put", "s", key, ""]);
    }
    shell.ok(&["delete", "s", "a", "nothing", "b"]);
    assert_eq!(shell.ok_text(&["list", "s", "--keys"]), "c\n");
    shell.ok(&["delete", "s", "a"]);
    let index = json_of(&shell.ok(&["get", "s", "c", "--json"]))["last_index"].to_string();
    assert!(shell.fails(3, &["delete", "s", "c", "--if-last-index", "7"]).contains("c has another last_index"));
    shell.ok(&["delete", "s", "c", "--if-last-index", &index]);
    assert!(shell.fails(3, &["delete", "s", "c", "--if-last-index", &index]).contains("not there"));
    shell.fails(2, &["delete", "s", "a", "b", "--if-last-index", "7"]);
    assert!(shell.fails(7, &["delete", "s", "a", ""]).contains("key 2: a key has 1 to"));
    assert!(shell.fails(7, &["delete", "s", ""]).contains("error: a key has 1 to"));
}

#[test]
fn a_list_is_limited_by_prefix_range_and_direction() {
    let shell = Shell::new();
    for key in ["a", "a/1", "a/2", "a/3", "b"] {
        shell.ok(&["put", "s", key, &key.to_uppercase()]);
    }
    shell.ok(&["put", "s", "c", "elsewhere", "-b", "other"]);
    let keys = |arguments: &[&str]| {
        let all = [&["list", "s", "--keys"], arguments].concat();
        shell.ok_text(&all).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(keys(&[]), ["a", "a/1", "a/2", "a/3", "b"]);
    assert_eq!(keys(&["a/"]), ["a/1", "a/2", "a/3"]);
    assert_eq!(keys(&["a/", "--reverse"]), ["a/3", "a/2", "a/1"]);
    assert_eq!(keys(&["a/", "--limit", "2"]), ["a/1", "a/2"]);
    assert_eq!(keys(&["--reverse", "-n", "2"]), ["b", "a/3"]);
    assert_eq!(keys(&["--from", "a/2"]), ["a/2", "a/3", "b"]);
    assert_eq!(keys(&["--from", "a/2", "--to", "b"]), ["a/2", "a/3"]);
    assert_eq!(keys(&["--to", "a/2"]), ["a", "a/1"]);
    assert_eq!(keys(&["a", "--from", "a/2"]), ["a/2", "a/3"]);
    assert_eq!(keys(&["a", "--from", "a/2", "--reverse"]), ["a/3", "a/2"]);
    assert_eq!(keys(&["a/", "--to", "z"]), ["a/1", "a/2", "a/3"]);
    assert_eq!(keys(&["a/", "--to", "a/3"]), ["a/1", "a/2"]);
    assert_eq!(keys(&["a/", "--from", "a"]), ["a/1", "a/2", "a/3"]);
    assert_eq!(keys(&["a/", "--from", "a/2", "--to", "b"]), ["a/2", "a/3"]);
    assert_eq!(keys(&["--from", "b", "--to", "a"]), [""; 0]);
    assert_eq!(keys(&["-n", "0"]), [""; 0]);
    assert_eq!(shell.ok_text(&["list", "s", "b"]), "b\tB\n");
    assert_eq!(shell.ok_text(&["list", "s", "b", "--values"]), "B\n");
    let index = json_of(&shell.ok(&["get", "s", "b", "--json"]))["last_index"].to_string();
    assert_eq!(shell.ok_text(&["list", "s", "b", "--last-index"]), format!("{index}\tb\tB\n"));
    assert_eq!(
        shell.ok_text(&["list", "s", "b", "--json"]),
        format!("{{\"key\":\"b\",\"value\":\"B\",\"last_index\":{index}}}\n")
    );
}

#[test]
fn a_range_under_the_highest_prefix_has_no_end() {
    let shell = Shell::new();
    for key in [r"\xff", r"\xff\xff", r"\xff\xffa", r"\xfe"] {
        shell.ok(&["put", "-e", "s", key, ""]);
    }
    let listed = shell.ok_text(&["list", "-e", "s", "--keys", r"\xff\xff", "--from", "a"]);
    assert_eq!(listed, "\\xff\\xff\n\\xff\\xffa\n");
    assert_eq!(shell.ok_text(&["list", "-e", "s", "--keys", r"\xfe", "--from", "a"]), "\\xfe\n");
}

#[test]
fn the_second_swap_with_one_index_is_lost() {
    let shell = Shell::new();
    let first = shell.ok_text(&["cas", "s", "leader", "anna", "--if-absent"]);
    let first = first.trim_end();
    assert!(shell.fails(3, &["cas", "s", "leader", "ben", "--if-absent"]).contains("there already"));
    let second = shell.ok_text(&["compare-and-swap", "s", "leader", "ben", "--if-last-index", first]);
    assert!(second.trim_end().parse::<u64>().unwrap() > first.parse::<u64>().unwrap());
    assert!(shell.fails(3, &["cas", "s", "leader", "carl", "--if-last-index", first]).contains("changed meanwhile"));
    assert_eq!(shell.ok_text(&["get", "s", "leader", "--last-index"]), format!("{second}ben"));
    shell.ok(&["delete", "s", "leader"]);
    let error = shell.fails(3, &["cas", "s", "leader", "carl", "--if-last-index", second.trim_end()]);
    assert!(error.contains("not there (any more)"), "{error}");
    assert_eq!(shell.fails(1, &["exists", "s", "leader"]), "");
}

#[test]
fn an_empty_prefix_deletes_nothing_unless_all_is_said() {
    let shell = Shell::new();
    for key in ["a/1", "a/2", "b"] {
        shell.ok(&["put", "s", key, ""]);
    }
    assert!(shell.fails(2, &["delete-prefix", "s", ""]).contains("--all"));
    shell.fails(2, &["delete-prefix", "s"]);
    shell.fails(2, &["delete-prefix", "s", "a", "--all"]);
    let ran = shell.run(&["delete-prefix", "s", "a/"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), "deleted 2 keys\n"));
    assert_eq!(json_of(&shell.ok(&["delete-prefix", "s", "--all", "--json"])), json!({ "deleted": 1 }));
    assert_eq!(shell.ok(&["list", "s"]), b"");
}

#[test]
fn a_batch_is_applied_whole_or_not_at_all() {
    let shell = Shell::new();
    let index = shell.ok_text(&["cas", "s", "colour", "blue", "--if-absent"]);
    let index = index.trim_end();
    let batch = format!(
        r#"{{"op":"check","key":"leader","if_absent":true}}

{{"op":"put","key":"colour","value":"red","if_last_index":{index}}}
{{"op":"put","key":"0001","value":"started","bucket":"log"}}
{{"op":"delete","key":"nothing"}}"#
    );
    let ran = shell.feed(batch.as_bytes(), &["batch", "s"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), "applied 4 operations\n"));
    assert_eq!(shell.ok(&["get", "s", "colour"]), b"red");
    assert_eq!(shell.ok(&["get", "s", "0001", "-b", "log"]), b"started");

    // The condition of line 3 no longer holds, so the second entry is not written either.
    std::fs::write(shell.directory.join("batch"), batch.replace("0001", "0002")).unwrap();
    let error = shell.fails(3, &["batch", "s", "batch"]);
    assert!(error.contains("line 3: the key has another last_index"), "{error}");
    assert_eq!(shell.ok_text(&["buckets", "s"]), "\t1\nlog\t1\n");
    let error = json_of(shell.fails(3, &["batch", "s", "batch", "--json"]).as_bytes());
    assert_eq!((&error["error"], &error["line"]), (&json!("conflict"), &json!(3)));

    // A line with a mistake: nothing of the others is written.
    let batch = b"{\"op\":\"put\",\"key\":\"x\",\"value\":\"y\"}\n{\"op\":\"put\",\"key\":\"\",\"value\":\"y\"}\n";
    assert!(shell.feed(batch, &["batch", "s"]).failed(7).contains("line 2"));
    assert_eq!(shell.fails(1, &["exists", "s", "x"]), "");
    // A batch with nothing in it is no error.
    shell.feed(b"", &["batch", "s"]).succeeded();
}

/// A batch that expected an index, which no key of a new store has, left a new store.
#[test]
fn a_batch_makes_a_store_only_for_a_put() {
    let shell = Shell::new();
    let put = r#"{"op":"put","key":"k","value":"v","if_absent":true}"#;
    let others = [
        r#"{"op":"put","key":"k","value":"v","if_last_index":1}"#,
        r#"{"op":"delete","key":"k"}"#,
        r#"{"op":"check","key":"k","if_absent":true}"#,
        "",
    ];
    let with_an_index = [put, others[0]].join("\n");
    for batch in others.into_iter().chain([&*with_an_index]) {
        assert!(shell.feed(batch.as_bytes(), &["batch", "s"]).failed(8).contains("there is no store"), "{batch}");
        assert_eq!(names(shell.directory.path()), [""; 0], "{batch}");
    }
    shell.feed([put, others[1], others[2]].join("\n").as_bytes(), &["batch", "s"]).succeeded();
    shell.feed(others[1].as_bytes(), &["batch", "s"]).succeeded();
}

#[test]
fn stats_verify_and_compact_report_figures() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "k", &"x".repeat(10_000)]);
    shell.ok(&["put", "s", "k", "small"]);
    shell.ok(&["put", "s", "k", "small", "-b", "other"]);
    let stats = json_of(&shell.ok(&["stats", "s", "--json"]));
    assert_eq!((&stats["keys"], &stats["buckets"]), (&json!(2), &json!(2)));
    assert!(stats["dead_bytes"].as_u64().unwrap() > 10_000);
    let plain = shell.ok_text(&["stats", "s"]);
    assert!(plain.lines().all(|line| line.split_once('\t').unwrap().1.parse::<u64>().is_ok()), "{plain}");
    assert_eq!(json_of(&shell.ok(&["verify", "s", "--json"]))["keys"], json!(2));

    let compaction = json_of(&shell.ok(&["compact", "s", "--json"]));
    assert_eq!(compaction["keys"], json!(2));
    let bytes = |name: &str| compaction[name].as_u64().unwrap();
    assert!(bytes("log_bytes_before") > 10_000 && bytes("log_bytes_after") < 1_000, "{compaction}");
    assert!(std::fs::metadata(shell.directory.join("s")).unwrap().len() < 1_000);
    assert_eq!(shell.ok(&["get", "s", "k"]), b"small");
}

#[test]
fn a_damaged_store_is_salvaged_to_a_new_one() {
    let shell = Shell::new();
    for key in ["first", "second", "third"] {
        shell.ok(&["put", "s", key, &format!("value of {key}")]);
    }
    super::exits::damage(&shell.directory.join("s"), b"value of second");
    let report = json_of(&shell.ok(&["salvage", "s", "rescued", "--json"]));
    assert_eq!((&report["keys"], &report["losses"][0]["keys"][0]["key"]), (&json!(2), &json!("second")));
    assert_eq!(shell.ok_text(&["list", "rescued", "--keys"]), "first\nthird\n");
    // What is there is never overwritten.
    assert!(shell.fails(8, &["salvage", "s", "rescued"]).contains("choose another name"));
}

#[test]
fn a_backup_is_a_store_and_replaces_no_file() {
    let shell = Shell::new();
    for value in ["old", "new"] {
        shell.ok(&["put", "s", "k", value]);
    }
    shell.ok(&["backup", "s", "copy"]);
    shell.ok(&["backup", "s", "small", "--compact"]);
    let streamed = shell.ok(&["backup", "s", "-"]);
    std::fs::write(shell.directory.join("streamed"), streamed).unwrap();
    for copy in ["copy", "small", "streamed"] {
        assert_eq!(shell.ok(&["get", copy, "k"]), b"new");
        assert!(shell.ok_text(&["verify", copy]).contains("nothing is lost"));
        shell.fails(8, &["backup", "s", copy]);
    }
    let len = |name: &str| std::fs::metadata(shell.directory.join(name)).unwrap().len();
    assert!(len("small") < len("copy"));
    shell.fails(2, &["backup", "s", "-", "--compact"]);
    // Half a backup must not pass for a whole one.
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = shell.command(&["backup", "s", "-"]).stdout(full).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(8));
    assert!(said.starts_with("error: writing to stdout: No space left"), "{said}");
}

#[test]
fn completions_and_man_pages_know_every_verb() {
    let shell = Shell::new();
    let verbs = [
        "put",
        "get",
        "delete",
        "exists",
        "list",
        "cas",
        "delete-prefix",
        "buckets",
        "batch",
        "import",
        "export",
        "stats",
        "verify",
        "compact",
        "salvage",
        "backup",
        "explore",
    ];
    let page = shell.ok_text(&["man"]);
    for shell_name in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = shell.ok_text(&["completions", shell_name]);
        for verb in verbs {
            assert!(script.contains(verb), "{shell_name}: {verb}");
        }
    }
    for verb in verbs {
        assert!(page.contains(&format!("caskfile\\-{}", verb.replace('-', "\\-"))), "{verb}");
        assert!(shell.ok_text(&["man", verb]).starts_with(".ie"), "{verb}");
        assert!(shell.ok_text(&["help", verb]).contains("Usage: caskfile"), "{verb}");
    }
    assert!(page.contains("since another writer was faster"), "the exit codes are in the man page");
    shell.fails(2, &["man", "nothing"]);
    // bash reads the script without a complaint.
    std::fs::write(shell.directory.join("script"), shell.ok(&["completions", "bash"])).unwrap();
    if let Ok(status) = std::process::Command::new("bash").arg("-n").arg(shell.directory.join("script")).status() {
        assert!(status.success());
    }
}
