//! Training as users run it: beside Python's LightGBM, and with a search for learning parameters.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::python::python;
use crate::support::{json, night, refused, text};

#[test]
fn heads_err_as_much_as_those_that_python_trains() {
    if python().is_none() {
        return;
    }
    let out = tempfile::tempdir().expect("a folder");
    let bench = json(&["bench", "train", "--rows", "3000", "--trees", "15", "--out", text(out.path())]);
    let heads = |side: &str| bench[side]["heads"].as_array().expect("heads").clone();
    let pairs: Vec<(Value, Value)> = heads("here").into_iter().zip(heads("python")).collect();
    assert_eq!(pairs.len(), 4);
    for (here, there) in &pairs {
        for same in ["head", "train_rows", "test_rows", "trees"] {
            assert_eq!(here[same], there[same], "{same} of {here}");
        }
        assert_eq!(here["train_rows"], 3000);
        let [one, other] = [here, there].map(|head| head["error"].as_f64().expect("a number"));
        assert!(one > 0.0 && (one / other - 1.0).abs() < 0.01, "{here} {there}");
    }
    for side in ["here", "python"] {
        for phase in ["reading_ms", "binning_ms", "growing_ms"] {
            assert!(bench[side][phase].as_f64().is_some_and(|ms| ms > 0.0), "{phase} of {side}");
        }
    }
    let said = refused(&["bench", "train", "--rows", "10"]);
    assert!(said.contains("10 rows are too few"), "{said}");
}

#[test]
fn what_is_timed_is_what_trains() {
    if python().is_none() {
        return;
    }
    let dataset = night().path("work/dataset");
    let bench = json(&["bench", "train", "--dataset", text(&dataset), "--rows", "400000"]);
    let (timed, trained) = (&bench["here"]["heads"][0], &night().result["heads"]["exec"]);
    assert_eq!(timed["head"], "exec");
    assert_eq!((&timed["error"], &timed["train_rows"]), (&trained["rmse"], &trained["train_rows"]));
}

fn manifest(models: &Path, version: &Value) -> Value {
    let version = version.as_str().expect("a version");
    let path = models.join("default/versions").join(version).join("manifest.json");
    serde_json::from_slice(&fs::read(path).expect("a manifest")).expect("JSON")
}

#[test]
fn a_search_is_kept_and_told_in_the_manifest() {
    let folder = tempfile::tempdir().expect("a folder");
    let (models, journal) = (folder.path().join("models"), folder.path().join("search.ndjson"));
    let dataset = night().path("work/dataset");
    let train = |more: &[&str]| {
        let arguments = ["train", "--dataset", text(&dataset), "--models", text(&models), "--search", "2"];
        [&arguments, more].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let arguments = train(&["--search-journal", text(&journal)]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let first = json(&arguments)["version"].clone();
    let kept = fs::read_to_string(&journal).expect("a journal");
    assert_eq!(kept.lines().count(), 3, "one line for the search, one for each trial");
    assert_eq!(json(&arguments)["version"], first);
    assert_eq!(fs::read_to_string(&journal).expect("a journal"), kept, "finished trials are not made again");
    let manifest = manifest(&models, &first);
    assert_eq!(manifest["parameters"]["search_trials"], 2);
    let trials: Vec<Value> = kept.lines().skip(1).map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let winner = manifest["parameters"]["search_winner"].as_u64().expect("a number") as usize;
    for chosen in ["leaves", "learning_rate", "min_leaf", "trees"] {
        assert_eq!(manifest["parameters"][chosen], trials[winner]["parameters"][chosen], "{chosen}");
    }
    assert!(manifest["how_to_make_again"].as_str().is_some_and(|command| command.ends_with("--search 2")));
    let other = [&arguments[..], &["--seed", "2"]].concat();
    let said = refused(&other);
    assert!(said.contains("is of a search on other data or with other options; remove it"), "{said}");
}
