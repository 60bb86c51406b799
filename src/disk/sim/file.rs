//! The simulated disk's open files and maps.

use std::io;
use std::ops::Range;

use super::inode::PAGE;
use super::recording::Change;
use super::{Fault, Machine, SimDisk, Verb};
use crate::disk::{DiskFile, FileAttributes, FileStat, Map, MappedBytes, SyncScope, WaitingLine};
use crate::limits::Limits;

/// The longest file. Contents are kept in memory, holes included.
const MAX_LEN: u64 = 1 << 32;

/// An open file description of the simulated disk.
pub(super) struct SimFile {
    disk: SimDisk,
    description: u64,
}

impl SimFile {
    pub(super) fn new(disk: SimDisk, description: u64) -> SimFile {
        SimFile { disk, description }
    }

    /// Syncs the file, with or without its attributes.
    fn sync_file(&self, verb: Verb) -> io::Result<()> {
        // Hooks run in the middle of it.
        let _syncing = self.disk.begin_sync(self.description);
        let mut turn = self.disk.turn(verb)?;
        let machine = &mut *turn.machine;
        let crash = machine.world.settings.crash;
        let reached = &mut machine.world.settings.failed_syncs;
        let description = machine.descriptions.get_mut(&self.description).expect(OPEN);
        let inode = machine.world.inodes.get_mut(&description.inode).expect(OPEN);
        if let Some(error) = turn.fault.and_then(Fault::error) {
            inode.fail_sync(reached, crash);
            inode.report_errors(&mut description.errors_reported);
            description.note_failed_sync();
            return Err(error);
        }
        if inode.report_errors(&mut description.errors_reported) {
            // Another description's sync failed, or the kernel's own write-back. This description reports that too,
            // once. Its own bytes are written, but the disk was not asked to make them durable.
            description.note_failed_sync();
            return turn.end(Err(io::Error::from_raw_os_error(libc::EIO)));
        }
        if !turn.fault.is_some_and(Fault::ends_the_caller) {
            inode.sync(verb == Verb::SyncAll);
        }
        turn.end(Ok(()))
    }

    /// Brings all names to the disk, and nothing of any file: the engine must not depend on that.
    fn sync_names(&self) -> io::Result<()> {
        let mut turn = self.disk.turn(Verb::SyncFileSystem)?;
        if let Some(error) = turn.fault.and_then(Fault::error) {
            return Err(error);
        }
        if !turn.fault.is_some_and(Fault::ends_the_caller) {
            turn.machine.world.directory.sync_all();
        }
        turn.end(Ok(()))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.disk.lock().close(self.description);
    }
}

/// Files of living processes are in the machine's tables.
const OPEN: &str = "the file is open";

impl Machine {
    fn inode_of(&self, description: u64) -> u64 {
        self.descriptions.get(&description).expect(OPEN).inode
    }

    fn count_read(&mut self, process: u64, count: usize) {
        self.bytes_read += count as u64;
        let mut owners = self.world.inodes.values().filter(|inode| !inode.is_new).filter_map(|inode| inode.locked_by);
        if owners.any(|owner| self.descriptions.get(&owner).is_some_and(|owner| owner.process == process)) {
            *self.bytes_read_under_lock.entry(process).or_default() += count as u64;
        }
    }

    fn expect_writable(&self, description: u64) -> io::Result<()> {
        let writable = self.descriptions.get(&description).expect(OPEN).writable;
        if writable { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EBADF)) }
    }
}

fn expect_length(len: Option<u64>) -> io::Result<()> {
    if len.is_some_and(|len| len <= MAX_LEN) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EFBIG)) }
}

