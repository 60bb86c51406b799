//! The operating system behind the seam.

#[cfg(target_os = "linux")]
mod anchored;
mod file;

pub use file::RealDisk;
