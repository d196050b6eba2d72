//! The parts of a request's path, one by one: what each costs in instructions and in time.
//!
//! `parts` names them; `parts NAME CALLS` calls one so many times and prints the nanoseconds of a call. Instructions are
//! counted by valgrind, in [`measured`] alone, so that a part's preparation doesn't count and the figure hardly differs
//! from run to run: `benches/run instructions` shows them, `scripts/compare` compares two commits.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{Method, Request, request};
use jiff::Timestamp;
use quick_xml::Reader;
use quick_xml::events::Event;
use retrieve_gateway::admission::allowlist::{Allowlist, Entry, Proof, Rule};
use retrieve_gateway::admission::networks::NetworkTable;
use retrieve_gateway::config::{Config, env};
use retrieve_gateway::ingest::client_address::client_address;
use retrieve_gateway::ingest::route::Route;
use retrieve_gateway::job::{Job, Parts};
use retrieve_gateway::payload::xml::{XmlLimits, XmlOptions, convert};
use retrieve_gateway::payload::{Format, Payload, json};
use retrieve_gateway::queue::journal::Document;
use retrieve_gateway::queue::producer::Epoch;
use retrieve_gateway::queue::redis::{Keys, script};
use retrieve_gateway::signature::{SignedRequest, Verifier};
use sha2::{Digest, Sha256};
use uuid::Uuid;

const ORDER: &str = include_str!("order.json");
const XML_ORDER: &str = include_str!("order.xml");
const INTEGRATIONS: &str =
    "[[integration]]\nid = \"shop\"\nsource = \"shopify\"\nsecrets = [\"env:SECRET\"]\n";
const SECRET: &str = "benchmark-secret";

/// A part, ready to be called.
type Part = Box<dyn FnMut()>;

/// Prepares a part.
type Prepare = fn() -> Part;

/// What the parts are called, and how each is prepared.
const PARTS: [(&str, Prepare); 13] = [
    ("route", route),
    ("client address, no proxy", || address(false)),
    ("client address, behind a proxy", || address(true)),
    ("allowlist of 10", || allowlist(10)),
    ("allowlist of 100,000", || allowlist(100_000)),
    ("signature of 2 KB (Shopify)", signature),
    ("SHA-256 of 2 KB alone", || Box::new(|| consume(Sha256::digest(black_box(ORDER.as_bytes()))))),
    ("JSON of 2 KB", || Box::new(|| consume(json::validate(black_box(ORDER.as_bytes())).expect("valid")))),
    ("XML of 2 KB", xml),
    ("XML of 2 KB, quick-xml's events alone", || Box::new(|| xml_events(black_box(XML_ORDER)))),
    ("job of 2 KB", job),
    ("batch of 1 job", || batch(1)),
    ("batch of 32 jobs", || batch(32)),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [name, calls] = arguments.as_slice() else {
        return PARTS.iter().for_each(|(name, _)| println!("{name}"));
    };
    let calls: u32 = calls.parse().expect("a number of calls");
    let (_, prepare) = PARTS.iter().find(|(known, _)| known == name).expect("the name of a part");
    let mut part = prepare();
    // What is made only once doesn't count.
    part();
    let started = Instant::now();
    measured(&mut part, calls);
    println!("{:.1}", started.elapsed().as_nanos() as f64 / f64::from(calls));
}

/// Valgrind counts from the entry of this function to its end.
#[inline(never)]
fn measured(part: &mut Part, calls: u32) {
    for _ in 0..calls {
        part();
    }
}

/// Keeps a part's result from being optimised away.
fn consume<T>(value: T) {
    black_box(value);
}

fn route() -> Part {
    let path = "/integration/507f1f77bcf86cd799439011";
    Box::new(move || consume(Route::parse(&Method::POST, black_box(path))))
}

fn address(behind_a_proxy: bool) -> Part {
    let peer = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let mut trusted = NetworkTable::default();
    if behind_a_proxy {
        trusted.insert("10.0.0.0/8".parse().expect("a network"), ());
    }
    let head = head();
    Box::new(move || consume(client_address(black_box(peer), &head.headers, &trusted)))
}

