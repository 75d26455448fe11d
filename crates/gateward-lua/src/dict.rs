//! `ngx.shared`: dictionaries of the whole node, bounded, the least recently used entries leaving first.
//!
//! Workers share them behind one lock each, held for a look-up. Dictionaries are made when their names are first asked for
//! and live as long as the process, as OpenResty's do: a new configuration finds what an old one left.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Bytes of one dictionary.
const CAPACITY: usize = 16 << 20;
/// Bytes of those that are larger, as in Kong's nginx.conf.
const LARGER: &[(&str, usize)] = &[("kong_db_cache", 128 << 20), ("kong_core_db_cache", 128 << 20)];
/// Dictionaries of a process.
const DICTIONARIES: usize = 256;
/// What an entry takes beside its key and value.
const ENTRY: usize = 96;
/// Items of a list.
const ITEMS: usize = 1 << 20;
/// No entry.
const NONE: u32 = u32::MAX;

/// A value of an entry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(Arc<[u8]>),
    Number(f64),
    Flag(bool),
    List(VecDeque<Item>),
}

/// One of a list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    Text(Box<[u8]>),
    Number(f64),
}

impl Value {
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Number(_) | Self::Flag(_) => 0,
            Self::List(items) => items.iter().map(Item::bytes).sum(),
        }
    }
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len() + 24,
            Self::Number(_) => 24,
        }
    }
}

/// When a value is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Any,
    /// There is none.
    New,
    /// There is one.
    Known,
}

/// Which end of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Front,
    Back,
}

/// What to put.
#[derive(Debug, Clone)]
pub(crate) struct Put {
    pub(crate) value: Value,
    /// Milliseconds it lives; 0: without end.
    pub(crate) ttl_ms: u64,
    pub(crate) flags: u32,
    pub(crate) when: When,
    /// Whether others may go to make room.
    pub(crate) evict: bool,
}

/// A value that was found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    pub(crate) value: Value,
    pub(crate) flags: u32,
    pub(crate) stale: bool,
}

/// Why something was not done, in OpenResty's words.
pub(crate) type Refused = &'static str;

/// A dictionary.
pub(crate) struct Dict {
    inner: Mutex<Inner>,
}

struct Node {
    key: Arc<[u8]>,
    value: Value,
    bytes: usize,
    flags: u32,
    /// On the clock of the caller; 0: never.
    expires: u64,
    newer: u32,
    older: u32,
}

struct Inner {
    capacity: usize,
    bytes: usize,
    index: HashMap<Arc<[u8]>, u32>,
    nodes: Vec<Option<Node>>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
}

/// Milliseconds since the process first asked.
pub(crate) fn now_ms() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_millis() as u64 + 1
}

/// The dictionary of this name; nothing when there are too many.
pub(crate) fn named(name: &str) -> Option<Arc<Dict>> {
    static ALL: LazyLock<Mutex<HashMap<Box<str>, Arc<Dict>>>> = LazyLock::new(Mutex::default);
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = all.get(name) {
        return Some(known.clone());
    }
    if all.len() >= DICTIONARIES {
        return None;
    }
    let capacity = LARGER.iter().find(|(larger, _)| *larger == name).map_or(CAPACITY, |(_, bytes)| *bytes);
    let made = Arc::new(Dict::new(capacity));
    all.insert(name.into(), made.clone());
    Some(made)
}

