//! The simulated disk's names: the current ones, the durable ones, and the changes in between.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use super::choices::Choices;

/// Every name on the disk, by its full path. All directories exist; only their entries are recorded.
#[derive(Clone, Default)]
pub(super) struct Directory {
    /// The names that processes see, with their inode numbers.
    entries: BTreeMap<PathBuf, u64>,
    /// The names that are certain to survive a power cut.
    durable: BTreeMap<PathBuf, u64>,
    /// The changes from `durable` to `entries`, oldest first.
    unsynced: Vec<Change>,
    /// Files that are mounted, by the paths that lead to them.
    mounts: BTreeMap<PathBuf, u64>,
}

#[derive(Clone)]
enum Change {
    Add { name: PathBuf, inode: u64 },
    Remove { name: PathBuf },
    Rename { from: PathBuf, to: PathBuf, inode: u64 },
}

impl Directory {
    pub(super) fn get(&self, name: &Path) -> Option<u64> {
        self.mounts.get(name).or_else(|| self.entries.get(name)).copied()
    }

    pub(super) fn is_mount_point(&self, name: &Path) -> bool {
        self.mounts.contains_key(name)
    }

    /// Makes a path lead to a file, even after its names are gone, until the power goes out.
    pub(super) fn mount(&mut self, at: PathBuf, inode: u64) {
        self.mounts.insert(at, inode);
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Path> {
        self.entries.keys().map(PathBuf::as_path)
    }

    /// Returns a name of the file, or one that says that it has none.
    pub(super) fn name_of(&self, inode: u64) -> PathBuf {
        let name = self.entries.iter().find(|&(_, &other)| other == inode).map(|(name, _)| name.clone());
        name.unwrap_or_else(|| format!("file {inode}, which has no name").into())
    }

    /// Returns the file's number of names.
    pub(super) fn links(&self, inode: u64) -> u64 {
        self.entries.values().filter(|&&other| other == inode).count() as u64
    }

    /// Returns whether the file has a name, or had one that a power cut could bring back.
    pub(super) fn mentions(&self, inode: u64) -> bool {
        self.durable.values().chain(self.entries.values()).chain(self.mounts.values()).any(|&other| other == inode)
            || self.unsynced.iter().any(|change| match change {
                Change::Add { inode: other, .. } | Change::Rename { inode: other, .. } => *other == inode,
                Change::Remove { .. } => false,
            })
    }

    pub(super) fn add(&mut self, name: PathBuf, inode: u64) {
        self.change(Change::Add { name, inode });
    }

    /// Adds a name that is on the disk already.
    pub(super) fn add_durable(&mut self, name: PathBuf, inode: u64) {
        self.durable.insert(name.clone(), inode);
        self.entries.insert(name, inode);
    }

    pub(super) fn remove(&mut self, name: PathBuf) {
        self.change(Change::Remove { name });
    }

    /// Gives the file at `from` the name `to`, replacing what has it. If both are names of one file, both stay, as in
    /// POSIX.
    pub(super) fn rename(&mut self, from: PathBuf, to: PathBuf, inode: u64) {
        if self.get(&to) != Some(inode) {
            self.change(Change::Rename { from, to, inode });
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.entries);
        self.unsynced.push(change);
    }

    /// Hashes every name and change. `file` hashes an inode, in place of its number.
    pub(super) fn fingerprint<H: Hasher>(&self, hasher: &mut H, file: impl Fn(u64, &mut H)) {
        // Two names of one file are not two files with the same contents.
        let mut numbers = Vec::new();
        let mut tell = |inode: u64, hasher: &mut H| {
            let known = numbers.iter().position(|&other| other == inode);
            known.unwrap_or(numbers.len()).hash(hasher);
            if known.is_none() {
                numbers.push(inode);
                file(inode, hasher);
            }
        };
        for names in [&self.durable, &self.entries, &self.mounts] {
            names.len().hash(hasher);
            for (name, &inode) in names {
                name.as_os_str().hash(hasher);
                tell(inode, hasher);
            }
        }
        for change in &self.unsynced {
            match change {
                Change::Add { name, inode } => {
                    (0, name.as_os_str()).hash(hasher);
                    tell(*inode, hasher);
                }
                Change::Remove { name } => (1, name.as_os_str()).hash(hasher),
                Change::Rename { from, to, inode } => {
                    (2, from.as_os_str(), to.as_os_str()).hash(hasher);
                    tell(*inode, hasher);
                }
            }
        }
    }

    /// Brings the changes in one directory to the disk.
    pub(super) fn sync(&mut self, directory: &Path) {
        self.unsynced.retain(|change| {
            let here = change.touches(directory);
            if here {
                change.apply(&mut self.durable);
            }
            !here
        });
    }

    /// Brings all changes to the disk.
    pub(super) fn sync_all(&mut self) {
        self.unsynced.clear();
        self.durable.clone_from(&self.entries);
    }

    /// Returns the number of outcomes that a power cut has for the names.
    pub(super) fn outcomes(&self) -> u64 {
        1 << self.unsynced.len().min(63)
    }

    /// Returns the names after a power cut: the durable ones, and of the changes either those up to some moment (what a
    /// journal leaves) or any subset (what the system promises). A rename happens whole or not at all.
    pub(super) fn crashed(&self, choices: &mut Choices) -> Directory {
        choices.next_subject();
        let mut survivors = self.durable.clone();
        if !self.unsynced.is_empty() {
            // A journal's outcomes are among the subsets. They only make a random cut more realistic.
            let journaled = !choices.is_exhaustive() && choices.pick(1) == 0;
            let journal_end = if journaled { choices.pick(self.unsynced.len() as u64) as usize } else { 0 };
            for (at, change) in self.unsynced.iter().enumerate() {
                let kept = if journaled { at < journal_end } else { choices.pick(1) == 1 };
                if kept {
                    change.apply(&mut survivors);
                }
            }
        }
        Directory { entries: survivors.clone(), durable: survivors, unsynced: Vec::new(), mounts: BTreeMap::new() }
    }
}

impl Change {
    fn touches(&self, directory: &Path) -> bool {
        match self {
            Change::Add { name, .. } | Change::Remove { name } => name.parent() == Some(directory),
            Change::Rename { from, to, .. } => from.parent() == Some(directory) || to.parent() == Some(directory),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Change::Add { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            Change::Remove { name } => {
                names.remove(name);
            }
            Change::Rename { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
}
