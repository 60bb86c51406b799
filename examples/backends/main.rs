//! One program on any backend: settings, compare-and-swap, a leader, a watch. The name of the backend is an argument.
//!
//! ```text
//! cargo run --release --example backends                          # a caskfile in the directory for temporary files
//! cargo run --release --example backends -- caskfile some.cask
//! ```
//!
//! `program.rs` knows the contract only, [`caskfile::Store`], and prints what each call has cost. A package with another backend runs the
//! same file after it has registered its name.

mod program;

fn main() -> std::process::ExitCode {
    program::main()
}
