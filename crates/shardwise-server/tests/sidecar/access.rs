//! Who is let in, and by which door.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use shardwise_client::AccessFiles;
use shardwise_server::shard::{Envelope, ShardOptions, run};
use shardwise_server::{Access, Limits, ServeConfig};
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::{Sidecar, config};

const GET: &str = "GET /v1/fleet HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";

fn ask(mut stream: impl Read + Write, head: &str) -> String {
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A peer that closes without a goodbye has answered all the same.
    _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn only_who_has_the_token_is_answered_but_for_health() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "open sesame\n").unwrap();
    let access = Access { token_file: Some(file.clone()), ..Access::default() };
    let sidecar = Sidecar::start(ServeConfig { access: access.clone(), ..config(&folder) });
    let asked = |head: &str| ask(TcpStream::connect(&sidecar.started.listen).unwrap(), head);
    assert!(asked(GET).starts_with("HTTP/1.1 401"));
    for wrong in ["Bearer sesame", "Basic open sesame", "Bearer", "open sesame"] {
        let answer = asked(&format!("{GET}authorization: {wrong}\r\n"));
        assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("Bearer TOKEN"), "{wrong}: {answer}");
    }
    assert!(asked(&format!("{GET}authorization: Bearer open sesame\r\n")).starts_with("HTTP/1.1 200"));
    assert_eq!((sidecar.get("/v2/health/live").0, sidecar.get("/v2/health/ready").0), (200, 200));
    assert_eq!(sidecar.get("/").0, 200, "the page has no data, and asks for the token");
    for path in ["/metrics", "/v1/events", "/v1/models", "/v2", "/v2/models/default"] {
        assert_eq!(sidecar.get(path).0, 401, "{path}");
    }

    drop(sidecar);
    std::fs::write(&file, "\n").unwrap();
    let error = Sidecar::try_start(ServeConfig { access, ..config(&folder) }).err().unwrap().to_string();
    assert!(error.contains("token") && error.contains("empty"), "{error}");
}

#[test]
fn a_socket_of_the_file_system_serves_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listen = format!("unix:{}", path.display());
    // What a process that was killed leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let sidecar = Sidecar::start(ServeConfig { listen: listen.clone(), ..config(&folder) });
    assert!(ask(UnixStream::connect(&path).unwrap(), GET).starts_with("HTTP/1.1 200"));
    let other = tempfile::tempdir().unwrap();
    let error = Sidecar::try_start(ServeConfig { listen, ..config(&other) }).err().unwrap().to_string();
    assert!(error.contains("another process"), "{error}");
    sidecar.stop();
    assert!(!path.exists());
}

#[test]
fn operators_have_a_door_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin");
    let admin = Some(format!("unix:{}", path.display()));
    let sidecar = Sidecar::start(ServeConfig { admin, ..config(&folder) });
    assert_eq!((sidecar.get("/metrics").0, sidecar.get("/v1/fleet").0), (404, 200));
    let asked = |place: &str| ask(UnixStream::connect(&path).unwrap(), &GET.replace("/v1/fleet", place));
    assert!(asked("/metrics").starts_with("HTTP/1.1 200") && asked("/v2/health/live").starts_with("HTTP/1.1 200"));
    assert!(asked("/v1/fleet").starts_with("HTTP/1.1 404"));
}

/// A certificate of its own authority and its key, in files.
fn certificate(folder: &TempDir) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate, key)
}

#[test]
fn with_a_certificate_it_speaks_tls_only() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(&folder);
    let access = Access { tls_certificate: Some(certificate.clone()), tls_key: Some(key.clone()), ..Access::default() };
    let sidecar = Sidecar::start(ServeConfig { access: access.clone(), ..config(&folder) });
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&certificate).unwrap()).unwrap();
    let ring = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions().unwrap();
    let client = Arc::new(client.with_root_certificates(roots).with_no_client_auth());
    let connection = ClientConnection::new(client, "localhost".try_into().unwrap()).unwrap();
    let stream = StreamOwned::new(connection, TcpStream::connect(&sidecar.started.listen).unwrap());
    assert!(ask(stream, GET).starts_with("HTTP/1.1 200"));
    assert!(!ask(TcpStream::connect(&sidecar.started.listen).unwrap(), GET).contains("200 OK"));

    drop(sidecar);
    std::fs::write(&key, "no key").unwrap();
    let error = Sidecar::try_start(ServeConfig { access, ..config(&folder) }).err().unwrap().to_string();
    assert!(error.contains("key.pem") && error.contains("no private key"), "{error}");
}

#[test]
fn shards_report_and_take_part_in_changes_under_tls_with_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(&folder);
    let token = folder.path().join("token");
    std::fs::write(&token, "open sesame\n").unwrap();
    let access = Access {
        token_file: Some(token.clone()),
        tls_certificate: Some(certificate.clone()),
        tls_key: Some(key),
        ..Access::default()
    };
    let files = AccessFiles { token_file: Some(token.clone()), ca_file: Some(certificate.clone()) };
    let sidecar = Sidecar::start(ServeConfig { access, ..config(&folder) }).asked_with("https", &files);
    let elsewhere = tempfile::tempdir().unwrap();
    let (stranger, _) = self::certificate(&elsewhere);
    let stop = AtomicBool::new(false);
    let shard = |id: &str, files: AccessFiles| ShardOptions {
        id: id.into(),
        report_to: vec![sidecar.url.clone()],
        token_file: files.token_file,
        ca_file: files.ca_file,
        state: Some(folder.path().join(id)),
        report_every_ms: 100,
        ..ShardOptions::default()
    };
    let shards = [
        shard("shard-with-all", files.clone()),
        shard("shard-without-token", AccessFiles { token_file: None, ..files.clone() }),
        shard("shard-without-trust", AccessFiles { ca_file: Some(stranger), ..files.clone() }),
    ];
    let heard_of = |id: &str| {
        let fleet = sidecar.json("/v1/fleet");
        fleet["shards"].as_array().unwrap().iter().any(|shard| shard["id"] == id)
    };
    std::thread::scope(|scope| {
        let running = shards.each_ref().map(|options| {
            let stop = &stop;
            scope.spawn(move || run(options, |_: &Envelope| (), stop, |_| ()))
        });
        let seen = (0..400).any(|_| {
            std::thread::sleep(Duration::from_millis(25));
            let heard = &sidecar.json("/v1/config")["coordinator"]["heard"];
            heard_of("shard-with-all") && heard.to_string().contains("shard-with-all")
        });
        let config = sidecar.json("/v1/config");
        stop.store(true, Relaxed);
        running.into_iter().for_each(|shard| shard.join().unwrap().unwrap());
        assert!(seen, "{config}");
        assert!(!config.to_string().contains("shard-without"), "{config}");
    });
    assert!(!heard_of("shard-without-token") && !heard_of("shard-without-trust"));

    std::fs::write(&token, "\n").unwrap();
    let error = run(&shards[0], |_: &Envelope| (), &stop, |_| ()).unwrap_err().to_string();
    assert!(error.contains("token") && error.contains("empty"), "{error}");
}

#[test]
fn a_connection_too_many_is_told_nothing_in_the_clear_under_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(&folder);
    let access = Access { tls_certificate: Some(certificate), tls_key: Some(key), ..Access::default() };
    let limits = Limits { connections: 1, ..config(&folder).limits };
    let sidecar = Sidecar::start(ServeConfig { access, limits, ..config(&folder) });
    let _held = TcpStream::connect(&sidecar.started.listen).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(ask(TcpStream::connect(&sidecar.started.listen).unwrap(), ""), "");
    assert_eq!(sidecar.stop().decisions, 0);
}
