//! Queues with two limits: how many items, and how many bytes of them. Sending never waits: what
//! does not fit is handed back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

/// What counts against the limit in bytes.
pub(crate) trait Weigh {
    fn size_bytes(&self) -> u64;
}

/// Why an item was not taken.
#[derive(Debug)]
pub(crate) enum Refused<T> {
    /// The queue is full.
    Full(T),
    /// Nobody takes anything out any more.
    Closed(T),
}

/// An empty queue for at most `items_max` items of together at most `bytes_max` bytes; a single
/// larger item fits into an empty queue, or it would never get through.
pub(crate) fn queue<T: Weigh>(items_max: usize, bytes_max: u64) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel(items_max);
    let bytes = Arc::new(AtomicU64::new(0));
    let sender = Sender { items: sender, bytes: Arc::clone(&bytes), bytes_max };
    let items = receiver;
    (sender, Receiver { items, bytes })
}

/// The end where items go in.
#[derive(Debug)]
pub(crate) struct Sender<T> {
    items: mpsc::Sender<T>,
    bytes: Arc<AtomicU64>,
    bytes_max: u64,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self {
            items: self.items.clone(),
            bytes: Arc::clone(&self.bytes),
            bytes_max: self.bytes_max,
        }
    }
}

impl<T: Weigh> Sender<T> {
    pub(crate) fn try_send(&self, item: T) -> Result<(), Refused<T>> {
        let bytes = item.size_bytes();
        let queued = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let refused = if queued > 0 && queued + bytes > self.bytes_max {
            Refused::Full(item)
        } else {
            match self.items.try_send(item) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Full(item)) => Refused::Full(item),
                Err(mpsc::error::TrySendError::Closed(item)) => Refused::Closed(item),
            }
        };
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        Err(refused)
    }
}

/// The end where they come out.
#[derive(Debug)]
pub(crate) struct Receiver<T> {
    items: mpsc::Receiver<T>,
    bytes: Arc<AtomicU64>,
}

impl<T: Weigh> Receiver<T> {
    /// The next item; `None` when there will be no more. Cancelled, it has taken nothing.
    pub(crate) async fn recv(&mut self) -> Option<T> {
        let item = self.items.recv().await;
        self.weigh_out(item)
    }

    /// The next item, if there is one now.
    pub(crate) fn try_recv(&mut self) -> Option<T> {
        let item = self.items.try_recv().ok();
        self.weigh_out(item)
    }

    /// How many items are inside.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Lets nothing more in. What is inside can still be taken out.
    pub(crate) fn close(&mut self) {
        self.items.close();
    }

    fn weigh_out(&self, item: Option<T>) -> Option<T> {
        let bytes = item.as_ref().map_or(0, Weigh::size_bytes);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Stone(u64);

    impl Weigh for Stone {
        fn size_bytes(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn both_limits_hold_and_what_comes_out_makes_room() {
        let (sender, mut receiver) = queue(3, 10);
        sender.try_send(Stone(6)).unwrap();
        assert!(matches!(sender.try_send(Stone(5)), Err(Refused::Full(Stone(5)))));
        sender.try_send(Stone(4)).unwrap();
        sender.try_send(Stone(0)).unwrap();
        assert!(matches!(sender.try_send(Stone(0)), Err(Refused::Full(_))), "three are inside");
        assert_eq!(receiver.try_recv().map(|stone| stone.0), Some(6));
        sender.try_send(Stone(5)).unwrap();
        receiver.close();
        assert!(matches!(sender.try_send(Stone(0)), Err(Refused::Closed(_))));
        let rest = std::iter::from_fn(|| receiver.try_recv()).map(|stone| stone.0);
        assert_eq!(rest.collect::<Vec<_>>(), [4, 0, 5]);
    }

    #[test]
    fn what_is_larger_than_the_queue_passes_when_it_is_alone() {
        let (sender, mut receiver) = queue(3, 10);
        sender.try_send(Stone(100)).unwrap();
        assert!(matches!(sender.try_send(Stone(1)), Err(Refused::Full(_))));
        assert!(receiver.try_recv().is_some());
        sender.try_send(Stone(1)).unwrap();
    }
}
