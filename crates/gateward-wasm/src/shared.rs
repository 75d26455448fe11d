//! Data and queues that the instances of one `vm_id` share, on all workers.
//!
//! This is the one place where workers meet over filters, so it is behind locks: one per `vm_id` for data, one for
//! queues, held for a look-up and a copy. A filter that shares nothing never comes here. What is shared lives as long as any filter
//! that was configured with the `vm_id`: a replacement takes it over from its predecessor, and with the last one it is freed.

use crate::types::Status;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Bytes of keys and values of one `vm_id`; a write beyond is refused with `INTERNAL_FAILURE`.
pub const DATA_BYTES: usize = 64 << 20;
/// Entries of one `vm_id`, likewise.
pub const DATA_ENTRIES: usize = 100_000;
/// Queues of one `vm_id`; more are refused with `INTERNAL_FAILURE`.
pub const QUEUES: usize = 256;
/// Items of one queue; beyond it the oldest is dropped and counted.
pub const QUEUE_ITEMS: usize = 4096;
/// Bytes of the items of one queue, likewise.
pub const QUEUE_BYTES: usize = 16 << 20;

/// Everything shared in this process, by `vm_id`.
#[derive(Default)]
pub struct Shared {
    spaces: Mutex<FxHashMap<Box<str>, Weak<Space>>>,
    next_queue: Arc<AtomicU64>,
}

/// What the instances of one `vm_id` share.
pub struct Space {
    data: Mutex<Data>,
    queues: Mutex<Queues>,
    next_queue: Arc<AtomicU64>,
    dropped: AtomicU64,
}

/// A value and its compare-and-swap number.
type Versioned = (Arc<[u8]>, u32);

#[derive(Default)]
struct Data {
    entries: FxHashMap<Box<[u8]>, Versioned>,
    bytes: usize,
    last_cas: u32,
}

#[derive(Default)]
struct Queues {
    by_name: FxHashMap<Box<[u8]>, u32>,
    by_id: FxHashMap<u32, Queue>,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Box<[u8]>>,
    bytes: usize,
    listeners: Vec<Weak<Listener>>,
    turn: usize,
    /// An item came when nobody listened.
    untold: bool,
}

/// How an instance learns that a queue of its got an item.
pub struct Listener {
    ready: Mutex<Vec<u32>>,
    wake: Box<dyn Fn() + Send + Sync>,
    /// Whether it is told of items: an instance that nobody uses yet would keep them to itself.
    active: AtomicBool,
}

impl Listener {
    /// A listener that calls `wake`, from any thread, when [`Self::take`] has something. It is told of nothing before
    /// [`Space::listen`].
    pub fn new(wake: Box<dyn Fn() + Send + Sync>) -> Arc<Self> {
        Arc::new(Self { ready: Mutex::default(), wake, active: AtomicBool::new(false) })
    }

    fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Queues that got items since the last time, each once.
    pub fn take(&self) -> Vec<u32> {
        std::mem::take(&mut *lock(&self.ready))
    }

    fn notify(&self, queue: u32) {
        let mut ready = lock(&self.ready);
        if !ready.contains(&queue) {
            ready.push(queue);
        }
        drop(ready);
        (self.wake)();
    }
}

impl Shared {
    /// The space of `vm_id`, which others may have already.
    pub fn space(&self, vm_id: &str) -> Arc<Space> {
        let mut spaces = lock(&self.spaces);
        if let Some(space) = spaces.get(vm_id).and_then(Weak::upgrade) {
            return space;
        }
        spaces.retain(|_, space| space.strong_count() > 0);
        let space = Arc::new(Space {
            data: Mutex::default(),
            queues: Mutex::default(),
            next_queue: self.next_queue.clone(),
            dropped: AtomicU64::new(0),
        });
        spaces.insert(vm_id.into(), Arc::downgrade(&space));
        space
    }

    /// The space of `vm_id` if any filter has it.
    pub fn existing(&self, vm_id: &str) -> Option<Arc<Space>> {
        lock(&self.spaces).get(vm_id).and_then(Weak::upgrade)
    }

