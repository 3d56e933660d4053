//! The bus within one process: no broker, no disk; it ends with the process.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use crate::bus::{Acknowledge, Bus, BusCounts, BusError, Delivery, Subscription};
use crate::subject::subject_matches;

/// A bus within the process. Each durable subscription has a buffer of so many messages; when it is full, the oldest
/// message that waits gives way, and is counted. A delivery that is dropped without acknowledgement comes again at
/// once.
#[derive(Clone)]
pub struct EmbeddedBus {
    shared: Arc<Shared>,
}

struct Shared {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The latest messages, for subscriptions that are made later.
    latest: VecDeque<Arc<Message>>,
    /// The ids of those.
    ids: HashSet<String>,
    queues: BTreeMap<String, Queue>,
    counts: BusCounts,
}

/// What waits for one durable subscription.
struct Queue {
    filter: String,
    waiting: VecDeque<Arc<Message>>,
    wake: Arc<Notify>,
}

struct Message {
    subject: String,
    id: String,
    payload: Bytes,
}

impl EmbeddedBus {
    /// A bus that holds `capacity` messages per subscription, at least one.
    pub fn new(capacity: usize) -> Self {
        Self { shared: Arc::new(Shared { capacity: capacity.max(1), state: Mutex::default() }) }
    }
}

impl Default for EmbeddedBus {
    /// Room for 65,536 messages.
    fn default() -> Self {
        Self::new(65_536)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked left counts behind at worst.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes back what was delivered and not acknowledged.
    fn take_back(&self, durable: &str, message: Arc<Message>) {
        let mut state = self.lock();
        if state.enqueue(durable, message, self.capacity, VecDeque::push_front) {
            state.counts.redelivered += 1;
        }
    }
}

impl State {
    /// Whether the message found a place.
    fn enqueue(
        &mut self,
        durable: &str,
        message: Arc<Message>,
        capacity: usize,
        push: fn(&mut VecDeque<Arc<Message>>, Arc<Message>),
    ) -> bool {
        let Some(queue) = self.queues.get_mut(durable) else { return false };
        if queue.waiting.len() == capacity {
            queue.waiting.pop_front();
            self.counts.dropped += 1;
        }
        push(&mut queue.waiting, message);
        queue.wake.notify_one();
        true
    }

    fn remember(&mut self, message: Arc<Message>, capacity: usize) {
        if self.latest.len() == capacity
            && let Some(oldest) = self.latest.pop_front()
        {
            self.ids.remove(&oldest.id);
        }
        self.ids.insert(message.id.clone());
        self.latest.push_back(message);
    }
}

#[async_trait]
impl Bus for EmbeddedBus {
    async fn publish(&self, subject: &str, message_id: &str, payload: Bytes) -> Result<(), BusError> {
        let mut state = self.shared.lock();
        state.counts.accepted += 1;
        if state.ids.contains(message_id) {
            state.counts.duplicates += 1;
            return Ok(());
        }
        state.counts.stored += 1;
        let message = Arc::new(Message { subject: subject.to_owned(), id: message_id.to_owned(), payload });
        let takers = state.queues.iter().filter(|(_, queue)| subject_matches(&queue.filter, subject));
        for durable in takers.map(|(durable, _)| durable.clone()).collect::<Vec<_>>() {
            state.enqueue(&durable, message.clone(), self.shared.capacity, VecDeque::push_back);
        }
        state.remember(message, self.shared.capacity);
        Ok(())
    }

    async fn subscribe(&self, filter: &str, durable: &str) -> Result<Box<dyn Subscription>, BusError> {
        let mut state = self.shared.lock();
        let latest = state.latest.iter().filter(|message| subject_matches(filter, &message.subject)).cloned();
        let waiting = latest.collect();
        let queue = state.queues.entry(durable.to_owned()).or_insert_with(|| Queue {
            filter: filter.to_owned(),
            waiting,
            wake: Arc::default(),
        });
        if queue.filter != filter {
            let problem = format!("subscription '{durable}' has the filter '{}', not '{filter}'", queue.filter);
            return Err(BusError::Refused(problem));
        }
        let wake = queue.wake.clone();
        Ok(Box::new(EmbeddedSubscription { shared: self.shared.clone(), durable: durable.to_owned(), wake }))
    }

