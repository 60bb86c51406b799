//! The invariants and the size of trees.

use super::super::entry::Prefix;
use super::*;

impl Node {
    /// Panics unless order, separators, counts, depths and sizes are as the module's documentation says. `key_of` gives
    /// the key at a position.
    pub(in super::super) fn check<'a>(&self, key_of: &impl Fn(u64) -> &'a [u8]) {
        self.check_all(key_of, true);
    }

    /// As [`Node::check`]. The leaves of a tree that began with stored ones may be at different depths.
    pub(in super::super) fn check_all<'a>(&self, key_of: &impl Fn(u64) -> &'a [u8], is_even: bool) {
        match self {
            Self::Leaf(leaf) if leaf.len == 0 => {}
            Self::Branch(branch) if is_even && branch.children.len() == 1 => panic!("the root has one child"),
            _ => {
                self.check_between(None, None, key_of, is_even);
            }
        }
    }

    /// Checks that all keys are in `low..high`, and returns the depth.
    fn check_between<'a>(
        &self,
        low: Option<&'a [u8]>,
        high: Option<&'a [u8]>,
        key_of: &impl Fn(u64) -> &'a [u8],
        is_even: bool,
    ) -> usize {
        let key = |entry: &Entry| key_of(entry.position());
        match self {
            Self::Leaf(leaf) => {
                assert!((1..=LEAF_CAPACITY).contains(&leaf.len));
                assert!(leaf.entries().iter().all(|entry| entry.prefix() == Prefix::of(key(entry))));
                assert!(leaf.entries().is_sorted_by(|a, b| key(a) < key(b)));
                assert!(low.is_none_or(|low| low <= key(&leaf.entries()[0])));
                assert!(high.is_none_or(|high| key(&leaf.entries()[leaf.len - 1]) < high));
                0
            }
            Self::Branch(branch) => {
                let children = &branch.children;
                assert!((1..=BRANCH_CAPACITY).contains(&children.len()));
                let mut depths = Vec::new();
                for (at, child) in children.iter().enumerate() {
                    let own = if at == 0 { low } else { Some(key(&child.separator)) };
                    let next = children.get(at + 1).map(|next| key(&next.separator)).or(high);
                    assert!(own.zip(next).is_none_or(|(own, next)| own < next));
                    assert_eq!(child.count, child.node.len());
                    depths.push(child.node.check_between(own, next, key_of, is_even));
                }
                assert!(!is_even || depths.iter().all(|depth| *depth == depths[0]));
                depths[0] + 1
            }
            Self::Stored(stored) => {
                assert!(!is_even && low.is_none_or(|low| low <= key(stored.first())));
                stored.subtree().map_or(0, |node| node.check_between(low, high, key_of, is_even))
            }
        }
    }

    fn leaves(&self) -> usize {
        match self {
            Self::Leaf(_) => 1,
            Self::Branch(branch) => branch.children.iter().map(|child| child.node.leaves()).sum(),
            Self::Stored(_) => 1,
        }
    }
}

/// Inserts a key of two bytes at the position that [`position_of`] gives it.
fn insert(tree: &mut Node, number: u16) {
    let entry = Entry::new(&number.to_be_bytes(), position_of(number));
    let place = place_of(tree, number);
    assert!(!place.found);
    if let Some(new) = tree.insert(place.path(), entry) {
        tree.grow(new);
    }
}

fn remove(tree: &mut Node, number: u16) {
    let place = place_of(tree, number);
    assert!(place.found);
    assert_eq!(tree.remove(place.path()).position(), position_of(number));
    tree.shrink();
}

fn place_of(tree: &Node, number: u16) -> Place {
    tree.find(&mut Probe { prefix: Prefix::of(&number.to_be_bytes()), compare: |_| Err(()) }).unwrap().ok().unwrap()
}

fn position_of(number: u16) -> u64 {
    u64::from(number) * 8 + 8
}

fn check(tree: &Node, len: usize) {
    let keys: Vec<[u8; 2]> = (0..3000).map(u16::to_be_bytes).collect();
    tree.check(&|position| &keys[position as usize / 8 - 1]);
    assert_eq!(tree.len(), len);
}

fn tree_of(numbers: impl IntoIterator<Item = u16>) -> Node {
    let mut tree = Node::empty();
    numbers.into_iter().for_each(|number| insert(&mut tree, number));
    tree
}

/// Every number below `end`, in steps of 1237, a prime.
fn leaps(end: u32) -> impl Iterator<Item = u16> {
    (0..end).map(move |step| (step * 1237 % end) as u16)
}

#[test]
fn rising_and_falling_keys_leave_full_leaves() {
    assert_eq!(tree_of(0..800).leaves(), 800 / LEAF_CAPACITY);
    assert_eq!(tree_of((0..800).rev()).leaves(), 800 / LEAF_CAPACITY);
}

#[test]
fn built_leaves_are_nearly_full_and_of_one_size() {
    let entries: Vec<Entry> = (0..1000u16).map(|number| Entry::new(&number.to_be_bytes(), 8)).collect();
    for len in 0..entries.len() {
        let tree = Node::build(&entries[..len]);
        assert_eq!(tree.len(), len);
        assert!(tree.leaves() <= 1 + len / (LEAF_CAPACITY - 2));
    }
}

#[test]
fn a_tree_that_loses_its_keys_loses_its_nodes() {
    let mut tree = tree_of(leaps(3000));
    for (number, left) in leaps(3000).zip((0..3000).rev()) {
        remove(&mut tree, number);
        assert!(tree.leaves() <= 2 + left * 3 / LEAF_CAPACITY, "{} leaves for {left} entries", tree.leaves());
    }
    assert!(matches!(tree, Node::Leaf(_)));
}

#[test]
fn a_small_leaf_joins_the_neighbour_on_either_side() {
    let full = LEAF_CAPACITY as u16;
    for (first, second) in [(0, full), (full, 0)] {
        let mut tree = tree_of(0..2 * full);
        (first..first + full / 2).for_each(|number| remove(&mut tree, number));
        (second..second + full / 4 * 3 - 1).for_each(|number| remove(&mut tree, number));
        assert_eq!(tree.leaves(), 2);
        remove(&mut tree, second + full - 1);
        assert_eq!(tree.leaves(), 1);
    }
}

#[test]
fn a_node_that_splits_again_and_again_keeps_its_order() {
    check(&tree_of(0..300), 300);
    check(&tree_of((0..300).rev()), 300);
    check(&tree_of(leaps(300)), 300);
}

/// A branch that loses its first child has no true separator for the next one, and needs one when it joins the branch
/// before it.
#[test]
fn separators_hold_when_whole_stretches_of_keys_go_and_come_back() {
    let mut tree = tree_of(0..600);
    let mut live = 600;
    for (round, start) in leaps(560).enumerate() {
        let stretch = start..start + 40;
        let held = |tree: &Node, number: u16| place_of(tree, number).found;
        for number in stretch.clone().filter(|number| held(&tree, *number)).collect::<Vec<_>>() {
            remove(&mut tree, number);
            live -= 1;
        }
        check(&tree, live);
        for number in stretch.filter(|number| (number + round as u16) % 5 == 0) {
            insert(&mut tree, number);
            live += 1;
        }
        check(&tree, live);
    }
}
