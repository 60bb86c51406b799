//! `wait`: until a key is as a script needs it.

use std::time::Duration;

use caskfile::{Batch, Cask, PutOptions};

use super::run::{Running, Shell};
use crate::common::patience::in_finite_time;

fn open(shell: &Shell) -> Cask {
    Cask::open(shell.directory.join("s")).unwrap()
}

fn start(shell: &Shell, options: &[&str]) -> Running {
    shell.start(&[&["wait", "s"], options].concat())
}

/// Whether the command has its watch: it listens to the file then.
fn listens(waiting: &Running) -> bool {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", waiting.id()));
    descriptors.is_ok_and(|mut descriptors| {
        descriptors.any(|entry| {
            entry.and_then(|entry| entry.path().read_link()).is_ok_and(|link| link.ends_with("anon_inode:inotify"))
        })
    })
}

#[test]
fn it_ends_at_once_if_there_is_nothing_to_wait_for() {
    let shell = Shell::new();
    let cask = open(&shell);
    let last_index = cask.put("k", "v").unwrap();
    let number = last_index.to_string();
    assert_eq!(shell.ok(&["wait", "s", "k"]), b"v");
    assert_eq!(shell.ok_text(&["wait", "s", "k", "--last-index"]), format!("{number}\nv"));
    assert_eq!(
        shell.ok_text(&["wait", "s", "k", "--json"]),
        format!("{{\"key\":\"k\",\"value\":\"v\",\"last_index\":{number}}}\n")
    );
    assert_eq!(shell.ok(&["wait", "s", "k", "--value", "v"]), b"v");
    assert_eq!(shell.ok(&["wait", "s", "x", "--gone"]), b"");
    assert_eq!(shell.ok_text(&["wait", "s", "x", "--gone", "--json"]), "{\"exists\":false}\n");
    assert_eq!(shell.ok(&["wait", "s", "k", "--changed", "--after", "0"]), b"v");
    assert_eq!(shell.ok(&["wait", "s", "k", "--changed", "--after", &(last_index - 1).to_string()]), b"v");
    let error = shell.fails(1, &["wait", "s", "x", "--changed", "--after", &number]);
    assert!(error.contains("the key `x` in the default bucket is gone"), "{error}");
    cask.close().unwrap();
}

#[test]
fn it_ends_when_the_key_expires_although_no_writer_logs_that() {
    in_finite_time(|| {
        let shell = Shell::new();
        let cask = open(&shell);
        for (changed, code) in [(false, 0), (true, 1)] {
            // Until the command has begun to wait while the key was there: a busy machine needs more than the first time.
            let mut time = Duration::from_millis(200);
            loop {
                let last_index = cask.put_with("k", "v", &PutOptions::new().ttl(time)).unwrap().last_index.to_string();
                let log_end = cask.stats().unwrap().log_end;
                let options = if changed { &["k", "--changed", "--after", &last_index][..] } else { &["k", "--gone"] };
                let waiting = start(&shell, options);
                while cask.exists("k").unwrap() && !listens(&waiting) {
                    std::thread::yield_now();
                }
                let has_waited = cask.exists("k").unwrap();
                let ran = waiting.ended();
                assert_eq!(ran.code, Some(code), "{options:?}: {}", ran.stderr);
                assert_eq!((cask.stats().unwrap().log_end, cask.exists("k").unwrap()), (log_end, false), "{options:?}");
                if has_waited {
                    break;
                }
                time *= 2;
            }
        }
        cask.close().unwrap();
    });
}

#[test]
fn the_end_of_the_time_is_11() {
    let shell = Shell::new();
    let cask = open(&shell);
    let last_index = cask.put("k", "v").unwrap().to_string();
    for (options, said) in [
        (&["x"][..], "is still not there"),
        (&["k", "--gone"], "is still there"),
        (&["k", "--changed"], "has not changed"),
        (&["x", "--changed"], "has not changed"),
        (&["x", "--changed", "--after", "0"], "has not changed"),
        (&["k", "--changed", "--after", &last_index], "has not changed"),
        (&["k", "--value", "w"], "does not have this value"),
        (&["k", "--bucket", "log"], "is still not there"),
    ] {
        for time in ["0", "10ms"] {
            let error = shell.fails(11, &[&["wait", "s", "--timeout", time], options].concat());
            assert!(error.contains(said) && error.contains("waited 0"), "{options:?}: {error}");
        }
    }
    for wrong in [&["--after", "1"][..], &["--gone", "--changed"], &["--value", "v", "--gone"], &["--timeout", "soon"]]
    {
        shell.fails(2, &[&["wait", "s", "k"], wrong].concat());
    }
    cask.close().unwrap();
}

