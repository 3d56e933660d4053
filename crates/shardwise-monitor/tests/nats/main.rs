//! Reports over a real broker that dies again and again: each one that was acknowledged is stored exactly once.

mod broker;
mod publishers;
mod sink;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use shardwise_monitor::{
    Bus, BusCounts, BusError, Clock, FleetCounts, FleetView, FleetViewConfig, Follower, FollowerConfig, FollowerCounts,
    NatsBus, NatsConfig,
};
use shardwise_types::{Network, Timestamp};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::broker::Broker;
use crate::publishers::{Published, Publishers};
use crate::sink::Sink;

#[expect(clippy::disallowed_methods, reason = "reports carry the time of the clock")]
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp::from_nanos(since.as_nanos() as i64)
}

fn network() -> Network {
    Network { regions: vec!["eu".into()], rtt_ms: vec![0.5], exchanges: Vec::new(), default_region: "eu".into() }
}

fn config(broker: &Broker) -> NatsConfig {
    NatsConfig {
        servers: vec![broker.url()],
        ack_timeout: Duration::from_millis(500),
        ack_wait: Duration::from_secs(3),
        ..NatsConfig::default()
    }
}

async fn connect(config: NatsConfig) -> Arc<NatsBus> {
    Arc::new(NatsBus::connect(config).await.expect("a legal configuration"))
}

/// A router's follower, and how to end it.
struct Router {
    view: Arc<FleetView>,
    follower: Arc<Follower>,
    stop: Arc<Notify>,
    running: JoinHandle<Result<(), BusError>>,
}

impl Router {
    fn start(view: FleetView, sink: &Arc<Sink>, bus: Arc<NatsBus>) -> Self {
        let view = Arc::new(view);
        let clock: Clock = Arc::new(now);
        let follower_config = FollowerConfig { longest_pause: Duration::from_millis(500), ..FollowerConfig::default() };
        let follower = Arc::new(Follower::new(view.clone(), sink.clone(), clock, follower_config));
        let stop = Arc::new(Notify::new());
        let (following, stopped) = (follower.clone(), stop.clone());
        let running = tokio::spawn(async move { following.run(&*bus, "router-1", stopped.notified()).await });
        Self { view, follower, stop, running }
    }

    async fn stop(self) -> (Arc<FleetView>, FollowerCounts) {
        self.stop.notify_one();
        self.running.await.expect("it does not panic").expect("the subscription is legal");
        (self.view, self.follower.counts())
    }
}