    /// The space that has queue `id`.
    pub fn with_queue(&self, id: u32) -> Option<Arc<Space>> {
        let spaces: Vec<_> = lock(&self.spaces).values().filter_map(Weak::upgrade).collect();
        spaces.into_iter().find(|space| space.has_queue(id))
    }

    /// How many `vm_id`s are in use.
    pub fn spaces(&self) -> usize {
        lock(&self.spaces).values().filter(|space| space.strong_count() > 0).count()
    }
}

impl Space {
    /// The value of `key` and its compare-and-swap number.
    pub fn value(&self, key: &[u8]) -> Option<(Arc<[u8]>, u32)> {
        lock(&self.data).entries.get(key).cloned()
    }

    /// Set `key`. With `cas` other than zero only if nobody set it since that number was read.
    ///
    /// # Errors
    /// `CasMismatch`: somebody did. `InternalFailure`: the space is full.
    pub fn set(&self, key: &[u8], value: &[u8], cas: u32) -> Result<(), Status> {
        let mut data = lock(&self.data);
        let data = &mut *data;
        let (old, is_new) = match data.entries.get(key) {
            Some((_, current)) if cas != 0 && cas != *current => return Err(Status::CasMismatch),
            Some((value, _)) => (key.len() + value.len(), false),
            None => (0, true),
        };
        let bytes = data.bytes - old + key.len() + value.len();
        if bytes > DATA_BYTES || (is_new && data.entries.len() >= DATA_ENTRIES) {
            return Err(Status::InternalFailure);
        }
        data.bytes = bytes;
        // Zero means "whatever it is", so it is never given out.
        data.last_cas = data.last_cas.checked_add(1).unwrap_or(1);
        data.entries.insert(key.into(), (value.into(), data.last_cas));
        Ok(())
    }

    /// The id of the queue `name`, made if there is none, with `listener` told about its items.
    ///
    /// # Errors
    /// `InternalFailure`: there are too many queues.
    pub fn register(&self, name: &[u8], listener: &Arc<Listener>) -> Result<u32, Status> {
        let mut queues = lock(&self.queues);
        let id = match queues.by_name.get(name) {
            Some(id) => *id,
            None if queues.by_id.len() >= QUEUES => return Err(Status::InternalFailure),
            None => {
                let id = self.next_queue.fetch_add(1, Ordering::Relaxed) as u32 + 1;
                queues.by_name.insert(name.into(), id);
                id
            }
        };
        let queue = queues.by_id.entry(id).or_default();
        queue.listeners.retain(|known| known.strong_count() > 0 && !known.ptr_eq(&Arc::downgrade(listener)));
        queue.listeners.push(Arc::downgrade(listener));
        let told = listener.is_active() && queue.tell_of_untold();
        drop(queues);
        if told {
            listener.notify(id);
        }
        Ok(id)
    }

    /// From now on `listener` is told of items of the queues it was registered for, those that nobody was told of among them.
    pub fn listen(&self, listener: &Arc<Listener>) {
        let mut queues = lock(&self.queues);
        // Under the lock: who enqueues sees it, or leaves an item untold that is found here.
        listener.active.store(true, Ordering::Relaxed);
        let own = Arc::downgrade(listener);
        let untold =
            queues.by_id.iter_mut().filter(|(_, queue)| queue.listeners.iter().any(|known| known.ptr_eq(&own)));
        let untold: Vec<u32> = untold.filter_map(|(id, queue)| queue.tell_of_untold().then_some(*id)).collect();
        drop(queues);
        for id in untold {
            listener.notify(id);
        }
    }

    /// The id of the queue `name`.
    pub fn resolve(&self, name: &[u8]) -> Option<u32> {
        lock(&self.queues).by_name.get(name).copied()
    }

