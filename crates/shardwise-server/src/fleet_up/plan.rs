//! Which shards a demo fleet has: drawn by seed, unequal like the simulator's, named like the specification's.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use shardwise_client::AccessFiles;
use shardwise_types::{HardwareClass, InvalidInput, Network, Region, ShardId, ShardShape, combine_keys, unit_of};

use super::FleetError;
use crate::shard::{Fault, ShardOptions};

/// The most shards of a demo fleet on one machine.
const MOST_SHARDS: usize = 64;
/// The clock that speeds are relative to, in GHz.
const ORDINARY_GHZ: f64 = 2.8;
/// How much machines of a kind differ.
const MACHINE_SPREAD: f64 = 0.1;

const REGIONS: [&str; 4] = ["us-east", "us-west", "eu-central", "asia-pacific"];

/// Round-trip times between the regions over public clouds, in ms: the simulator's.
const GLOBAL_RTT_MS: [f32; 16] =
    [0.8, 62.0, 90.0, 180.0, 62.0, 0.8, 145.0, 110.0, 90.0, 145.0, 0.8, 160.0, 180.0, 110.0, 160.0, 0.8];

/// Exchanges and the index of their region; others stand in the first one.
const EXCHANGES: [(&str, usize); 5] = [("binance", 3), ("okx", 3), ("coinbase", 1), ("kraken", 1), ("bitstamp", 2)];

/// The specification's shards with the index of their region; a fleet has the first so many, and all four regions from
/// six on.
const SITES: [(&str, usize); 26] = [
    ("shard-general", 0),
    ("shard-aave-primary", 0),
    ("shard-uniswap-primary", 0),
    ("shard-arbitrage-primary", 3),
    ("shard-curve-primary", 2),
    ("shard-compound-secondary", 1),
    ("shard-whale-primary", 0),
    ("shard-critical-primary", 0),
    ("shard-dex-general", 0),
    ("shard-arbitrage-secondary", 1),
    ("shard-aave-secondary", 2),
    ("shard-compound-primary", 0),
    ("shard-retail-primary", 0),
    ("shard-retail-secondary", 1),
    ("shard-institutional-primary", 0),
    ("shard-institutional-secondary", 2),
    ("shard-whale-secondary", 2),
    ("shard-us-west-1", 1),
    ("shard-eu-central-1", 2),
    ("shard-ap-1", 3),
    ("shard-us-east-1", 0),
    ("shard-us-east-2", 0),
    ("shard-us-west-2", 1),
    ("shard-eu-central-2", 2),
    ("shard-ap-2", 3),
    ("shard-overflow", 0),
];

/// Hardware in a fleet: class, share, clocks in GHz.
const HARDWARE: [(HardwareClass, f64, &[f64]); 4] = [
    (HardwareClass::General, 0.4, &[2.3, 2.6, 2.8]),
    (HardwareClass::Compute, 0.25, &[3.4, 3.7]),
    (HardwareClass::Memory, 0.2, &[2.6, 2.8]),
    (HardwareClass::Burstable, 0.15, &[2.3]),
];

/// Which fleet.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetOptions {
    /// Shards, 1 to 64.
    pub shards: usize,
    /// Seed of their machines.
    pub seed: u64,
    /// Speed of an ordinary core over a core of this machine, in [0.001, 0.5]: the smaller, the less real processor
    /// time the fleet takes, and the longer everything takes.
    pub pace: f64,
    /// Distances as a share of those between continents, in [0, 1].
    pub net_scale: f32,
    /// Where shards listen.
    pub host: IpAddr,
    /// The first shard's port, the others follow; `None` takes free ones.
    pub first_port: Option<u16>,
    /// Routers that reports are posted to, as `http://host:port` or `https://host:port`.
    pub report_to: Vec<String>,
    /// What these routers ask of their clients.
    pub access: AccessFiles,
    /// NATS server on which reports are published.
    pub nats: Option<String>,
    /// Time between reports, in ms.
    pub report_every_ms: u64,
    /// What goes wrong on which shard; times count from each start of it.
    pub faults: Vec<(ShardId, Fault)>,
}

impl Default for FleetOptions {
    fn default() -> Self {
        Self {
            shards: 8,
            // Its first eight machines are of all classes and have one to four cores.
            seed: 2,
            pace: 0.06,
            net_scale: 0.1,
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            first_port: None,
            report_to: Vec::new(),
            access: AccessFiles::default(),
            nats: None,
            report_every_ms: 1_000,
            faults: Vec::new(),
        }
    }
}

