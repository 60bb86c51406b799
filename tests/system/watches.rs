//! Watches over mounts: which changes the system reports where a file has several paths, or lies in layers. What it does not report
//! is found by the watch's own look, and counted.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;

use caskfile::{Cask, Config, Durability, Error, Watch, WatchFrom};

use crate::common::TempDir;
use crate::common::process::{Process, arguments, in_own_mounts, listen, say, this_test};

fn mount(arguments: &[&str]) -> bool {
    Command::new("mount").args(arguments).status().is_ok_and(|status| status.success())
}

fn bind(from: &Path, to: &Path) -> bool {
    mount(&["--bind", from.to_str().unwrap(), to.to_str().unwrap()])
}

fn open(path: impl AsRef<Path>) -> Cask {
    Cask::open_with(path, &Config::new().durability(Durability::Os)).unwrap()
}

fn read_only(path: impl AsRef<Path>) -> Cask {
    Cask::open_with(path, &Config::new().read_only(true)).unwrap()
}

/// A watch that waits by its descriptor, so that a change comes while it does, however slow the machine is.
struct Sleeping {
    cask: Cask,
    watch: Watch,
}

impl Sleeping {
    fn on(cask: &Cask) -> Sleeping {
        let mut watch = cask.changes("", WatchFrom::Now).unwrap();
        watch.descriptor().unwrap();
        Sleeping { cask: cask.clone(), watch }
    }

    fn wait(&mut self) {
        let descriptor = self.watch.descriptor().unwrap().as_raw_fd();
        let mut polled = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
        // SAFETY: one element, as the call is given, which lives until it returns.
        assert_eq!(unsafe { libc::poll(&mut polled, 1, 30_000) }, 1, "neither a report nor a look");
    }

    /// Returns whether the system has reported the one write that `change` makes. It is delivered in any case.
    fn is_told_of(&mut self, change: impl FnOnce()) -> bool {
        let unreported = self.cask.stats().unwrap().unreported_changes;
        assert!(self.watch.try_next().unwrap().is_none());
        assert_eq!(self.cask.stats().unwrap().polling_watches, 0);
        change();
        loop {
            self.wait();
            if let Some(unit) = self.watch.try_next().unwrap() {
                assert_eq!(unit.into_changes().unwrap().len(), 1);
                break;
            }
        }
        self.cask.stats().unwrap().unreported_changes == unreported
    }

    /// Waits until the watch ends.
    fn end(mut self, change: impl FnOnce()) -> Error {
        assert!(self.watch.try_next().unwrap().is_none());
        change();
        loop {
            self.wait();
            if let Err(error) = self.watch.try_next() {
                return error;
            }
        }
    }
}

fn put(cask: &Cask) {
    cask.put("key", "value").unwrap();
}

#[test]
fn a_watch_is_woken_over_a_mount_of_the_directory() {
    let Some(directory) = in_own_mounts(this_test!()) else { return };
    let (host, mounted) = (directory.join("host"), directory.join("mounted"));
    [&host, &mounted].iter().for_each(|path| fs::create_dir(path).unwrap());
    if !bind(&host, &mounted) {
        return say("mount --bind is not allowed");
    }
    let casks = [open(host.join("store")), open(mounted.join("store"))];
    for (watching, writing) in [(0, 1), (1, 0)] {
        let mut sleeping = Sleeping::on(&casks[watching]);
        for _ in 0..3 {
            assert!(sleeping.is_told_of(|| put(&casks[writing])));
            // The old file is replaced, and the watch goes on in the new one.
            casks[writing].compact().unwrap();
            assert!(sleeping.is_told_of(|| put(&casks[writing])));
        }
    }
}

#[test]
fn a_watch_is_woken_over_a_mount_of_the_file_until_a_compaction() {
    let Some(directory) = in_own_mounts(this_test!()) else { return };
    let (host, mounted) = (directory.join("host"), directory.join("mounted"));
    let owner = open(&host);
    put(&owner);
    File::create(&mounted).unwrap();
    if !bind(&host, &mounted) {
        return say("mount --bind is not allowed");
    }
    let through_mount = open(&mounted);
    assert!(Sleeping::on(&owner).is_told_of(|| put(&through_mount)));
    let mut sleeping = Sleeping::on(&through_mount);
    assert!(sleeping.is_told_of(|| put(&owner)));
    // The mount goes on showing the old file, in which nothing happens any more.
    let error = sleeping.end(|| _ = owner.compact().unwrap());
    assert!(matches!(error, Error::Replaced { .. }), "{error:?}");
}

