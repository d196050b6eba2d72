//! A DNS server inside the test's process, over real UDP and TCP sockets: zones that change at run time, and every way
//! of answering badly. Its encoder is its own, so that the resolver's library isn't checked against itself.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;

pub const A: u16 = 1;
pub const CNAME: u16 = 5;
pub const PTR: u16 = 12;
pub const AAAA: u16 = 28;

pub const SERVFAIL: u8 = 2;
pub const NXDOMAIN: u8 = 3;
pub const REFUSED: u8 = 5;

/// What fits into one datagram (the size that hickory offers by EDNS).
const UDP_LIMIT: usize = 1232;

/// A record; without an owner it is the question's.
#[derive(Clone, Debug)]
pub struct Record {
    owner: Option<Vec<u8>>,
    kind: u16,
    ttl: u32,
    data: Vec<u8>,
}

/// How a question is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// These records; none of them is "no data".
    Records(Vec<Record>),
    /// An error code without records.
    Code(u8),
    /// Never.
    Silent,
    /// Not before [`FakeDns::release`].
    Held(Box<Reply>),
    /// Only over TCP; UDP says "truncated".
    OverTcp(Box<Reply>),
    /// First these lies, each with its records, then the truth.
    Spoofed(Vec<Lie>, Vec<Record>, Box<Reply>),
    /// Bytes after the question that are no records.
    Garbage,
}

/// What is wrong with a forged answer.
#[derive(Clone, Copy, Debug)]
pub enum Lie {
    Id(u16),
    Case,
    Question,
    Port,
}

/// A question that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// As it was written, without the trailing dot.
    pub name: String,
    pub kind: u16,
    pub tcp: bool,
}

struct Shared {
    zone: Mutex<HashMap<(String, u16), Reply>>,
    otherwise: Mutex<Option<Reply>>,
    asked: Mutex<Vec<Asked>>,
    released: watch::Sender<bool>,
}

/// A running server.
pub struct FakeDns {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl FakeDns {
    pub async fn start() -> FakeDns {
        let (udp, tcp) = bind().await;
        let address = udp.local_addr().unwrap();
        let shared = Arc::new(Shared {
            zone: Mutex::default(),
            otherwise: Mutex::new(Some(Reply::Code(NXDOMAIN))),
            asked: Mutex::default(),
            released: watch::Sender::new(false),
        });
        tokio::spawn(serve_udp(Arc::new(udp), Arc::clone(&shared)));
        tokio::spawn(serve_tcp(tcp, Arc::clone(&shared)));
        FakeDns { address, shared }
    }

    /// Sets the reply to one question.
    pub fn set(&self, name: &str, kind: u16, reply: Reply) {
        self.shared.zone.lock().unwrap().insert((name.to_ascii_lowercase(), kind), reply);
    }

    /// Sets the addresses of a name; a family without one has no data.
    pub fn host(&self, name: &str, addresses: &[&str], ttl: u32) {
        for kind in [A, AAAA] {
            let records =
                addresses.iter().map(|text| address(text, ttl)).filter(|record| record.kind == kind);
            self.set(name, kind, Reply::Records(records.collect()));
        }
    }

    /// Sets the names of an address.
    pub fn pointers(&self, address: &str, names: &[&str], ttl: u32) {
        let records = names.iter().map(|name| pointer(name, ttl)).collect();
        self.set(&reverse_name(address), PTR, Reply::Records(records));
    }

    /// Sets the reply to every question that the zone doesn't answer.
    pub fn otherwise(&self, reply: Reply) {
        *self.shared.otherwise.lock().unwrap() = Some(reply);
    }

    /// Forgets the zone and answers everything so.
    pub fn only(&self, reply: Reply) {
        self.shared.zone.lock().unwrap().clear();
        self.otherwise(reply);
    }

    /// Lets the held replies go.
    pub fn release(&self) {
        self.shared.released.send_replace(true);
    }

    /// Every question so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// How often one question came.
    pub fn count(&self, name: &str, kind: u16) -> usize {
        let asked = self.shared.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.kind == kind && asked.name.eq_ignore_ascii_case(name)).count()
    }
}

