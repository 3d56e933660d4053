//! `shardwise models`: versions are listed, compared, verified, promoted, rolled back, moved about and cleared away.

use std::path::{Path, PathBuf};

use shardwise_models::{AliasMove, BundleDraft, CHAMPION, Registry};
use tempfile::TempDir;

use crate::support::{json, refused, shardwise, text};

const NAME: &str = "default";

/// Two versions, of which the second is champion and the first was.
fn models() -> (TempDir, PathBuf, [String; 2]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let models = folder.path().join("models");
    let registry = Registry::open_or_create(&models, NAME).expect("a registry");
    let versions = [1, 2].map(|seed| {
        let draft = BundleDraft { name: NAME.to_owned(), seed, ..BundleDraft::example() };
        let version = registry.publish(&draft).expect("a version");
        let by = AliasMove {
            at: "2026-01-05T02:00:00Z".parse().expect("a time"),
            who: "test".to_owned(),
            why: "it is better".to_owned(),
            metrics: serde_json::Value::Null,
        };
        registry.set_alias(CHAMPION, &version, &by).expect("a move");
        version
    });
    (folder, models, versions)
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
