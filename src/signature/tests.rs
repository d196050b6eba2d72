//! Whole requests through whole verifiers: published vectors, single-byte changes, malformed and random signatures.

mod malformed;
mod random;
mod vectors;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Uri};
use jiff::Timestamp;
use serde::Deserialize;

use super::keys::{KeyCache, KeyUrl};
use super::*;
use crate::source::{Preset, preset};

/// The fixture file; see its `about`.
#[derive(Deserialize)]
pub(crate) struct Fixture {
    pub requests: Vec<Sample>,
    pub primitives: Vec<Primitive>,
}

/// A request as its sender makes it.
#[derive(Deserialize, Clone, Debug)]
pub(crate) struct Sample {
    pub preset: String,
    pub origin: String,
    pub source: String,
    pub secrets: Vec<String>,
    #[serde(default = "post")]
    pub method: String,
    #[serde(default = "uri")]
    pub uri: String,
    pub public_url: Option<String>,
    pub now: String,
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    pub body: String,
    pub body_base64: Option<String>,
    /// The text in which every byte counts.
    pub signature: String,
    #[serde(default)]
    pub keys: BTreeMap<String, String>,
}

#[derive(Deserialize)]
pub(crate) struct Primitive {
    pub name: String,
    pub algorithm: String,
    pub key: String,
    pub secret: String,
    #[serde(default)]
    pub id: String,
    #[serde(default)]
    pub time: String,
    pub message: String,
    pub encoding: String,
    pub expected: String,
}

fn post() -> String {
    "POST".to_owned()
}

fn uri() -> String {
    "/integration/demo".to_owned()
}

pub(crate) fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../../tests/it/fixtures/signatures/vectors.json")).unwrap()
}

/// A request in the types of the path.
#[derive(Clone)]
pub(crate) struct Parts {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub now: Timestamp,
    pub public_url: Option<String>,
}

impl Parts {
    pub fn request(&self) -> SignedRequest<'_> {
        SignedRequest {
            method: &self.method,
            uri: &self.uri,
            headers: &self.headers,
            body: &self.body,
            now: self.now,
            public_url: self.public_url.as_deref(),
        }
    }

    pub fn reason(&self, verifier: &Verifier) -> Option<Reason> {
        verifier.verify(&self.request()).err().map(|unverified| unverified.reason())
    }

    pub fn set(&mut self, name: &str, value: &[u8]) {
        let name: HeaderName = name.parse().unwrap();
        self.headers.insert(name, HeaderValue::from_bytes(value).unwrap());
    }
}

impl Sample {
    pub fn preset(&self) -> &'static Preset {
        preset(&self.preset).unwrap_or_else(|| panic!("no preset {}", self.preset))
    }

    pub fn now(&self) -> Timestamp {
        self.now.parse().unwrap()
    }

    pub fn body(&self) -> Bytes {
        match &self.body_base64 {
            Some(encoded) => STANDARD.decode(encoded).unwrap().into(),
            None => self.body.clone().into(),
        }
    }

    pub fn parts(&self) -> Parts {
        let mut parts = Parts {
            method: self.method.parse().unwrap(),
            uri: self.uri.parse().unwrap(),
            headers: HeaderMap::new(),
            body: self.body(),
            now: self.now(),
            public_url: self.public_url.clone(),
        };
        for (name, value) in &self.headers {
            parts.set(name, value.as_bytes());
        }
        parts
    }

    pub fn secrets(&self) -> Vec<SecretString> {
        self.secrets.iter().map(|secret| secret.as_str().into()).collect()
    }

    pub fn keys(&self) -> Arc<KeyCache> {
        let cache = KeyCache::default();
        for (name, document) in &self.keys {
            let (host, name) = name.split_once(':').unwrap();
            let url = match host {
                "adobe" => KeyUrl::adobe_io(name),
                "paypal" => KeyUrl::paypal(name),
                "sns" => KeyUrl::sns(name),
                _ => KeyUrl::ebay(name),
            };
            cache.insert(&url.unwrap(), document.as_bytes(), self.now()).unwrap();
        }
        Arc::new(cache)
    }

    /// Published vectors have short secrets, which [`Verifier::new`] refuses.
    pub fn verifier(&self, secrets: &[SecretString]) -> Result<Verifier, Vec<SecretError>> {
        Verifier::of_any_length(&self.preset().scheme, secrets, &self.keys())
    }

    pub fn signed_verifier(&self) -> Verifier {
        self.verifier(&self.secrets()).unwrap()
    }
}
