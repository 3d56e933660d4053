//! The server keeps to its OpenAPI document, whatever it is asked: <https://schemathesis.readthedocs.io>.

use std::path::PathBuf;
use std::process::Command;

use shardwise_client::AccessFiles;
use shardwise_server::{Access, ServeConfig};

use crate::support::{Sidecar, config, root};

/// What must hold of each answer. Left out: that all is taken that the document allows. It says of a number that it is whole,
/// and JSON Schema takes 1.0 for such, which the server does not; nor can it say how times and shards must go together.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
response_schema_conformance,missing_required_header,unsupported_method,ignored_auth";

/// `SHARDWISE_SCHEMATHESIS`, or what is on the path; none where it is not installed.
fn program() -> Option<PathBuf> {
    let named = std::env::var_os("SHARDWISE_SCHEMATHESIS").map(PathBuf::from);
    let program = named.unwrap_or_else(|| "schemathesis".into());
    let found = Command::new(&program).arg("--version").output().is_ok_and(|output| output.status.success());
    found.then_some(program)
}

#[test]
fn no_answer_is_a_failure_or_undocumented() {
    let Some(program) = program() else {
        println!(
            "skipped: schemathesis is not installed; name it in SHARDWISE_SCHEMATHESIS, or `pip install schemathesis`"
        );
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "open-sesame").unwrap();
    let access = Access { token_file: Some(token.clone()), ..Access::default() };
    let files = AccessFiles { token_file: Some(token), ca_file: None };
    let config = ServeConfig { access, models: Some(root("models")), ..config(&folder) };
    let sidecar = Sidecar::start(config).asked_with("http", &files);
    // That no shard can take a request is documented as 503; everything else of its kind is a failure.
    let allowed = "[checks.not_a_server_error]\nexpected-statuses = [\"2xx\", \"3xx\", \"4xx\", \"503\"]\n";
    std::fs::write(folder.path().join("schemathesis.toml"), allowed).unwrap();
    let ran = Command::new(program)
        .current_dir(folder.path())
        .args(["run", &format!("{}/openapi.json", sidecar.url), "--checks", CHECKS])
        // A stream of events has no end.
        .args(["--exclude-path", "/v1/events", "--header", "authorization: Bearer open-sesame"])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "25", "--seed", "11", "--no-color"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{told}\n{}", String::from_utf8_lossy(&ran.stderr));
    sidecar.wait_until("decisions were made", |status| !status["decisions"].as_array().unwrap().is_empty());
}
