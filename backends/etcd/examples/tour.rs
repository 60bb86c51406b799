//! Settings, compare-and-swap, a leader and a watch: the same on a file and on a cluster, by changing a string.
//!
//! ```text
//! cargo run --release --example tour -- caskfile /tmp/tour.cask
//! cargo run --release --example tour -- etcd 127.0.0.1:2379
//! ```
//!
//! At the end it prints what the calls cost.

use std::time::{Duration, Instant};

use caskfile::{Config, Error, LockOptions, Result, Store, TreeEvent, new_store};
use caskfile_etcd::EtcdConfig;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [backend, address] = &words[..] else {
        eprintln!("usage: tour caskfile FILE | tour etcd HOST:PORT[,HOST:PORT...]");
        std::process::exit(2);
    };
    if let Err(error) = EtcdConfig::new(Vec::<String>::new()).register("etcd").and_then(|()| tour(backend, address)) {
        eprintln!("tour: {error:#}");
        std::process::exit(1);
    }
}

fn tour(backend: &str, address: &str) -> Result<()> {
    let store = new_store(backend, address, &Config::new())?;
    store.delete_tree(b"tour/")?;

    // Settings, and a feed that sees them change.
    let mut feed = store.watch_tree(b"tour/settings/")?;
    store.put(b"tour/settings/port", b"8080")?;
    let port = store.get(b"tour/settings/port")?;
    while let Some(event) = feed.next_timeout(Some(Duration::from_secs(5)))? {
        println!("feed: {event:?}");
        if matches!(event, TreeEvent::Changes(_)) {
            break;
        }
    }

    // Compare-and-swap: the pair that was read is good for one write.
    store.atomic_put(b"tour/settings/port", b"9090", Some(&port))?;
    let late = store.atomic_put(b"tour/settings/port", b"7070", Some(&port));
    println!("a swap with the old pair: {}", late.as_ref().unwrap_err());
    assert!(matches!(late, Err(Error::KeyModified)));

    // One leader at a time, with a token for what the store does not protect.
    let lock = store.new_lock(b"tour/leader", &LockOptions::new().value("node-1").ttl(Duration::from_secs(5)))?;
    let held = lock.lock(Some(Duration::from_secs(10)))?;
    println!("leader: {}, token {}", String::from_utf8_lossy(&store.get(b"tour/leader")?.value), held.token());
    lock.unlock()?;

    let value = [b'x'; 100];
    let mut pair = store.atomic_put(b"tour/cost", &value, None)?;
    cost("put", || store.put(b"tour/key", &value))?;
    cost("get", || store.get(b"tour/key").map(drop))?;
    cost("swap", || {
        pair = store.atomic_put(b"tour/cost", &value, Some(&pair))?;
        Ok(())
    })?;
    cost("list of 3", || store.list(b"tour/").map(drop))?;
    let mut watched = store.watch(b"tour/key")?;
    watched.next_timeout(None)?;
    cost("put until a watch has it", || {
        store.put(b"tour/key", &value)?;
        watched.next_timeout(None).map(drop)
    })?;
    cost("lock and unlock", || {
        lock.lock(None)?;
        lock.unlock()
    })?;
    store.delete_tree(b"tour/")?;
    store.close()
}

/// Prints the middle and the worst of the times that a call takes.
fn cost(name: &str, mut call: impl FnMut() -> Result<()>) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        call()?;
        times.push(began.elapsed());
    }
    times.sort();
    println!("{name:<26} {:>9.3?} in the middle, {:>9.3?} at worst", times[times.len() / 2], times[times.len() - 1]);
    Ok(())
}