    /// Append an item, and tell one of those who listen, in turn. If nobody does, the next who does is told.
    ///
    /// # Errors
    /// `NotFound`: there is no such queue. `InternalFailure`: the item alone is more than a queue may hold.
    pub fn enqueue(&self, id: u32, item: &[u8]) -> Result<(), Status> {
        if item.len() > QUEUE_BYTES {
            return Err(Status::InternalFailure);
        }
        let mut queues = lock(&self.queues);
        let queue = queues.by_id.get_mut(&id).ok_or(Status::NotFound)?;
        queue.items.push_back(item.into());
        queue.bytes += item.len();
        while queue.items.len() > QUEUE_ITEMS || queue.bytes > QUEUE_BYTES {
            let Some(oldest) = queue.items.pop_front() else { break };
            queue.bytes -= oldest.len();
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        let listener = queue.next_listener();
        queue.untold |= listener.is_none();
        drop(queues);
        if let Some(listener) = listener {
            listener.notify(id);
        }
        Ok(())
    }

    /// Take the oldest item.
    ///
    /// # Errors
    /// `NotFound`: there is no such queue. `Empty`: there is no item.
    pub fn dequeue(&self, id: u32) -> Result<Box<[u8]>, Status> {
        let mut queues = lock(&self.queues);
        let queue = queues.by_id.get_mut(&id).ok_or(Status::NotFound)?;
        let item = queue.items.pop_front().ok_or(Status::Empty)?;
        queue.bytes -= item.len();
        Ok(item)
    }

    /// Whether queue `id` is here.
    pub fn has_queue(&self, id: u32) -> bool {
        lock(&self.queues).by_id.contains_key(&id)
    }

    /// Bytes of data, and items that were dropped because a queue was full.
    pub fn usage(&self) -> (usize, u64) {
        (lock(&self.data).bytes, self.dropped.load(Ordering::Relaxed))
    }
}

impl Queue {
    /// Whose turn it is to be told of an item.
    fn next_listener(&mut self) -> Option<Arc<Listener>> {
        self.listeners.retain(|listener| listener.strong_count() > 0);
        self.turn = self.turn.wrapping_add(1);
        let active = || self.listeners.iter().filter_map(Weak::upgrade).filter(|listener| listener.is_active());
        let count = active().count();
        active().nth(self.turn % count.max(1))
    }