/// As a program in a container and one outside of it.
#[test]
fn a_watch_is_woken_by_a_process_in_another_mount_namespace() {
    if let Some(arguments) = arguments() {
        let (data, mounted) = (Path::new(&arguments[0]), Path::new(&arguments[1]));
        if !bind(data, mounted) {
            return say("mount --bind is not allowed");
        }
        let cask = open(mounted.join("store"));
        say("ready");
        while let Some(what) = listen() {
            match &*what {
                "put" => put(&cask),
                _ => _ = cask.compact().unwrap(),
            }
            say("done");
        }
        return;
    }
    let directory = TempDir::new();
    let (data, mounted) = (directory.join("data"), directory.join("mounted"));
    [&data, &mounted].iter().for_each(|path| fs::create_dir(path).unwrap());
    let cask = open(data.join("store"));
    let paths = [&data, &mounted].map(|path| path.to_str().unwrap());
    let Some(mut other) = Process::start_with_own_mounts(this_test!(), &paths) else { return };
    let said = other.hear();
    if said.as_deref() != Some("ready") {
        return println!("skipped: {said:?}");
    }
    assert!(!mounted.join("store").exists(), "the mounts of the other process are its own");
    let mut sleeping = Sleeping::on(&cask);
    for _ in 0..3 {
        assert!(sleeping.is_told_of(|| assert_eq!(other.ask("put"), "done")));
        assert_eq!(other.ask("compact"), "done");
        assert!(sleeping.is_told_of(|| assert_eq!(other.ask("put"), "done")));
    }
    other.succeed();
}

/// An overlay reports what is done through it. What is done to a layer below it is read through the overlay all the same, and only
/// the watch's own look finds it. Linux promises nothing for a layer that changes, so this is more than a program can count on.
#[test]
fn a_watch_on_an_overlay_finds_what_is_written_through_it_and_below_it() {
    let Some(directory) = in_own_mounts(this_test!()) else { return };
    // On one file system, and on two, where a file gets another identity when it is copied.
    for (round, options) in ["", ",xino=off"].into_iter().enumerate() {
        let base = directory.join(round.to_string());
        let place = |name: &str| base.join(name);
        fs::create_dir(&base).unwrap();
        let tmpfs = |at: &Path| mount(&["-t", "tmpfs", "-o", "size=8m", "caskfile-test", at.to_str().unwrap()]);
        if !tmpfs(&base) {
            return say("mount is not allowed");
        }
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir(place(name)).unwrap();
        }
        if !options.is_empty() {
            assert!(tmpfs(&place("lower")));
        }
        let below = open(place("lower/store"));
        put(&below);
        let layers = ["lower", "upper", "work"].map(|name| place(name).display().to_string());
        let layers = format!("lowerdir={},upperdir={},workdir={}{options}", layers[0], layers[1], layers[2]);
        if !mount(&["-t", "overlay", "-o", &layers, "caskfile-test", place("merged").to_str().unwrap()]) {
            return say("overlays cannot be mounted");
        }
        let merged = place("merged/store");
        let reader = read_only(&merged);
        let mut sleeping = Sleeping::on(&reader);
        let lower = sleeping.is_told_of(|| put(&below));
        below.close().unwrap();

        // The first opening for writing copies the file to the upper layer, under the watch.
        let mut writer = None;
        let copied_up = sleeping.is_told_of(|| put(writer.insert(open(&merged))));
        let writer = writer.unwrap();
        let through_it = sleeping.is_told_of(|| put(&writer));
        writer.compact().unwrap();
        let compacted = sleeping.is_told_of(|| put(&writer));
        writer.close().unwrap();
        let upper = open(place("upper/store"));
        let below_again = sleeping.is_told_of(|| put(&upper));
        eprintln!(
            "overlay{options}: reported are a write to the lower file: {lower}, the copy-up: {copied_up}, a write through the \
             overlay: {through_it}, after a compaction: {compacted}, to the upper file: {below_again}"
        );
        assert!(through_it && compacted, "what is done through the overlay is reported");
        assert!(!lower && !below_again, "docs/LIMITS.md says that a layer's changes are not reported");
    }
}