/// Half of the entries are addresses and half networks; the callers are on the addresses in turn, because hash tables
/// have another seed in each run, and with it one entry is found sooner than another.
fn allowlist(entries: u32) -> Part {
    let mut list = Allowlist::default();
    let mut callers = Vec::new();
    for number in 0..entries {
        let [_, a, b, c] = number.to_be_bytes();
        let text = if number % 2 == 0 {
            callers.push(IpAddr::V4(Ipv4Addr::new(10, a, b, c)));
            format!("10.{a}.{b}.{c}")
        } else {
            format!("{}.{b}.{c}.0/24", 100 + a)
        };
        list.add(Entry::parse(&text).expect("an entry"), &text);
    }
    let mut turn = 0;
    Box::new(move || {
        let caller = callers[turn % callers.len()];
        turn += 1;
        black_box(list.rule_for(black_box(caller)).expect("a listed caller"));
    })
}

/// What the settings make of an integration with Shopify's signature.
fn config() -> Config {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("integrations.toml");
    std::fs::write(&file, INTEGRATIONS).expect("a file");
    let settings =
        [("RETRIEVE_INTEGRATIONS_FILE", file.display().to_string()), ("SECRET", SECRET.to_owned())];
    let settings: BTreeMap<String, String> =
        settings.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    env::read(&settings).0.expect("settings")
}

/// The head of a signed order, as it comes through nginx.
fn head() -> request::Parts {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key");
    mac.update(ORDER.as_bytes());
    let request = Request::post("/integration/shop")
        .header("host", "gateway.example.com")
        .header("user-agent", "Shopify-Captain-Hook")
        .header("accept", "*/*")
        .header("content-type", "application/json")
        .header("content-length", ORDER.len())
        .header("x-forwarded-for", "203.0.113.5")
        .header("x-shopify-topic", "orders/create")
        .header("x-shopify-shop-domain", "shop.example.com")
        .header("x-shopify-webhook-id", "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043")
        .header("x-shopify-hmac-sha256", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
        .body(());
    request.expect("a request").into_parts().0
}

fn signature() -> Part {
    let (config, head, body) = (config(), head(), Bytes::from_static(ORDER.as_bytes()));
    let now = Timestamp::UNIX_EPOCH;
    Box::new(move || {
        let integration = config.integrations.get("shop").expect("the integration");
        let signed = SignedRequest {
            method: &head.method,
            uri: &head.uri,
            headers: &head.headers,
            body: &body,
            now,
            public_url: None,
        };
        black_box(integration.verifier.verify(black_box(&signed)).expect("a valid signature"));
    })
}

fn xml() -> Part {
    let (options, limits) = (XmlOptions::default(), XmlLimits::default());
    Box::new(move || consume(convert(black_box(XML_ORDER), &options, &limits).expect("well-formed")))
}

/// What reading takes that makes nothing of what it reads.
fn xml_events(text: &str) {
    let mut reader = Reader::from_str(text);
    while black_box(reader.read_event().expect("well-formed")) != Event::Eof {}
}

fn job() -> Part {
    let head = head();
    let rule = Rule { proof: Proof::Network, entry: "203.0.113.0/24".to_owned() };
    let payload = Payload { format: Format::Json, json: Bytes::from_static(ORDER.as_bytes()), raw: None };
    Box::new(move || {
        let job = Job::encode(&Parts {
            id: Uuid::from_u128(0x0199_c2de_7a63_7cc1_b0f6_2f4a_7d3a_9e10),
            app: "default",
            integration: "shop",
            received_at: Timestamp::UNIX_EPOCH,
            client: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5)),
            rule: &rule,
            preset: Some("shopify"),
            event: Some("orders/create"),
            delivery_id: Some("b54557e4-bdd9-4b37-8a5f-bf7d70bcd043"),
            verifier: &Verifier::Unsigned,
            verified: false,
            request: black_box(&head),
            payload: &payload,
        });
        consume(job);
    })
}

/// A batch as it goes to Redis: the call of the script, to its last byte.
fn batch(jobs: usize) -> Part {
    let document = Document { bytes: Bytes::from(vec![b'x'; 2400]), dedupe: None };
    let documents = vec![document; jobs];
    let (keys, epoch) = (Keys::of("default", 0), Epoch { number: 7, nonce: 0x0123_4567_89ab_cdef });
    Box::new(move || {
        let batch = script::Batch {
            producer: "0199c2de7a637cc1b0f62f4a7d3a9e10.0",
            epoch,
            seq: 1000,
            limit: 0,
            jobs: black_box(&documents),
            may_split: true,
        };
        let mut out = bytes::BytesMut::new();
        consume(script::append(&mut out, &keys, &batch));
        consume(out);
    })
}
