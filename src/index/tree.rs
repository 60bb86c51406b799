//! The tree of the sorted index: a B+tree that is copied on write, node by node.
//!
//! Nodes are shared through [`Arc`]s. A change goes through [`Arc::make_mut`] from the root down. It changes a node in
//! place, or copies it if a snapshot shares it. A snapshot is a clone of the root.
//!
//! # Separators
//!
//! Every child of a branch has a separator, an entry with this invariant: its key is greater than every key in the
//! children before, and not greater than any key in its own child. (The first child's separator is not used.) A
//! separator starts as a copy of an entry, and may outlive that entry. It is a bound between neighbours: removing keys
//! cannot break the invariant, and a removed key that comes back goes to the same side of the separator. So the key of
//! each record that was ever in the tree must stay readable while the tree or a snapshot lives. An append-only log
//! gives that. A cut of the log, or a compacted file, needs a new tree.
//!
//! # Stored leaves
//!
//! A tree that begins with the order of a snapshot has the directory in its branches, and leaves that are not loaded. A look at
//! one returns [`Missing`], and changes nothing. A loaded one stands for a subtree, which takes its place with the first change.
//! So the leaves of such a tree are not all at one depth.
//!
//! # How full nodes are
//!
//! A full node splits in the middle. If the new item belongs at one of its ends, the item starts a node of its own, so
//! ascending or descending keys leave full nodes. After a removal, a node less than half full joins a neighbour if both
//! together fill at most three quarters of a node. Only an empty tree has an empty leaf.

use std::cmp::Ordering;
use std::sync::Arc;

use branch::{BRANCH_CAPACITY, Branch, Child};
use leaf::LEAF_CAPACITY;
pub(super) use leaf::Leaf;
pub(super) use stored::Stored;

use super::entry::Entry;
use super::search::Probe;

mod branch;
mod leaf;
mod stored;

/// A subtree.
#[derive(Clone)]
pub(super) enum Node {
    Leaf(Arc<Leaf>),
    Branch(Arc<Branch>),
    /// A leaf of a snapshot. Once loaded, it stands for a subtree.
    Stored(Arc<Stored>),
}

/// The answer of a look at a part of the tree that is not loaded: load this, and look again.
#[derive(Clone, Copy)]
pub(super) struct Missing<'a>(pub(super) &'a Stored);

/// The largest depth of a tree: nodes have at least two children on average, and there are fewer than 2^40 positions.
const MAX_DEPTH: usize = 40;

/// The place of a key in a tree, or where it would go.
pub(super) struct Place {
    /// The child at each branch on the way down, then the entry of the leaf.
    steps: [u8; MAX_DEPTH],
    depth: usize,
    /// Whether the entry there has the key. If not, the key belongs before that entry.
    pub(super) found: bool,
}

impl Place {
    pub(super) fn path(&self) -> &[u8] {
        &self.steps[..self.depth]
    }

    fn step(&mut self, at: usize) {
        self.steps[self.depth] = at as u8;
        self.depth += 1;
    }
}

// A step is a byte.
const _: () = assert!(LEAF_CAPACITY <= 255);
const _: () = assert!(BRANCH_CAPACITY <= 255);

impl Node {
    /// A tree without entries.
    pub(super) fn empty() -> Self {
        Self::Leaf(Arc::new(Leaf::of(&[])))
    }

    /// Builds a tree from entries in ascending order. Every node is nine tenths full, so that insertions do not split
    /// it.
    pub(super) fn build(entries: &[Entry]) -> Self {
        Self::above(even_chunks(entries, LEAF_CAPACITY).map(|entries| Child::leaf(Leaf::of(entries))).collect())
    }

    /// A tree over these children.
    fn above(mut level: Vec<Child>) -> Self {
        while level.len() > 1 {
            level =
                even_chunks(&level, BRANCH_CAPACITY).map(|children| Child::branch(children.iter().cloned())).collect();
        }
        level.pop().map_or_else(Self::empty, |root| root.node)
    }

    /// A tree over stored leaves, of which none is loaded.
    pub(super) fn over(leaves: impl IntoIterator<Item = Stored>) -> Self {
        Self::above(leaves.into_iter().map(Child::stored).collect())
    }

