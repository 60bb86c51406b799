//! A pseudo-terminal, and what a command writes to it.

use std::fs::File;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};

use super::run::Shell;

/// Both ends of a new pseudo-terminal: ours and the command's.
pub fn terminal() -> (File, OwnedFd) {
    let (mut ours, mut theirs) = (-1, -1);
    let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the pointers are to live locals or null, where null is allowed; on success both descriptors are open and
    // not shared.
    unsafe {
        let done = libc::openpty(&mut ours, &mut theirs, std::ptr::null_mut(), std::ptr::null(), &size);
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs))
    }
}

/// Everything that is written to the terminal until the last process that has it open is gone.
pub fn seen(mut ours: File) -> String {
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    // The end is an error on Linux.
    while let Ok(read @ 1..) = ours.read(&mut piece) {
        seen.extend_from_slice(&piece[..read]);
    }
    String::from_utf8(seen).unwrap()
}

/// Runs a command with stdout and stderr on a terminal.
pub fn on_terminal(shell: &Shell, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let (ours, theirs) = terminal();
    let mut command = shell.command(arguments);
    command.envs(environment.iter().copied()).env("TERM", "xterm");
    let mut child = command.stdout(theirs.try_clone().unwrap()).stderr(theirs).spawn().unwrap();
    // The command keeps its copies of the descriptors for the next run, and the terminal would stay open.
    drop(command);
    let seen = seen(ours);
    child.wait().unwrap();
    seen.replace("\r\n", "\n")
}
