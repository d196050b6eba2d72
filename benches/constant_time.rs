//! Whether the time of a refusal tells how near a guess was: dudect's test (Reparaz, Balasch and Verbauwhede, "Dude, is
//! my code constant time?", 2017) on whole verifiers.
//!
//! Two classes of wrong requests in random order: guesses that are right but for their last byte, and random ones.
//! Welch's t of their times, also without the slowest ones, which are interrupts rather than code. |t| < 4.5 with a
//! million of each means that no difference was seen.
//!
//! `cargo bench --bench constant_time [-- SAMPLES]`; exits 1 if a difference was seen. The first line is the proof that
//! the test can see one: a comparison that stops at the first wrong byte.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use jiff::Timestamp;
use retrieve_gateway::signature::sign::{Delivery, sign};
use retrieve_gateway::signature::{SignedRequest, Verifier};
use retrieve_gateway::source::preset;

/// |t| from which on a difference is believed.
const LIMIT: f64 = 4.5;
/// Different guesses of a class; both classes have as many, in as many places of memory.
const POOL: usize = 1024;
const SECRET: &str = "a-secret-of-thirty-two-bytes-012";

/// A generator that is the same in every run (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^ (value >> 31)
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// Guesses of both classes.
struct Guesses([Vec<HeaderMap>; 2]);

impl Guesses {
    fn new(name: &'static str, near: &str, far: impl FnMut() -> String) -> Guesses {
        let map = |value: String| {
            let value = HeaderValue::from_str(&value).unwrap();
            HeaderMap::from_iter([(HeaderName::from_static(name), value)])
        };
        let near = std::iter::repeat_with(|| map(near.to_owned())).take(POOL).collect();
        Guesses([near, std::iter::repeat_with(far).map(map).take(POOL).collect()])
    }
}

/// The times of a class, in nanoseconds.
type Times = Vec<u32>;

fn measure(
    samples: usize,
    random: &mut Random,
    guesses: &Guesses,
    mut refuse: impl FnMut(&HeaderMap),
) -> [Times; 2] {
    let mut times = [Vec::with_capacity(samples), Vec::with_capacity(samples)];
    let mut place = 0;
    while times.iter().any(|times| times.len() < samples) {
        let class = (random.next() & 1) as usize;
        place = (place + 1) % POOL;
        let headers = black_box(&guesses.0[class][place]);
        let begin = Instant::now();
        refuse(headers);
        let nanos = u32::try_from(begin.elapsed().as_nanos()).unwrap_or(u32::MAX);
        if times[class].len() < samples {
            times[class].push(nanos);
        }
    }
    times
}

/// Welch's t of the times up to a limit.
fn welch(times: &[Times; 2], limit: u32) -> f64 {
    let [first, second] = times.each_ref().map(|times| {
        let kept: Vec<f64> =
            times.iter().filter(|nanos| **nanos <= limit).map(|nanos| f64::from(*nanos)).collect();
        let count = kept.len() as f64;
        let mean = kept.iter().sum::<f64>() / count;
        let variance = kept.iter().map(|nanos| (nanos - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    });
    (first.0 - second.0) / (first.1 + second.1).sqrt()
}

/// The t furthest from zero, of all times and of those below some percentiles of both classes together.
fn report(name: &str, times: &[Times; 2]) -> f64 {
    let mut all: Times = times.iter().flatten().copied().collect();
    all.sort_unstable();
    let percentiles = [50, 75, 90, 95, 99].map(|percent| all[(all.len() - 1) * percent / 100]);
    let limits = percentiles.into_iter().chain([u32::MAX]);
    let t = limits
        .map(|limit| welch(times, limit))
        .max_by(|one, other| one.abs().total_cmp(&other.abs()))
        .unwrap();
    let median = all[all.len() / 2];
    println!("{name}: |t| = {:.2}, median {median} ns, {} samples of each class", t.abs(), times[0].len());
    t.abs()
}

fn request<'r>(headers: &'r HeaderMap, uri: &'r Uri, body: &'r Bytes, now: Timestamp) -> SignedRequest<'r> {
    SignedRequest { method: &Method::POST, uri, headers, body, now, public_url: None }
}

/// A guess with another last byte.
fn nearly(mut right: Vec<u8>) -> Vec<u8> {
    *right.last_mut().unwrap() ^= 1;
    right
}

fn main() {
    let samples = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(1_000_000);
    let mut random = Random(20_251_210);
    let (uri, now) = (Uri::from_static("/integration/demo"), Timestamp::now());
    let body = Bytes::from_static(b"{\"id\":820982911946154508}");

    let long = SECRET.repeat(8);
    let near = String::from_utf8(nearly(long.clone().into_bytes())).unwrap();
    let guesses = Guesses::new("x-api-key", &near, || hex::encode(random.bytes(long.len() / 2)));
    let seen = measure(samples / 10, &mut Random(1), &guesses, |headers| {
        let given = headers["x-api-key"].as_bytes();
        let equal = given.iter().zip(long.as_bytes()).all(|(given, secret)| black_box(given) == secret);
        black_box(equal);
    });
    let control = report("control, a comparison that stops early", &seen);

    let shopify = preset("shopify").unwrap();
    let verifier = Verifier::new(&shopify.scheme, &[SECRET.into()], &Arc::default()).unwrap();
    let none = HeaderMap::new();
    let delivery = Delivery { id: "", spelling: "x-shopify-" };
    let proof = sign(&shopify.scheme, &SECRET.into(), &request(&none, &uri, &body, now), delivery).unwrap();
    let code = STANDARD.decode(proof.headers[0].1.as_bytes()).unwrap();
    let near = STANDARD.encode(nearly(code));
    let guesses = Guesses::new("x-shopify-hmac-sha256", &near, || STANDARD.encode(random.bytes(32)));
    let times = measure(samples, &mut Random(2), &guesses, |headers| {
        assert!(black_box(verifier.verify(&request(headers, &uri, &body, now))).is_err());
    });
    let hmac = report("HMAC-SHA-256 (shopify)", &times);

    let verifier =
        Verifier::new(&preset("api-key").unwrap().scheme, &[SECRET.into()], &Arc::default()).unwrap();
    let near = String::from_utf8(nearly(SECRET.as_bytes().to_vec())).unwrap();
    let guesses = Guesses::new("x-api-key", &near, || hex::encode(random.bytes(SECRET.len() / 2)));
    let times = measure(samples, &mut Random(3), &guesses, |headers| {
        assert!(black_box(verifier.verify(&request(headers, &uri, &body, now))).is_err());
    });
    let credential = report("static credential (api-key)", &times);

    let is_blind = control < LIMIT;
    if is_blind {
        println!("the control's difference wasn't seen: this run proves nothing");
    }
    std::process::exit(i32::from(is_blind || hmac >= LIMIT || credential >= LIMIT));
}
