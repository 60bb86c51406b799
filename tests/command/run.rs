//! The real binary, run in a directory of its own.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};

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

impl Shell {
    pub fn new() -> Shell {
        Shell { directory: TempDir::new() }
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
