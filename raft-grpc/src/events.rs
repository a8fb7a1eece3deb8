//! What happened to a node, for whoever wants to know: as it happens, and the last of it at any time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use raft_core::Event;
use tokio::sync::broadcast;

/// So many of the last events can be asked for, and a listener may be so far behind.
const EVENTS_KEPT: usize = 256;

/// Something that happened to a node: an election, a change of members, a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeEvent {
    /// Counts the events of this node since its start, from 1.
    pub number: u64,
    /// When, by the clock of the machine.
    pub at: SystemTime,
    /// What. Of [`Event::Committed`] and [`Event::Ignored`] nothing is told: they come with every message.
    pub event: Event,
}

/// The events of a node from a moment on.
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<NodeEvent>,
}

impl Events {
    /// The next event; `None` when the node has ended. Who takes them so slowly that more than 256 wait loses
    /// the oldest: their [numbers](NodeEvent::number) tell how many. Cancelled, it has taken nothing.
    pub async fn next(&mut self) -> Option<NodeEvent> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// Where the driver writes down what happens.
#[derive(Debug)]
pub(crate) struct Chronicle {
    sender: broadcast::Sender<NodeEvent>,
    last: Arc<Mutex<VecDeque<NodeEvent>>>,
    count: u64,
}

/// The side of those who want to know.
#[derive(Debug)]
pub(crate) struct Readers {
    /// Does not keep the channel open, so that listeners see the end of the node.
    sender: broadcast::WeakSender<NodeEvent>,
    last: Arc<Mutex<VecDeque<NodeEvent>>>,
}

/// An empty chronicle.
pub(crate) fn chronicle() -> (Chronicle, Readers) {
    let (sender, _) = broadcast::channel(EVENTS_KEPT);
    let last = Arc::new(Mutex::new(VecDeque::with_capacity(EVENTS_KEPT)));
    let readers = Readers { sender: sender.downgrade(), last: Arc::clone(&last) };
    (Chronicle { sender, last, count: 0 }, readers)
}

fn lock(last: &Mutex<VecDeque<NodeEvent>>) -> MutexGuard<'_, VecDeque<NodeEvent>> {
    // Whole after every statement.
    last.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Chronicle {
    /// Tells of an event, if it is one to be told of.
    pub(crate) fn note(&mut self, event: &Event) {
        if matches!(event, Event::Committed { .. } | Event::Ignored { .. }) {
            return;
        }
        self.count += 1;
        let event = NodeEvent { number: self.count, at: SystemTime::now(), event: event.clone() };
        let mut last = lock(&self.last);
        if last.len() == EVENTS_KEPT {
            last.pop_front();
        }
        last.push_back(event.clone());
        drop(last);
        // Fails when nobody listens.
        let _ = self.sender.send(event);
    }
}

impl Readers {
    /// What happens from now on.
    pub(crate) fn listen(&self) -> Events {
        let receiver = match self.sender.upgrade() {
            Some(sender) => sender.subscribe(),
            // The node has ended: a channel that is closed already.
            None => broadcast::channel(1).1,
        };
        Events { receiver }
    }

    /// The last that happened, the newest last.
    pub(crate) fn last(&self) -> Vec<NodeEvent> {
        lock(&self.last).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use raft_core::{LogIndex, Term};

    use super::*;

    fn lost(term: u64) -> Event {
        Event::QuorumLost { term: Term(term) }
    }

    #[tokio::test]
    async fn who_listens_is_told_what_happens_from_then_on_and_of_the_end() {
        let (mut chronicle, readers) = chronicle();
        chronicle.note(&lost(1));
        let mut events = readers.listen();
        chronicle.note(&Event::Committed { index: LogIndex(7) });
        chronicle.note(&lost(2));
        let told = events.next().await.unwrap();
        assert_eq!((told.number, told.event), (2, lost(2)));
        drop(chronicle);
        assert_eq!(events.next().await, None);
        assert_eq!(readers.listen().next().await, None);
        assert_eq!(readers.last().len(), 2);
    }

    #[tokio::test]
    async fn who_is_slow_loses_the_oldest_and_can_tell() {
        let (mut chronicle, readers) = chronicle();
        let mut events = readers.listen();
        let many = EVENTS_KEPT as u64 + 10;
        (1..=many).for_each(|term| chronicle.note(&lost(term)));
        assert_eq!(events.next().await.unwrap().number, 11);
        let last = readers.last();
        assert_eq!(last.len(), EVENTS_KEPT);
        assert_eq!(last.last().unwrap().number, many);
    }
}
