//! Starts the programs as a user would, and kills some. With the feature `sqlite`, the same for the versions on SQLite.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

/// The program, and the part of its name that says on what it is built.
fn programs(name: &str) -> Vec<(PathBuf, &'static str)> {
    let directory = Path::new(env!("CARGO_BIN_EXE_queue")).parent().unwrap();
    let kinds: &[&str] = if cfg!(feature = "sqlite") && name != "feed" { &["", "-sqlite"] } else { &[""] };
    kinds.iter().map(|kind| (directory.join(format!("{name}{kind}")), *kind)).collect()
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("caskfile-programs-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Server {
    address: String,
    _process: Killed,
}

struct Answer {
    status: u16,
    etag: String,
    body: Vec<u8>,
}

impl Server {
    fn start(program: &Path, store: &Path) -> Server {
        let mut command = Command::new(program);
        let mut process = Killed(command.arg(store).arg("127.0.0.1:0").stdout(Stdio::piped()).spawn().unwrap());
        let mut address = String::new();
        BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Server { address: address.trim().to_owned(), _process: process }
    }

    fn ask(&self, method: &str, path: &str, header: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{header}content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a header");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
        let etag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap_or_default().to_owned();
        let mut body = bytes.split_off(end + 4);
        if head.contains("transfer-encoding: chunked") {
            body = unchunked(&body);
        }
        Answer { status: head[9..12].parse().unwrap(), etag, body }
    }
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n").expect("the length of a chunk");
        let len = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        if len == 0 {
            return all;
        }
        all.extend_from_slice(&bytes[end + 2..][..len]);
        bytes = &bytes[end + 2 + len + 2..];
    }
}

