//! Other processes: the test program itself, started once more to run one of its tests in another role.
//!
//! A test that needs a second process calls [`Process::start`] with its own name. In the process that this starts,
//! [`arguments`] returns what was passed, and the test plays the other role. The two talk in lines: [`Process::tell`]
//! is heard by [`listen`], [`say`] by [`Process::hear`].

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::TempDir;

/// Holds the arguments, separated by [`SEPARATOR`]. That it is there tells a process that it is the other one.
const ARGUMENTS: &str = "CASKFILE_TEST_ARGUMENTS";
const SEPARATOR: char = '\u{1f}';
/// What a line starts with that is meant for the other side, and not the test harness's own.
const MARK: &str = "\u{1e}";
/// The first thing that the other process says: without it, a misspelt name would start a process that runs no test.
const HERE: &str = "here";
/// A process that hangs ends by a signal after this many seconds, and with it the test that waits for it fails.
const PATIENCE: u32 = 60;

/// What the process that started this one has passed; `None` in the test program that the user has started.
pub fn arguments() -> Option<Vec<String>> {
    let arguments = std::env::var(ARGUMENTS).ok()?;
    be_patient_for(PATIENCE);
    say(HERE);
    Some(arguments.split(SEPARATOR).map(str::to_owned).collect())
}

/// Sets again how many seconds this process has before a signal ends it.
pub fn be_patient_for(seconds: u32) {
    // SAFETY: takes no pointer and has no precondition.
    unsafe { libc::alarm(seconds) };
}

/// Says something to the process that started this one. If that one is gone, so is the reason to go on.
pub fn say(line: impl AsRef<str>) {
    let mut out = std::io::stdout().lock();
    // The harness leaves a line of its own unfinished before a test runs.
    let said = out.write_all(format!("\n{MARK}{}\n", line.as_ref()).as_bytes()).and_then(|()| out.flush());
    if said.is_err() {
        std::process::exit(1);
    }
}

/// What the process that started this one says next; `None` once it says nothing more.
pub fn listen() -> Option<String> {
    let mut line = String::new();
    let got = std::io::stdin().read_line(&mut line).unwrap();
    (got > 0).then(|| line.trim_end_matches('\n').to_owned())
}

/// The full name of the test in which this stands, as the harness knows it.
macro_rules! this_test {
    () => {{
        fn here() {}
        $crate::common::process::name_of_test(std::any::type_name_of_val(&here))
    }};
}
pub(crate) use this_test;

