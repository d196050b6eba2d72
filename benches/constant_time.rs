//! Whether the time of a refusal tells how near a guess was: dudect's test (Reparaz, Balasch and Verbauwhede, "Dude, is
//! my code constant time?", 2017) on whole verifiers.
//!
//! Two classes of wrong requests in random order: guesses that are right but for the last bit, and such as would be
//! right for another body or secret.
//! Welch's t of their times, also without the slowest ones, which are interrupts rather than code. |t| < 4.5 with a
//! million of each means that no difference was seen.
//!
//! `cargo bench --bench constant_time [-- SAMPLES]`; exits 1 if a difference was seen. The first line is the proof that
//! the test can see one: a comparison that stops at the first wrong byte.

#![allow(clippy::panic, clippy::unwrap_used, clippy::print_stdout, missing_docs)]

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

use self::random::Random;

#[path = "../tests/it/support/random.rs"]
mod random;

/// |t| from which on a difference is believed.
const LIMIT: f64 = 4.5;
/// Guesses that are made before anything is measured.
const POOL: usize = 4096;
const SECRET: &str = "a-secret-of-thirty-two-bytes-012";

/// A wrong request, and what refuses it.
struct Guess {
    is_near: bool,
    headers: HeaderMap,
    body: Bytes,
    secret: String,
    verifier: Verifier,
}

/// Guesses of both classes, in random order: where one lies in memory tells nothing of its class. Both are equally
/// random texts, or it would be seen that one text comes again and again; only what they have in common with the right
/// answer differs. `make` gives a body, a secret, its verifier, the header's name and its right value as bytes.
fn guesses(
    random: &mut Random,
    make: &impl Fn(&mut Random) -> (Guess, HeaderName, Vec<u8>),
    encode: fn(Vec<u8>) -> String,
) -> Vec<Guess> {
    let mut one = || {
        let (mut guess, name, mut right) = make(random);
        let other = make(random).2;
        guess.is_near = random.next() & 1 == 0;
        *right.last_mut().unwrap() ^= 1;
        let value = encode(if guess.is_near { right } else { other });
        guess.headers.insert(name, HeaderValue::from_str(&value).unwrap());
        guess
    };
    (0..POOL).map(|_| one()).collect()
}

/// The times of a class, in nanoseconds.
type Times = Vec<u32>;

fn measure(
    samples: usize,
    random: &mut Random,
    make: impl Fn(&mut Random) -> (Guess, HeaderName, Vec<u8>),
    encode: fn(Vec<u8>) -> String,
    mut refuse: impl FnMut(&Guess),
) -> [Times; 2] {
    let mut times = [Vec::with_capacity(samples), Vec::with_capacity(samples)];
    while times.iter().any(|times| times.len() < samples) {
        // New places in memory again and again: that a place is a slow one mustn't add up to a difference.
        let guesses = guesses(random, &make, encode);
        for _ in 0..4 * POOL {
            let guess = black_box(&guesses[random.next() as usize % POOL]);
            let begin = Instant::now();
            refuse(guess);
            let nanos = u32::try_from(begin.elapsed().as_nanos()).unwrap_or(u32::MAX);
            let times = &mut times[usize::from(guess.is_near)];
            if times.len() < samples {
                times.push(nanos);
            }
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
    // Where a percentile leaves a class empty, the others tell.
    let t = limits
        .map(|limit| welch(times, limit))
        .filter(|t| !t.is_nan())
        .max_by(|one, other| one.abs().total_cmp(&other.abs()))
        .unwrap();
    let median = all[all.len() / 2];
    println!("{name}: |t| = {:.2}, median {median} ns, {} samples of each class", t.abs(), times[0].len());
    t.abs()
}

fn request<'r>(headers: &'r HeaderMap, uri: &'r Uri, body: &'r Bytes, now: Timestamp) -> SignedRequest<'r> {
    SignedRequest { method: &Method::POST, uri, headers, body, now, public_url: None }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn main() {
    let samples = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(1_000_000);
    let mut random = Random::new(20_251_210);
    let (uri, now) = (Uri::from_static("/integration/demo"), Timestamp::now());
    let verify = |guess: &Guess| {
        let request = request(&guess.headers, &uri, &guess.body, now);
        assert!(black_box(guess.verifier.verify(&request)).is_err());
    };

    let api_key = preset("api-key").unwrap();
    let credential = |random: &mut Random| {
        let secret = hex::encode(random.bytes(16));
        let verifier = Verifier::new(&api_key.scheme, &[secret.as_str().into()], &Arc::default()).unwrap();
        let right = secret.clone().into_bytes();
        let guess = Guess { is_near: false, headers: HeaderMap::new(), body: Bytes::new(), secret, verifier };
        (guess, HeaderName::from_static("x-api-key"), right)
    };
    let times = measure(samples / 10, &mut random, credential, text, |guess| {
        let given = guess.headers["x-api-key"].as_bytes();
        let equal =
            given.iter().zip(guess.secret.as_bytes()).all(|(given, secret)| black_box(given) == secret);
        black_box(equal);
    });
    let seen = report("control, a comparison that stops early", &times);

    let shopify = preset("shopify").unwrap();
    let verifier = Verifier::new(&shopify.scheme, &[SECRET.into()], &Arc::default()).unwrap();
    let signed = |random: &mut Random| {
        let body = Bytes::from(format!("{{\"id\":\"{}\"}}", hex::encode(random.bytes(16))));
        let none = HeaderMap::new();
        let delivery = Delivery { id: "", spelling: "x-shopify-" };
        let proof =
            sign(&shopify.scheme, &SECRET.into(), &request(&none, &uri, &body, now), delivery).unwrap();
        let (name, value) = proof.headers[0].clone();
        let right = STANDARD.decode(value.as_bytes()).unwrap();
        let (secret, verifier) = (String::new(), verifier.clone());
        (Guess { is_near: false, headers: HeaderMap::new(), body, secret, verifier }, name, right)
    };
    let hmac = measure(samples, &mut random, signed, |code| STANDARD.encode(code), verify);
    let hmac = report("HMAC-SHA-256 (shopify)", &hmac);
    let credential = measure(samples, &mut random, credential, text, verify);
    let credential = report("static credential (api-key)", &credential);

    let is_blind = seen < LIMIT;
    if is_blind {
        println!("the control's difference wasn't seen: this run proves nothing");
    }
    std::process::exit(i32::from(is_blind || hmac >= LIMIT || credential >= LIMIT));
}