/// The shards to start, with their ports, and their distances.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetPlan {
    /// One for each shard.
    pub shards: Vec<ShardOptions>,
    /// Distances.
    pub network: Network,
    /// Where the router is meant to stand.
    pub router_region: Region,
}

impl FleetPlan {
    /// Draws a fleet. The same options give the same one, but for the ports when none is named.
    ///
    /// # Errors
    /// When an option is out of range, a fault names no shard of the fleet, or there are no ports.
    pub fn new(options: &FleetOptions) -> Result<Self, FleetError> {
        check(options)?;
        let network = network(options.net_scale);
        let ports = ports(options)?;
        let mut shards: Vec<_> =
            ports.into_iter().enumerate().map(|(index, port)| shard(options, &network, index, port)).collect();
        let unlimited = shards.iter().any(|shard| shard.shape.max_amount_usd.is_none());
        if let (false, Some(last)) = (unlimited, shards.last_mut()) {
            // A fleet too small for the whale shards still serves every amount.
            last.shape.max_amount_usd = None;
        }
        for (id, fault) in &options.faults {
            let shard = shards.iter_mut().find(|shard| shard.id == *id).ok_or_else(|| {
                InvalidInput::new(
                    "fault",
                    format!("the fleet has no shard '{id}'; it has the first {}", options.shards),
                )
            })?;
            shard.faults.push(*fault);
        }
        shards.iter().try_for_each(ShardOptions::check)?;
        Ok(Self { shards, network, router_region: REGIONS[0].into() })
    }
}

fn check(options: &FleetOptions) -> Result<(), InvalidInput> {
    let within = |field: &str, value: f64, least: f64, most: f64| match (least..=most).contains(&value) {
        true => Ok(()),
        false => Err(InvalidInput::new(field, format!("{value} must lie between {least} and {most}"))),
    };
    within("shards", options.shards as f64, 1.0, MOST_SHARDS as f64)?;
    within("pace", options.pace, 0.001, 0.5)?;
    within("netScale", f64::from(options.net_scale), 0.0, 1.0)?;
    let last = options.first_port.map_or(0, usize::from) + options.shards - 1;
    within("firstPort", last as f64, 0.0, f64::from(u16::MAX))
}

fn network(scale: f32) -> Network {
    Network {
        regions: REGIONS.map(Region::from).to_vec(),
        rtt_ms: GLOBAL_RTT_MS.map(|rtt| rtt * scale).to_vec(),
        exchanges: EXCHANGES.map(|(exchange, region)| (exchange.into(), REGIONS[region].into())).to_vec(),
        default_region: REGIONS[0].into(),
    }
}

/// Ports to listen on. Free ones are held all at once, so that none is given twice.
fn ports(options: &FleetOptions) -> Result<Vec<u16>, FleetError> {
    if let Some(first) = options.first_port {
        return Ok((0..options.shards as u16).map(|index| first + index).collect());
    }
    let bind = |_| TcpListener::bind((options.host, 0));
    let listeners: Vec<_> = (0..options.shards).map(bind).collect::<Result<_, _>>().map_err(FleetError::Ports)?;
    let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
    listeners.iter().map(port).collect::<Result<_, _>>().map_err(FleetError::Ports)
}

fn shard(options: &FleetOptions, network: &Network, index: usize, port: u16) -> ShardOptions {
    let mut draws = Draws { key: combine_keys(options.seed, index as u64), drawn: 0 };
    let (id, region) = match SITES.get(index) {
        Some((name, region)) => (ShardId::new(name), Region::new(REGIONS[*region])),
        None => (format!("shard-extra-{}", index + 1).into(), REGIONS[index % 4].into()),
    };
    let cores = 1.0 + (4.0 * draws.share()).floor();
    let (hardware, clocks) = pick_hardware(draws.share());
    let clock_ghz = clocks[(clocks.len() as f64 * draws.share()) as usize];
    let machine = 1.0 + MACHINE_SPREAD * (2.0 * draws.share() - 1.0);
    let exchange_rtt = |(exchange, at): &(shardwise_types::Exchange, Region)| {
        (exchange.as_str().to_owned(), f64::from(network.rtt_ms(&region, at)))
    };
    ShardOptions {
        listen: SocketAddr::new(options.host, port),
        shape: ShardShape {
            region: region.clone(),
            cores: cores as f32,
            clock_ghz: clock_ghz as f32,
            memory_mb: 8_192.0 * (cores as f32 + 1.0) * if hardware == HardwareClass::Memory { 1.5 } else { 1.0 },
            hardware,
            max_amount_usd: match id.as_str() {
                "shard-whale-primary" => None,
                "shard-whale-secondary" => Some(10e6),
                _ => Some(1e6),
            },
        },
        speed: options.pace * clock_ghz / ORDINARY_GHZ * machine,
        rtt_ms: f64::from(network.rtt_ms(&REGIONS[0].into(), &region)),
        exchange_rtt_ms: network.exchanges.iter().map(exchange_rtt).collect::<BTreeMap<_, _>>(),
        other_exchange_rtt_ms: f64::from(network.rtt_ms(&region, &network.default_region)),
        seed: draws.key,
        report_to: options.report_to.clone(),
        token_file: options.access.token_file.clone(),
        ca_file: options.access.ca_file.clone(),
        nats: options.nats.clone(),
        report_every_ms: options.report_every_ms,
        ends_with_stdin: true,
        id,
        ..ShardOptions::default()
    }
}