/// An A or AAAA record.
pub fn address(text: &str, ttl: u32) -> Record {
    match text.parse().unwrap() {
        IpAddr::V4(address) => Record { owner: None, kind: A, ttl, data: address.octets().to_vec() },
        IpAddr::V6(address) => Record { owner: None, kind: AAAA, ttl, data: address.octets().to_vec() },
    }
}

/// A PTR record.
pub fn pointer(name: &str, ttl: u32) -> Record {
    Record { owner: None, kind: PTR, ttl, data: name_bytes(name) }
}

/// A PTR record whose name has any bytes in its labels.
pub fn pointer_of_labels(labels: &[&[u8]], ttl: u32) -> Record {
    Record { owner: None, kind: PTR, ttl, data: label_bytes(labels.iter().copied()) }
}

/// A CNAME record.
pub fn alias(target: &str, ttl: u32) -> Record {
    Record { owner: None, kind: CNAME, ttl, data: name_bytes(target) }
}

impl Record {
    /// The record with another owner than the question.
    pub fn of(mut self, owner: &str) -> Record {
        self.owner = Some(name_bytes(owner));
        self
    }
}

/// `5.113.0.203.in-addr.arpa`.
pub fn reverse_name(address: &str) -> String {
    match address.parse().unwrap() {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let nibbles = (0..32).map(|index| (address.to_bits() >> (index * 4)) & 0xF);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}

fn name_bytes(name: &str) -> Vec<u8> {
    label_bytes(name.split('.').filter(|label| !label.is_empty()).map(str::as_bytes))
}

fn label_bytes<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in labels {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label);
    }
    bytes.push(0);
    bytes
}

async fn bind() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both UDP and TCP");
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut buffer = [0; 4096];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
        let Some(query) = Query::parse(&buffer[..length]) else { continue };
        let reply = shared.reply(&query, false);
        let (socket, shared) = (Arc::clone(&socket), Arc::clone(&shared));
        tokio::spawn(async move { shared.answer_udp(&socket, peer, &query, reply).await });
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve_connection(stream, Arc::clone(&shared)));
    }
}

async fn serve_connection(mut stream: TcpStream, shared: Arc<Shared>) -> Option<()> {
    loop {
        let length = stream.read_u16().await.ok()?;
        let mut buffer = vec![0; length.into()];
        stream.read_exact(&mut buffer).await.ok()?;
        let query = Query::parse(&buffer)?;
        let mut reply = shared.reply(&query, true);
        let answer = loop {
            reply = match reply {
                Reply::OverTcp(reply) | Reply::Spoofed(_, _, reply) => *reply,
                Reply::Held(reply) => shared.held(*reply).await,
                Reply::Silent => break None,
                reply => break Some(query.encode(&reply, usize::from(u16::MAX))),
            }
        };
        if let Some(answer) = answer {
            stream.write_u16(u16::try_from(answer.len()).unwrap()).await.ok()?;
            stream.write_all(&answer).await.ok()?;
        }
    }
}

impl Shared {
    fn reply(&self, query: &Query, tcp: bool) -> Reply {
        self.asked.lock().unwrap().push(Asked { name: query.name.clone(), kind: query.kind, tcp });
        let zone = self.zone.lock().unwrap();
        let found = zone.get(&(query.name.to_ascii_lowercase(), query.kind)).cloned();
        found.unwrap_or_else(|| self.otherwise.lock().unwrap().clone().unwrap())
    }

    async fn held(&self, reply: Reply) -> Reply {
        let _ = self.released.subscribe().wait_for(|released| *released).await;
        reply
    }

