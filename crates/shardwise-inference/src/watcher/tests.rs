use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;

use arc_swap::ArcSwapOption;
use shardwise_models::forest::{Forest, TreeNode};
use shardwise_models::{AliasMove, BundleDraft, CHAMPION, ExecDraft, ExecHead};

use super::*;
use crate::Placer;

const MINUTE: Duration = Duration::from_secs(60);

fn draft(seed: u64) -> BundleDraft {
    BundleDraft { seed, ..BundleDraft::example() }
}

fn version(seed: u64) -> String {
    draft(seed).bundle().expect("a sound draft").version().to_owned()
}

/// A draft whose forest says the same absurd thing of all.
fn absurd() -> BundleDraft {
    let mut draft = draft(99);
    let ExecDraft { head, metrics } = draft.exec.take().expect("the example has an execution head");
    let forest = Forest::new(head.forest().n_features(), &[vec![TreeNode::Leaf(5e3)]]).expect("a sound tree");
    let head = ExecHead::new(forest, head.offset_feature(), head.offset_default_ln_ms(), 1.0, 0.5).expect("numbers");
    draft.exec = Some(ExecDraft { head, metrics });
    draft
}

/// A source that says what the test tells it to.
#[derive(Clone, Default)]
struct Scripted(Arc<Script>);

#[derive(Default)]
struct Script {
    named: ArcSwapOption<String>,
    is_down: AtomicBool,
    loads: AtomicUsize,
    looks: AtomicU64,
}

impl Scripted {
    fn name(&self, version: &str) {
        self.0.named.store(Some(Arc::new(version.to_owned())));
    }

    fn loads(&self) -> usize {
        self.0.loads.load(Relaxed)
    }
}

impl BundleSource for Scripted {
    fn version(&self, alias: &str) -> Result<Option<String>, SourceError> {
        assert_eq!(alias, CHAMPION);
        self.0.looks.fetch_add(1, Relaxed);
        let named = self.0.named.load().as_deref().cloned();
        if self.0.is_down.load(Relaxed) { Err("no route to host".into()) } else { Ok(named) }
    }

    fn load(&self, wanted: &str) -> Result<ModelBundle, SourceError> {
        self.0.loads.fetch_add(1, Relaxed);
        match wanted {
            "damaged" => Err("a checksum does not match".into()),
            "panics" => panic!("a loader with a bug"),
            "mislabelled" => Ok(draft(0).bundle()?),
            _ if wanted == absurd().bundle()?.version() => Ok(absurd().bundle()?),
            _ => {
                let seed = (0..10).find(|seed| version(*seed) == wanted).ok_or("no such version")?;
                Ok(draft(seed).bundle()?)
            }
        }
    }
}

type Scene = (Arc<Placer>, Watch<Placer, Scripted, Box<dyn FnMut(WatchEvent)>>, mpsc::Receiver<String>);

/// A watch whose events are kept in short.
fn watch(source: &Scripted) -> Scene {
    let placer = Arc::new(Placer::without_model());
    let (told, events) = channel();
    let on_event: Box<dyn FnMut(WatchEvent)> =
        Box::new(move |event| told.send(short(&event)).expect("the test listens"));
    let config = WatchConfig { alias: CHAMPION.to_owned(), every: MINUTE, retry_at_most: 8 * MINUTE };
    (Arc::clone(&placer), Watch::new(placer, source.clone(), config, on_event), events)
}

fn short(event: &WatchEvent) -> String {
    match event {
        WatchEvent::Unreachable { retry_after, .. } => format!("unreachable {}", retry_after.as_secs() / 60),
        WatchEvent::Unnamed => "unnamed".to_owned(),
        WatchEvent::Loading { version } => format!("loading {version}"),
        WatchEvent::Refused { version, retry_after, .. } => format!("refused {version} {}", retry_after.as_secs() / 60),
        WatchEvent::Swapped { from, to } => format!("swapped {} {to}", from.as_deref().unwrap_or("nothing")),
    }
}

fn told(events: &mpsc::Receiver<String>) -> Vec<String> {
    events.try_iter().collect()
}

