//! What a simulated disk can do, and how it fails.

use super::{Choices, SimDisk};
use crate::disk::Clock;
use crate::limits::Limits;

impl SimDisk {
    /// Sets the limits of all stores on this disk, before the first is made. They hold in the lives after a power cut too.
    ///
    /// # Panics
    ///
    /// If the limits do not fit each other.
    pub fn set_limits(&self, limits: Limits) {
        self.lock().world.settings.limits = limits.keep();
    }

    /// Sets the size of the sectors, which survive a power cut whole or not at all. With 1, writes are torn at any
    /// byte.
    ///
    /// # Panics
    ///
    /// If `bytes` is 0.
    pub fn set_sector(&self, bytes: u64) {
        assert!(bytes > 0, "a sector has at least one byte");
        self.lock().world.settings.crash.sector = bytes;
    }

    /// Sets whether a sector that a power cut took from the part by which a file has grown can hold garbage instead of
    /// zeros, as on file systems that do not write a file's data before its length.
    pub fn set_garbage(&self, garbage: bool) {
        self.lock().world.settings.crash.garbage = garbage;
    }

    /// Sets whether files can be mapped; otherwise `map` returns `None`.
    pub fn set_maps(&self, maps: bool) {
        self.lock().world.settings.maps = maps;
    }

    /// Sets whether files can have several names; otherwise `link` moves the file to its new name, as on FAT.
    pub fn set_links(&self, links: bool) {
        self.lock().world.settings.links = links;
    }

    /// Sets whether the system reports which paths are mount points, as Linux does since 5.8.
    pub fn set_mount_points(&self, known: bool) {
        self.lock().world.settings.mount_points = known;
    }

    /// Sets whether files are on an overlay. There, a map of a file that is open for reading only could become stale,
    /// so `map` returns `None` for it.
    pub fn set_overlay(&self, overlay: bool) {
        self.lock().world.settings.overlay = overlay;
    }

    /// Sets whether the file system knows holes; otherwise everything in a file is data.
    pub fn set_holes(&self, holes: bool) {
        self.lock().world.settings.holes = holes;
    }

    /// Sets whether the file system can punch holes.
    pub fn set_punches(&self, punches: bool) {
        self.lock().world.settings.punches = punches;
    }

    /// Sets how much a sync that fails has written before the error: nothing, unless this is called. The rest is lost,
    /// until it is written again.
    pub fn set_failed_syncs(&self, keep: Choices) {
        self.lock().world.settings.failed_syncs = keep;
    }

    /// Sets whether descriptions wait for a file's lock in a line, as on Linux; otherwise there is none. A look at the line
    /// counts as no call.
    pub fn set_waiting_line(&self, waiting_line: bool) {
        self.lock().world.settings.waiting_line = waiting_line;
    }

    /// Sets whether a lock lingers after [`unlock_soon`](crate::disk::DiskFile::unlock_soon), as on Linux, and how many tries of
    /// other descriptions fail until it is released. Without this, and without a waiting line, it is released at once. To leave it and to take it back
    /// count as no calls.
    pub fn set_lingering(&self, failing_tries: Option<u32>) {
        self.lock().world.settings.lingering = failing_tries;
    }

    /// Releases the locks of this process that linger, as the system does after a moment. Returns how many there were.
    pub fn end_lingering(&self) -> usize {
        let machine = &mut *self.lock();
        let of_process = machine.descriptions.iter().filter(|(_, description)| description.process == self.process);
        let lingering = of_process.filter(|(_, description)| description.lingers.is_some()).map(|(&number, _)| number);
        let lingering: Vec<_> = lingering.collect();
        lingering.iter().for_each(|&number| machine.release(number));
        lingering.len()
    }

    /// Stops the clock of engines that are opened from now on, and returns it. Only the test and pauses move it then.
    pub fn stop_clock(&self) -> Clock {
        let clock = Clock::standing_still();
        self.lock().engine_clock = clock.clone();
        clock
    }

    /// Gives engines that are opened from now on a clock of an earlier life, or of another disk.
    pub fn set_clock(&self, clock: &Clock) {
        self.lock().engine_clock = clock.clone();
    }

    /// Sets the boot identity that this process finds, as a container can have one of its own. Without this, it is that of the machine,
    /// which gets another one with each power cut.
    pub fn set_boot(&self, id: [u8; 16]) {
        let process = self.process;
        self.lock().boots.insert(process, id);
    }

    /// Sets the answer of [`Disk::room`](crate::disk::Disk::room), which is `None` at first. The disk does not run full
    /// by this.
    pub fn set_room(&self, bytes: u64) {
        self.lock().world.settings.room = Some(bytes);
    }

    /// Limits the space to this many more pages of 4,096 bytes; `None`, as at first, is no limit. A write takes space
    /// for each page that had none. It ends before the first page without space, and fails with ENOSPC if it begins
    /// there. A read through a map takes space too, as on tmpfs; without space it panics, as a signal would end a
    /// process. Shortening a file and punching holes give space back; removing a file does not.
    pub fn set_free_pages(&self, pages: Option<u64>) {
        self.lock().world.settings.free_pages = pages;
    }

    /// Gives every file that is created from now on an ACL, as a directory's default ACL does.
    pub fn set_default_acl(&self, acl: &[u8]) {
        self.lock().world.settings.default_acl = Some(acl.to_vec());
    }
}
