//! What the event loop looks up instead of computing, and the pools that its events refer to.

use shardwise_types::Exchange;

use crate::shard::nanos;
use crate::world::WorldSpec;

/// What the hot path looks up instead of computing.
pub(crate) struct Tables {
    shards: usize,
    functions: usize,
    base_ms: Vec<f64>,
    half_rtt: Vec<u64>,
    exchanges: Vec<u64>,
    /// By shard and exchange, the last column for exchanges that are not listed.
    exchange_rtt: Vec<u64>,
}

impl Tables {
    pub(crate) fn new(world: &WorldSpec) -> Self {
        let base = |shard: usize| {
            let shard = &world.shards[shard];
            world.functions.iter().map(|function| function.base_ms / shard.speed_of(function))
        };
        let half_rtt = |router: usize| {
            let from = &world.routers[router].region;
            world.shards.iter().map(|shard| nanos(f64::from(world.network.rtt_ms(from, &shard.shape.region)) / 2.0))
        };
        let exchange_rtt = |shard: usize| {
            let from = &world.shards[shard].shape.region;
            let listed = world.network.exchanges.iter().map(|(_, region)| region);
            let regions = listed.chain(std::iter::once(&world.network.default_region));
            regions.map(|region| nanos(f64::from(world.network.rtt_ms(from, region))))
        };
        Self {
            shards: world.shards.len(),
            functions: world.functions.len(),
            base_ms: (0..world.shards.len()).flat_map(base).collect(),
            half_rtt: (0..world.routers.len()).flat_map(half_rtt).collect(),
            exchanges: world.network.exchanges.iter().map(|(exchange, _)| exchange.key()).collect(),
            exchange_rtt: (0..world.shards.len()).flat_map(exchange_rtt).collect(),
        }
    }

    pub(crate) fn base_ms(&self, shard: u16, function: u32) -> f64 {
        self.base_ms[usize::from(shard) * self.functions + function as usize]
    }

    pub(crate) fn half_rtt(&self, router: usize, shard: u16) -> u64 {
        self.half_rtt[router * self.shards + usize::from(shard)]
    }

    pub(crate) fn exchange_rtt(&self, shard: u16, exchange: &Exchange) -> u64 {
        let listed = self.exchanges.iter().position(|key| *key == exchange.key());
        self.exchange_rtt[usize::from(shard) * (self.exchanges.len() + 1) + listed.unwrap_or(self.exchanges.len())]
    }
}

/// A pool of numbered slots that are used again.
pub(crate) struct Slots<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn put(&mut self, value: T) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = Some(value);
            return slot;
        }
        self.slots.push(Some(value));
        self.slots.len() as u32 - 1
    }

    pub(crate) fn take(&mut self, slot: u32) -> T {
        self.free.push(slot);
        self.slots[slot as usize].take().expect("an event refers to a slot in use")
    }

    /// Takes what is not needed any more.
    pub(crate) fn free(&mut self, slot: u32) {
        self.free.push(slot);
        self.slots[slot as usize] = None;
    }
}

impl<T> std::ops::Index<u32> for Slots<T> {
    type Output = T;
    fn index(&self, slot: u32) -> &T {
        self.slots[slot as usize].as_ref().expect("an event refers to a slot in use")
    }
}

impl<T> std::ops::IndexMut<u32> for Slots<T> {
    fn index_mut(&mut self, slot: u32) -> &mut T {
        self.slots[slot as usize].as_mut().expect("an event refers to a slot in use")
    }
}
