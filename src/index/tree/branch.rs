//! The branches of the tree, and the children of a branch.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{LEAF_CAPACITY, Leaf, Node, Stored, split_point};
use crate::index::entry::Entry;
use crate::index::search::Probe;

/// The most children of a branch.
pub(super) const BRANCH_CAPACITY: usize = if cfg!(test) { 6 } else { 64 };

/// Children in the order of their keys: at least one, all of the same depth.
#[derive(Clone)]
pub(in super::super) struct Branch {
    pub(super) children: Vec<Child>,
}

/// A subtree, its separator and its size.
#[derive(Clone)]
pub(in super::super) struct Child {
    pub(super) separator: Entry,
    /// The number of entries in the subtree.
    pub(super) count: usize,
    pub(super) node: Node,
}

impl Branch {
    /// The child that has the key, if the subtree has it: the last child whose separator is not greater.
    #[inline]
    pub(super) fn child_for<E, F>(&self, probe: &mut Probe<F>) -> Result<usize, E>
    where
        F: FnMut(u64) -> Result<Ordering, E>,
    {
        let place = probe.search(&self.children[1..], |child| &child.separator)?;
        Ok(place.map_or_else(|at| at, |at| at + 1))
    }

    /// Inserts a child before the one at `at`. A full branch returns its upper part.
    pub(super) fn insert(&mut self, at: usize, child: Child) -> Option<Child> {
        if self.children.len() < BRANCH_CAPACITY {
            // Exactly, because doubling would exceed the most children of a branch.
            self.children.reserve_exact(BRANCH_CAPACITY - self.children.len());
            self.children.insert(at, child);
            return None;
        }
        let middle = split_point(at, BRANCH_CAPACITY);
        let mut upper = self.children.split_off(middle);
        let (half, at) = if at < middle { (&mut self.children, at) } else { (&mut upper, at - middle) };
        half.insert(at, child);
        Some(Child::branch(upper))
    }

    /// Restores the sizes after a removal in the child at `at`: an empty child is removed, and a small one joins a
    /// neighbour.
    pub(super) fn settle(&mut self, at: usize) {
        if self.children[at].count == 0 {
            self.children.remove(at);
            return;
        }
        let (len, capacity) = self.children[at].fill();
        if len * 2 >= capacity {
            return;
        }
        let fits = |left: &usize| {
            self.children.get(left + 1).is_some_and(|right| {
                let left = &self.children[*left];
                left.node.is_like(&right.node) && (left.fill().0 + right.fill().0) * 4 <= capacity * 3
            })
        };
        if let Some(left) = at.checked_sub(1).filter(fits).or(Some(at).filter(fits)) {
            let right = self.children.remove(left + 1);
            self.children[left].absorb(right);
        }
    }
}

impl Child {
    pub(super) fn leaf(leaf: Leaf) -> Self {
        Self { separator: leaf.slots[0], count: leaf.len, node: Node::Leaf(Arc::new(leaf)) }
    }

    pub(super) fn stored(stored: Stored) -> Self {
        Self { separator: *stored.first(), count: stored.len(), node: Node::Stored(Arc::new(stored)) }
    }

    /// A branch over these children, with the first one's separator.
    pub(super) fn branch(children: impl IntoIterator<Item = Self>) -> Self {
        let children: Vec<Self> = children.into_iter().collect();
        let separator = children[0].separator;
        let count = children.iter().map(|child| child.count).sum();
        Self { separator, count, node: Node::Branch(Arc::new(Branch { children })) }
    }

    /// The number of items in the node, and its capacity. The parent knows the number for a leaf.
    pub(super) fn fill(&self) -> (usize, usize) {
        match &self.node {
            Node::Leaf(_) => (self.count, LEAF_CAPACITY),
            Node::Branch(branch) => (branch.children.len(), BRANCH_CAPACITY),
            // It joins no neighbour.
            Node::Stored(_) => (BRANCH_CAPACITY, BRANCH_CAPACITY),
        }
    }

    /// Takes over the items of the right neighbour.
    pub(super) fn absorb(&mut self, right: Self) {
        self.count += right.count;
        match (&mut self.node, right.node) {
            (Node::Leaf(left), Node::Leaf(right)) => {
                let left = Arc::make_mut(left);
                left.slots[left.len..left.len + right.len].copy_from_slice(right.entries());
                left.len += right.len;
            }
            (Node::Branch(left), Node::Branch(branch)) => {
                let mut children = Arc::unwrap_or_clone(branch).children;
                // No longer a first child, so its separator is used from now on.
                children[0].separator = right.separator;
                Arc::make_mut(left).children.append(&mut children);
            }
            _ => unreachable!("only nodes of one kind join"),
        }
    }
}
