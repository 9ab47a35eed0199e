//! Just enough of the NATS text protocol for a request.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// A connection.
pub struct Nats {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Nats {
    pub fn connect(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\n").unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader }
    }

    pub fn subscribe(&mut self, subject: &str) {
        write!(self.stream, "SUB {subject} 1\r\n").unwrap();
    }

    /// The answer to a request; null when nobody listens.
    pub fn request(&mut self, subject: &str, payload: &[u8]) -> Value {
        self.subscribe("_INBOX.settle.1");
        write!(self.stream, "PUB {subject} _INBOX.settle.1 {}\r\n", payload.len()).unwrap();
        self.stream.write_all(payload).unwrap();
        self.stream.write_all(b"\r\n").unwrap();
        let (_, answer) = self.next(ANSWER_TIME_MAX).expect("no answer");
        serde_json::from_slice(&answer).unwrap_or_default()
    }

    /// A JetStream key-value bucket, if it is not there.
    pub fn create_bucket(&mut self, bucket: &str) {
        let stream = json!({
            "name": format!("KV_{bucket}"), "subjects": [format!("$KV.{bucket}.>")],
            "max_msgs_per_subject": 1, "allow_rollup_hdrs": true, "deny_delete": true,
            "allow_direct": true, "discard": "new",
        });
        self.request(&format!("$JS.API.STREAM.CREATE.KV_{bucket}"), stream.to_string().as_bytes());
    }

    /// The next message: subject and payload.
    pub fn next(&mut self, wait: Duration) -> Option<(String, Vec<u8>)> {
        self.stream.set_read_timeout(Some(wait)).unwrap();
        let mut line = String::new();
        loop {
            line.clear();
            self.reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["PING"] => self.stream.write_all(b"PONG\r\n").unwrap(),
                // Headers come only with "no responders".
                ["HMSG", ..] => return Some((String::new(), Vec::new())),
                ["MSG", subject, .., length] => {
                    let mut payload = vec![0; length.parse::<usize>().unwrap() + 2];
                    self.reader.read_exact(&mut payload).unwrap();
                    payload.truncate(payload.len() - 2);
                    return Some(((*subject).to_owned(), payload));
                }
                _ => {}
            }
        }
    }
}
