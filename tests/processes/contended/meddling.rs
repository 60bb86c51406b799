//! What the test does to processes and to the store, and takes back.

use caskfile::Cask;

use crate::common::process::Process;

/// What is taken back at the end.
pub enum Meddling {
    /// The processes whose files may not grow.
    Limit(Vec<u32>),
    Exclusive(Cask),
}

impl Drop for Meddling {
    fn drop(&mut self) {
        match self {
            Meddling::Limit(limited) => {
                limited.iter().for_each(|process| limit_files_of(*process, libc::RLIM_INFINITY))
            }
            Meddling::Exclusive(cask) => cask.close().unwrap(),
        }
    }
}

/// Sets how long files may get that a process writes. Nothing happens if it has died.
pub fn limit_files_of(process: u32, len: u64) {
    let limit = libc::rlimit { rlim_cur: len, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` is there to be read from, and nothing is written.
    unsafe { libc::prlimit(process as libc::pid_t, libc::RLIMIT_FSIZE, &limit, std::ptr::null_mut()) };
}

/// A process that stands still until this is dropped.
pub struct Stopped(libc::pid_t);

impl Stopped {
    pub fn new(process: &Process) -> Stopped {
        let process = process.id() as libc::pid_t;
        // SAFETY: takes no pointer. The process is a child that was not waited for.
        assert_eq!(unsafe { libc::kill(process, libc::SIGSTOP) }, 0);
        // SAFETY: all fields are numbers, of which zero is one.
        let mut how: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let options = libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT;
        // SAFETY: `how` is there to be written to.
        assert_eq!(unsafe { libc::waitid(libc::P_PID, process as libc::id_t, &mut how, options) }, 0);
        assert_eq!(how.si_code, libc::CLD_STOPPED, "it must not have ended by itself");
        Stopped(process)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { libc::kill(self.0, libc::SIGCONT) };
    }
}
