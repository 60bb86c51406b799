//! The real binary, run in a directory of its own.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;

use crate::common::TempDir;

/// Seconds. No command takes as long, unless it never ends.
const PATIENCE: u32 = 120;

/// A directory with stores, in which commands are run.
pub struct Shell {
    pub directory: TempDir,
}

/// What a command has left.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// A command that runs.
pub struct Running {
    child: Child,
    pub lines: BufReader<ChildStdout>,
}

impl Shell {
    pub fn new() -> Shell {
        Shell { directory: TempDir::new() }
    }

    /// Starts a command, which need not have come to anything when this returns.
    pub fn start<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Running {
        Running::start(&mut self.command(arguments))
    }

    /// A command that is not yet started, with nothing on stdin.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_caskfile"));
        command.args(arguments).current_dir(self.directory.path()).stdin(Stdio::null());
        command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE");
        // The tests may have been started with signals ignored, as by `nohup` or in the background of a script. The command
        // would ignore them too, and a test that stops it would wait for ever.
        let reset = || {
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                // SAFETY: it takes no pointer, and may be called between fork and exec.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
            }
            // SAFETY: as above. A command that hangs ends by this signal, and the test that waits for it fails.
            unsafe { libc::alarm(PATIENCE) };
            Ok(())
        };
        // SAFETY: the closure allocates nothing and takes no lock.
        unsafe { command.pre_exec(reset) };
        command
    }

    pub fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Ran {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs a command that is to succeed, and returns what it writes to stdout.
    #[track_caller]
    pub fn ok<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Vec<u8> {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        ran.stdout
    }

    #[track_caller]
    pub fn ok_text<A: AsRef<OsStr>>(&self, arguments: &[A]) -> String {
        String::from_utf8(self.ok(arguments)).unwrap()
    }

    /// Runs a command that is to end with this code and to write nothing to stdout, and returns what it says.
    #[track_caller]
    pub fn fails<A: AsRef<OsStr>>(&self, code: i32, arguments: &[A]) -> String {
        self.run(arguments).failed(code)
    }

    /// Runs a command with this on stdin.
    pub fn feed<A: AsRef<OsStr>>(&self, stdin: &[u8], arguments: &[A]) -> Ran {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // A command that fails early does not read everything.
            scope.spawn(move || drop(pipe.write_all(stdin)));
            child.wait_with_output().unwrap().into()
        })
    }
}

impl Running {
    pub fn start(command: &mut Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Running { child, lines }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.lines.read_line(&mut line).unwrap() > 0, "it has ended");
        line
    }

    /// The next line, as JSON.
    pub fn next(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    /// Waits for its end, and returns what was not read of it.
    pub fn ended(mut self) -> Ran {
        let mut stdout = Vec::new();
        self.lines.read_to_end(&mut stdout).unwrap();
        Ran { stdout, ..self.child.wait_with_output().unwrap().into() }
    }

    /// Sends a signal, and waits for its end.
    pub fn stopped_by(self, name: &str) -> Ran {
        self.signal(name);
        self.ended()
    }

    /// Reads no more, and waits for its end.
    pub fn closed(self) -> Ran {
        drop(self.lines);
        self.child.wait_with_output().unwrap().into()
    }
}

impl Ran {
    #[track_caller]
    pub fn succeeded(self) -> Vec<u8> {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.stdout
    }

    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        assert!(self.stdout.is_empty(), "{}", String::from_utf8_lossy(&self.stdout));
        self.stderr
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        let stderr = String::from_utf8(output.stderr).unwrap();
        Ran { code: output.status.code(), stdout: output.stdout, stderr }
    }
}

/// Sends a signal by its name.
pub fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap();
    assert!(status.success());
}