#[test]
fn it_waits_for_another_process() {
    in_finite_time(|| {
        let shell = Shell::new();
        let cask = open(&shell);
        let waiting = start(&shell, &["k"]);
        cask.put("k and more", "").unwrap();
        cask.put("k", "here").unwrap();
        assert_eq!(waiting.ended().succeeded(), b"here");

        let waiting = start(&shell, &["k", "--gone"]);
        cask.delete("k and more").unwrap();
        cask.delete("k").unwrap();
        assert_eq!(waiting.ended().succeeded(), b"");

        let waiting = start(&shell, &["-e", "k", "--value", r"\xff", "--timeout", "none"]);
        for value in [&b""[..], b"\xff\xff", b"\xff"] {
            cask.put("k", value).unwrap();
        }
        assert_eq!(waiting.ended().succeeded(), b"\xff");

        let last_index = cask.get("k").unwrap().last_index.to_string();
        let waiting = start(&shell, &["k", "--changed", "--after", &last_index]);
        cask.write(Batch::new().put("other", "").put("k", "new")).unwrap();
        assert_eq!(waiting.ended().succeeded(), b"new");

        let last_index = cask.get("k").unwrap().last_index.to_string();
        let waiting = start(&shell, &["k", "--changed", "--after", &last_index]);
        cask.compact().unwrap();
        cask.delete("k").unwrap();
        assert!(waiting.ended().failed(1).contains("is gone"));
        cask.close().unwrap();
    });
}

#[test]
fn it_looks_again_after_compactions_that_it_slept_through() {
    in_finite_time(|| {
        let shell = Shell::new();
        let cask = open(&shell);
        let waiting = start(&shell, &["k", "--changed"]);
        while !listens(&waiting) {
            std::thread::yield_now();
        }
        waiting.signal("STOP");
        // It can still read the file that it has open, up to the first compaction.
        for key in ["other", "k"] {
            cask.put(key, "1").unwrap();
            cask.put(key, "2").unwrap();
            cask.compact().unwrap();
        }
        waiting.signal("CONT");
        assert_eq!(waiting.ended().succeeded(), b"2");
        cask.close().unwrap();
    });
}

/// Between the look at the key and the sleep there is no time in which a write would be missed.
#[test]
fn a_write_at_any_time_ends_it() {
    in_finite_time(|| {
        let shell = Shell::new();
        let cask = open(&shell);
        for round in 0..60 {
            let key = round.to_string();
            let waiting = start(&shell, &[&key]);
            // The command starts meanwhile: the put comes before, during and after it.
            for _ in 0..round {
                std::thread::yield_now();
                cask.put("other", "").unwrap();
            }
            cask.put(&key, &key).unwrap();
            assert_eq!(waiting.ended().succeeded(), key.as_bytes());
        }
        cask.close().unwrap();
    });
}

/// A loop of a script sees every state that stays, and the last one always.
#[test]
fn a_loop_of_waits_comes_to_the_last_value() {
    in_finite_time(|| {
        let shell = Shell::new();
        let cask = open(&shell);
        let script = "after=0; while
            got=$(\"$0\" wait s k --changed --after $after --last-index) || exit
            after=$(echo \"$got\" | head -n 1); value=$(echo \"$got\" | tail -n 1)
            test $value != 100
        do :; done; echo $value";
        let mut shell_command = std::process::Command::new("timeout");
        shell_command.args(["100", "sh", "-c", script, env!("CARGO_BIN_EXE_caskfile")]);
        let looping = Running::start(shell_command.current_dir(shell.directory.path()));
        for number in 1..=100 {
            cask.put("k", number.to_string()).unwrap();
        }
        assert_eq!(looping.ended().succeeded(), b"100\n");
        cask.close().unwrap();
    });
}

#[test]
fn a_missing_store_is_refused_or_created() {
    in_finite_time(|| {
        let shell = Shell::new();
        assert!(shell.fails(8, &["wait", "s", "k"]).contains("--create"));
        let waiting = start(&shell, &["k", "--create", "-q"]);
        shell.ok(&["put", "s", "k", "v"]);
        let ran = waiting.ended();
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
        assert_eq!(ran.stdout, b"v");
    });
}

#[test]
fn a_signal_ends_it() {
    in_finite_time(|| {
        let shell = Shell::new();
        open(&shell).close().unwrap();
        let waiting = start(&shell, &["k"]);
        // As of every verb that handles no signals: a shell shows 143.
        assert_eq!(waiting.stopped_by("TERM").code, None);
    });
}