    fn counts(&self) -> BusCounts {
        self.shared.lock().counts
    }
}

struct EmbeddedSubscription {
    shared: Arc<Shared>,
    durable: String,
    wake: Arc<Notify>,
}

#[async_trait]
impl Subscription for EmbeddedSubscription {
    async fn next(&mut self) -> Delivery {
        loop {
            let next = self.shared.lock().queues.get_mut(&self.durable).and_then(|queue| queue.waiting.pop_front());
            if let Some(message) = next {
                // Another one may take part, who was not woken for what is left.
                self.wake.notify_one();
                let (subject, payload) = (message.subject.clone(), message.payload.clone());
                let (shared, durable) = (self.shared.clone(), self.durable.clone());
                return Delivery::new(subject, payload, Box::new(Receipt { shared, durable, message: Some(message) }));
            }
            self.wake.notified().await;
        }
    }
}

struct Receipt {
    shared: Arc<Shared>,
    durable: String,
    message: Option<Arc<Message>>,
}

#[async_trait]
impl Acknowledge for Receipt {
    async fn ack(mut self: Box<Self>) -> Result<(), BusError> {
        self.message = None;
        Ok(())
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(message) = self.message.take() {
            self.shared.take_back(&self.durable, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn publish(bus: &EmbeddedBus, numbers: std::ops::Range<u32>) {
        for number in numbers {
            bus.publish("a.b", &number.to_string(), number.to_string().into()).await.unwrap();
        }
    }

    async fn text(delivery: Delivery) -> String {
        let text = String::from_utf8(delivery.payload.to_vec()).unwrap();
        delivery.ack().await.unwrap();
        text
    }

    #[tokio::test]
    async fn each_subscription_gets_each_message_once_it_acknowledges() {
        let bus = EmbeddedBus::default();
        publish(&bus, 0..2).await;
        let mut one = bus.subscribe("a.*", "one").await.unwrap();
        let mut two = bus.subscribe(">", "two").await.unwrap();
        let mut other = bus.subscribe("b.*", "other").await.unwrap();
        publish(&bus, 1..3).await;
        for subscription in [&mut one, &mut two] {
            for expected in ["0", "1", "2"] {
                assert_eq!(text(subscription.next().await).await, expected);
            }
        }
        assert!(tokio::time::timeout(Duration::from_millis(20), other.next()).await.is_err());
        let counts = bus.counts();
        assert_eq!((counts.accepted, counts.stored, counts.duplicates, counts.dropped), (4, 3, 1, 0));
    }

    #[tokio::test]
    async fn what_is_not_acknowledged_comes_again_also_to_a_successor() {
        let bus = EmbeddedBus::default();
        publish(&bus, 0..2).await;
        let mut first = bus.subscribe("a.b", "one").await.unwrap();
        drop(first.next().await);
        let held = first.next().await;
        assert_eq!(held.payload, "0");
        drop(first);
        let mut second = bus.subscribe("a.b", "one").await.unwrap();
        assert_eq!(text(second.next().await).await, "1");
        drop(held);
        assert_eq!(text(second.next().await).await, "0");
        assert_eq!(bus.counts().redelivered, 2);
        let error = bus.subscribe("b.c", "one").await.err().unwrap();
        assert!(error.to_string().contains("has the filter 'a.b'"), "{error}");
    }

    #[tokio::test]
    async fn a_full_buffer_drops_the_oldest_and_counts_it() {
        let bus = EmbeddedBus::new(3);
        let mut subscription = bus.subscribe("a.b", "one").await.unwrap();
        publish(&bus, 0..5).await;
        for expected in ["2", "3", "4"] {
            assert_eq!(text(subscription.next().await).await, expected);
        }
        assert_eq!(bus.counts().dropped, 2);
        publish(&bus, 0..1).await;
        assert_eq!(bus.counts().duplicates, 0, "its id lies beyond the window");
    }

    #[tokio::test]
    async fn a_waiting_subscription_wakes_up() {
        let bus = EmbeddedBus::default();
        let mut subscription = bus.subscribe("a.b", "one").await.unwrap();
        let waiting = tokio::spawn(async move { text(subscription.next().await).await });
        tokio::task::yield_now().await;
        publish(&bus, 7..8).await;
        assert_eq!(waiting.await.unwrap(), "7");
    }
}
