//! The operating system under the seam.

use std::io;

#[cfg(target_os = "linux")]
mod anchored;
mod attributes;
mod file;
#[cfg(target_os = "linux")]
mod linger;
#[cfg(target_os = "linux")]
mod locks;
mod names;
#[cfg(target_os = "linux")]
mod sleeper;
mod stat;
mod system;

pub use names::RealDisk;
pub use system::RealSystem;
pub(super) use system::monotonic;

/// Makes a call again if a signal interrupted it before it did anything.
fn retry_interrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