#[test]
fn good_bad_good_serves_the_last_good_one_all_along() {
    let source = Scripted::default();
    let (placer, mut watch, events) = watch(&source);
    let absurd = absurd().bundle().expect("a sound draft").version().to_owned();
    let (first, second) = (version(1), version(2));
    source.name(&first);
    assert_eq!(watch.look(), MINUTE);
    assert_eq!(told(&events), [format!("loading {first}"), format!("swapped nothing {first}")]);
    for bad in ["damaged", "panics", "mislabelled", &absurd] {
        source.name(bad);
        watch.look();
        assert_eq!(told(&events), [format!("loading {bad}"), format!("refused {bad} 1")]);
        assert_eq!(placer.serving().as_deref(), Some(&*first));
    }
    source.name(&second);
    watch.look();
    assert_eq!(told(&events), [format!("loading {second}"), format!("swapped {first} {second}")]);
    assert_eq!(placer.serving().as_deref(), Some(&*second));
    let loads = source.loads();
    (0..20).for_each(|_| _ = watch.look());
    assert_eq!((source.loads(), told(&events)), (loads, Vec::new()), "what is served is not loaded again");
}

#[test]
fn a_bad_version_is_tried_again_ever_more_seldom_and_another_at_once() {
    let source = Scripted::default();
    let (placer, mut watch, events) = watch(&source);
    source.name("damaged");
    let looks_with_a_load: Vec<u32> = (0..40)
        .filter(|_| {
            let before = source.loads();
            assert_eq!(watch.look(), MINUTE, "the alias is still looked at");
            source.loads() > before
        })
        .collect();
    assert_eq!(looks_with_a_load, [0, 1, 3, 7, 15, 23, 31, 39]);
    let refusals: Vec<String> = told(&events).into_iter().filter(|event| event.starts_with("refused")).collect();
    assert_eq!(refusals[..5], [1, 2, 4, 8, 8].map(|minutes| format!("refused damaged {minutes}")));
    source.name(&version(1));
    watch.look();
    assert_eq!(placer.serving(), Some(version(1).into()));
    source.name("damaged");
    watch.look();
    assert_eq!(told(&events).last().map(String::as_str), Some("refused damaged 1"), "its failures were forgotten");
}

#[test]
fn a_source_that_fails_for_a_while_is_asked_ever_more_seldom_and_then_followed() {
    let source = Scripted::default();
    let (placer, mut watch, events) = watch(&source);
    source.name(&version(1));
    watch.look();
    source.name(&version(2));
    source.0.is_down.store(true, Relaxed);
    let waits: Vec<u64> = (0..6).map(|_| watch.look().as_secs() / 60).collect();
    assert_eq!(waits, [1, 2, 4, 8, 8, 8]);
    assert_eq!(placer.serving(), Some(version(1).into()));
    source.0.is_down.store(false, Relaxed);
    assert_eq!(watch.look(), MINUTE);
    assert_eq!(placer.serving(), Some(version(2).into()));
    source.0.is_down.store(true, Relaxed);
    assert_eq!(watch.look(), MINUTE, "it begins anew");
    assert_eq!(told(&events).iter().filter(|event| event.starts_with("unreachable")).count(), 7);
}

#[test]
fn an_alias_that_names_nothing_is_told_once_and_changes_nothing() {
    let source = Scripted::default();
    let (placer, mut watch, events) = watch(&source);
    (0..3).for_each(|_| _ = watch.look());
    assert_eq!(told(&events), ["unnamed"]);
    source.name(&version(1));
    watch.look();
    source.0.named.store(None);
    (0..3).for_each(|_| _ = watch.look());
    assert_eq!(told(&events).iter().filter(|event| *event == "unnamed").count(), 1);
    assert_eq!(placer.serving(), Some(version(1).into()));
}

#[test]
fn what_was_served_before_is_kept_until_the_next_look() {
    let source = Scripted::default();
    let (_placer, mut watch, _events) = watch(&source);
    for seed in [1, 2] {
        source.name(&version(seed));
        watch.look();
    }
    assert_eq!(watch.retired.as_ref().map(|bundle| bundle.version().to_owned()), Some(version(1)));
    watch.look();
    assert!(watch.retired.is_none());
}

