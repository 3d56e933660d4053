//! A small HTTP server, for what answers well and badly, and a client that shows all of an answer.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// What was asked.
pub(crate) struct Request {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    /// All before the body.
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    /// Reads one; `None` when the client went away before it was whole.
    fn read(stream: &mut TcpStream) -> Option<Self> {
        let (mut bytes, mut chunk) = (Vec::new(), [0; 65_536]);
        let mut more = |bytes: &mut Vec<u8>| match stream.read(&mut chunk) {
            Ok(n) if n > 0 => {
                bytes.extend_from_slice(&chunk[..n]);
                Some(())
            }
            _ => None,
        };
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
                break end + 4;
            }
            more(&mut bytes)?;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut words = head.split_whitespace().map(str::to_owned);
        let (method, path) = (words.next()?, words.next()?);
        let mut request = Self { method, path, head, body: bytes.split_off(end) };
        let length = request.header("Content-Length").map_or(0, |length| length.parse().expect("a number"));
        while request.body.len() < length {
            more(&mut request.body)?;
        }
        Some(request)
    }
}

/// What a server does about a request.
pub(crate) enum Answer {
    /// A status and a body.
    Reply(u16, String),
    /// It ends the connection without a word.
    HangUp,
    /// It says nothing.
    Silence,
    /// It begins an answer, whose bytes come one by one and have no end.
    Drip,
}

/// Answers every request of a server that lives as long as the tests; returns its port.
pub(crate) fn serve(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), answer) = (stream, Arc::clone(&answer)) else { continue };
            thread::spawn(move || answer_one(stream, &*answer));
        }
    });
    port
}

/// A client that went away is no concern of the server's, so errors of writing are let go.
fn answer_one(mut stream: TcpStream, answer: &dyn Fn(&Request) -> Answer) {
    let Some(request) = Request::read(&mut stream) else { return };
    match answer(&request) {
        Answer::Reply(status, body) => {
            let head = format!(
                "HTTP/1.1 {status} -\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all((head + &body).as_bytes());
        }
        Answer::HangUp => {}
        // Until the client goes away.
        Answer::Silence => drop(stream.read(&mut [0])),
        Answer::Drip => {
            let mut written = stream.write_all(b"HTTP/1.1 200 -\r\nContent-Length: 1000000\r\n\r\n");
            while written.is_ok() {
                thread::sleep(Duration::from_millis(50));
                written = stream.write_all(b" ");
            }
        }
    }
}

/// Asks `host:port` for a path; all of the answer, or `None` when there is none.
pub(crate) fn get(address: &str, path: &str) -> Option<String> {
    ask(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"))
}

/// What is answered to JSON.
pub(crate) fn post(address: &str, path: &str, json: &str) -> Option<String> {
    let length = json.len();
    ask(
        address,
        &format!(
            "POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{json}"
        ),
    )
}

fn ask(address: &str, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
