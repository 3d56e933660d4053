use std::sync::Mutex;

use bytes::Bytes;
use tokio::sync::Notify;

use super::*;
use crate::embedded::EmbeddedBus;
use crate::test_support::{at, envelope, network};
use crate::view::FleetViewConfig;

/// Keeps records, as slowly as it is told, and fails as many times as it is told.
#[derive(Default)]
struct Sink {
    records: Mutex<Vec<ReportRecord>>,
    late: AtomicU64,
    failures: AtomicU64,
    slow_ms: AtomicU64,
}

impl ReportSink for Sink {
    fn append(&self, record: &ReportRecord) -> Result<(), SinkError> {
        std::thread::sleep(Duration::from_millis(self.slow_ms.load(Relaxed)));
        if self.failures.load(Relaxed) > 0 {
            self.failures.fetch_sub(1, Relaxed);
            return Err("the disk is full".into());
        }
        self.records.lock().unwrap().push(record.clone());
        Ok(())
    }

    fn append_late(&self, record: &ReportRecord) -> Result<(), SinkError> {
        self.late.fetch_add(1, Relaxed);
        self.append(record)
    }
}

struct Rig {
    bus: EmbeddedBus,
    sink: Arc<Sink>,
    follower: Arc<Follower>,
    stop: Arc<Notify>,
}

impl Rig {
    fn new(most_unsaved: usize) -> Self {
        let (first_pause, longest_pause) = (Duration::from_millis(1), Duration::from_millis(5));
        Self::with(FollowerConfig { most_unsaved, first_pause, longest_pause, ..FollowerConfig::default() })
    }

    fn with(config: FollowerConfig) -> Self {
        let view = FleetView::new(FleetViewConfig::default(), network(), "us-east".into()).unwrap();
        let sink = Arc::new(Sink::default());
        let follower = Follower::new(Arc::new(view), sink.clone(), Arc::new(|| at(100.0)), config);
        Self { bus: EmbeddedBus::default(), sink, follower: Arc::new(follower), stop: Arc::default() }
    }

    fn start(&self) -> JoinHandle<Result<(), BusError>> {
        let (bus, follower, stop) = (self.bus.clone(), self.follower.clone(), self.stop.clone());
        tokio::spawn(async move { follower.run(&bus, "router", stop.notified()).await })
    }

    async fn publish(&self, message_id: &str, envelope: &Envelope) {
        let (subject, json) = (envelope.subject().unwrap(), envelope.to_json().unwrap());
        self.bus.publish(&subject, message_id, json).await.unwrap();
    }