impl DiskFile for SimFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut turn = self.disk.turn(Verb::ReadAt)?;
        if let Some(error) = turn.fault.and_then(Fault::error) {
            return Err(error);
        }
        let limit = turn.fault.map_or(buffer.len(), |fault| fault.limit(buffer.len()));
        let inode = turn.machine.inode_of(self.description);
        let count = turn.machine.world.inode(inode).read(offset, &mut buffer[..limit]);
        turn.machine.count_read(self.disk.process, count.unwrap_or(0));
        turn.end(count.ok_or_else(|| io::Error::from_raw_os_error(libc::EIO)))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut turn = self.disk.turn(Verb::WriteAt)?;
        if let Some(error) = turn.fault.and_then(Fault::error) {
            return Err(error);
        }
        turn.machine.expect_writable(self.description)?;
        turn.machine.expect_right_to_change(self.description, Verb::WriteAt);
        expect_length(offset.checked_add(bytes.len() as u64))?;
        let count = turn.fault.map_or(bytes.len(), |fault| fault.limit(bytes.len()));
        let number = turn.machine.inode_of(self.description);
        let (inode, free) = turn.machine.world.inode_and_space(number);
        let space_end = inode.allocate(offset..offset + count as u64, free);
        let count = (space_end - offset) as usize;
        if count == 0 && !bytes.is_empty() && turn.fault.is_none() {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        inode.write(offset, &bytes[..count]);
        turn.machine.bytes_written += count as u64;
        let written = || Change::Write { inode: number, offset, bytes: bytes[..count].into() };
        turn.machine.record(self.disk.process, written);
        turn.machine.note_change(number);
        turn.end(Ok(count))
    }

    fn limits(&self) -> &'static Limits {
        self.disk.lock().world.settings.limits
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.call(Verb::Len, |machine| {
            let inode = machine.inode_of(self.description);
            Ok(machine.world.inode(inode).len())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.call(Verb::SetLen, |machine| {
            machine.expect_writable(self.description)?;
            machine.expect_right_to_change(self.description, Verb::SetLen);
            expect_length(Some(len))?;
            let inode = machine.inode_of(self.description);
            machine.world.release(inode, len..u64::MAX);
            machine.world.inode(inode).set_len(len);
            machine.record(self.disk.process, || Change::SetLen { inode, len });
            machine.note_change(inode);
            Ok(())
        })
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        self.disk.call(Verb::Punch, |machine| {
            machine.expect_writable(self.description)?;
            machine.expect_right_to_change(self.description, Verb::Punch);
            if !machine.world.settings.punches {
                return Err(io::ErrorKind::Unsupported.into());
            }
            let inode = machine.inode_of(self.description);
            machine.world.release(inode, range.clone());
            machine.world.inode(inode).punch(range.clone());
            machine.record(self.disk.process, || Change::Punch { inode, range });
            machine.note_change(inode);
            Ok(())
        })
    }

    fn sync(&self, scope: SyncScope) -> io::Result<()> {
        match scope {
            SyncScope::Data => self.sync_file(Verb::SyncData),
            SyncScope::File => self.sync_file(Verb::SyncAll),
            SyncScope::FileSystem => self.sync_names(),
        }
    }

    fn write_back(&self, _range: Range<u64>, wait_before: u64) -> io::Result<()> {
        if wait_before == 0 {
            return self.disk.call(Verb::BeginWriteBack, |_| Ok(()));
        }
        self.disk.call(Verb::WriteBack, |machine| {
            let description = machine.descriptions.get_mut(&self.description).expect(OPEN);
            let inode = machine.world.inodes.get_mut(&description.inode).expect(OPEN);
            // This reports what has failed, and the next sync does not report it again.
            let failed = inode.report_errors(&mut description.errors_reported);
            if failed {
                description.note_failed_sync();
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            Ok(())
        })
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.disk.call(Verb::NextData, |machine| {
            let holes = machine.world.settings.holes;
            let inode = machine.inode_of(self.description);
            let inode = machine.world.inode(inode);
            Ok(if holes { inode.next_data(offset) } else { (offset < inode.len()).then_some(offset) })
        })
    }

    fn data_end(&self, offset: u64) -> io::Result<u64> {
        self.disk.call(Verb::DataEnd, |machine| {
            let holes = machine.world.settings.holes;
            let inode = machine.inode_of(self.description);
            let inode = machine.world.inode(inode);
            Ok(if holes { inode.data_end(offset) } else { inode.len().max(offset) })
        })
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.disk.call(Verb::TryLock, |machine| {
            let inode = machine.inode_of(self.description);
            machine.try_lingering(inode, self.description);
            let locked = machine.world.inode(inode);
            let has_it = *locked.locked_by.get_or_insert(self.description) == self.description;
            locked.was_locked |= has_it;
            if has_it {
                machine.record(self.disk.process, || Change::Lock { inode });
                machine.lockers.insert(self.disk.process);
                machine.descriptions.get_mut(&self.description).expect(OPEN).note_lock();
            }
            Ok(has_it)
        })
    }

    fn unlock(&self) -> io::Result<()> {
        self.disk.call(Verb::Unlock, |machine| {
            machine.release(self.description);
            Ok(())
        })
    }

    fn unlock_soon(&self) -> io::Result<()> {
        let mut machine = self.disk.lock();
        let lingers = machine.world.settings.lingering.filter(|_| machine.world.settings.waiting_line);
        let has_lock = |machine: &mut Machine, inode| machine.world.inode(inode).locked_by == Some(self.description);
        let inode = machine.descriptions.get(&self.description).map(|own| own.inode);
        if lingers.is_some() && inode.is_some_and(|inode| has_lock(&mut machine, inode)) {
            machine.descriptions.get_mut(&self.description).expect(OPEN).lingers = lingers;
            return Ok(());
        }
        drop(machine);
        self.unlock()
    }

    fn take_lock_back(&self) -> bool {
        let mut machine = self.disk.lock();
        machine.descriptions.get_mut(&self.description).is_some_and(|own| own.lingers.take().is_some())
    }

    fn locks_linger(&self) -> bool {
        self.disk.lock().world.settings.lingering.is_some()
    }

    fn waiting_line(&self) -> Option<&dyn WaitingLine> {
        self.disk.lock().world.settings.waiting_line.then_some(self)
    }

    fn lock_line(&self, line: u32) -> Option<Box<dyn WaitingLine + '_>> {
        self.disk.lock().world.settings.waiting_line.then(|| Box::new(LockLine { file: self, line }) as _)
    }

    fn hold_owner(&self, owner: u64) -> io::Result<()> {
        let machine = &mut *self.disk.lock();
        machine.expect_alive(self.disk.process)?;
        let inode = machine.inode_of(self.description);
        machine.owners.entry((inode, owner)).or_default().insert(self.description);
        Ok(())
    }

    fn release_owner(&self, owner: u64) {
        let machine = &mut *self.disk.lock();
        let Some(own) = machine.descriptions.get(&self.description) else { return };
        if let Some(holders) = machine.owners.get_mut(&(own.inode, owner)) {
            holders.remove(&self.description);
        }
    }

    fn is_owner_held(&self, owner: u64) -> io::Result<bool> {
        let machine = self.disk.lock();
        machine.expect_alive(self.disk.process)?;
        let holders = machine.owners.get(&(machine.inode_of(self.description), owner));
        Ok(holders.is_some_and(|holders| holders.iter().any(|&holder| holder != self.description)))
    }

    fn stat(&self) -> io::Result<FileStat> {
        self.disk.call(Verb::FileStat, |machine| {
            let inode = machine.inode_of(self.description);
            Ok(machine.world.stat(inode))
        })
    }

    fn attributes(&self) -> io::Result<FileAttributes> {
        self.disk.call(Verb::Attributes, |machine| {
            let inode = machine.inode_of(self.description);
            Ok(machine.world.inode(inode).attributes().clone())
        })
    }

    fn set_attributes(&self, like: &FileAttributes) -> io::Result<()> {
        self.disk.call(Verb::SetAttributes, |machine| {
            let inode = machine.inode_of(self.description);
            machine.world.inode(inode).set_attributes(like.clone());
            machine.record(self.disk.process, || Change::SetAttributes { inode, attributes: like.clone() });
            machine.note_change(inode);
            Ok(())
        })
    }

    fn map(&self, len: u64) -> io::Result<Option<Map>> {
        self.disk.call(Verb::Map, |machine| {
            let inode = machine.inode_of(self.description);
            let map = || Map::from_bytes(Box::new(SimMap { disk: self.disk.clone(), inode, len }));
            let settings = &machine.world.settings;
            let is_true = !settings.overlay || machine.expect_writable(self.description).is_ok();
            let maps = settings.maps && is_true;
            machine.descriptions.get_mut(&self.description).expect(OPEN).maps |= maps;
            Ok(maps.then(map))
        })
    }

    fn is_mapped_elsewhere(&self) -> io::Result<bool> {
        self.disk.call(Verb::IsMappedElsewhere, |machine| {
            let inode = machine.inode_of(self.description);
            let mut others = machine.descriptions.iter().filter(|&(&number, _)| number != self.description);
            Ok(others.any(|(_, other)| other.inode == inode && other.maps))
        })
    }
}

