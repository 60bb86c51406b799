//! What a person at a terminal sees, through a pseudo-terminal.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::pty::{on_terminal, seen, terminal};
use super::run::Shell;

#[test]
fn text_is_shown_as_text_and_other_bytes_escaped() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "text", "größer\nand more"]);
    assert_eq!(on_terminal(&shell, &["get", "s", "text"], &[]), "größer\nand more\n");
    shell.feed(b"done\n", &["put", "s", "line", "-"]).succeeded();
    assert_eq!(on_terminal(&shell, &["get", "s", "line"], &[]), "done\n");
    shell.feed(b"\x1b]0;title\x07\xff", &["put", "s", "binary", "-"]).succeeded();
    let shown = on_terminal(&shell, &["get", "s", "binary"], &[]);
    assert!(shown.starts_with("\\x1b]0;title\\x07\\xff\n(11 bytes, shown with escapes"), "{shown:?}");
    assert!(!shown.contains('\x1b'));
    let listed = on_terminal(&shell, &["list", "s"], &[]);
    assert_eq!(listed, "binary\t\\x1b]0;title\\x07\\xff\nline\tdone\\n\ntext\tgrößer\\nand more\n");
}

#[test]
fn figures_are_a_table_for_people() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "k", &"x".repeat(5000)]);
    let stats = on_terminal(&shell, &["stats", "s"], &[]);
    assert!(stats.contains("live bytes") && stats.contains("KiB (5,0"), "{stats}");
    assert_eq!(on_terminal(&shell, &["buckets", "s"], &[]), "(default)\t1\n");
}

#[test]
fn errors_have_colours_only_on_a_terminal_that_wants_them() {
    let shell = Shell::new();
    let line = ["get", "missing", "k"];
    assert!(on_terminal(&shell, &line, &[]).contains("\x1b["));
    assert!(!on_terminal(&shell, &line, &[("NO_COLOR", "1")]).contains('\x1b'));
    assert!(!shell.run(&line).stderr.contains('\x1b'));
    // clap's own, too.
    assert!(on_terminal(&shell, &["get"], &[]).contains("\x1b["));
    assert!(!on_terminal(&shell, &["get"], &[("NO_COLOR", "1")]).contains('\x1b'));
}

/// Feeds an import slowly enough for a bar to appear.
fn feed_slowly(child: &mut Child) {
    let mut input = child.stdin.take().unwrap();
    let began = Instant::now();
    let mut number = 0;
    while began.elapsed() < Duration::from_millis(800) {
        writeln!(input, "key{number}\tvalue").unwrap();
        number += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn long_work_has_a_progress_bar_only_on_a_terminal() {
    let shell = Shell::new();
    let line = ["import", "s", "--format", "tsv"];
    let (ours, theirs) = terminal();
    let mut command = shell.command(&line);
    let mut import =
        command.env("TERM", "xterm").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(theirs).spawn().unwrap();
    drop(command);
    feed_slowly(&mut import);
    let shown = seen(ours);
    assert!(import.wait().unwrap().success());
    assert!(shown.contains("importing"), "{shown:?}");
    // The bar is gone at the end, and the last thing said is how much it was.
    let last = shown.trim_end().rsplit(['\r', '\n']).next().unwrap();
    assert!(last.contains("imported") && !last.contains("importing"), "{shown:?}");

    for quiet in [false, true] {
        let (ours, theirs) = terminal();
        let mut command = shell.command(&[&line[..], if quiet { &["--quiet"] } else { &[] }].concat());
        let command = command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut import = if quiet {
            command.stderr(theirs).spawn().unwrap()
        } else {
            drop(theirs);
            command.stderr(Stdio::piped()).spawn().unwrap()
        };
        command.stderr(Stdio::null());
        feed_slowly(&mut import);
        let mut said = String::new();
        if let Some(mut stderr) = import.stderr.take() {
            stderr.read_to_string(&mut said).unwrap();
        }
        said += &seen(ours);
        assert!(import.wait().unwrap().success());
        assert!(!said.contains("importing") && !said.contains('\r'), "{said:?}");
        assert_eq!(said.is_empty(), quiet);
    }
}

#[test]
fn something_turns_while_a_command_waits_for_another_writer() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "k", "v"]);
    let exclusive = caskfile::Config::new().lock_mode(caskfile::LockMode::Exclusive);
    let holder = caskfile::Cask::open_with(shell.directory.join("s"), &exclusive).unwrap();
    let line = ["put", "s", "k", "w", "--timeout", "800ms"];
    let shown = on_terminal(&shell, &line, &[("NO_COLOR", "1")]);
    assert!(shown.contains("opening") && shown.contains("locked"), "{shown:?}");
    assert!(!shell.fails(4, &line).contains("opening"));
    // What is quick shows nothing.
    assert_eq!(on_terminal(&shell, &["get", "s", "k"], &[]), "v\n");
    holder.close().unwrap();
}

#[test]
fn a_user_typing_a_value_learns_how_to_end_it() {
    let shell = Shell::new();
    let (mut ours, theirs) = terminal();
    let mut command = shell.command(&["put", "s", "k", "-"]);
    let stdin = theirs.try_clone().unwrap();
    let mut put = command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    drop(command);
    assert!(theirs.as_raw_fd() >= 0);
    ours.write_all(b"typed\n\x04").unwrap();
    let mut said = String::new();
    put.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(put.wait().unwrap().success());
    assert!(said.starts_with("reading the value from the terminal"), "{said}");
    assert_eq!(shell.ok(&["get", "s", "k"]), b"typed\n");
}

#[test]
fn a_user_typing_lines_learns_how_to_end_them() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "k", "v"]);
    for (line, what) in [(["batch", "s"], "operations"), (["import", "s"], "lines to import")] {
        let (mut ours, theirs) = terminal();
        let mut command = shell.command(&line);
        let stdin = theirs.try_clone().unwrap();
        let mut child = command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        drop(command);
        ours.write_all(b"\x04").unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(child.wait().unwrap().success(), "{line:?}: {said}");
        assert!(said.starts_with(&format!("reading {what} from the terminal; Ctrl-D")), "{line:?}: {said}");
    }
}

#[test]
fn what_is_no_text_is_not_written_to_a_terminal() {
    let shell = Shell::new();
    shell.ok(&["put", "s", "k", "v"]);
    for (line, what) in
        [(&["backup", "s", "-"][..], "a backup"), (&["explore", "s"], "a page"), (&["map", "s"], "an SVG")]
    {
        let shown = on_terminal(&shell, line, &[("NO_COLOR", "1")]);
        assert!(shown.starts_with(&format!("error: {what} is no text for a terminal\n hint: ")), "{line:?}: {shown}");
        assert_eq!(shown.lines().count(), 2, "{line:?}: {shown}");
    }
}