    async fn until(&self, what: impl Fn(&Follower) -> bool) {
        let waiting = async {
            while !what(&self.follower) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("it happens in time");
    }

    /// What is stored, each by its second.
    fn stored(&self) -> Vec<f64> {
        let records = self.sink.records.lock().unwrap();
        records.iter().map(|record| record.report.event_at.millis_since(at(0.0)) / 1e3).collect()
    }
}

#[tokio::test]
async fn each_report_is_stored_once_and_bad_ones_are_counted() {
    let rig = Rig::new(100);
    for (message, number) in [0, 2, 1, 2, 3].into_iter().enumerate() {
        rig.publish(&message.to_string(), &envelope("a", number)).await;
    }
    let mut impossible = envelope("a", 4);
    impossible.report.cpu = -1.0;
    rig.publish("impossible", &impossible).await;
    let subject = envelope("a", 0).subject().unwrap();
    rig.bus.publish(&subject, "nonsense", Bytes::from_static(b"nonsense")).await.unwrap();
    let running = rig.start();
    rig.until(|follower| follower.counts().delivered == 7 && follower.counts().saved == 4).await;
    rig.stop.notify_one();
    running.await.unwrap().unwrap();

    assert_eq!(rig.stored(), [0.0, 2.0, 1.0, 3.0]);
    let counts = rig.follower.view.counts();
    assert_eq!((counts.new, counts.late, counts.duplicates, counts.distrusted), (3, 1, 1, 1));
    assert_eq!(rig.sink.late.load(Relaxed), 1, "the sink is told which the view did not follow");
    assert_eq!((counts.refused_malformed, counts.unsaved, counts.deliveries()), (1, 0, 7));
    assert_eq!(rig.bus.counts().redelivered, 0, "all were acknowledged");
}

#[tokio::test]
async fn a_full_disk_delays_what_is_stored_and_not_what_is_seen() {
    let rig = Rig::new(100);
    rig.sink.failures.store(20, Relaxed);
    let running = rig.start();
    for number in 0..10 {
        rig.publish(&number.to_string(), &envelope("a", number)).await;
        // A second copy, while the first waits for the disk.
        rig.publish(&format!("copy of {number}"), &envelope("a", number)).await;
    }
    rig.until(|follower| follower.counts().delivered == 20).await;
    assert_eq!(rig.follower.view.snapshot().shards[0].report.as_ref().unwrap().event_at, at(9.0));
    rig.until(|follower| follower.counts().saved == 10 && follower.counts().unsaved == 0).await;
    rig.stop.notify_one();
    running.await.unwrap().unwrap();

    assert_eq!(rig.stored(), (0..10).map(f64::from).collect::<Vec<_>>());
    assert_eq!(rig.follower.counts().sink_errors, 20);
    assert_eq!(rig.follower.view.counts().duplicates, 10);
}

#[tokio::test]
async fn what_was_not_stored_comes_again_to_the_next_run() {
    let rig = Rig::new(3);
    rig.sink.failures.store(u64::MAX, Relaxed);
    for number in 0..5 {
        rig.publish(&number.to_string(), &envelope("a", number)).await;
    }
    let running = rig.start();
    rig.until(|follower| follower.counts().sink_errors > 2).await;
    assert_eq!(rig.follower.counts().delivered, 3, "no more are pulled than may wait");
    rig.stop.notify_one();
    running.await.unwrap().unwrap();
    let counts = rig.follower.view.counts();
    assert_eq!((rig.stored().len(), counts.unsaved, counts.forgotten), (0, 0, 3));

    rig.sink.failures.store(0, Relaxed);
    let running = rig.start();
    rig.until(|follower| follower.counts().saved == 5).await;
    rig.stop.notify_one();
    running.await.unwrap().unwrap();
    let mut stored = rig.stored();
    stored.sort_by(f64::total_cmp);
    assert_eq!(stored, [0.0, 1.0, 2.0, 3.0, 4.0]);
}

#[tokio::test]
async fn a_stop_stores_what_waits() {
    let rig = Rig::new(100);
    rig.sink.failures.store(1, Relaxed);
    rig.publish("0", &envelope("a", 0)).await;
    rig.stop.notify_one();
    let running = rig.start();
    running.await.unwrap().unwrap();
    assert_eq!((rig.stored().len(), rig.follower.counts().delivered), (0, 0), "nothing was pulled");

    let running = rig.start();
    rig.until(|follower| follower.counts().delivered == 1).await;
    rig.stop.notify_one();
    running.await.unwrap().unwrap();
    let (stored, unsaved) = (rig.stored().len() as u64, rig.follower.counts().unsaved);
    assert_eq!(stored + unsaved, 1);
    assert_eq!(rig.follower.counts().saved, stored);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_slow_disk() {
    let rig = Rig::with(FollowerConfig { finish_within: Duration::ZERO, ..FollowerConfig::default() });
    rig.sink.slow_ms.store(50, Relaxed);
    for number in 0..100 {
        rig.publish(&number.to_string(), &envelope("a", number)).await;
    }
    let running = rig.start();
    rig.until(|follower| follower.counts().delivered > 10).await;
    rig.stop.notify_one();
    running.await.unwrap().unwrap();
    let counts = rig.follower.counts();
    assert_eq!(rig.stored().len() as u64, counts.saved, "what the disk was storing is known to be stored");
    assert!(counts.unsaved > 0);
    assert_eq!(counts.saved + counts.unsaved, counts.delivered);
}

#[tokio::test]
async fn silence_and_its_end_are_told() {
    let rig = Rig::new(10);
    let mut is_silent = false;
    rig.follower.view.ingest(&envelope("a", 0), at(0.0));
    let mut ticked = 0;
    while !is_silent && ticked < 100 {
        ticked += 1;
        rig.follower.view.tick(at(f64::from(ticked)));
        is_silent = rig.follower.view.is_silent();
    }
    assert_eq!(ticked, 6);
    rig.follower.view.ingest(&envelope("a", 1), at(7.0));
    rig.follower.tick(&mut is_silent);
    assert!(!is_silent);
}
