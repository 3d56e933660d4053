//! What happens and when: a queue of events in the order of (time, sequence).
//!
//! Time, sequence and event are packed into one 128-bit number, so that the heap compares numbers and moves 16 bytes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::shard::SimTime;

/// Bits of the sequence number and of the event in the key; time has the rest, 57 bits, which is more than four years.
const SEQUENCE_BITS: u32 = 34;
const EVENT_BITS: u32 = 37;
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
    Message = 14,
    /// The operator looks.
    Look = 15,
    /// A batch of the operator's orders holds from now on.
    Obey = 16
}

/// Delays that have a line of their own: as many as there are distances between a few regions.
const LINES: usize = 12;
/// Comes after every event.
const NEVER: u128 = u128::MAX;

/// The events to come. What takes as long as many others did, such as a way between two regions, comes in the order in
/// which it was added, and waits in a line instead of in the heap.
pub(crate) struct EventQueue {
    heap: BinaryHeap<Reverse<u128>>,
    delays: [SimTime; LINES],
    lines: [VecDeque<u128>; LINES],
    /// The first of each line.
    heads: [u128; LINES],
    /// Lines in use.
    in_use: usize,
    sequence: u64,
}

impl EventQueue {
    pub(crate) fn new() -> Self {
        Self {
            heap: BinaryHeap::with_capacity(1024),
            delays: [0; LINES],
            lines: std::array::from_fn(|_| VecDeque::new()),
            heads: [NEVER; LINES],
            in_use: 0,
            sequence: 0,
        }
    }

    /// Adds an event; of those at the same time the first that was added comes first.
    pub(crate) fn push(&mut self, at: SimTime, event: Event) {
        let key = self.key(at, event);
        self.heap.push(Reverse(key));
    }

    /// Adds an event that comes `delay` after `now`, which never goes back, where many events have the same delay.
    pub(crate) fn push_after(&mut self, now: SimTime, delay: SimTime, event: Event) {
        let key = self.key(now + delay, event);
        let known = self.delays[..self.in_use].iter().position(|of_line| *of_line == delay);
        let line = match known {
            Some(line) => line,
            None if self.in_use < LINES => {
                self.delays[self.in_use] = delay;
                self.in_use += 1;
                self.in_use - 1
            }
            None => return self.heap.push(Reverse(key)),
        };
        if self.heads[line] == NEVER {
            self.heads[line] = key;
        }
        self.lines[line].push_back(key);
    }

    /// When the next event comes; the end of time when there is none.
    pub(crate) fn next_at(&self) -> SimTime {
        match self.first().0 {
            NEVER => SimTime::MAX,
            key => (key >> (SEQUENCE_BITS + EVENT_BITS)) as u64,
        }
    }

    /// Takes the next event.
    pub(crate) fn pop(&mut self) -> Option<(SimTime, Event)> {
        let (key, line) = self.first();
        if key == NEVER {
            return None;
        }
        match line {
            Some(line) => {
                self.lines[line].pop_front();
                self.heads[line] = self.lines[line].front().copied().unwrap_or(NEVER);
            }
            None => {
                self.heap.pop();
            }
        }
        let event = Event::unpacked((key as u64) & ((1 << EVENT_BITS) - 1));
        Some(((key >> (SEQUENCE_BITS + EVENT_BITS)) as u64, event))
    }

    /// The key of the next event, and the line that it waits in.
    fn first(&self) -> (u128, Option<usize>) {
        let mut first = (self.heap.peek().map_or(NEVER, |Reverse(key)| *key), None);
        for (line, head) in self.heads[..self.in_use].iter().enumerate() {
            if *head < first.0 {
                first = (*head, Some(line));
            }
        }
        first
    }

    fn key(&mut self, at: SimTime, event: Event) -> u128 {
        self.sequence += 1;
        assert!(at >> (128 - SEQUENCE_BITS - EVENT_BITS) == 0, "a run lasts less than nine years");
        let order = (u128::from(at) << SEQUENCE_BITS) | u128::from(self.sequence & ((1 << SEQUENCE_BITS) - 1));
        (order << EVENT_BITS) | u128::from(event.packed())
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

    #[test]
    fn lines_and_heap_together_keep_the_order() {
        let (mut lined, mut plain) = (EventQueue::new(), EventQueue::new());
        let mut state = 1_u64;
        let mut now = 0;
        for number in 0..3_000_u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // More delays than lines, some of them rare.
            let delay = [0, 5, 5, 7, 90][(state >> 40) as usize % 5] * (1 + u64::from(number % 7));
            lined.push_after(now, delay, Event::Reach(number));
            plain.push(now + delay, Event::Reach(number));
            if number % 3 == 0 {
                let next = lined.pop();
                assert_eq!(next, plain.pop());
                now = next.map_or(now, |(at, _)| at);
            }
        }
        while let Some(next) = plain.pop() {
            assert_eq!((lined.next_at(), lined.pop()), (next.0, Some(next)));
        }
        assert_eq!(lined.pop(), None);
    }
}
