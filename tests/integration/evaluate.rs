//! `shardwise evaluate`: what it says of runs, reports and versions.

use crate::support::{json, night, refused, shardwise, text};

#[test]
fn a_run_differs_from_another_and_not_from_itself() {
    let work = night().path("work");
    let same = json(&["evaluate", "diff", text(&work), text(&work)]);
    assert_eq!(same["changed"], serde_json::json!([]));
    assert!(same["same"].as_u64().expect("a count") > 100, "{same}");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let other = folder.path().join("other.json");
    let report = std::fs::read_to_string(work.join("report/report.json")).expect("the night's report");
    let mut report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let before = report["model"]["exec"]["rmse"].as_f64().expect("a figure");
    report["model"]["exec"]["rmse"] = (2.0 * before).into();
    report["verdict"]["may_go_live"] = serde_json::Value::Null;
    std::fs::write(&other, report.to_string()).expect("writable");
    let found = json(&["evaluate", "diff", text(&work), text(&other)]);
    let paths: Vec<_> = found["changed"].as_array().expect("a list").iter().map(|c| c["path"].clone()).collect();
    assert_eq!(paths, ["verdict.may_go_live", "model.exec.rmse"], "what is no number comes first");
    assert_eq!(found["changed"][1]["ratio"], 2.0);
    let printed = shardwise(&["evaluate", "diff", text(&work), text(&other), "--most", "1"]);
    let printed = String::from_utf8(printed.stdout).expect("UTF-8");
    assert!(printed.contains("2 differ") && printed.contains("1 more with --most 2"), "{printed}");
}

#[test]
fn versions_differ_by_their_manifests_and_careless_names_are_told() {
    let models = night().path("work/models");
    let same = json(&["evaluate", "diff", "champion", "champion", "--models", text(&models)]);
    assert_eq!(same["changed"], serde_json::json!([]));
    let empty = tempfile::tempdir().expect("a temporary folder");
    let broken = empty.path().join("broken.json");
    std::fs::write(&broken, "{").expect("writable");
    for (a, arguments, words) in [
        ("nowhere", &[][..], "--models DIR"),
        (text(empty.path()), &[], "report/report.json"),
        (text(&broken), &[], "is no JSON"),
        ("absent", &["--models", text(&models)], "`absent`"),
    ] {
        let said = refused(&[&["evaluate", "diff", a, a], arguments].concat());
        assert!(said.contains(words), "'{words}' is not in: {said}");
    }
}