impl Dict {
    pub(crate) fn new(capacity: usize) -> Self {
        let inner = Inner {
            capacity,
            bytes: 0,
            index: HashMap::new(),
            nodes: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
        };
        Self { inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of `key`; with `stale` also one whose time is over.
    ///
    /// # Errors
    /// It is a list.
    pub(crate) fn get(&self, key: &[u8], now: u64, stale: bool) -> Result<Option<Found>, Refused> {
        let mut inner = self.lock();
        let Some(at) = inner.find(key, now, stale) else { return Ok(None) };
        inner.touch(at);
        let node = inner.node(at);
        if matches!(node.value, Value::List(_)) {
            return Err("value is a list");
        }
        Ok(Some(Found { value: node.value.clone(), flags: node.flags, stale: node.is_over(now) }))
    }

    /// Put a value; whether others that were still good had to go.
    ///
    /// # Errors
    /// "exists", "not found" or "no memory".
    pub(crate) fn put(&self, key: &[u8], put: Put, now: u64) -> Result<bool, Refused> {
        let mut inner = self.lock();
        let known = inner.find(key, now, false);
        match (put.when, known) {
            (When::New, Some(_)) => return Err("exists"),
            (When::Known, None) => return Err("not found"),
            _ => {}
        }
        inner.insert(key, put.value, put.flags, deadline(now, put.ttl_ms), put.evict, now)
    }

    pub(crate) fn delete(&self, key: &[u8]) {
        let mut inner = self.lock();
        if let Some(at) = inner.index.get(key).copied() {
            inner.remove(at);
        }
    }

    /// Add to a number, which is `init` when there is none; what it is then and whether others had to go.
    ///
    /// # Errors
    /// "not found", "not a number" or "no memory".
    pub(crate) fn incr(
        &self,
        key: &[u8],
        by: f64,
        init: Option<f64>,
        ttl_ms: u64,
        now: u64,
    ) -> Result<(f64, bool), Refused> {
        let mut inner = self.lock();
        if let Some(at) = inner.find(key, now, false) {
            inner.touch(at);
            let Value::Number(number) = &mut inner.node_mut(at).value else { return Err("not a number") };
            *number += by;
            return Ok((*number, false));
        }
        let sum = init.ok_or("not found")? + by;
        let forced = inner.insert(key, Value::Number(sum), 0, deadline(now, ttl_ms), true, now)?;
        Ok((sum, forced))
    }

    /// Add to a list; its length then.
    ///
    /// # Errors
    /// "value not a list" or "no memory".
    pub(crate) fn push(&self, key: &[u8], item: Item, end: End, now: u64) -> Result<usize, Refused> {
        let mut inner = self.lock();
        let at = match inner.find(key, now, false) {
            Some(at) => at,
            None => {
                inner.insert(key, Value::List(VecDeque::new()), 0, 0, false, now)?;
                inner.find(key, now, false).ok_or("no memory")?
            }
        };
        let more = item.bytes();
        let room = inner.capacity.saturating_sub(inner.bytes);
        let node = inner.node_mut(at);
        let Value::List(items) = &mut node.value else { return Err("value not a list") };
        if room < more || items.len() >= ITEMS {
            if items.is_empty() {
                inner.remove(at);
            }
            return Err("no memory");
        }
        match end {
            End::Front => items.push_front(item),
            End::Back => items.push_back(item),
        }
        let length = items.len();
        node.bytes += more;
        inner.bytes += more;
        inner.touch(at);
        Ok(length)
    }

    /// Take from a list.
    ///
    /// # Errors
    /// "value not a list".
    pub(crate) fn pop(&self, key: &[u8], end: End, now: u64) -> Result<Option<Item>, Refused> {
        let mut inner = self.lock();
        let Some(at) = inner.find(key, now, false) else { return Ok(None) };
        let node = inner.node_mut(at);
        let Value::List(items) = &mut node.value else { return Err("value not a list") };
        let item = match end {
            End::Front => items.pop_front(),
            End::Back => items.pop_back(),
        };
        let (left, less) = (items.len(), item.as_ref().map_or(0, Item::bytes));
        node.bytes -= less;
        inner.bytes -= less;
        if left == 0 {
            inner.remove(at);
        }
        Ok(item)
    }

    /// Items of a list; 0 without one.
    ///
    /// # Errors
    /// "value not a list".
    pub(crate) fn length(&self, key: &[u8], now: u64) -> Result<usize, Refused> {
        let inner = self.lock();
        match inner.find(key, now, false).map(|at| &inner.node(at).value) {
            None => Ok(0),
            Some(Value::List(items)) => Ok(items.len()),
            Some(_) => Err("value not a list"),
        }
    }

    /// Milliseconds that are left; 0: without end.
    ///
    /// # Errors
    /// "not found".
    pub(crate) fn ttl_ms(&self, key: &[u8], now: u64) -> Result<u64, Refused> {
        let inner = self.lock();
        let at = inner.find(key, now, false).ok_or("not found")?;
        Ok(inner.node(at).expires.saturating_sub(now))
    }

    /// Let it live so long from now on.
    ///
    /// # Errors
    /// "not found".
    pub(crate) fn expire(&self, key: &[u8], ttl_ms: u64, now: u64) -> Result<(), Refused> {
        let mut inner = self.lock();
        let at = inner.find(key, now, false).ok_or("not found")?;
        inner.node_mut(at).expires = deadline(now, ttl_ms);
        Ok(())
    }

    /// End the time of everything.
    pub(crate) fn flush_all(&self) {
        self.lock().nodes.iter_mut().flatten().for_each(|node| node.expires = 1);
    }

    /// Forget what is out of its time, at most so many (0: all); how many.
    pub(crate) fn flush_expired(&self, most: usize, now: u64) -> usize {
        let mut inner = self.lock();
        let most = if most == 0 { usize::MAX } else { most };
        let over: Vec<u32> =
            inner.index.values().copied().filter(|at| inner.node(*at).is_over(now)).take(most).collect();
        over.iter().for_each(|at| inner.remove(*at));
        over.len()
    }

    /// Keys, at most so many (0: all).
    pub(crate) fn keys(&self, most: usize, now: u64) -> Vec<Arc<[u8]>> {
        let inner = self.lock();
        let most = if most == 0 { usize::MAX } else { most };
        let good = inner.nodes.iter().flatten().filter(|node| !node.is_over(now));
        good.take(most).map(|node| node.key.clone()).collect()
    }

    /// Bytes in all, and bytes that are free.
    pub(crate) fn room(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.capacity, inner.capacity.saturating_sub(inner.bytes))
    }
}

fn deadline(now: u64, ttl_ms: u64) -> u64 {
    if ttl_ms == 0 { 0 } else { now.saturating_add(ttl_ms) }
}

impl Node {
    fn is_over(&self, now: u64) -> bool {
        self.expires != 0 && self.expires <= now
    }
}

impl Inner {
    fn node(&self, at: u32) -> &Node {
        self.nodes[at as usize].as_ref().expect("the index and the list know nodes only")
    }

