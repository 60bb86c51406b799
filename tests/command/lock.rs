//! `lock` and `sessions`: a command under a lock, with real processes that are killed, stopped and signalled.

use std::fs;
use std::os::unix::process::CommandExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use caskfile::{Cask, SessionState};
use serde_json::Value;

use super::run::{Ran, Running, Shell};
use crate::common::patience::in_finite_time;

fn open(shell: &Shell) -> Cask {
    Cask::open(shell.directory.join("s")).unwrap()
}

/// Starts a shell under the lock `k`. It reads its script after `sh -c`.
fn start(shell: &Shell, options: &[&str], script: &str) -> Running {
    shell.start(&[&["lock", "s", "k"], options, &["--", "sh", "-c", script]].concat())
}

/// A shell under the lock that says its token and its number, then waits until it is ended.
fn hold(shell: &Shell, options: &[&str]) -> (Running, u64, u32) {
    let mut holder = start(shell, options, "echo $CASKFILE_TOKEN $$; exec sleep 100");
    let line = holder.line();
    let (token, child) = line.trim().split_once(' ').unwrap();
    (holder, token.parse().unwrap(), child.parse().unwrap())
}

fn token(ran: Ran) -> u64 {
    String::from_utf8(ran.succeeded()).unwrap().trim().parse().unwrap()
}

/// Whether the process still runs.
fn runs(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_command_runs_while_the_lock_is_held() {
    in_finite_time(|| {
        let shell = Shell::new();
        let script = format!(
            "echo $CASKFILE_TOKEN $CASKFILE_STORE $CASKFILE_KEY; {} get s k --last-index; echo; exit 3",
            env!("CARGO_BIN_EXE_caskfile")
        );
        let ran = start(&shell, &["--value", "mine", "--quiet"], &script).ended();
        assert_eq!((ran.code, &ran.stderr[..]), (Some(3), ""));
        let said = String::from_utf8(ran.stdout).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        let token = lines[0].strip_suffix(" s k").unwrap();
        assert_eq!(lines[1..], [token, "mine"], "the token is the number of the record that took the lock");
        let cask = open(&shell);
        assert!(!cask.exists("k").unwrap() && cask.sessions().unwrap().is_empty());
        // Without a value, it names its holder.
        let (holder, next, _) = hold(&shell, &[]);
        assert!(next > token.parse().unwrap());
        assert!(cask.get("k").unwrap().value.ends_with(format!(":{}", holder.id()).as_bytes()));
        assert_eq!(holder.stopped_by("TERM").code, Some(143));
        cask.close().unwrap();
    });
}

#[test]
fn the_next_one_waits_for_its_turn() {
    in_finite_time(|| {
        let shell = Shell::new();
        let (holder, first, _) = hold(&shell, &[]);
        let said = start(&shell, &["--timeout", "50ms"], "echo never").ended().failed(11);
        assert!(
            said.contains("the lock `k` in the default bucket is held by another process")
                && said.contains("waited 0.05"),
            "{said}"
        );
        start(&shell, &["--timeout", "0"], "echo never").ended().failed(11);
        // Other keys and buckets are other locks.
        shell.ok(&["lock", "s", "other", "--", "true"]);
        shell.ok(&["lock", "s", "k", "--bucket", "b", "--", "true"]);
        let waiting = start(&shell, &[], "echo $CASKFILE_TOKEN");
        std::thread::sleep(Duration::from_millis(50));
        holder.stopped_by("TERM");
        assert!(token(waiting.ended()) > first);
    });
}

/// A timeout of zero was once the patience with the file's lock too: any write at that moment was taken for a holder.
#[test]
fn a_free_lock_is_taken_without_waiting_beside_a_writer() {
    in_finite_time(|| {
        let shell = Shell::new();
        let cask = open(&shell);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let value = vec![7; 1 << 20];
                while !is_over.load(Ordering::Relaxed) {
                    cask.put("filler", &value).unwrap();
                }
            });
            let codes: Vec<_> = (0..10).map(|_| start(&shell, &["--timeout", "0"], "true").ended().code).collect();
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(codes, [Some(0); 10]);
        });
        cask.close().unwrap();
    });
}

#[test]
fn a_signal_ends_the_wait_for_the_lock() {
    in_finite_time(|| {
        let shell = Shell::new();
        let (holder, ..) = hold(&shell, &[]);
        for (signal, code) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
            let waiting = start(&shell, &[], "echo never");
            // It stands in line when it has its handlers.
            wait_until("it catches signals", || {
                let status = fs::read_to_string(format!("/proc/{}/status", waiting.id())).unwrap();
                let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
                u64::from_str_radix(caught.trim(), 16).unwrap() & 1 << (libc::SIGCHLD - 1) != 0
            });
            waiting.stopped_by(signal).failed(code);
        }
        holder.stopped_by("TERM");
        let cask = open(&shell);
        assert!(cask.sessions().unwrap().is_empty());
        cask.close().unwrap();
    });
}

