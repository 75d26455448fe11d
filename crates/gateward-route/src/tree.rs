//! Compressed prefix trees: all the keys that are a prefix of a text, in one walk.
//!
//! Many small trees (one per host) share one arena, so that a tree of one key costs two nodes and no
//! allocation. A walk costs at most one comparison per byte of the text, whatever the number of keys; it ends
//! early where nothing below can be better than what was found (`rank`: smaller is better).
//!
//! Trees are built once and never changed.

use std::collections::VecDeque;

/// A rank worse than any: nothing found yet.
pub(crate) const NO_RANK: u32 = u32::MAX;

/// A tree of a [`Forest`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct TreeId(u32);

/// Prefix trees in one arena. Keys are bytes; a key holds one or more values.
#[derive(Debug)]
pub(crate) struct Forest<V> {
    nodes: Vec<Node>,
    /// The first byte of each node's label, beside the nodes so that siblings can be searched densely.
    first_bytes: Vec<u8>,
    labels: Vec<u8>,
    values: Vec<V>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    label_start: u32,
    label_len: u32,
    /// Children stand side by side, in the order of their first bytes.
    children_start: u32,
    children_len: u32,
    values_start: u32,
    values_len: u32,
    /// The best rank here and below.
    best: u32,
}

/// Entries `start..end` share a key of `depth` bytes, which is the key of `node`.
struct Pending {
    node: usize,
    start: usize,
    end: usize,
    depth: usize,
}

impl<V> Default for Forest<V> {
    fn default() -> Self {
        Self { nodes: Vec::new(), first_bytes: Vec::new(), labels: Vec::new(), values: Vec::new() }
    }
}

impl<V: Copy> Forest<V> {
    /// Build the tree of `entries`. The values of one key keep the order of their ranks.
    pub(crate) fn plant<K: AsRef<[u8]>>(&mut self, mut entries: Vec<(K, V)>, rank: impl Fn(&V) -> u32) -> TreeId {
        entries.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()).then_with(|| rank(&a.1).cmp(&rank(&b.1))));
        let root = self.push_node(&[]);
        let mut pending = VecDeque::from([Pending { node: root, start: 0, end: entries.len(), depth: 0 }]);
        while let Some(next) = pending.pop_front() {
            self.fill(&entries, &next, &mut pending);
        }
        self.settle_ranks(root, rank);
        TreeId(root as u32)
    }

    /// The best rank in the tree.
    pub(crate) fn best(&self, tree: TreeId) -> u32 {
        self.nodes[tree.0 as usize].best
    }

    /// Call `visit` with the values of every key that is a prefix of `text`, shortest key first, as long as
    /// better ranks than `bound` are to be had. `visit` returns the new bound.
    pub(crate) fn walk(&self, tree: TreeId, text: &[u8], mut bound: u32, mut visit: impl FnMut(&[V]) -> u32) {
        let mut node = &self.nodes[tree.0 as usize];
        let mut rest = text;
        while node.best < bound {
            if node.values_len > 0 {
                bound = visit(span(&self.values, node.values_start, node.values_len));
            }
            let Some(first) = rest.first() else { return };
            let siblings = span(&self.first_bytes, node.children_start, node.children_len);
            let Ok(child) = siblings.binary_search(first) else { return };
            node = &self.nodes[node.children_start as usize + child];
            let Some(below) = rest.strip_prefix(span(&self.labels, node.label_start, node.label_len)) else { return };
            rest = below;
        }
    }

    /// Give a node its values, and children for the entries with longer keys.
    fn fill<K: AsRef<[u8]>>(&mut self, entries: &[(K, V)], this: &Pending, pending: &mut VecDeque<Pending>) {
        let Pending { node, mut start, end, depth } = *this;
        self.nodes[node].values_start = self.values.len() as u32;
        while start < end && entries[start].0.as_ref().len() == depth {
            self.values.push(entries[start].1);
            start += 1;
        }
        self.nodes[node].values_len = self.values.len() as u32 - self.nodes[node].values_start;
        self.nodes[node].children_start = self.nodes.len() as u32;
        while start < end {
            let first = entries[start].0.as_ref();
            let count = entries[start..end].partition_point(|entry| entry.0.as_ref()[depth] == first[depth]);
            // Keys are sorted, so what the first and the last share, all share.
            let last = entries[start + count - 1].0.as_ref();
            let shared = first.iter().zip(last).take_while(|(a, b)| a == b).count();
            let child = self.push_node(&first[depth..shared]);
            pending.push_back(Pending { node: child, start, end: start + count, depth: shared });
            start += count;
        }
        self.nodes[node].children_len = self.nodes.len() as u32 - self.nodes[node].children_start;
    }

    /// Children come after their parents, so going backwards meets them first.
    fn settle_ranks(&mut self, root: usize, rank: impl Fn(&V) -> u32) {
        for index in (root..self.nodes.len()).rev() {
            let node = self.nodes[index];
            let own = span(&self.values, node.values_start, node.values_len).iter().map(&rank).min();
            let below = span(&self.nodes, node.children_start, node.children_len).iter().map(|child| child.best).min();
            self.nodes[index].best = own.unwrap_or(NO_RANK).min(below.unwrap_or(NO_RANK));
        }
    }

    fn push_node(&mut self, label: &[u8]) -> usize {
        let label_start = self.labels.len() as u32;
        self.labels.extend_from_slice(label);
        self.first_bytes.push(label.first().copied().unwrap_or_default());
        self.nodes.push(Node {
            label_start,
            label_len: label.len() as u32,
            children_start: 0,
            children_len: 0,
            values_start: 0,
            values_len: 0,
            best: NO_RANK,
        });
        self.nodes.len() - 1
    }
}

