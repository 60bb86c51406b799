//! Floors for what reaches a file: bare `pwrite`s of as many bytes as caskfile's records have, with an `fdatasync` each in
//! the durable mode; reading and checksumming all of it for opening; copying and syncing what is live for compaction.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::engine::{Engine, Kind, Mode, Pairs, Result, Role};

pub const KINDS: &[Kind] = &[
    kind("floor-log", "pwrite, fdatasync, into a growing file", |path, mode| {
        Ok(Box::new(Log { log: Appender::open(path, 0)?, mode }))
    }),
    kind("floor-log-ahead", "pwrite, fdatasync, into a file extended ahead", |path, mode| {
        Ok(Box::new(Log { log: Appender::open(path, AHEAD)?, mode }))
    }),
    kind("floor-leader", "one thread writes and syncs for all that wait", |path, mode| {
        Ok(Box::new(Leader { log: Appender::open(path, AHEAD)?, mode, queue: Mutex::default(), done: Condvar::new() }))
    }),
];

const fn kind(name: &'static str, durable: &'static str, open: fn(&Path, Mode) -> Result<Box<dyn Engine>>) -> Kind {
    Kind { name, role: Role::Floor, open, unsynced: "pwrite", durable }
}

/// Sparse; more than any durable row writes.
const AHEAD: u64 = 1 << 30;

struct Appender {
    path: PathBuf,
    file: File,
    end: AtomicU64,
}

/// The length of a record with such a pair in caskfile: header, bucket length, key, value, padding.
fn record_len(key: &[u8], value: &[u8]) -> usize {
    (24 + 1 + key.len() + value.len()).next_multiple_of(8)
}

fn record(key: &[u8], value: &[u8], bytes: &mut Vec<u8>) {
    let end = bytes.len() + record_len(key, value);
    bytes.extend_from_slice(&[1; 25]);
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(value);
    bytes.resize(end, 0);
}

thread_local! {
    static RECORD: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl Appender {
    fn open(directory: &Path, ahead: u64) -> Result<Appender> {
        let path = directory.join("log");
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
        let end = checksum(&mut file)?;
        if ahead > 0 {
            file.set_len(end + ahead)?;
            file.sync_all()?;
        }
        Ok(Appender { path, file, end: AtomicU64::new(end) })
    }

    fn append(&self, bytes: &[u8]) -> Result<()> {
        let at = self.end.fetch_add(bytes.len() as u64, Relaxed);
        Ok(self.file.write_all_at(bytes, at)?)
    }

    fn load(&self, pairs: &Pairs) -> Result<()> {
        let mut bytes = Vec::new();
        for (key, value) in pairs.iter() {
            record(key, value, &mut bytes);
        }
        self.append(&bytes)
    }
}

/// Computes the checksum of the whole file, and returns its length.
fn checksum(file: &mut File) -> Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    let mut hasher = crc32fast::Hasher::new();
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    std::hint::black_box(hasher.finalize());
    Ok(file.stream_position()?)
}

struct Log {
    log: Appender,
    mode: Mode,
}

impl Log {
    fn write(&self, key: &[u8], value: &[u8]) -> Result<()> {
        RECORD.with_borrow_mut(|bytes| {
            bytes.clear();
            record(key, value, bytes);
            self.log.append(bytes)
        })?;
        if self.mode == Mode::Durable {
            self.log.file.sync_data()?;
        }
        Ok(())
    }
}

impl Engine for Log {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write(key, value)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.write(key, &[])
    }

    fn swap(&self, key: &[u8], _: &[u8], new: &[u8]) -> Result<bool> {
        self.write(key, new)?;
        Ok(true)
    }

    fn load(&self, pairs: &Pairs) -> Result<()> {
        self.log.load(pairs)
    }

    /// Copies the newest records of that many keys of the usual shape as `cp` does, and syncs.
    fn compact(self: Box<Self>, keys: usize) -> Result<()> {
        let Appender { path, mut file, end } = self.log;
        let live = (keys * record_len(&[0; 16], &[0; 100])) as u64;
        let copy = path.with_extension("copy");
        let mut to = File::create(&copy)?;
        file.seek(SeekFrom::Start(end.into_inner().saturating_sub(live)))?;
        std::io::copy(&mut file.take(live), &mut to)?;
        to.sync_all()?;
        Ok(std::fs::rename(copy, path)?)
    }
}

struct Leader {
    log: Appender,
    mode: Mode,
    queue: Mutex<Queue>,
    done: Condvar,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    /// Groups whose writing has begun, and has ended.
    begun: u64,
    ended: u64,
}

impl Engine for Leader {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        record(key, value, &mut queue.bytes);
        let mine = queue.begun + 1;
        while queue.ended < mine {
            if queue.begun > queue.ended {
                queue = self.done.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            queue.begun += 1;
            let bytes = std::mem::take(&mut queue.bytes);
            drop(queue);
            self.log.append(&bytes)?;
            if self.mode == Mode::Durable {
                self.log.file.sync_data()?;
            }
            queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.ended += 1;
            self.done.notify_all();
        }
        Ok(())
    }

    fn load(&self, pairs: &Pairs) -> Result<()> {
        self.log.load(pairs)
    }
}