#[test]
fn signals_reach_the_command_and_its_code_comes_back() {
    in_finite_time(|| {
        let shell = Shell::new();
        for signal in ["TERM", "HUP", "USR1"] {
            let script = format!("trap 'echo came; exit 5' {signal}; echo ready; while :; do sleep 0.01; done");
            let mut holder = start(&shell, &[], &script);
            assert_eq!(holder.line(), "ready\n");
            holder.signal(signal);
            assert_eq!(holder.line(), "came\n");
            assert_eq!(holder.ended().code, Some(5), "{signal}");
        }
        // Without a terminal, no other one has sent it to the command.
        let mut command = shell.command(&["lock", "s", "k", "--", "sh", "-c", "echo ready; exec sleep 100"]);
        // SAFETY: it makes a system call only.
        unsafe { command.pre_exec(|| if libc::setsid() < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }) };
        let mut holder = Running::start(&mut command);
        assert_eq!(holder.line(), "ready\n");
        assert_eq!(holder.stopped_by("INT").code, Some(130));
        for (command, code) in [("no such command", 127), ("/", 126)] {
            let said = shell.fails(code, &["lock", "s", "k", "--", command]);
            assert!(said.contains(command), "{said}");
        }
        shell.fails(2, &["lock", "s", "k"]);
        shell.fails(2, &["lock", "s", "k", "true"]);
        assert!(open(&shell).sessions().unwrap().is_empty());
    });
}

#[test]
fn a_killed_holder_takes_its_command_along_and_leaves_the_lock_to_the_next() {
    in_finite_time(|| {
        let shell = Shell::new();
        for _ in 0..5 {
            let (holder, first, child) = hold(&shell, &["--ttl", "1h"]);
            let waiting = start(&shell, &[], "echo $CASKFILE_TOKEN");
            assert!(runs(child));
            holder.signal("KILL");
            wait_until("the command is killed", || !runs(child));
            assert_eq!(holder.ended().code, None);
            // An hour before the deadline.
            assert!(token(waiting.ended()) > first);
        }
    });
}

#[test]
fn a_lost_lock_ends_the_command() {
    in_finite_time(|| {
        let shell = Shell::new();
        let cask = open(&shell);
        // Stopped for longer than the time to live, and continued.
        let (holder, first, child) = hold(&shell, &["--ttl", "300ms"]);
        holder.signal("STOP");
        assert!(token(start(&shell, &[], "echo $CASKFILE_TOKEN").ended()) > first);
        holder.signal("CONT");
        let said = holder.ended().failed(12);
        assert!(said.contains("the lock `k` in the default bucket was lost before the command had ended"), "{said}");
        assert!(!runs(child));

        // Another process has removed the key. The command does not care for SIGTERM.
        let script = "trap '' TERM; echo ready; while :; do sleep 0.01; done";
        let mut holder = start(&shell, &["--grace", "100ms"], script);
        assert_eq!(holder.line(), "ready\n");
        cask.delete("k").unwrap();
        holder.ended().failed(12);

        // It ends by itself, and no one has noticed the loss.
        let script = format!("{} delete s k; exit 0", env!("CARGO_BIN_EXE_caskfile"));
        start(&shell, &[], &script).ended().failed(12);
        cask.close().unwrap();
    });
}

#[test]
fn sessions_are_listed_with_their_keys() {
    in_finite_time(|| {
        let shell = Shell::new();
        let cask = open(&shell);
        assert_eq!(shell.ok(&["sessions", "s"]), b"");
        let session = cask.session(Duration::from_secs(60)).unwrap();
        session.put(&cask, "a\tb", "1").unwrap();
        let last_index = session.put(&cask.bucket("b").unwrap(), [0xff], "2").unwrap().last_index;
        let (holder, token, _) = hold(&shell, &["--ttl", "1h"]);
        let sessions = cask.sessions().unwrap();
        assert_eq!(sessions.iter().map(|status| status.keys.len()).collect::<Vec<_>>(), [2, 1]);
        assert!(
            sessions.iter().all(|status| matches!(status.state, SessionState::Live(left) if Some(left) <= status.ttl))
        );

        let lines = shell.ok_text(&["sessions", "s"]);
        let fields: Vec<Vec<&str>> = lines.lines().map(|line| line.split('\t').collect()).collect();
        assert_eq!(fields[0][..3], [&sessions[0].session.to_string()[..], "live", "60 s"]);
        assert_eq!(fields[0][4..], [r"a\tb", r"b/\xff"]);
        assert_eq!(fields[1][1..3], ["live", "3600 s"]);
        assert_eq!(fields[1][4..], [format!("k (lock, token {token})")]);

        let objects = shell.ok_text(&["sessions", "s", "--json"]);
        let objects: Vec<Value> = objects.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&objects[0]["state"], &objects[0]["ttl_ms"]), (&"live".into(), &60_000.into()));
        assert!(objects[0]["left_ms"].as_u64().unwrap() <= 60_000);
        assert_eq!(
            objects[0]["keys"][1],
            serde_json::json!({"bucket": "b", "key_base64": "/w==", "last_index": last_index})
        );
        assert_eq!(objects[1]["keys"], serde_json::json!([{"key": "k", "last_index": token, "token": token}]));

        // Neither is exported.
        cask.put("plain", "").unwrap();
        let exported = shell.run(&["export", "s"]);
        assert!(exported.stderr.contains("left out 3 pairs of sessions"), "{}", exported.stderr);
        assert_eq!(String::from_utf8(exported.succeeded()).unwrap().lines().count(), 1);

        session.end().unwrap();
        holder.stopped_by("TERM");
        assert_eq!(shell.ok(&["sessions", "s"]), b"");
        cask.close().unwrap();
    });
}