/// The calls of a process that was killed do nothing.
impl WaitingLine for SimFile {
    fn try_place(&self, place: u64) -> io::Result<bool> {
        let machine = &mut *self.disk.lock();
        let Some(own) = machine.descriptions.get(&self.description) else { return Ok(false) };
        Ok(*machine.places.entry((own.inode, place)).or_insert(self.description) == self.description)
    }

    fn leave_place(&self, place: u64) {
        let machine = &mut *self.disk.lock();
        let Some(own) = machine.descriptions.get(&self.description) else { return };
        if machine.places.get(&(own.inode, place)) == Some(&self.description) {
            machine.places.remove(&(own.inode, place));
        }
    }

    /// Any of them: the last.
    fn place_of_another(&self, among: Range<u64>) -> Option<u64> {
        let machine = self.disk.lock();
        let inode = machine.descriptions.get(&self.description)?.inode;
        let mut taken = machine.places.range((inode, among.start)..(inode, among.end.max(among.start)));
        taken.rfind(|&(_, &owner)| owner != self.description).map(|(&(_, place), _)| place)
    }
}

/// A line for a lock that the log has. Its places are far above those of the line for the file's lock.
struct LockLine<'f> {
    file: &'f SimFile,
    line: u32,
}

impl LockLine<'_> {
    fn place(&self, place: u64) -> u64 {
        1 << 63 | u64::from(self.line) << 31 | place.min((1 << 31) - 1)
    }
}