#[test]
fn waits_stay_within_their_bounds() {
    let config = |every, retry_at_most| WatchConfig { alias: CHAMPION.to_owned(), every, retry_at_most };
    assert_eq!(config(Duration::ZERO, Duration::ZERO).wait(1), Duration::from_millis(1), "never a busy loop");
    assert_eq!(config(MINUTE, Duration::ZERO).wait(u32::MAX), MINUTE);
    assert_eq!(config(MINUTE, Duration::MAX).wait(40), MINUTE * u32::MAX, "it does not overflow");
    let endless = WatchConfig { retry_at_most: Duration::MAX, ..WatchConfig::of(CHAMPION) };
    assert!((1..200).map(|failures| endless.wait(failures)).is_sorted());
}

#[test]
fn the_thread_looks_now_and_then_only_and_stops_at_once() {
    let source = Scripted::default();
    source.0.is_down.store(true, Relaxed);
    let placer = Arc::new(Placer::without_model());
    let config = WatchConfig {
        alias: CHAMPION.to_owned(),
        every: Duration::from_millis(20),
        retry_at_most: Duration::from_millis(40),
    };
    let (told, events) = channel();
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let on_event = move |event| {
        counted.fetch_add(1, Relaxed);
        // The test stops listening before it stops the watcher.
        _ = told.send(short(&event));
    };
    let watcher = Watcher::start(Arc::clone(&placer), source.clone(), config, on_event).expect("a thread");
    thread::sleep(Duration::from_millis(400));
    assert!((1..=20).contains(&count.load(Relaxed)), "{} looks in 400 ms", count.load(Relaxed));
    source.name(&version(1));
    source.0.is_down.store(false, Relaxed);
    let swapped = format!("swapped nothing {}", version(1));
    while events.recv_timeout(MINUTE).expect("a swap") != swapped {}
    assert_eq!(placer.serving(), Some(version(1).into()));
    watcher.stop();
    let looks = source.0.looks.load(Relaxed);
    thread::sleep(Duration::from_millis(80));
    assert_eq!(source.0.looks.load(Relaxed), looks, "it is gone");

    // However long it would have waited.
    let source = Scripted::default();
    let watcher =
        Watcher::start(placer, source.clone(), WatchConfig { every: MINUTE, ..WatchConfig::of(CHAMPION) }, |_| ());
    while source.0.looks.load(Relaxed) == 0 {
        thread::yield_now();
    }
    drop(watcher.expect("a thread"));
    assert_eq!(Arc::strong_count(&source.0), 1, "the thread let go of the source");
}

#[test]
fn a_registry_is_a_source() {
    let models = tempfile::tempdir().expect("a folder");
    let registry = Registry::open_or_create(models.path(), "example").expect("a registry");
    let placer = Arc::new(Placer::without_model());
    let mut watch = Watch::new(Arc::clone(&placer), registry.clone(), WatchConfig::of(CHAMPION), |_| ());
    watch.look();
    assert_eq!(placer.serving(), None, "there is no champion yet");
    for seed in [1, 2] {
        let published = registry.publish(&draft(seed)).expect("a version");
        let (who, why) = ("test".to_owned(), "it is there".to_owned());
        let by = AliasMove { who, why, ..AliasMove::default() };
        registry.set_alias(CHAMPION, &published, &by).expect("a champion");
        watch.look();
        assert_eq!(placer.serving(), Some(published.into()));
    }
}

#[test]
fn what_the_policy_does_not_trust_is_not_served() {
    let models = tempfile::tempdir().expect("a folder");
    let registry = Registry::open_or_create(models.path(), "example").expect("a registry");
    let published = registry.publish(&draft(1)).expect("a version");
    let trained_to = registry.load(&published).expect("it is sound").manifest().trained_to;
    for (later_ms, is_trusted) in [(0.0, true), (1.0, false)] {
        let trained_since = Some(trained_to.plus_millis(later_ms));
        let policy = TrustPolicy { trained_since, ..TrustPolicy::default() };
        let source = TrustedSource { registry: registry.clone(), policy };
        assert_eq!(BundleSource::load(&source, &published).is_ok(), is_trusted);
    }
}
