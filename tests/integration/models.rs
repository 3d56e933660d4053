//! `shardwise models`: versions are listed, compared, verified, promoted, rolled back, moved about and cleared away.

use std::path::{Path, PathBuf};

use shardwise_models::{AliasMove, BundleDraft, CHAMPION, Judgement, Registry};
use tempfile::TempDir;

use crate::support::{json, refused, shardwise, text};

const NAME: &str = "default";

/// Two versions that a gate let pass, of which the second is champion and the first was.
fn models() -> (TempDir, PathBuf, [String; 2]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let models = folder.path().join("models");
    let registry = Registry::open_or_create(&models, NAME).expect("a registry");
    let versions = [1, 2].map(|seed| {
        let version = publish(&registry, seed);
        registry.set_alias(CHAMPION, &version, &judged(&version, &[])).expect("a move");
        version
    });
    (folder, models, versions)
}

fn publish(registry: &Registry, seed: u64) -> String {
    let draft = BundleDraft { name: NAME.to_owned(), seed, ..BundleDraft::example() };
    registry.publish(&draft).expect("a version")
}

/// What a gate says of a version, and what speaks against it.
fn judged(version: &str, reasons: &[&str]) -> AliasMove {
    let (version, may_go_live) = (version.to_owned(), reasons.is_empty());
    let reasons = reasons.iter().map(ToString::to_string).collect();
    AliasMove {
        who: "test".to_owned(),
        why: "it is better".to_owned(),
        judgement: Some(Judgement { version, may_go_live, reasons }),
        ..AliasMove::default()
    }
}

/// A key that signs, and the file of those that are trusted, which holds it.
fn key_files(folder: &Path) -> [PathBuf; 2] {
    let key: shardwise_models::SigningKey = "07".repeat(32).parse().expect("a key");
    let files = ["secret.key", "trusted.keys"].map(|name| folder.join(name));
    std::fs::write(&files[0], "07".repeat(32)).expect("a file");
    std::fs::write(&files[1], format!("{} # ours\n", key.public_key())).expect("a file");
    files
}

#[test]
fn versions_are_listed_shown_and_compared() {
    let (_folder, models, [one, two]) = models();
    let at = ["--models", text(&models)];
    let listed = json(&[&["models", "list"], &at[..]].concat());
    assert_eq!(listed["models"][0]["aliases"], serde_json::json!({ "champion": two, "previous": one }));
    assert_eq!(listed["models"][0]["versions"].as_array().map(Vec::len), Some(2));
    let shown = json(&[&["models", "show"], &at[..]].concat());
    assert_eq!((shown["version"].as_str(), shown["problem"].is_null()), (Some(two.as_str()), true));
    assert_eq!(shown["history"][0]["why"], "it is better");
    let compared = json(&[&["models", "diff", &one, "champion"], &at[..]].concat());
    assert_eq!(compared["changes"], serde_json::json!([{ "field": "seed", "from": 1, "to": 2 }]));
    let url = format!("file://{}", text(&models));
    assert_eq!(json(&["models", "list", "--models", &url]), listed);
}

#[test]
fn aliases_move_forth_and_back_with_reasons() {
    let (_folder, models, [one, two]) = models();
    let at = ["--models", text(&models)];
    let moved = json(&[&["models", "promote", &one[..6], "--why", "a test", "--who", "me"], &at[..]].concat());
    assert_eq!((moved["version"].as_str(), moved["moved"].as_bool()), (Some(one.as_str()), Some(true)));
    let back = json(&[&["models", "rollback", "--why", "no good"], &at[..]].concat());
    assert_eq!((back["champion"].as_str(), back["previous"].as_str()), (Some(two.as_str()), Some(one.as_str())));
    json(&[&["models", "promote", &one, "--alias", "challenger", "--why", "try it"], &at[..]].concat());
    let history = Registry::open(&models, NAME).expect("a registry").history().expect("a history");
    let whys: Vec<_> = history.iter().map(|entry| entry.why.as_str()).collect();
    assert_eq!(whys, ["it is better", "it is better", "a test", "no good", "try it"]);
    assert_eq!(history[2].who, "me");
}

#[test]
fn what_the_gate_refused_or_never_saw_goes_live_by_force_only() {
    let (_folder, models, [one, two]) = models();
    let registry = Registry::open(&models, NAME).expect("a registry");
    let at = ["--models", text(&models)];
    let unknown = publish(&registry, 3);
    // The last word counts: it passed once.
    registry.record_judgement(&judged(&one, &["p99 is 12 % above.", "It errs more."])).expect("an entry");
    for (version, against) in [(&one, "p99 is 12 % above. It errs more."), (&unknown, "It was never judged here.")] {
        for alias in ["champion", "previous"] {
            // `previous` points to it already.
            if (version, alias) == (&one, "previous") {
                continue;
            }
            let said = refused(&[&["models", "promote", version, "--alias", alias, "--why", "x"], &at[..]].concat());
            let words = format!("version {version} may not go live: {against}");
            assert!(said.contains(&words) && said.contains("--force --why"), "{said}");
        }
        let no_why = shardwise(&[&["models", "promote", version, "--force"], &at[..]].concat());
        assert_eq!(no_why.status.code(), Some(2), "--force needs a reason");
        assert!(refused(&[&["promote", version, "--force", "--why", ""], &at[..]].concat()).contains("--why is empty"));
        assert_eq!(registry.alias(CHAMPION).expect("aliases").as_ref(), Some(&two));
        // Whoever tries a challenger puts nothing live.
        let tried = json(&[&["models", "promote", version, "--alias", "challenger", "--why", "x"], &at[..]].concat());
        assert_eq!(tried["forced"], false);

        let by_force = ["--force", "--why", "the fleet is new", "--who", "me"];
        let moved = json(&[&["promote", version], &by_force[..], &at].concat());
        assert_eq!((&moved["moved"], &moved["forced"]), (&true.into(), &true.into()));
        let last = registry.history().expect("a history").pop().expect("an entry");
        assert_eq!((last.who.as_str(), last.why.as_str(), last.to.as_ref()), ("me", "the fleet is new", Some(version)));
        assert_eq!(last.forced.join(" "), against);
        let shown = shardwise(&[&["models", "show", version], &at[..]].concat());
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains(&format!("by me: the fleet is new, in spite of: {against}")), "{shown}");
        json(&[&["models", "rollback"], &at[..]].concat());
        assert_eq!(registry.alias(CHAMPION).expect("aliases").as_ref(), Some(&two), "one command back");
    }
    let shown = shardwise(&[&["models", "show", &one], &at[..]].concat());
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("refused by test") && shown.contains("champion: none"), "{shown}");
    // Force that was not needed is none.
    let moved = json(&[&["models", "promote", &two, "--force", "--why", "x"], &at[..]].concat());
    assert_eq!((&moved["moved"], &moved["forced"]), (&false.into(), &false.into()));
}