fn span<T>(items: &[T], start: u32, len: u32) -> &[T] {
    &items[start as usize..start as usize + len as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefixes(forest: &Forest<u32>, tree: TreeId, text: &str) -> Vec<u32> {
        let mut seen = Vec::new();
        forest.walk(tree, text.as_bytes(), NO_RANK, |values| {
            seen.extend_from_slice(values);
            NO_RANK
        });
        seen
    }

    #[test]
    fn every_prefix_is_met_once_in_order_of_length() {
        let mut forest = Forest::default();
        let other = forest.plant(vec![("/z", 9)], |value| *value);
        let tree = forest.plant(vec![("/a", 4), ("", 0), ("/ab", 2), ("/a", 1), ("/b", 3)], |value| *value);
        assert_eq!(prefixes(&forest, tree, "/abc"), [0, 1, 4, 2]);
        assert_eq!(prefixes(&forest, tree, "/b"), [0, 3]);
        assert_eq!(prefixes(&forest, tree, ""), [0]);
        assert_eq!(prefixes(&forest, tree, "/"), [0]);
        assert_eq!(prefixes(&forest, other, "/zz"), [9]);
        assert_eq!((forest.best(tree), forest.best(other)), (0, 9));
    }

    #[test]
    fn a_walk_stops_where_nothing_better_is_below() {
        let mut forest = Forest::default();
        let tree = forest.plant(vec![("/a", 1), ("/ab", 5), ("/abc", 7)], |value| *value);
        let mut seen = Vec::new();
        forest.walk(tree, b"/abc", NO_RANK, |values| {
            seen.push(values[0]);
            values[0]
        });
        assert_eq!(seen, [1]);
    }

    #[test]
    fn an_empty_tree_is_empty() {
        let mut forest = Forest::default();
        let tree = forest.plant(Vec::<(&str, u32)>::new(), |value| *value);
        assert_eq!(prefixes(&forest, tree, "/abc"), [0_u32; 0]);
    }

    proptest! {
        #[test]
        fn walks_agree_with_starts_with(keys in prop::collection::vec("[ab/]{0,5}", 0..20), text in "[ab/]{0,8}") {
            let entries = keys.iter().enumerate().map(|(index, key)| (key.as_str(), index as u32)).collect();
            let mut forest = Forest::default();
            let tree = forest.plant(entries, |value| *value);
            let mut found = prefixes(&forest, tree, &text);
            found.sort_unstable();
            let expected: Vec<u32> =
                (0..keys.len()).filter(|index| text.starts_with(&keys[*index])).map(|index| index as u32).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