impl WaitingLine for LockLine<'_> {
    fn try_place(&self, place: u64) -> io::Result<bool> {
        self.file.try_place(self.place(place))
    }

    fn leave_place(&self, place: u64) {
        self.file.leave_place(self.place(place));
    }

    fn place_of_another(&self, among: Range<u64>) -> Option<u64> {
        let found = self.file.place_of_another(self.place(among.start)..self.place(among.end));
        found.map(|place| place - self.place(0))
    }
}

/// A map of a simulated file. It shows the file even after the process or the power is gone.
struct SimMap {
    disk: SimDisk,
    inode: u64,
    len: u64,
}

impl MappedBytes for SimMap {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, offset: u64, out: &mut [u8]) {
        let mut machine = self.disk.hooked(Verb::ReadMap);
        let (inode, free) = machine.world.inode_and_space(self.inode);
        let (end, covered) = (offset + out.len() as u64, inode.len().next_multiple_of(PAGE));
        if end > covered {
            // Unlock the disk before the panic, so that other processes can go on.
            drop(machine);
            panic!("SIGBUS: bytes {offset}..{end} of a map of a file whose last page ends at {covered}");
        }
        let space_end = inode.allocate(offset..end, free);
        if space_end < end {
            drop(machine);
            panic!("SIGBUS: a hole at {space_end} is read through a map, and the disk is full");
        }
        let count = inode.contents().read(offset, out);
        machine.count_read(self.disk.process, count);
        // The kernel fills the last page with zeros.
        out[count..].fill(0);
    }
}
