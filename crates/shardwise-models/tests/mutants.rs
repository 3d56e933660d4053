//! Claims about damaged and forged models: they are refused, or they are models of their own, which answer what their bytes
//! say under a version of their own. No load panics, and none takes long.
//!
//! 20,000 mutants by default, `SHARDWISE_MUTANTS=N` for N; before a release it is 1,000,000. A failure names its mutant, which
//! is made from that number alone, and `SHARDWISE_MUTANT` makes that one again.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, dead_code, reason = "a library of the fuzz targets, of which this is another user")]
mod fuzz;
#[path = "mutants/mutate.rs"]
mod mutate;
#[path = "mutants/originals.rs"]
mod originals;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fuzz::{checks, container};
use originals::{Bundle, Originals};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const MUTANTS: u64 = 20_000;
const THREADS: usize = 2;
const LONGEST: Duration = Duration::from_millis(50);
/// A load is timed again before it is called slow: another process may have had the processor.
const TIMINGS: usize = 5;

/// What is made mutants of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Forest,
    ServiceTable,
    Manifest,
    /// Changed files under the original's manifest.
    Unsealed,
    /// Changed files under a manifest that lists them.
    Resealed,
}

const KINDS: [Kind; 5] = [Kind::Forest, Kind::ServiceTable, Kind::Manifest, Kind::Unsealed, Kind::Resealed];

/// A mutant and how it is loaded.
enum Mutant {
    Forest(Vec<u8>),
    ServiceTable(Vec<u8>),
    Bundle(Bundle),
}

impl Mutant {
    fn make(originals: &Originals, kind: Kind, number: u64) -> Self {
        let rng = &mut StdRng::seed_from_u64(number);
        match kind {
            Kind::Forest => {
                let (mut content, donor) = (originals.forest(rng).clone(), originals.forest(rng));
                if rng.random_bool(0.6) {
                    mutate::forest(rng, &mut content, donor);
                } else {
                    mutate::bytes(rng, &mut content, donor);
                }
                Self::Forest(sealed(rng, content))
            }
            Kind::ServiceTable => {
                let (mut content, donor) = (originals.table(rng).clone(), originals.table(rng));
                mutate::bytes(rng, &mut content, donor);
                Self::ServiceTable(sealed(rng, content))
            }
            Kind::Manifest => {
                let (mut bundle, donor) = (originals.bundle(rng).clone(), originals.bundle(rng));
                if rng.random_bool(0.6) {
                    bundle.manifest = mutate::manifest(rng, &bundle.manifest);
                } else {
                    mutate::bytes(rng, &mut bundle.manifest, &donor.manifest);
                }
                Self::Bundle(bundle)
            }
            Kind::Unsealed | Kind::Resealed => {
                let (mut bundle, donor) = (originals.bundle(rng).clone(), originals.bundle(rng));
                mutate::file(rng, &mut bundle.files, &donor.files);
                if kind == Kind::Resealed {
                    bundle.manifest = container::reseal(&bundle.manifest, &bundle.files);
                }
                Self::Bundle(bundle)
            }
        }
    }

    /// Loads it as a router would.
    fn load(&self) {
        match self {
            Self::Forest(bytes) => drop(shardwise_models::forest::Forest::from_bytes(bytes)),
            Self::ServiceTable(bytes) => drop(shardwise_models::table_from_bytes(bytes)),
            Self::Bundle(bundle) => drop(bundle.load()),
        }
    }

    fn check(&self) -> Result<bool, String> {
        match self {
            Self::Forest(bytes) => checks::forest(bytes),
            Self::ServiceTable(bytes) => checks::service_table(bytes),
            Self::Bundle(bundle) => checks::bundle(&bundle.manifest, &bundle.files),
        }
    }
}

/// Mostly under a right checksum, so that what lies behind it is reached.
fn sealed(rng: &mut StdRng, mut content: Vec<u8>) -> Vec<u8> {
    if rng.random_bool(0.8) {
        container::reseal_file(&mut content);
    }
    content
}

/// What became of the mutants of each kind.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    refused: u64,
    accepted: u64,
    unchanged: u64,
    panicked: u64,
    slow: u64,
    wrong: u64,
    longest: Duration,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.refused += other.refused;
        self.accepted += other.accepted;
        self.unchanged += other.unchanged;
        self.panicked += other.panicked;
        self.slow += other.slow;
        self.wrong += other.wrong;
        self.longest = self.longest.max(other.longest);
    }
}

