//! Limits: the sizes at which the engine goes another way. A release uses the real ones, as constants.
//!
//! Tests set them small, on the [simulated disk](crate::disk::sim), so that random histories of a few keys cross each of them
//! all the time: a block of a million sequence numbers would never end in a test. All handles on one disk have the same limits.

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $real:expr, $small:expr;)*) => {
        /// The sizes at which the engine goes another way, for tests that set them small.
        ///
        /// ```
        /// use caskfile::Limits;
        /// use caskfile::disk::sim::SimDisk;
        ///
        /// let disk = SimDisk::new();
        /// disk.set_limits(Limits { group_bytes: 100, ..Limits::SMALL });
        /// ```
        #[cfg(any(test, feature = "testing"))]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(clippy::exhaustive_structs, reason = "tests set some fields and take the others")]
        pub struct Limits {
            $($(#[$doc])* pub $name: $type,)*
        }

        #[cfg(any(test, feature = "testing"))]
        impl Limits {
            /// The limits of every store that is not a test's.
            pub const REAL: Limits = Limits { $($name: $real,)* };
            /// Limits that a few records cross.
            pub const SMALL: Limits = Limits { $($name: $small,)* };

            /// Some limits small and the others real, by the bits of `choices`.
            pub fn mixed(choices: u64) -> Limits {
                let mut bits = (0..).map(|bit| choices.rotate_right(bit) & 1 == 1);
                let mut is_small = || bits.next().unwrap_or(true);
                let mixed = Limits { $($name: if is_small() { $small } else { $real },)* };
                Limits {
                    block_len: mixed.block_len.max(mixed.group_records + 8),
                    largest_chunk: mixed.largest_chunk.max(mixed.smallest_chunk),
                    largest_step: mixed.largest_step.max(mixed.smallest_step),
                    ..mixed
                }
            }

            $(
                #[inline(always)]
                pub(crate) const fn $name(&self) -> $type {
                    self.$name
                }
            )*
        }

        /// The limits as constants.
        #[cfg(not(any(test, feature = "testing")))]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) struct Limits;

        #[cfg(not(any(test, feature = "testing")))]
        impl Limits {
            pub(crate) const REAL: Limits = Limits;

            $(
                #[allow(clippy::unused_self, reason = "it has fields in tests")]
                #[inline(always)]
                pub(crate) const fn $name(&self) -> $type {
                    $real
                }
            )*
        }
    };
}

/// What an open file, or an open store, keeps of its limits: nothing, but in tests.
#[cfg(any(test, feature = "testing"))]
pub(crate) type Shared = &'static Limits;
#[cfg(not(any(test, feature = "testing")))]
pub(crate) type Shared = Limits;

limits! {
    /// Sequence numbers are reserved in blocks of this many.
    block_len: u64 = 1 << 20, 14;
    /// The most records that a group and a batch can have: a block of sequence numbers, less the marks and statements in it.
    group_records: u64 = (1 << 20) - 8, 6;
    /// The most bytes that a batch can take up in the log.
    batch_bytes: u64 = (1 << 30) + (1 << 20), 400_000;
    /// `delete_prefix` writes the deletions that it has gathered once they take up this many bytes.
    deletion_bytes: u64 = ((1 << 30) + (1 << 20)) / 2, 100;
    /// A group takes no further request once it has this many bytes.
    group_bytes: u64 = 8 << 20, 200;
    /// A handle that does not sync begins write-back each time when it has used this many sequence numbers.
    write_back_step: u64 = (1 << 20) / 64, 4;
    /// Write-back leaves out the last page of this size.
    largest_page: u64 = 64 << 10, 64;
    /// How many bytes of an unproven tail are written again before the lock is given up for a moment.
    rewritten_at_once: u64 = 4 << 20, 128;
    /// A synced group that passes a multiple of this writes zeros up to the next one.
    zeros_ahead: u64 = 128 << 10, 256;
    /// The smallest step by which a file is extended ahead of its log.
    smallest_step: u64 = 64 << 10, 64;
    /// The largest one.
    largest_step: u64 = 64 << 20, 1024;
    /// Steps are multiples of this.
    step_unit: u64 = 4 << 10, 8;
    /// The file gets a new root before a group once its root lags this many synced bytes.
    root_step: u64 = 256 << 10, 96;
    /// The length of a piece of zeros where holes cannot be punched.
    cleared_at_once: u64 = 4 << 10, 24;
    /// The length of a piece when all bytes of a range are read.
    chunk: usize = 1 << 20, 64;
    /// The length of a chunk when data is looked for. Most searches find only zeros, and each opening after a crash makes one.
    largest_chunk: usize = 64 << 10, 64;
    /// The first chunk of a search for the next header after damage.
    smallest_chunk: usize = 4 << 10, 16;
    /// The longest window. Longer bodies are checked piece by piece.
    largest_window: usize = 1 << 20, 128;
    /// The window's length in a long walk over short records: a longer one does not fit in the processor's nearest caches.
    usual_window: usize = 64 << 10, 128;
    /// The window's first length.
    smallest_window: usize = 4 << 10, 32;
    /// A walk passes a run on when it has this many records. (At most the real number: arrays have room for that.)
    run_len: usize = 64, 3;
    /// Or keys of this many bytes.
    run_keys: usize = 64 << 10, 30;
    /// Records are copied to a new file in pieces of about this many bytes.
    copied_at_once: usize = 1 << 20, 200;
    /// The most that a compaction leaves to be carried over while writers wait.
    small_rest: u64 = 64 << 10, 64;
    /// A longer record is copied and checked without the view's lock.
    long_record: u64 = 64 << 10, 100;
    /// A record that is only verified is read in pieces of this many bytes.
    verified_at_once: usize = 64 << 10, 24;
    /// How many bytes of an unfinished group a reader compares before it reads the group once more.
    compared: u64 = 64 << 10, 64;
    /// Maps have a multiple of this length.
    smallest_map: u64 = 1 << 20, 256;
    /// How many records a scan fetches while those before them are read.
    scanned_ahead: usize = 12, 2;
    /// A snapshot of the index is written at a close once replaying the log after the last one costs this many bytes, and more
    /// the longer the image is.
    least_cost: u64 = 256 << 10, 300;
    /// And in a store that stays open once it costs this many. Not small in tests unless they ask for it: a thread does it.
    least_running_cost: u64 = 256 << 10, 256 << 10;
    /// What a record that proves something costs, in addition to its length: each has its own group, and a sync, which writes a
    /// block of the file system.
    sync_cost: u64 = 4 << 10, 16;
    /// What replaying it costs, in addition to its length.
    sync_replay: u64 = 128, 16;
    /// The parts of an image have at least this many bytes.
    least_part: u64 = 4 << 10, 40;
    /// A record of an image has about this many bytes of parts, or more in a long image.
    image_bytes: u64 = 1 << 20, 64;
    /// A long image has about this many records: so few that an opening that passes over them reads little.
    image_records: u64 = 128, 4;
    /// The memory that the names of lost keys may take; further ones are counted only.
    listed_key_bytes: usize = 1 << 20, 40;
    /// The longest sleep of a watch between two looks, in milliseconds.
    backstop: u64 = 250, 250;
    /// How often a handle looks whether its sessions are over, in milliseconds. With the largest number, no thread does so, and none
    /// renews them.
    renewal_look: u64 = 100, u64::MAX;
    /// A turn of puts, deletes and batches sweeps at most this many keys that are over.
    swept_records: u64 = 256, 3;
    /// And, after the first, only those whose deletes fit into this many bytes.
    swept_bytes: u64 = 64 << 10, 100;
    /// The file's lock lingers after as many turns of a burst.
    burst_turns: u64 = 8, 1;
    /// Turns of a burst begin at most this many microseconds one after the other.
    burst_gap: u64 = 50, u64::MAX;
    /// A handle looks at the line of waiting processes after this many beginnings and ends of turns, whatever the clock shows.
    burst_look: u64 = 32, 2;
    /// A leaf of the order in a snapshot has this many entries.
    leaf_entries: u64 = 1360, 3;
}

impl Limits {
    /// The block of a sequence number.
    #[inline(always)]
    pub(crate) const fn block_of(&self, seq: u64) -> u64 {
        seq / self.block_len()
    }

    /// The first sequence number of a block.
    #[inline(always)]
    pub(crate) const fn block_start(&self, block: u64) -> u64 {
        block * self.block_len()
    }

    /// Whether the limits fit each other, as the engine needs it.
    const fn fit(&self) -> bool {
        self.group_records() + 8 <= self.block_len()
            && self.run_len() <= Limits::REAL.run_len()
            && self.run_len() > 0
            && self.chunk() > 0
            && self.largest_chunk() % 8 == 0
            && self.smallest_chunk() % 8 == 0
            && self.smallest_chunk() > 0
            && self.largest_chunk() >= self.smallest_chunk()
            && self.largest_step() >= self.smallest_step()
            && self.cleared_at_once() <= Limits::REAL.cleared_at_once()
            && self.largest_window() > 0
            && self.verified_at_once() > 0
            && self.scanned_ahead() > 0
            && self.leaf_entries() > 0
    }
}

const _: () = assert!(Limits::REAL.fit());

#[cfg(not(any(test, feature = "testing")))]
const _: () = assert!(size_of::<Shared>() == 0);

#[cfg(any(test, feature = "testing"))]
impl Limits {
    /// Those of a simulated disk, unless a test sets others: no thread writes a snapshot of the index, or renews a session, at a moment that the test
    /// does not choose.
    pub(crate) const WITHOUT_BACKGROUND: Limits =
        Limits { least_running_cost: u64::MAX, renewal_look: u64::MAX, ..Limits::REAL };

    /// Keeps limits for as long as the process lives, once: a fuzzer makes millions of disks, and takes what nothing leads to for a
    /// leak.
    ///
    /// # Panics
    ///
    /// If they do not fit each other.
    pub(crate) fn keep(self) -> Shared {
        static KEPT: std::sync::Mutex<Vec<Shared>> = std::sync::Mutex::new(Vec::new());
        assert!(self.fit(), "{self:?}");
        if self == Limits::REAL {
            return &Limits::REAL;
        }
        let mut kept = KEPT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(same) = kept.iter().find(|kept| ***kept == self) {
            return same;
        }
        let own = Box::leak(Box::new(self));
        kept.push(own);
        own
    }
}
