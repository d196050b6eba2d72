//! A client that sends exactly the bytes it is given.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a test waits for bytes that must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer as it came over the wire.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// A connection on which a test speaks.
pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect(address).await.unwrap();
        // What is sent in pieces arrives in pieces.
        stream.set_nodelay(true).unwrap();
        Connection::of(stream)
    }

    /// The other side of a connection, for a test that plays the server.
    pub fn of(stream: TcpStream) -> Connection {
        Connection { stream, received: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends what the peer may refuse to read to its end.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Closes the sending side.
    pub async fn finish_sending(&mut self) {
        self.try_finish_sending().await.unwrap();
    }

    /// Closes the sending side of a connection that the peer may have closed already.
    pub async fn try_finish_sending(&mut self) -> std::io::Result<()> {
        self.stream.shutdown().await
    }

    /// Reads one answer by its content length.
    pub async fn answer(&mut self) -> Answer {
        self.try_answer().await.expect("an answer")
    }

    /// The same for an answer that may take longer, because many are waiting for theirs.
    pub async fn answer_within(&mut self, patience: Duration) -> Answer {
        self.read_answer(patience).await.expect("an answer")
    }

    /// The next answer; None if the peer closes the connection instead.
    pub async fn try_answer(&mut self) -> Option<Answer> {
        self.read_answer(PATIENCE).await
    }

    async fn read_answer(&mut self, patience: Duration) -> Option<Answer> {
        let reading = async {
            loop {
                if let Some((answer, length)) = parse(&self.received) {
                    self.received.drain(..length);
                    return Some(answer);
                }
                let mut buffer = [0; 4096];
                match self.stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return None,
                    Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                }
            }
        };
        tokio::time::timeout(patience, reading)
            .await
            .expect("neither an answer nor the end of the connection")
    }

    /// Reads up to and with a text.
    pub async fn until(&mut self, end: &str) -> String {
        let reading = async {
            loop {
                if let Some(index) =
                    self.received.windows(end.len()).position(|window| window == end.as_bytes())
                {
                    let bytes = self.received.drain(..index + end.len()).collect();
                    return String::from_utf8(bytes).unwrap();
                }
                assert_ne!(
                    self.stream.read_buf(&mut self.received).await.unwrap(),
                    0,
                    "closed before {end:?}"
                );
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("no {end:?}"))
    }

    /// Reads so many bytes of text.
    pub async fn exactly(&mut self, length: usize) -> String {
        let reading = async {
            while self.received.len() < length {
                assert_ne!(self.stream.read_buf(&mut self.received).await.unwrap(), 0, "closed too early");
            }
            String::from_utf8(self.received.drain(..length).collect()).unwrap()
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("too few bytes")
    }

    /// Waits until the peer has closed the connection, and returns what else it sent.
    pub async fn closed(mut self) -> Vec<u8> {
        let reading = self.stream.read_to_end(&mut self.received);
        let _ = tokio::time::timeout(PATIENCE, reading).await.expect("the connection stays open");
        self.received
    }
}

/// An answer and its length in bytes; None if it isn't complete. Interim answers (1xx) are passed over.
fn parse(bytes: &[u8]) -> Option<(Answer, usize)> {
    let head_length = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_length]).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let status: u16 = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    if status < 200 {
        let (answer, length) = parse(&bytes[head_length..])?;
        return Some((answer, head_length + length));
    }
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(':').unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .map_or(0, |(_, value)| value.parse().unwrap());
    let body = bytes.get(head_length..head_length + length)?;
    let body = String::from_utf8(body.to_vec()).unwrap();
    Some((Answer { status, headers, body }, head_length + length))
}

/// The bytes of a POST.
pub fn post(path: &str, content_type: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: gateway.test\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Sends a request on a connection of its own and reads the answer.
pub async fn exchange(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    let mut connection = Connection::open(address).await;
    connection.send(request).await;
    connection.answer().await
}

/// GET from the private plane of a gateway that may be too busy to answer.
pub async fn try_get(address: SocketAddr, path: &str) -> Option<Answer> {
    let stream = TcpStream::connect(address).await.ok()?;
    let mut connection = Connection::of(stream);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    connection.try_send(request).await.ok()?;
    tokio::time::timeout(PATIENCE, connection.read_answer(2 * PATIENCE)).await.ok()?
}

/// GET from the private plane.
pub async fn get(address: SocketAddr, path: &str) -> Answer {
    exchange(address, format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")).await
}