#[test]
fn two_servers_share_settings_and_their_tags() {
    for (program, kind) in programs("settings") {
        let scratch = Scratch::new(&format!("settings{kind}"));
        let store = scratch.0.join("store");
        let [one, two] = [(); 2].map(|()| Server::start(&program, &store));

        assert_eq!(one.ask("GET", "/settings/port", "", "").status, 404);
        let made = one.ask("PUT", "/settings/port", "if-none-match: *", "8080");
        assert_eq!(made.status, 204);
        assert_eq!(two.ask("PUT", "/settings/port", "if-none-match: *", "1").status, 412);
        let read = two.ask("GET", "/settings/port", "", "");
        assert_eq!((read.status, &read.body[..], &read.etag), (200, &b"8080"[..], &made.etag));
        assert_eq!(two.ask("GET", "/settings/port", &format!("if-none-match: {}", made.etag), "").status, 304);

        let changed = two.ask("PUT", "/settings/port", &format!("if-match: {}", made.etag), "9090");
        assert_eq!(changed.status, 204);
        assert_ne!(changed.etag, made.etag);
        assert_eq!(one.ask("PUT", "/settings/port", &format!("if-match: {}", made.etag), "1").status, 412);
        assert_eq!(one.ask("PUT", "/settings/host", "", "example").status, 204);
        assert_eq!(two.ask("GET", "/settings?prefix=", "", "").body, br#"["host","port"]"#);
        assert_eq!(two.ask("GET", "/settings?prefix=p", "", "").body, br#"["port"]"#);

        let backup = one.ask("GET", "/backup", "", "");
        assert_eq!(backup.status, 200);
        assert_eq!(one.ask("DELETE", "/settings/port", &format!("if-match: {}", made.etag), "").status, 412);
        assert_eq!(one.ask("DELETE", "/settings/port", &format!("if-match: {}", changed.etag), "").status, 204);
        assert_eq!(two.ask("GET", "/settings/port", "", "").status, 404);

        let copy = scratch.0.join("copy");
        fs::write(&copy, &backup.body).unwrap();
        let restored = Server::start(&program, &copy);
        assert_eq!(restored.ask("GET", "/settings/port", "", "").body, b"9090");
        if kind.is_empty() {
            assert_eq!(restored.ask("PUT", "/settings/port", &format!("if-match: {}", made.etag), "1").status, 412);
        }
    }
}

/// Follows the feed, and returns the next event: its name, its id and its data.
fn next_event(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> (String, u64, String) {
    let (mut name, mut id) = (String::new(), 0);
    loop {
        // Between the events are empty lines and the lengths of chunks.
        let line = lines.next().expect("the connection has ended").unwrap();
        match line.split_once(": ") {
            Some(("event", text)) => name = text.to_owned(),
            Some(("id", text)) => id = text.parse().unwrap(),
            Some(("data", text)) => return (name, id, text.to_owned()),
            _ => {}
        }
    }
}

#[test]
fn a_feed_goes_on_where_the_client_was() {
    let scratch = Scratch::new("feed");
    let store = scratch.0.join("store");
    let cask = caskfile::Cask::open(&store).unwrap();
    let first = cask.put("k/a", "1").unwrap();
    let server = Server::start(&programs("feed")[0].0, &store);
    let follow = |header: &str| {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        write!(stream, "GET /changes?prefix=k/ HTTP/1.1\r\nhost: test\r\n{header}\r\n").unwrap();
        BufReader::new(stream).lines()
    };
    let event = |name: &str, id: u64, data: &str| (name.to_owned(), id, data.to_owned());

    let mut lines = follow("");
    assert_eq!(next_event(&mut lines), event("all", first, r#"{"k/a":"1"}"#));
    let mut last = first;
    for round in 0..100 {
        cask.put("other", "").unwrap();
        last = cask.put("k/a", round.to_string()).unwrap();
        assert_eq!(next_event(&mut lines), event("changed", last, &format!(r#"{{"k/a":"{round}"}}"#)));
    }
    drop(lines);

    let mut batch = caskfile::Batch::new();
    batch.delete("k/a").put("k/b", "2");
    let batch = cask.write(&batch).unwrap().last_index().unwrap();
    let mut lines = follow(&format!("last-event-id: {last}\r\n"));
    assert_eq!(next_event(&mut lines), event("changed", batch, r#"{"k/a":null,"k/b":"2"}"#));
    cask.compact().unwrap();
    let put = cask.put("k/c", "3").unwrap();
    assert_eq!(next_event(&mut lines), event("changed", put, r#"{"k/c":"3"}"#));

    // What came after this position is no longer all there.
    let mut lines = follow(&format!("last-event-id: {last}\r\n"));
    assert_eq!(next_event(&mut lines), event("all", put, r#"{"k/b":"2","k/c":"3"}"#));
}

#[test]
fn a_tool_remembers_what_it_has_seen() {
    for (program, kind) in programs("state") {
        let scratch = Scratch::new(&format!("state{kind}"));
        let files = scratch.0.join("files");
        fs::create_dir_all(files.join("deeper")).unwrap();
        for name in ["a", "b", "deeper/c"] {
            fs::write(files.join(name), name).unwrap();
        }
        let run = || {
            let output = Command::new(&program).arg(scratch.0.join("store")).arg(&files).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).unwrap().replace(&format!("{}/", files.display()), "");
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(run(), ["new a", "new b", "new deeper/c"]);
        assert!(run().is_empty());
        fs::write(files.join("a"), "longer").unwrap();
        fs::remove_file(files.join("b")).unwrap();
        fs::write(files.join("d"), "").unwrap();
        assert_eq!(run(), ["changed a", "gone b", "new d"]);
        assert!(run().is_empty());
    }
}

#[test]
fn every_job_is_done_although_workers_are_killed() {
    const JOBS: u64 = 300;
    for (program, kind) in programs("queue") {
        let scratch = Scratch::new(&format!("queue{kind}"));
        let store = scratch.0.join("store");
        let start = |arguments: &[&str]| Killed(Command::new(&program).arg(&store).args(arguments).spawn().unwrap());
        assert!(start(&["add", &JOBS.to_string()]).0.wait().unwrap().success());
        let mut workers: Vec<_> = (0..4).map(|_| start(&["work"])).collect();
        for _ in 0..6 {
            thread::sleep(Duration::from_millis(40));
            workers.remove(0);
            workers.push(start(&["work"]));
        }
        for worker in &mut workers {
            assert!(worker.0.wait().unwrap().success());
        }
        if kind.is_empty() {
            let cask = caskfile::Cask::open(&store).unwrap();
            assert_eq!(cask.bucket("done").unwrap().len().unwrap(), JOBS);
            assert_eq!(cask.stats().unwrap().keys, JOBS);
        }
        #[cfg(feature = "sqlite")]
        if kind == "-sqlite" {
            let connection = rusqlite::Connection::open(&store).unwrap();
            let done: i64 =
                connection.query_row("SELECT count(*) FROM jobs WHERE state = 'done'", [], |row| row.get(0)).unwrap();
            assert_eq!(done as u64, JOBS);
        }
    }
}