    /// The number of entries. Reads only the root.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.len,
            Self::Branch(branch) => branch.children.iter().map(|child| child.count).sum(),
            Self::Stored(stored) => stored.len(),
        }
    }

    /// The node, or the subtree of a stored leaf.
    fn loaded(&self) -> Result<&Node, Missing<'_>> {
        match self {
            Self::Stored(stored) => stored.subtree().ok_or(Missing(stored)),
            node => Ok(node),
        }
    }

    /// As [`Node::loaded`], on the way to a place that was found.
    fn found(&self) -> &Node {
        self.loaded().unwrap_or_else(|_| unreachable!("a search has loaded what leads to its place"))
    }

    /// Whether both are leaves, or both are branches, so that one can take over the items of the other.
    fn is_like(&self, other: &Node) -> bool {
        matches!((self, other), (Self::Leaf(_), Self::Leaf(_)) | (Self::Branch(_), Self::Branch(_)))
    }

    /// The node for a change. A loaded subtree takes the place of its stored leaf.
    fn own(&mut self) -> &mut Node {
        if let Self::Stored(_) = self {
            *self = self.found().clone();
        }
        self
    }

    /// Bytes allocated, shared or not. Leaves have one size, so only branches are visited.
    pub(super) fn memory(&self) -> usize {
        let counters = 2 * size_of::<usize>();
        match self {
            Self::Leaf(_) => counters + size_of::<Leaf>(),
            Self::Branch(branch) => {
                let own = counters + size_of::<Branch>() + branch.children.capacity() * size_of::<Child>();
                own + branch.children.iter().map(|child| child.node.memory()).sum::<usize>()
            }
            Self::Stored(stored) => counters + size_of::<Stored>() + stored.subtree().map_or(0, Self::memory),
        }
    }

    /// The place of the key according to the probe's comparisons.
    pub(super) fn find<E, F>(&self, probe: &mut Probe<F>) -> Result<Result<Place, Missing<'_>>, E>
    where
        F: FnMut(u64) -> Result<Ordering, E>,
    {
        let (mut node, mut place) = (self, Place { steps: [0; MAX_DEPTH], depth: 0, found: false });
        loop {
            match node {
                Self::Leaf(leaf) => {
                    let at = probe.search(leaf.entries(), |entry| entry)?;
                    place.found = at.is_ok();
                    place.step(at.unwrap_or_else(|at| at));
                    return Ok(Ok(place));
                }
                Self::Branch(branch) => {
                    let at = branch.child_for(probe)?;
                    place.step(at);
                    node = &branch.children[at].node;
                }
                Self::Stored(_) => match node.loaded() {
                    Ok(subtree) => node = subtree,
                    Err(missing) => return Ok(Err(missing)),
                },
            }
        }
    }

    /// The number of entries before a place.
    pub(super) fn rank(&self, path: &[u8]) -> usize {
        let (at, rest) = split(path);
        match self {
            Self::Leaf(_) => at,
            Self::Branch(branch) => {
                let before: usize = branch.children[..at].iter().map(|child| child.count).sum();
                before + branch.children[at].node.rank(rest)
            }
            Self::Stored(_) => self.found().rank(path),
        }
    }

    /// The last entry before a place.
    pub(super) fn before(&self, path: &[u8]) -> Result<Option<&Entry>, Missing<'_>> {
        let (at, rest) = split(path);
        match self {
            Self::Leaf(leaf) => Ok(leaf.entries()[..at].last()),
            Self::Branch(branch) => {
                let children = &branch.children;
                match (children[at].node.before(rest)?, children[..at].last()) {
                    (None, Some(child)) => child.node.last(),
                    (entry, _) => Ok(entry),
                }
            }
            Self::Stored(_) => self.found().before(path),
        }
    }

    /// The entry at a place, or the next one if the place is the end of a leaf.
    pub(super) fn at_or_after(&self, path: &[u8]) -> Option<&Entry> {
        let (at, rest) = split(path);
        match self {
            Self::Leaf(leaf) => leaf.entries().get(at),
            Self::Branch(branch) => {
                let children = &branch.children;
                children[at].node.at_or_after(rest).or_else(|| children.get(at + 1)?.node.first())
            }
            Self::Stored(_) => self.found().at_or_after(path),
        }
    }

    fn first(&self) -> Option<&Entry> {
        match self {
            Self::Leaf(leaf) => leaf.entries().first(),
            Self::Branch(branch) => branch.children.first()?.node.first(),
            // As the directory has it. A leaf with another one is not loaded.
            Self::Stored(stored) => Some(stored.first()),
        }
    }

    fn last(&self) -> Result<Option<&Entry>, Missing<'_>> {
        match self {
            Self::Leaf(leaf) => Ok(leaf.entries().last()),
            Self::Branch(branch) => branch.children.last().map_or(Ok(None), |child| child.node.last()),
            Self::Stored(_) => self.loaded()?.last(),
        }
    }

    /// The leaf with the entry of this rank, and the rank of the leaf's first entry. The last leaf if the rank is past
    /// the end.
    pub(super) fn leaf_at(&self, rank: usize) -> Result<(&Arc<Leaf>, usize), Missing<'_>> {
        let (mut node, mut before) = (self, 0);
        loop {
            match node {
                Self::Leaf(leaf) => return Ok((leaf, before)),
                Self::Branch(branch) => {
                    let (last, others) = branch.children.split_last().expect("a branch has children");
                    let holds = |child: &&Child| {
                        let found = rank < before + child.count;
                        before += if found { 0 } else { child.count };
                        found
                    };
                    node = &others.iter().find(holds).unwrap_or(last).node;
                }
                Self::Stored(_) => node = node.loaded()?,
            }
        }
    }

    /// Adjusts separators before an insertion at a proven place: the key of `entry` is between its neighbours' keys,
    /// and `next` is the later neighbour. Returns whether a separator before this node must be as low as the entry, and
    /// whether one after it must be above the entry.
    pub(super) fn lead_to(&mut self, path: &[u8], entry: Entry, next: Option<Entry>) -> (bool, bool) {
        let (at, rest) = split(path);
        match self.own() {
            Self::Leaf(leaf) => (at == 0, at == leaf.len),
            Self::Branch(branch) => {
                let children = &mut Arc::make_mut(branch).children;
                let (mut low, mut high) = children[at].node.lead_to(rest, entry, next);
                if low && at > 0 {
                    children[at].separator = entry;
                    low = false;
                }
                if let (true, Some(right), Some(next)) = (high, children.get_mut(at + 1), next) {
                    right.separator = next;
                    high = false;
                }
                (low, high)
            }
            Self::Stored(_) => unreachable!("its subtree has taken its place"),
        }
    }

    /// Inserts an entry before the one at a place. If the node splits, returns the new node, which goes after it.
    pub(super) fn insert(&mut self, path: &[u8], entry: Entry) -> Option<Child> {
        let (at, rest) = split(path);
        match self.own() {
            Self::Leaf(leaf) => Arc::make_mut(leaf).insert(at, entry),
            Self::Branch(branch) => {
                let branch = Arc::make_mut(branch);
                let child = &mut branch.children[at];
                let new = child.node.insert(rest, entry);
                child.count += 1;
                let new = new?;
                child.count -= new.count;
                branch.insert(at + 1, new)
            }
            Self::Stored(_) => unreachable!("its subtree has taken its place"),
        }
    }

    /// Replaces an entry by another of the same key, and returns the old one.
    pub(super) fn replace(&mut self, path: &[u8], entry: Entry) -> Entry {
        let (at, rest) = split(path);
        match self.own() {
            Self::Leaf(leaf) => std::mem::replace(&mut Arc::make_mut(leaf).slots[at], entry),
            Self::Branch(branch) => Arc::make_mut(branch).children[at].node.replace(rest, entry),
            Self::Stored(_) => unreachable!("its subtree has taken its place"),
        }
    }

    /// Removes the entry at a place.
    pub(super) fn remove(&mut self, path: &[u8]) -> Entry {
        let (at, rest) = split(path);
        match self.own() {
            Self::Leaf(leaf) => Arc::make_mut(leaf).remove(at),
            Self::Branch(branch) => {
                let branch = Arc::make_mut(branch);
                let removed = branch.children[at].node.remove(rest);
                branch.children[at].count -= 1;
                branch.settle(at);
                removed
            }
            Self::Stored(_) => unreachable!("its subtree has taken its place"),
        }
    }

    /// Puts a branch above a root that has split.
    pub(super) fn grow(&mut self, new: Child) {
        let old = std::mem::replace(self, Self::empty());
        // The first child's separator is not used, so any entry does.
        let first = Child { separator: new.separator, count: old.len(), node: old };
        *self = Child::branch([first, new]).node;
    }

    /// Removes branches with a single child from the top.
    pub(super) fn shrink(&mut self) {
        while let Self::Branch(branch) = self {
            let [only] = branch.children.as_slice() else { return };
            *self = only.node.clone();
        }
    }
}

#[cfg(test)]
impl Node {
    /// Makes the root's second separator as high as its child's last key.
    pub(super) fn plant_separator(&mut self) {
        let Self::Branch(branch) = self else { panic!("a leaf has no separators") };
        let child = &mut Arc::make_mut(branch).children[1];
        child.separator = *child.node.last().ok().flatten().expect("a child has entries");
    }
}

/// The first step of a path, and the rest.
fn split(path: &[u8]) -> (usize, &[u8]) {
    let (first, rest) = path.split_first().expect("a path has a step for each level");
    (usize::from(*first), rest)
}

/// The index at which a full node of `capacity` items splits when an item goes to `at`.
fn split_point(at: usize, capacity: usize) -> usize {
    if at == 0 || at == capacity { at } else { capacity / 2 }
}

/// Cuts items into pieces of nearly the same size, each at most nine tenths of `capacity`.
fn even_chunks<T>(items: &[T], capacity: usize) -> impl Iterator<Item = &[T]> {
    let pieces = items.len().div_ceil((capacity * 9 / 10).max(2)).max(1);
    items.chunks(items.len().div_ceil(pieces).max(1))
}

#[cfg(test)]
mod tests;