/// How often the broker is killed: three times, or as the environment says, and then with the longest delays, too.
fn kills() -> (u32, Duration) {
    match std::env::var("SHARDWISE_BROKER_KILLS").ok() {
        Some(kills) => (kills.parse().expect("SHARDWISE_BROKER_KILLS is a number"), Duration::from_secs(10)),
        None => (3, Duration::from_secs(1)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_reports_are_stored_once_though_the_broker_dies() {
    let Some(mut broker) = Broker::find() else { return };
    let (kills, longest_delay) = kills();
    let sink = Arc::new(Sink::default());
    let view = FleetView::new(FleetViewConfig::default(), network(), "eu".into()).expect("a legal configuration");
    // Both come before the broker does.
    let mut router = Router::start(view, &sink, connect(config(&broker)).await);
    let buses = [connect(NatsConfig { buffer: 64, ..config(&broker) }).await, connect(config(&broker)).await];
    let publishers = Publishers::start(&buses, longest_delay);
    let mut earlier = FollowerCounts::default();
    for kill in 0..kills {
        broker.start().await;
        tokio::time::sleep(Duration::from_millis(600 + u64::from(kill % 4) * 200)).await;
        // Also when the router is to stop: what it cannot store must come again to the next one.
        sink.fails.store(kill % 5 == 1 || kill == kills / 2, Relaxed);
        tokio::time::sleep(Duration::from_millis(300)).await;
        broker.kill();
        tokio::time::sleep(Duration::from_millis(100 + u64::from(kill % 3) * 400)).await;
        if kill == kills / 2 {
            let (view, counts) = router.stop().await;
            earlier = counts;
            let image = serde_json::to_vec(&view.image()).expect("an image is JSON");
            let image = serde_json::from_slice(&image).expect("it was just written");
            let view = FleetView::restore(image, FleetViewConfig::default(), network(), "eu".into());
            router = Router::start(view.expect("a legal image"), &sink, connect(config(&broker)).await);
        }
    }
    sink.fails.store(false, Relaxed);
    broker.start().await;
    let published = publishers.finish().await;
    wait_for_all(&router, &sink, &published).await;
    let (view, later) = router.stop().await;
    let followed = FollowerCounts {
        delivered: earlier.delivered + later.delivered,
        saved: earlier.saved + later.saved,
        sink_errors: earlier.sink_errors + later.sink_errors,
        ..later
    };
    reconcile(&published, &buses.map(|bus| bus.counts()), &view.counts(), followed, &sink);
}

/// Waits until everything that was acknowledged is stored, and until nothing unacknowledged is left to come again.
async fn wait_for_all(router: &Router, sink: &Sink, published: &Published) {
    let waiting = async {
        while sink.len() < published.good.len() || router.follower.counts().unsaved > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut delivered = 0;
        while delivered != router.follower.counts().delivered {
            delivered = router.follower.counts().delivered;
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(120), waiting).await;
    assert!(in_time.is_ok(), "{} of {} are stored: {:?}", sink.len(), published.good.len(), router.follower.counts());
}

fn reconcile(published: &Published, buses: &[BusCounts], view: &FleetCounts, followed: FollowerCounts, sink: &Sink) {
    eprintln!("published {}\nbuses {buses:?}\nview {view:?}\nfollower {followed:?}", published.summary());
    let sum = |of: fn(&BusCounts) -> u64| buses.iter().map(of).sum::<u64>();
    assert_eq!(sum(|bus| bus.accepted), published.calls, "every call is counted");
    assert_eq!(sum(|bus| bus.dropped), published.dropped, "every drop is counted");
    assert_eq!(sum(|bus| bus.waiting) + sum(|bus| bus.refused), 0);
    assert_eq!(sum(|bus| bus.stored + bus.duplicates), published.acknowledged);
    // An answer that is lost makes a message that was stored look like a duplicate.
    assert!(sum(|bus| bus.stored) <= published.messages());

    let stored = sink.reports();
    assert_eq!(stored.len(), sink.len(), "none is stored twice");
    assert_eq!(stored, published.good, "what was acknowledged is stored, and nothing else");

    assert_eq!(view.new + view.late, followed.saved + view.forgotten);
    assert_eq!(followed.saved, sink.len() as u64);
    assert_eq!(view.deliveries(), followed.delivered, "every delivery became something");
    assert!(view.deliveries() >= published.messages(), "and each message was delivered");
    assert_eq!(view.unsaved, 0);
    assert!(view.late > 0 && view.duplicates >= published.copies(), "disturbed as it should be");
    assert!(view.distrusted >= published.impossible && view.refused_malformed >= published.nonsense);
    assert!(view.missing <= published.dropped, "gaps are what was dropped");
    assert!(followed.sink_errors > 0 && sum(|bus| bus.disconnects) > 0);
}

#[tokio::test]
async fn a_broker_that_is_away_costs_the_oldest_messages_and_they_are_counted() {
    // Nobody listens there.
    let away = NatsConfig { servers: vec!["nats://127.0.0.1:1".to_owned()], buffer: 2, ..NatsConfig::default() };
    let bus = connect(away).await;
    let publish = |number: u32| {
        let bus = bus.clone();
        tokio::spawn(async move { bus.publish("lucent.metrics.shard.a", &number.to_string(), "x".into()).await })
    };
    let first = publish(0);
    while bus.counts().accepted < 1 {
        tokio::task::yield_now().await;
    }
    let others = [publish(1), publish(2)];
    assert_eq!(first.await.expect("no panic"), Err(BusError::Dropped(2)));
    while bus.counts().accepted < 3 {
        tokio::task::yield_now().await;
    }
    let counts = bus.counts();
    assert_eq!((counts.accepted, counts.dropped, counts.waiting, counts.stored), (3, 1, 2, 0));
    assert!(!bus.is_connected());
    drop(bus);
    others.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_at_once() {
    let bus = connect(NatsConfig::default()).await;
    let refusal = |result: Result<(), BusError>| match result {
        Err(BusError::Refused(problem)) => problem,
        other => panic!("{other:?}"),
    };
    let elsewhere = refusal(bus.publish("elsewhere.a", "1", "x".into()).await);
    assert!(elsewhere.contains("lucent.metrics.>"), "{elsewhere}");
    assert!(refusal(bus.publish("lucent.metrics.a b", "1", "x".into()).await).contains("blanks"));
    assert!(refusal(bus.publish("lucent.metrics.a", "1\r\nX: y", "x".into()).await).contains("message id"));
    assert!(refusal(bus.subscribe("lucent.>", "a.b").await.map(drop)).contains("a.b"));
    assert_eq!(bus.counts(), BusCounts::default());
    let wrong = NatsConfig { buffer: 0, ..NatsConfig::default() };
    assert!(refusal(NatsBus::connect(wrong).await.map(drop)).contains("buffer"));
}

#[tokio::test]
async fn a_stream_of_others_is_told_and_not_changed() {
    let Some(mut broker) = Broker::find() else { return };
    broker.start().await;
    let theirs = connect(NatsConfig { subjects: vec!["theirs.>".to_owned()], ..config(&broker) }).await;
    theirs.publish("theirs.a", "1", "x".into()).await.expect("stored");
    let ours = connect(config(&broker)).await;
    let publishing = ours.publish("lucent.metrics.shard.a", "1", "x".into());
    assert!(tokio::time::timeout(Duration::from_secs(2), publishing).await.is_err(), "it waits to be put right");
    assert!(ours.counts().retries > 0);
    theirs.publish("theirs.a", "1", "x".into()).await.expect("stored before");
    assert_eq!(theirs.counts().duplicates, 1);
    let large = theirs.publish("theirs.a", "2", vec![0; 2_000_000].into()).await;
    assert!(matches!(large, Err(BusError::Refused(_))), "{large:?}");
}
