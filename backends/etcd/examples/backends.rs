//! The library's program for any backend, with this backend beside `caskfile`: settings, compare-and-swap, a leader and a watch.
//!
//! ```text
//! cargo run --release --example backends -- etcd 127.0.0.1:2379
//! cargo run --release --example backends -- caskfile some.cask
//! ```

#[path = "../../../examples/backends/program.rs"]
mod program;

fn main() -> std::process::ExitCode {
    // The endpoints are the address, which is an argument.
    match caskfile_etcd::EtcdConfig::new(Vec::<String>::new()).register("etcd") {
        Ok(()) => program::main(),
        Err(error) => {
            eprintln!("backends: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