    /// Whether there are items that nobody was told of. Whoever asks is the one who is.
    fn tell_of_untold(&mut self) -> bool {
        std::mem::take(&mut self.untold) && !self.items.is_empty()
    }
}

/// Nothing is left half done under these locks, so a panic elsewhere does not spoil what they guard.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn a_value_is_set_only_over_the_one_that_was_read() {
        let space = Shared::default().space("a");
        assert!(space.value(b"k").is_none());
        space.set(b"k", b"1", 0).unwrap();
        let (value, cas) = space.value(b"k").unwrap();
        assert_eq!((&*value, cas != 0), (&b"1"[..], true));
        space.set(b"k", b"2", cas).unwrap();
        assert_eq!(space.set(b"k", b"3", cas), Err(Status::CasMismatch));
        space.set(b"k", b"4", 0).unwrap();
        assert_eq!(&*space.value(b"k").unwrap().0, b"4");
        assert_eq!(space.usage().0, 2);
    }

    #[test]
    fn concurrent_increments_all_count() {
        let space = Shared::default().space("a");
        space.set(b"n", &0u32.to_le_bytes(), 0).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut done = 0;
                    while done < 500 {
                        let (value, cas) = space.value(b"n").unwrap();
                        let number = u32::from_le_bytes(value[..].try_into().unwrap()) + 1;
                        done += usize::from(space.set(b"n", &number.to_le_bytes(), cas).is_ok());
                    }
                });
            }
        });
        assert_eq!(&*space.value(b"n").unwrap().0, 2000u32.to_le_bytes());
    }

    #[test]
    fn a_full_space_refuses() {
        let space = Shared::default().space("a");
        space.set(b"k", &vec![0; DATA_BYTES - 1], 0).unwrap();
        assert_eq!(space.set(b"l", b"", 0), Err(Status::InternalFailure));
        space.set(b"k", b"", 0).unwrap();
        space.set(b"l", b"", 0).unwrap();
    }

    #[test]
    fn a_space_ends_with_its_last_user() {
        let shared = Shared::default();
        let first = shared.space("a");
        first.set(b"k", b"1", 0).unwrap();
        let second = shared.space("a");
        drop(first);
        assert!(second.value(b"k").is_some());
        drop(second);
        assert!(shared.existing("a").is_none());
        assert!(shared.space("a").value(b"k").is_none());
        assert_eq!(shared.spaces(), 0);
    }

    #[test]
    fn items_come_out_in_order_and_listeners_take_turns() {
        let shared = Shared::default();
        let space = shared.space("a");
        let woken = Arc::new(AtomicUsize::new(0));
        let listener = || {
            let woken = woken.clone();
            Listener::new(Box::new(move || {
                woken.fetch_add(1, Ordering::Relaxed);
            }))
        };
        let (first, second) = (listener(), listener());
        for listener in [&first, &second] {
            space.listen(listener);
        }
        let id = space.register(b"q", &first).unwrap();
        assert_eq!(space.register(b"q", &second), Ok(id));
        assert_eq!((space.resolve(b"q"), space.resolve(b"r")), (Some(id), None));
        assert_ne!(shared.space("b").register(b"q", &first).unwrap(), id);
        for item in [b"1", b"2"] {
            space.enqueue(id, item).unwrap();
        }
        assert_eq!(woken.load(Ordering::Relaxed), 2);
        assert_eq!((first.take(), second.take(), first.take()), (vec![id], vec![id], vec![]));
        assert_eq!(&*space.dequeue(id).unwrap(), b"1");
        assert_eq!(&*space.dequeue(id).unwrap(), b"2");
        assert_eq!(space.dequeue(id), Err(Status::Empty));
        assert_eq!(space.dequeue(99), Err(Status::NotFound));
        assert_eq!(space.enqueue(99, b""), Err(Status::NotFound));
    }

    #[test]
    fn who_does_not_listen_yet_keeps_no_item_from_those_who_do() {
        let space = Shared::default().space("a");
        let [first, spare, other] = [(); 3].map(|()| Listener::new(Box::new(|| ())));
        let id = space.register(b"q", &first).unwrap();
        for listener in [&spare, &other] {
            space.register(b"q", listener).unwrap();
        }
        space.enqueue(id, b"1").unwrap();
        assert!([&first, &spare, &other].iter().all(|listener| listener.take().is_empty()));
        // The first who listens is told of what was left untold, and nobody else.
        space.listen(&first);
        space.listen(&other);
        assert_eq!((first.take(), other.take()), (vec![id], vec![]));
        let mut told = [0, 0];
        for _ in 0..6 {
            space.enqueue(id, b"2").unwrap();
            told[0] += first.take().len();
            told[1] += other.take().len();
        }
        assert_eq!((told, spare.take()), ([3, 3], Vec::new()));
        // With the others gone, items wait for it, unless somebody takes them first.
        drop((first, other));
        space.enqueue(id, b"3").unwrap();
        while space.dequeue(id).is_ok() {}
        space.listen(&spare);
        assert!(spare.take().is_empty());
        space.enqueue(id, b"4").unwrap();
        assert_eq!(spare.take(), [id]);
        // Who listens already when it registers finds what was left as well.
        drop(spare);
        space.enqueue(id, b"5").unwrap();
        let late = Listener::new(Box::new(|| ()));
        space.listen(&late);
        space.register(b"q", &late).unwrap();
        assert_eq!(late.take(), [id]);
    }

    #[test]
    fn a_full_queue_drops_the_oldest() {
        let shared = Shared::default();
        let space = shared.space("a");
        let listener = Listener::new(Box::new(|| ()));
        let id = space.register(b"q", &listener).unwrap();
        for number in 0..=QUEUE_ITEMS as u32 {
            space.enqueue(id, &number.to_le_bytes()).unwrap();
        }
        assert_eq!(space.usage().1, 1);
        assert_eq!(&*space.dequeue(id).unwrap(), 1u32.to_le_bytes());
    }
}