    fn node_mut(&mut self, at: u32) -> &mut Node {
        self.nodes[at as usize].as_mut().expect("the index and the list know nodes only")
    }

    fn find(&self, key: &[u8], now: u64, stale: bool) -> Option<u32> {
        let at = *self.index.get(key)?;
        (stale || !self.node(at).is_over(now)).then_some(at)
    }

    fn insert(
        &mut self,
        key: &[u8],
        value: Value,
        flags: u32,
        expires: u64,
        evict: bool,
        now: u64,
    ) -> Result<bool, Refused> {
        let bytes = ENTRY + key.len() + value.bytes();
        let known = self.index.get(key).copied();
        let own = known.map_or(0, |at| self.node(at).bytes);
        if bytes > self.capacity {
            return Err("no memory");
        }
        let mut forced = false;
        while self.bytes - own + bytes > self.capacity {
            let mut oldest = self.oldest;
            if Some(oldest) == known {
                oldest = self.node(oldest).newer;
            }
            if oldest == NONE {
                break;
            }
            let good = !self.node(oldest).is_over(now);
            if good && !evict {
                return Err("no memory");
            }
            forced |= good;
            self.remove(oldest);
        }
        if let Some(at) = known {
            let node = self.node_mut(at);
            (node.value, node.flags, node.expires, node.bytes) = (value, flags, expires, bytes);
            self.bytes = self.bytes - own + bytes;
            self.touch(at);
            return Ok(forced);
        }
        let key: Arc<[u8]> = key.into();
        let node = Node { key: key.clone(), value, bytes, flags, expires, newer: NONE, older: NONE };
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = Some(node);
                at
            }
            None => {
                self.nodes.push(Some(node));
                self.nodes.len() as u32 - 1
            }
        };
        self.index.insert(key, at);
        self.bytes += bytes;
        self.link(at);
        Ok(forced)
    }

    fn remove(&mut self, at: u32) {
        self.unlink(at);
        let Some(node) = self.nodes[at as usize].take() else { return };
        self.bytes -= node.bytes;
        self.index.remove(&node.key);
        self.free.push(at);
    }

    /// It was used just now.
    fn touch(&mut self, at: u32) {
        if self.newest != at {
            self.unlink(at);
            self.link(at);
        }
    }

    fn link(&mut self, at: u32) {
        let older = self.newest;
        let node = self.node_mut(at);
        (node.newer, node.older) = (NONE, older);
        if older == NONE {
            self.oldest = at;
        } else {
            self.node_mut(older).newer = at;
        }
        self.newest = at;
    }

    fn unlink(&mut self, at: u32) {
        let (newer, older) = (self.node(at).newer, self.node(at).older);
        if newer == NONE {
            self.newest = older;
        } else {
            self.node_mut(newer).older = older;
        }
        if older == NONE {
            self.oldest = newer;
        } else {
            self.node_mut(older).newer = newer;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.as_bytes().into())
    }

    fn put(value: Value, ttl_ms: u64, when: When, evict: bool) -> Put {
        Put { value, ttl_ms, flags: 7, when, evict }
    }

    #[test]
    fn values_live_as_long_as_they_are_told_to() {
        let dict = Dict::new(1 << 20);
        assert_eq!(dict.put(b"a", put(text("x"), 100, When::Any, true), 1000), Ok(false));
        let found = Found { value: text("x"), flags: 7, stale: false };
        assert_eq!(dict.get(b"a", 1099, false), Ok(Some(found.clone())));
        assert_eq!(dict.get(b"a", 1100, false), Ok(None));
        assert_eq!(dict.get(b"a", 1100, true), Ok(Some(Found { stale: true, ..found })));
        assert_eq!(dict.ttl_ms(b"a", 1040), Ok(60));
        assert_eq!(dict.expire(b"a", 0, 1040), Ok(()));
        assert_eq!((dict.ttl_ms(b"a", 9000), dict.ttl_ms(b"b", 9000)), (Ok(0), Err("not found")));
        dict.flush_all();
        assert_eq!((dict.get(b"a", 9000, false), dict.flush_expired(0, 9000)), (Ok(None), 1));
        assert_eq!(dict.get(b"a", 9000, true), Ok(None));
    }

    #[test]
    fn what_is_there_decides_whether_a_value_is_put() {
        let dict = Dict::new(1 << 20);
        let as_new = |now| dict.put(b"a", put(text("x"), 10, When::New, true), now);
        assert_eq!(dict.put(b"a", put(text("x"), 0, When::Known, true), 1), Err("not found"));
        assert_eq!((as_new(1), as_new(5), as_new(11)), (Ok(false), Err("exists"), Ok(false)));
        assert_eq!(dict.put(b"a", put(text("y"), 0, When::Known, true), 12), Ok(false));
        dict.delete(b"a");
        assert_eq!(dict.get(b"a", 12, true), Ok(None));
    }

    #[test]
    fn numbers_and_lists() {
        let dict = Dict::new(1 << 20);
        assert_eq!(dict.incr(b"n", 1.0, None, 0, 1), Err("not found"));
        assert_eq!(dict.incr(b"n", 1.0, Some(5.0), 10, 1), Ok((6.0, false)));
        assert_eq!(dict.incr(b"n", -2.0, Some(5.0), 10, 10), Ok((4.0, false)));
        assert_eq!(dict.incr(b"n", 1.0, Some(0.0), 10, 11), Ok((1.0, false)), "the first has ended");
        assert_eq!(dict.push(b"n", Item::Number(1.0), End::Back, 12), Err("value not a list"));
        for (item, end, length) in [(1.0, End::Back, 1), (2.0, End::Back, 2), (0.0, End::Front, 3)] {
            assert_eq!(dict.push(b"l", Item::Number(item), end, 12), Ok(length));
        }
        assert_eq!((dict.length(b"l", 12), dict.length(b"none", 12)), (Ok(3), Ok(0)));
        assert_eq!(dict.get(b"l", 12, false), Err("value is a list"));
        assert_eq!(dict.incr(b"l", 1.0, None, 0, 12), Err("not a number"));
        assert_eq!(dict.pop(b"l", End::Front, 12), Ok(Some(Item::Number(0.0))));
        assert_eq!(dict.pop(b"l", End::Back, 12), Ok(Some(Item::Number(2.0))));
        assert_eq!(dict.pop(b"l", End::Back, 12), Ok(Some(Item::Number(1.0))));
        assert_eq!((dict.pop(b"l", End::Back, 12), dict.keys(0, 12).len()), (Ok(None), 1));
    }

    #[test]
    fn the_least_recently_used_make_room() {
        let dict = Dict::new(4 * (ENTRY + 1 + 100));
        let value = || text(&"v".repeat(100));
        for key in [b"a", b"b", b"c", b"d"] {
            assert_eq!(dict.put(key, put(value(), 0, When::Any, true), 1), Ok(false));
        }
        assert_eq!(dict.room().1, 0);
        assert_eq!(dict.put(b"e", put(value(), 0, When::Any, false), 1), Err("no memory"));
        assert!(dict.get(b"a", 1, false).unwrap().is_some());
        assert_eq!(dict.put(b"e", put(value(), 0, When::Any, true), 1), Ok(true));
        assert_eq!(dict.get(b"b", 1, false), Ok(None), "used longest ago");
        assert!(dict.get(b"a", 1, false).unwrap().is_some());
        assert_eq!(dict.put(b"f", put(text(&"v".repeat(2000)), 0, When::Any, true), 1), Err("no memory"));
        assert_eq!(
            dict.put(b"a", put(text(&"v".repeat(200)), 0, When::Any, true), 1),
            Ok(true),
            "its own space counts"
        );
        assert_eq!(dict.push(b"l", Item::Text([0; 900].into()), End::Back, 1), Err("no memory"));
    }

    #[test]
    fn the_books_are_right_after_anything() {
        let dict = Dict::new(2000);
        let mut seed = 1_u32;
        for now in 1..5000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (what, key) = (seed >> 28, [b'a' + (seed >> 20) as u8 % 16]);
            let size = (seed >> 8) as usize % 300;
            match what {
                0..7 => drop(dict.put(&key, put(text(&"v".repeat(size)), 30, When::Any, what % 2 == 0), now)),
                7..9 => dict.delete(&key),
                9..11 => drop(dict.push(&key, Item::Text(vec![0; size].into()), End::Front, now)),
                11..13 => drop(dict.pop(&key, End::Back, now)),
                13 => drop(dict.flush_expired(2, now)),
                _ => drop(dict.get(&key, now, false)),
            }
            let inner = dict.lock();
            let nodes: Vec<&Node> = inner.nodes.iter().flatten().collect();
            assert_eq!(inner.bytes, nodes.iter().map(|node| node.bytes).sum::<usize>());
            assert!(inner.bytes <= inner.capacity && inner.index.len() == nodes.len());
            for node in &nodes {
                assert_eq!(node.bytes, ENTRY + node.key.len() + node.value.bytes());
            }
            let mut walked = 0;
            let mut at = inner.newest;
            while at != NONE {
                (walked, at) = (walked + 1, inner.node(at).older);
            }
            assert_eq!(walked, nodes.len());
        }
    }
}