    async fn answer_udp(&self, socket: &UdpSocket, peer: SocketAddr, query: &Query, mut reply: Reply) {
        let answer = loop {
            reply = match reply {
                Reply::Silent => return,
                Reply::Held(reply) => self.held(*reply).await,
                Reply::OverTcp(_) => break query.truncated(),
                Reply::Spoofed(lies, records, truth) => {
                    for lie in lies {
                        query.lie(socket, peer, lie, &records).await;
                    }
                    *truth
                }
                reply => break query.encode(&reply, usize::from(u16::MAX)),
            }
        };
        let answer = if answer.len() > UDP_LIMIT { query.truncated() } else { answer };
        let _ = socket.send_to(&answer, peer).await;
    }
}

struct Query {
    id: u16,
    /// The question's bytes, in the case in which they came.
    question: Vec<u8>,
    name: String,
    kind: u16,
}

impl Query {
    fn parse(bytes: &[u8]) -> Option<Query> {
        const HEADER: usize = 12;
        let id = u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]);
        let (mut at, mut labels) = (HEADER, Vec::new());
        while *bytes.get(at)? != 0 {
            let end = at + 1 + usize::from(bytes[at]);
            labels.push(String::from_utf8_lossy(bytes.get(at + 1..end)?).into_owned());
            at = end;
        }
        let question = bytes.get(HEADER..at + 5)?.to_vec();
        let kind = u16::from_be_bytes([bytes[at + 1], bytes[at + 2]]);
        Some(Query { id, question, name: labels.join("."), kind })
    }

    fn head(id: u16, truncated: bool, code: u8, answers: u16) -> Vec<u8> {
        let flags = 0x8180 | if truncated { 0x0200 } else { 0 } | u16::from(code);
        [id, flags, 1, answers, 0, 0].iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    fn truncated(&self) -> Vec<u8> {
        [Query::head(self.id, true, 0, 0), self.question.clone()].concat()
    }

    /// The answer, with as many records as fit.
    fn encode(&self, reply: &Reply, limit: usize) -> Vec<u8> {
        match reply {
            Reply::Records(records) => encode(self.id, &self.question, records, limit),
            Reply::Code(code) => [Query::head(self.id, false, *code, 0), self.question.clone()].concat(),
            Reply::Garbage => {
                [Query::head(self.id, false, 0, 9), self.question.clone(), vec![0xC0; 40]].concat()
            }
            other => panic!("not an answer: {other:?}"),
        }
    }

    async fn lie(&self, socket: &UdpSocket, peer: SocketAddr, lie: Lie, records: &[Record]) {
        let flipped: Vec<u8> = self.question[..self.question.len() - 4]
            .iter()
            .map(|byte| if byte.is_ascii_alphabetic() { byte ^ 0x20 } else { *byte })
            .chain(self.question[self.question.len() - 4..].iter().copied())
            .collect();
        let other = [name_bytes("evil.example"), self.question[self.question.len() - 4..].to_vec()].concat();
        let (id, question) = match lie {
            Lie::Id(by) => (self.id.wrapping_add(by), &self.question),
            Lie::Case => (self.id, &flipped),
            Lie::Question => (self.id, &other),
            Lie::Port => (self.id, &self.question),
        };
        let bytes = encode(id, question, records, UDP_LIMIT);
        if let Lie::Port = lie {
            let elsewhere = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let _ = elsewhere.send_to(&bytes, peer).await;
        } else {
            let _ = socket.send_to(&bytes, peer).await;
        }
    }
}

fn encode(id: u16, question: &[u8], records: &[Record], limit: usize) -> Vec<u8> {
    const QUESTION_NAME: [u8; 2] = [0xC0, 12];
    let (mut body, mut count) = (Vec::new(), 0);
    for record in records {
        let mut bytes = record.owner.clone().unwrap_or_else(|| QUESTION_NAME.to_vec());
        bytes.extend(record.kind.to_be_bytes());
        bytes.extend(1u16.to_be_bytes());
        bytes.extend(record.ttl.to_be_bytes());
        bytes.extend(u16::try_from(record.data.len()).unwrap().to_be_bytes());
        bytes.extend(&record.data);
        if 12 + question.len() + body.len() + bytes.len() > limit {
            break;
        }
        body.extend(bytes);
        count += 1;
    }
    [Query::head(id, false, 0, count), question.to_vec(), body].concat()
}