/// Past the capture of the test harness.
fn tell(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("stderr can be written");
}

#[expect(clippy::disallowed_methods, reason = "loads are timed")]
fn timed(mutant: &Mutant) -> Duration {
    let start = Instant::now();
    mutant.load();
    start.elapsed()
}

fn judge(originals: &Originals, kind: Kind, number: u64, tally: &mut Tally) {
    let mutant = Mutant::make(originals, kind, number);
    if originals.contain(&mutant) {
        tally.unchanged += 1;
        return;
    }
    let loaded = catch_unwind(AssertUnwindSafe(|| {
        let mut took = timed(&mutant);
        for _ in 1..TIMINGS {
            took = if took > LONGEST { took.min(timed(&mutant)) } else { took };
        }
        took
    }));
    let Ok(took) = loaded else {
        tell(&format!("the load of mutant {number} ({kind:?}) panics"));
        tally.panicked += 1;
        return;
    };
    tally.longest = tally.longest.max(took);
    if took > LONGEST {
        tell(&format!("the load of mutant {number} ({kind:?}) takes {took:?}"));
        tally.slow += 1;
    }
    let checked = catch_unwind(AssertUnwindSafe(|| mutant.check())).unwrap_or_else(|_| Err("it panics".to_owned()));
    let wrong = match checked {
        Ok(false) => {
            tally.refused += 1;
            return;
        }
        Ok(true) => originals.mistaken_for(&mutant),
        Err(wrong) => Some(wrong),
    };
    tally.accepted += 1;
    if let Some(wrong) = wrong {
        tell(&format!("mutant {number} ({kind:?}) is accepted, and wrong: {wrong}"));
        tally.wrong += 1;
    }
}

fn kind_of(number: u64) -> usize {
    (number % KINDS.len() as u64) as usize
}

#[test]
fn a_mutant_is_refused_or_a_model_of_its_own() {
    let variable =
        |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("the variable is a number"));
    let originals = Originals::new();
    if let Some(number) = variable("SHARDWISE_MUTANT") {
        let mut tally = Tally::default();
        judge(&originals, KINDS[kind_of(number)], number, &mut tally);
        tell(&format!("{tally:?}"));
        return;
    }
    originals.assert_sound();
    let asked = variable("SHARDWISE_MUTANTS");
    let mutants = asked.unwrap_or(MUTANTS);
    let (next, tallies) = (AtomicU64::new(0), Mutex::new([Tally::default(); KINDS.len()]));
    let work = || {
        let mut own = [Tally::default(); KINDS.len()];
        loop {
            let number = next.fetch_add(1, Relaxed);
            if number >= mutants {
                break;
            }
            let kind = kind_of(number);
            judge(&originals, KINDS[kind], number, &mut own[kind]);
        }
        let mut all = tallies.lock().expect("no thread panics while it adds");
        all.iter_mut().zip(&own).for_each(|(all, own)| all.add(own));
    };
    std::thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(work))));
    let tallies = tallies.into_inner().expect("all threads are done");
    let mut sum = Tally::default();
    for (kind, tally) in KINDS.iter().zip(&tallies) {
        sum.add(tally);
        if asked.is_some() {
            tell(&format!("{kind:?}: {tally:?}"));
        }
    }
    assert_eq!((sum.panicked, sum.slow, sum.wrong), (0, 0, 0), "{sum:?}");
    assert_eq!(sum.refused + sum.accepted + sum.unchanged, mutants);
    let [.., unsealed, resealed] = &tallies;
    assert_eq!(unsealed.accepted, 0, "changed files under the original's manifest");
    if mutants >= MUTANTS {
        let wide = tallies[..3].iter().chain([resealed]).all(|tally| tally.accepted > 0 && tally.refused > 100);
        assert!(wide, "checksums were passed, and what lies behind them refused: {tallies:?}");
    }
}

/// The fuzz targets begin with these. To be run when the features or a format have changed.
#[test]
#[ignore = "writes into the source tree"]
fn write_the_corpus_of_the_fuzz_targets() {
    Originals::new().write_corpus(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus"));
}