fn pick_hardware(share: f64) -> (HardwareClass, &'static [f64]) {
    let mut left = share;
    for (class, share, clocks) in HARDWARE {
        left -= share;
        if left < 0.0 {
            return (class, clocks);
        }
    }
    (HardwareClass::General, HARDWARE[0].2)
}

/// Numbers in [0, 1) that follow from a key.
struct Draws {
    key: u64,
    drawn: u64,
}

impl Draws {
    fn share(&mut self) -> f64 {
        self.drawn += 1;
        unit_of(combine_keys(self.key, self.drawn))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use shardwise_simulator::WorldSpec;

    use super::*;

    fn plan(shards: usize, seed: u64) -> FleetPlan {
        FleetPlan::new(&FleetOptions { shards, seed, first_port: Some(20_000), ..FleetOptions::default() }).unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_fleet_and_a_larger_one_begins_with_it() {
        assert_eq!(plan(8, 3), plan(8, 3));
        assert_ne!(plan(8, 3), plan(8, 4));
        assert_eq!(plan(30, 3).shards[..8], plan(8, 3).shards[..]);
        assert_eq!(plan(30, 3).shards[29].id.as_str(), "shard-extra-30");
    }

    #[test]
    fn names_places_limits_and_distances_are_the_simulators() {
        let options = shardwise_simulator::FleetOptions { shards: 26, ..shardwise_simulator::FleetOptions::default() };
        let world = WorldSpec::generate(1, &options);
        let plan = plan(26, 1);
        assert_eq!(plan.network, world.network);
        for shard in &plan.shards {
            let known = world.shards.iter().find(|known| known.id == shard.id).expect("a name of the specification's");
            assert_eq!(shard.shape.region, known.shape.region, "{}", shard.id);
            assert_eq!(shard.shape.max_amount_usd, known.shape.max_amount_usd, "{}", shard.id);
        }
    }

    #[test]
    fn the_usual_fleet_has_machines_of_all_kinds_and_small_ones_serve_all() {
        let usual = FleetPlan::new(&FleetOptions::default()).unwrap().shards;
        let kinds = |value: fn(&ShardOptions) -> String| usual.iter().map(value).collect::<BTreeSet<_>>().len();
        let classes = kinds(|shard| shard.shape.hardware.as_str().to_owned());
        let regions = kinds(|shard| shard.shape.region.to_string());
        let cores = kinds(|shard| shard.shape.cores.to_string());
        assert_eq!((classes, regions, cores, kinds(|shard| shard.speed.to_string())), (4, 4, 4, 8));
        for count in [1, 3, 8] {
            assert!(plan(count, 1).shards.iter().any(|shard| shard.shape.max_amount_usd.is_none()), "{count}");
        }
    }

    #[test]
    fn wrong_options_are_named() {
        let refused = |options: &FleetOptions| FleetPlan::new(options).unwrap_err().to_string();
        let sound = FleetOptions::default;
        assert!(refused(&FleetOptions { shards: 0, ..sound() }).contains("shards"));
        assert!(refused(&FleetOptions { pace: 0.9, ..sound() }).contains("pace"));
        assert!(refused(&FleetOptions { first_port: Some(65_530), ..sound() }).contains("firstPort"));
        let fault = ("shard-nowhere".into(), "stall".parse().unwrap());
        assert!(refused(&FleetOptions { faults: vec![fault], ..sound() }).contains("shard-nowhere"));
    }

    #[test]
    fn free_ports_are_each_given_once() {
        let shards = FleetPlan::new(&FleetOptions { shards: 20, ..FleetOptions::default() }).unwrap().shards;
        let ports: BTreeSet<u16> = shards.iter().map(|shard| shard.listen.port()).collect();
        assert!(ports.len() == 20 && !ports.contains(&0));
    }
}
