//! What a collector is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use shardwise_server::{ServeConfig, TracesConfig};

use crate::support::{Sidecar, config, request};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// Takes one message and answers that it was taken.
fn take(mut stream: TcpStream, taken: &Sender<Vec<u8>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    taken.send(body).unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

fn ask(sidecar: &Sidecar, more: &str) -> String {
    let body = request().to_string();
    let mut stream = TcpStream::connect(&sidecar.started.listen).unwrap();
    let head =
        "POST /v1/predict-optimal-shard HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
    write!(stream, "{head}{more}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_span_says_who_decided_in_the_trace_of_the_caller() {
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/v1/traces", collector.local_addr().unwrap());
    let (sender, taken) = channel();
    std::thread::spawn(move || collector.incoming().flatten().try_for_each(|stream| take(stream, &sender)));
    let folder = tempfile::tempdir().unwrap();
    // Of those who say nothing of traces none is traced.
    let traces = TracesConfig { endpoint: Some(endpoint), share: 0.0 };
    let sidecar = Sidecar::start(ServeConfig { traces, ..config(&folder) });
    assert!(ask(&sidecar, "").starts_with("HTTP/1.1 200"));
    let traced = ask(&sidecar, &format!("traceparent: 00-{TRACE}-b7ad6b7169203331-01\r\n"));
    assert!(traced.starts_with("HTTP/1.1 200"), "{traced}");
    sidecar.stop();
    let told = taken.recv_timeout(Duration::from_secs(10)).unwrap();
    let trace: Vec<u8> = (0..16).map(|n| u8::from_str_radix(&TRACE[2 * n..2 * n + 2], 16).unwrap()).collect();
    let holds = |bytes: &[u8]| told.windows(bytes.len()).filter(|window| *window == bytes).count();
    assert_eq!(holds(&trace), 1, "one span, in the caller's trace");
    for text in ["POST /v1/predict-optimal-shard", "shardwise.decided_by", "no_model", "router-1"] {
        assert!(holds(text.as_bytes()) > 0, "{text}");
    }
    assert!(taken.try_recv().is_err(), "the other was not traced");
}

#[test]
fn a_collector_that_is_not_there_is_no_harm() {
    let gone = format!("http://{}/v1/traces", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let traces = TracesConfig { endpoint: Some(gone), share: 1.0 };
    let sidecar = Sidecar::start(ServeConfig { traces, ..config(&folder) });
    (0..5).for_each(|_| _ = sidecar.place());
    assert_eq!(sidecar.stop().journaled, 5);
}
