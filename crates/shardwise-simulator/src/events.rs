//! What happens and when: a queue of events in the order of (time, sequence).
//!
//! Time, sequence and event are packed into one 128-bit number, so that the heap compares numbers and moves 16 bytes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::shard::SimTime;

/// Bits of the sequence number and of the event in the key; time has the rest, 58 bits, which is nine years.
const SEQUENCE_BITS: u32 = 34;
const EVENT_BITS: u32 = 36;
const NUMBER_BITS: u32 = 32;

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $code:literal),*) => {
        /// What happens. Numbers are slots of attempts, shards, arrivals, or slots of messages under way.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Event { $($(#[$doc])* $name(u32)),* }

        impl Event {
            fn packed(self) -> u64 {
                match self { $(Self::$name(number) => ($code << NUMBER_BITS) | u64::from(number)),* }
            }

            fn unpacked(bits: u64) -> Self {
                let number = bits as u32;
                match bits >> NUMBER_BITS {
                    $($code => Self::$name(number),)*
                    code => unreachable!("no event has the code {code}"),
                }
            }
        }
    };
}

events! {
    /// An attempt reaches its shard.
    Reach = 0,
    /// It leaves the core.
    LeaveCore = 1,
    /// Its exchange calls are done and the shard answers.
    Answer = 2,
    /// The answer reaches the router.
    Response = 3,
    /// A shard measures itself.
    Measure = 4,
    /// A report reaches the routers.
    Report = 5,
    /// The next market record reaches the routers.
    Market = 6,
    /// Arrivals end; use of the fleet is measured until here.
    End = 7,
    /// The first of the requests that share a shard's cores is done, unless others came or went since.
    Shared = 8,
    /// A fault that ends all work on a shard begins.
    Fail = 9,
    /// The deadline of an arrival that is tried again.
    Deadline = 10,
    /// The router looks again at an arrival that may still be out.
    LookAgain = 11,
    /// The notice that an attempt has begun to run reaches its router.
    Started = 12,
    /// Word that an attempt is called off reaches its shard.
    Cancel = 13,
    /// A probe or a notice of an idle core reaches where it was sent.
    Message = 14
}

/// The events to come.
pub(crate) struct EventQueue {
    heap: BinaryHeap<Reverse<u128>>,
    sequence: u64,
}

impl EventQueue {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::with_capacity(1024), sequence: 0 }
    }

    /// Adds an event; of those at the same time the first that was added comes first.
    pub(crate) fn push(&mut self, at: SimTime, event: Event) {
        self.sequence += 1;
        assert!(at >> (128 - SEQUENCE_BITS - EVENT_BITS) == 0, "a run lasts less than nine years");
        let order = (u128::from(at) << SEQUENCE_BITS) | u128::from(self.sequence & ((1 << SEQUENCE_BITS) - 1));
        self.heap.push(Reverse((order << EVENT_BITS) | u128::from(event.packed())));
    }

    /// When the next event comes; the end of time when there is none.
    pub(crate) fn next_at(&self) -> SimTime {
        self.heap.peek().map_or(SimTime::MAX, |Reverse(key)| Self::time(*key))
    }

    /// Takes the next event.
    pub(crate) fn pop(&mut self) -> Option<(SimTime, Event)> {
        self.heap.pop().map(|Reverse(key)| (Self::time(key), Event::unpacked((key as u64) & ((1 << EVENT_BITS) - 1))))
    }

    fn time(key: u128) -> SimTime {
        (key >> (SEQUENCE_BITS + EVENT_BITS)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_time_and_then_of_their_making() {
        let mut queue = EventQueue::new();
        let (year, last) = (31_536_000_000_000_000, u32::MAX);
        for (at, event) in
            [(year, Event::End(0)), (5, Event::Message(last)), (5, Event::Reach(7)), (0, Event::Report(1))]
        {
            queue.push(at, event);
        }
        assert_eq!(queue.next_at(), 0);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(
            order,
            [(0, Event::Report(1)), (5, Event::Message(last)), (5, Event::Reach(7)), (year, Event::End(0))]
        );
        assert_eq!(queue.next_at(), SimTime::MAX);
    }
}
