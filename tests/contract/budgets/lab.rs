//! A store on a simulated disk, with a handle whose calls are counted, and another process.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use caskfile::disk::sim::{Fault, Repeat, SimDisk, Verb, When};
use caskfile::disk::{Access, Disk, DiskFile};
use caskfile::{Cask, CompactionPolicy, Config, Durability, Error, LockMode, ReadMode};

use super::cost::Cost;

pub const STORE: &str = "/store";
pub const VALUE: &[u8] = &[b'v'; 64];
pub const LARGE: &[u8] = &[b'l'; 100_000];

/// How a handle is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    lock: LockMode,
    read: ReadMode,
}

pub const MODES: [Mode; 4] = [
    Mode { lock: LockMode::PerWrite, read: ReadMode::Map },
    Mode { lock: LockMode::PerWrite, read: ReadMode::Pread },
    Mode { lock: LockMode::Exclusive, read: ReadMode::Map },
    Mode { lock: LockMode::Exclusive, read: ReadMode::Pread },
];

impl Mode {
    pub fn number(self) -> usize {
        MODES.iter().position(|&mode| mode == self).expect("one of the list")
    }

    pub fn is_exclusive(self) -> bool {
        self.lock == LockMode::Exclusive
    }

    pub fn is_mapped(self) -> bool {
        self.read == ReadMode::Map
    }

    pub fn name(self) -> &'static str {
        ["shared map", "shared pread", "exclusive map", "exclusive pread"][self.number()]
    }
}

/// What has happened directly before a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The handle has made calls of all kinds, and no other process has done anything since.
    Later,
    First,
    AnothersAppend,
    AnothersCompaction,
    AnothersTornWrite,
    AnothersCut,
    OwnCompaction,
    Reopening,
    FailedWrite,
}

pub const STATES: [State; 9] = [
    State::Later,
    State::First,
    State::AnothersAppend,
    State::AnothersCompaction,
    State::AnothersTornWrite,
    State::AnothersCut,
    State::OwnCompaction,
    State::Reopening,
    State::FailedWrite,
];

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Later => "A later call",
            State::First => "The first call of a handle",
            State::AnothersAppend => "After another process has appended",
            State::AnothersCompaction => "After another process has compacted",
            State::AnothersTornWrite => "After another process was killed in a write",
            State::AnothersCut => "After another process has cut off a torn tail",
            State::OwnCompaction => "After the handle has compacted",
            State::Reopening => "After the handle was reopened",
            State::FailedWrite => "After a write of the handle has failed",
        }
    }

    /// Beside an exclusive handle, no other process writes.
    pub fn exists_in(self, mode: Mode) -> bool {
        use State::{AnothersAppend, AnothersCompaction, AnothersCut, AnothersTornWrite};
        !(mode.is_exclusive() && matches!(self, AnothersAppend | AnothersCompaction | AnothersTornWrite | AnothersCut))
    }
}

pub struct Lab {
    /// Of the handle's process.
    pub disk: SimDisk,
    config: Config,
    handle: RefCell<Option<Cask>>,
}

impl Lab {
    /// A store that another process has made and closed.
    pub fn new(mode: Mode, durability: Durability) -> Lab {
        Lab::with_patience(mode, durability, Duration::ZERO)
    }

    /// The same, with a handle that waits this long for the lock.
    pub fn with_patience(mode: Mode, durability: Durability, patience: Duration) -> Lab {
        let disk = SimDisk::new();
        // So that no call costs more because the machine is slow.
        disk.stop_clock();
        let config = config().connection_timeout(patience);
        let config = config.lock_mode(mode.lock).read_mode(mode.read).durability(durability);
        let lab = Lab { disk: disk.process(), config, handle: RefCell::default() };
        let maker = lab.other();
        for key in ["a", "b", "c"] {
            maker.put(key, VALUE).unwrap();
        }
        maker.close().unwrap();
        lab
    }

    /// For handles that are opened after this.
    pub fn let_locks_linger(&self) {
        self.disk.set_waiting_line(true);
        self.disk.set_lingering(Some(1));
    }

    /// Another process, with a handle that writes durably.
    fn other(&self) -> Cask {
        Cask::open_on(Arc::new(self.disk.process()), STORE, &config()).unwrap()
    }

    /// Counts what something costs. All that an exclusive handle reads it reads with the lock, so that is not counted.
    pub fn count(&self, act: impl FnOnce()) -> Cost {
        let mut cost = Cost::of(&self.disk, act);
        if self.config.get_lock_mode() == LockMode::Exclusive {
            cost.read_with_lock = 0;
        }
        cost
    }

    pub fn handle(&self) -> Cask {
        self.handle.borrow_mut().get_or_insert_with(|| self.open()).clone()
    }

    /// A bucket of its own for the large value.
    pub fn large(&self) -> Cask {
        self.handle().bucket("large").unwrap()
    }

    pub fn open(&self) -> Cask {
        Cask::open_on(Arc::new(self.disk.clone()), STORE, &self.config).unwrap()
    }

    pub fn open_to_read(&self) -> Cask {
        Cask::open_on(Arc::new(self.disk.clone()), STORE, &self.config.clone().read_only(true)).unwrap()
    }

    /// This lab, whose handle was closed.
    pub fn closed(&self) -> &Lab {
        assert!(matches!(self.handle().get("a"), Err(Error::Closed)));
        self
    }

    /// The lock of the store, as another process that does not give it up.
    pub fn lock_from_outside(&self) -> Arc<dyn DiskFile> {
        let file = self.disk.process().open(STORE.as_ref(), Access::ReadWrite).unwrap();
        assert!(file.try_lock().unwrap());
        file
    }

    pub fn bring_into(&self, state: State) {
        let handle = self.handle();
        if state == State::First {
            return;
        }
        self.large().put("large", LARGE).unwrap();
        handle.put("a", VALUE).unwrap();
        handle.get("a").unwrap();
        assert_eq!(handle.list("").unwrap().len(), 3);
        match state {
            State::First | State::Later => {}
            State::AnothersAppend => self.other().put("b", VALUE).map(drop).unwrap(),
            State::AnothersCompaction => drop(self.other().compact().unwrap()),
            State::AnothersTornWrite => self.die_in_a_write(),
            State::AnothersCut => {
                self.die_in_a_write();
                self.other().close().unwrap();
            }
            State::OwnCompaction => drop(handle.compact().unwrap()),
            State::Reopening => handle.reopen().unwrap(),
            State::FailedWrite => {
                let full = When::next().of(Verb::WriteAt).by(&self.disk);
                self.disk.fail(full, Fault::Os(libc::ENOSPC), Repeat::Once);
                handle.put("b", VALUE).unwrap_err();
            }
        }
    }

    fn die_in_a_write(&self) {
        let disk = self.disk.process();
        let dying = Cask::open_on(Arc::new(disk.clone()), STORE, &config()).unwrap();
        dying.put("b", VALUE).unwrap();
        disk.fail(When::next().of(Verb::WriteAt).by(&disk), Fault::Kill(60), Repeat::Once);
        dying.put("b", VALUE).unwrap_err();
    }
}

/// No call waits, and nothing happens in the background.
fn config() -> Config {
    Config::new().connection_timeout(Duration::ZERO).compaction(CompactionPolicy::Manual)
}