/// The name of the test around the function with the type name `here`.
pub fn name_of_test(here: &'static str) -> &'static str {
    let (_, path) = here.split_once("::").expect("a path begins with its crate");
    let end = path.find("::{{closure}}").or(path.rfind("::here"));
    &path[..end.expect("the function is called `here`")]
}

/// A running process, killed when dropped.
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts this program's test `test` in another process. Returns once that test is running.
    pub fn start(test: &str, arguments: &[&str]) -> Process {
        let program = std::env::current_exe().unwrap();
        Process::launch(Command::new(program), test, arguments).expect("the other process must get to its test")
    }

    /// As [`Process::start`], in a mount name space of its own, in which its mounts are visible to itself only;
    /// `None`, with the reason printed, where this user or this system may not have one.
    pub fn start_with_own_mounts(test: &str, arguments: &[&str]) -> Option<Process> {
        // A user without privileges needs a user name space as well, to be the superuser of.
        let flags = if is_superuser() { "-m" } else { "-rm" };
        let mut command = Command::new("unshare");
        command.arg(flags).arg(std::env::current_exe().unwrap());
        let process = Process::launch(command, test, arguments);
        if process.is_none() {
            println!("{test}: skipped, `unshare {flags}` gives this user no mount name space");
        }
        process
    }

    /// As [`Process::start`], in namespaces of its own, which `unshare` makes with these flags; `None` where neither the superuser nor this
    /// user may have them. The process that plays the role is a child of the one that is returned, and ends with it.
    pub fn start_in_namespaces(test: &str, flags: &[String], arguments: &[&str]) -> Option<Process> {
        let program = std::env::current_exe().unwrap();
        // In some containers the superuser needs a user namespace too.
        let users: &[&[&str]] = if is_superuser() { &[&[], &["--map-root-user"]] } else { &[&["--map-root-user"]] };
        users.iter().find_map(|user| {
            let mut command = Command::new("unshare");
            command.args(*user).args(flags).args(["--fork", "--kill-child"]).arg(&program);
            Process::launch(command, test, arguments)
        })
    }

    fn launch(mut command: Command, test: &str, arguments: &[&str]) -> Option<Process> {
        let mut child = command
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(ARGUMENTS, arguments.join(&SEPARATOR.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut process = Process { child, input, output };
        (process.hear().as_deref() == Some(HERE)).then_some(process)
    }

    pub fn tell(&mut self, line: &str) {
        let input = self.input.as_mut().expect("not finished");
        input.write_all(format!("{line}\n").as_bytes()).expect("the other process must be there to hear it");
    }

    /// What it says next; `None` once it has ended.
    pub fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap() > 0 {
            if let Some((_, said)) = line.split_once(MARK) {
                return Some(said.trim_end_matches('\n').to_owned());
            }
            line.clear();
        }
        None
    }

    /// Whether it says something within this time, or ends. What it says is heard later.
    pub fn says_within(&mut self, time: Duration) -> bool {
        let output = self.output.get_ref().as_raw_fd();
        let mut poll = libc::pollfd { fd: output, events: libc::POLLIN, revents: 0 };
        // SAFETY: it is one descriptor, and `poll` is there to be written to.
        !self.output.buffer().is_empty() || unsafe { libc::poll(&mut poll, 1, time.as_millis() as libc::c_int) } > 0
    }

    /// Waits until it says this, and nothing else.
    #[track_caller]
    pub fn hear_it_say(&mut self, line: &str) {
        assert_eq!(self.hear().as_deref(), Some(line));
    }

    /// Tells it and waits for the answer.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.hear().expect("the other process must answer")
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has come to its end.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Ends it as a crash does, if it has not ended; what it has said can still be heard.
    pub fn kill_if_running(&mut self) {
        self.child.kill().unwrap();
    }

    /// Ends it as a crash does, and returns how it ended: a process that had failed before was not killed.
    pub fn kill(mut self) -> ExitStatus {
        self.child.kill().unwrap();
        self.child.wait().unwrap()
    }

    /// Lets it come to its end, without anything more being said, and returns how it ended.
    pub fn end(mut self) -> ExitStatus {
        self.input = None;
        // Reads on, so that a full pipe does not hold it up.
        while self.hear().is_some() {}
        self.child.wait().unwrap()
    }

    /// Lets it come to its end, which must be a success.
    #[track_caller]
    pub fn succeed(self) {
        let status = self.end();
        assert!(status.success(), "the other process must succeed: {status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already, in most cases.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a test in a process of its own. In that process it returns an empty directory for the test. In the test that the
/// user started it returns `None` after the process has succeeded.
pub fn in_own_process(test: &str) -> Option<&'static Path> {
    directory_of_the_test(|directory| Process::start(test, &[directory]).succeed())
}

/// As [`in_own_process`], with a mount name space of its own, if this user may have one. The test says why it must be skipped
/// with [`say`], and returns.
pub fn in_own_mounts(test: &str) -> Option<&'static Path> {
    directory_of_the_test(|directory| {
        let Some(mut process) = Process::start_with_own_mounts(test, &[directory]) else { return };
        while let Some(reason) = process.hear() {
            println!("{test}: skipped, {reason}");
        }
        process.succeed();
    })
}

fn directory_of_the_test(start: impl FnOnce(&str)) -> Option<&'static Path> {
    let Some(mut arguments) = arguments() else {
        let directory = TempDir::new();
        start(directory.path().to_str().unwrap());
        return None;
    };
    // The process ends with its test.
    Some(Path::new(arguments.swap_remove(0).leak()))
}

/// Whether a process was ended by the signal that cannot be caught.
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(libc::SIGKILL)
}

/// Ends this process as a crash does: nothing is closed or dropped.
pub fn die() -> ! {
    // SAFETY: kill takes no pointer.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    unreachable!("SIGKILL cannot be held up")
}

pub fn is_superuser() -> bool {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// The user that this process becomes in [`drop_privileges`].
pub const NOBODY: u32 = 65534;

/// Makes this process one that file modes apply to, for good.
pub fn drop_privileges() {
    if !is_superuser() {
        return;
    }
    // SAFETY: no groups are passed, so none are read; the rest takes no pointer.
    let dropped =
        unsafe { libc::setgroups(0, std::ptr::null()) == 0 && libc::setgid(NOBODY) == 0 && libc::setuid(NOBODY) == 0 };
    assert!(dropped, "{}", std::io::Error::last_os_error());
}

/// Lets all users make and remove files in a directory, also after [`drop_privileges`].
pub fn open_to_all(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o777)).unwrap();
}
