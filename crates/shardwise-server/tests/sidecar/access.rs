//! Who is let in, and by which door.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use shardwise_server::{Access, ServeConfig};
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
    for path in ["/metrics", "/", "/v2", "/v2/models/default"] {
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

#[test]
fn with_a_certificate_it_speaks_tls_only() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
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