#[test]
fn signed_versions_travel_and_others_are_refused() {
    let (folder, models, [one, two]) = models();
    let at = ["--models", text(&models)];
    let [secret, trusted] = key_files(folder.path());
    let trust = ["--trusted-keys", text(&trusted)];
    let said = refused(&[&["models", "promote", &one, "--why", "x"], &at[..], &trust].concat());
    assert!(said.contains("nobody signed"), "{said}");
    let why = ["--why", "signed by us", "--signing-key", text(&secret)];
    json(&[&["models", "promote", &two], &why[..], &at].concat());
    json(&[&["models", "verify", "champion"], &at[..], &trust].concat());
    let said = refused(&[&["models", "verify", "--json"], &at[..], &trust].concat());
    assert!(said.contains(&format!("{one} (unsigned)")) && !said.contains(&format!("{two} (")), "{said}");

    let (file, elsewhere) = (folder.path().join("model.tar"), folder.path().join("elsewhere"));
    json(&[&["models", "export", "--out", text(&file)], &at[..]].concat());
    assert!(refused(&[&["models", "export", "--out", text(&file)], &at[..]].concat()).contains("cannot write"));
    let imported = json(&[&["models", "import", text(&file), "--models", text(&elsewhere)], &trust[..]].concat());
    assert_eq!(imported["version"].as_str(), Some(two.as_str()));
    let since = ["--signed-since", "2200-01-01T00:00:00Z"];
    let said = refused(&[&["models", "verify", &two, "--models", text(&elsewhere)], &trust[..], &since].concat());
    assert!(said.contains("replayed"), "{said}");

    let mut bytes = std::fs::read(&file).expect("the file");
    let place = bytes.windows(6).position(|window| window == b"\"seed\"").expect("the manifest");
    bytes[place + 1] = b'S';
    std::fs::write(&file, bytes).expect("a changed file");
    let said = refused(&[&["models", "import", text(&file), "--models", text(&elsewhere)], &trust[..]].concat());
    assert!(said.contains("changed after it was signed"), "{said}");
}

#[test]
fn clearing_away_is_a_dry_run_first_and_spares_what_is_new() {
    let (_folder, models, [one, two]) = models();
    let gc = ["models", "gc", "--models", text(&models), "--keep-entries", "1"];
    json(&["models", "promote", &two, "--alias", "previous", "--why", "x", "--models", text(&models)]);
    assert_eq!(json(&gc)["versions"], serde_json::json!([]));
    let all = [&gc[..], &["--min-age-hours", "0"]].concat();
    assert_eq!(json(&all)["versions"], serde_json::json!([one]));
    json(&["models", "show", &one, "--models", text(&models)]);
    assert_eq!(json(&[&all[..], &["--delete"]].concat())["deleted"], true);
    let said = refused(&["models", "show", &one, "--models", text(&models)]);
    assert!(said.contains("no version") && said.contains(&two), "{said}");
}

#[test]
fn careless_calls_are_told_what_is_wrong() {
    let (folder, models, [one, _]) = models();
    let at = ["--models", text(&models)];
    let odd = folder.path().join("odd");
    std::fs::write(&odd, "no key, no tar").expect("a file");
    let cases: [(&[&str], &str); 9] = [
        (&["promote", "0000000", "--why", "x"], "no version `0000000`"),
        (&["promote", &one, "--why", " "], "--why is empty"),
        (&["promote", &one, "--why", "x", "--alias", "Best One"], "cannot name an alias"),
        (&["promote", &one, "--why", "x", "--signing-key", text(&odd)], "64 hexadecimal digits"),
        (&["verify", "--trusted-keys", text(&odd)], "64 hexadecimal digits"),
        (&["show", "challenger"], "has no `challenger` yet"),
        (&["import", text(&odd)], "not an exported model"),
        (&["list", "--name", "nosuch"], "no model `nosuch`"),
        (&["rollback", "--name", "nosuch"], "there: default"),
    ];
    for (arguments, expected) in cases {
        let said = refused(&[&["models"], arguments, &at].concat());
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    let said = refused(&["models", "list", "--models", "s3://bucket/prefix"]);
    assert!(said.contains("--features s3") || said.contains("s3://bucket"), "{said}");
    assert_eq!(shardwise(&["models", "promote", &one, at[0], at[1]]).status.code(), Some(2), "--why is required");
}
