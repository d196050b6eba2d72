//! Public keys that a request names: where they may come from, and a cache that answers at once.
//!
//! A verifier never waits. It asks the [`KeyCache`]; a key that isn't there is noted as wanted, and the request is
//! answered 503, which every sender of this kind repeats. [`super::fetch`] fetches:
//!
//! ```text
//! loop { cache.wait().await; for url in cache.wanted(now) { match get(url) {
//!     Ok(document) => cache.insert(&url, &document, now), Err(_) => cache.failed(&url, now) } } }
//! ```
//!
//! What the fetcher must keep: HTTPS with public roots, no redirect (it would leave the pinned host), a document
//! of at most [`DOCUMENT_LIMIT_BYTES`], a deadline. That a key came from its sender's host by TLS is all that makes it
//! trustworthy. For tests it may connect elsewhere: the [`KeyUrl`] stays the same.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelValue;
use serde::Deserialize;
use tokio::sync::Notify;

use super::public_key::PublicKey;
use super::reason::Reason;

/// The largest document that holds a key.
pub const DOCUMENT_LIMIT_BYTES: usize = 64 << 10;

/// How many keys are kept. Senders have a handful; a flood of made-up names on a pinned host fills no more than this.
pub const KEY_LIMIT: usize = 64;

/// How long a key is used: Adobe allows a day, eBay asks for an hour.
const FRESH: Duration = Duration::from_secs(3600);
/// How long a key is used beyond that while it can't be fetched again: a sender's outage shouldn't become ours.
const STALE: Duration = Duration::from_secs(23 * 3600);
/// How long a fetch may take before it is wanted again, and how long a failed one rests.
const RETRY: Duration = Duration::from_secs(30);

/// Who owns the host of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum KeyHost {
    /// `static.adobeioevents.com`
    AdobeIo,
    /// `api.paypal.com` and `api.sandbox.paypal.com`
    PayPal,
    /// `sns.<region>.amazonaws.com` and `.com.cn`
    Sns,
    /// `api.ebay.com`; a fetch needs the application's OAuth token.
    Ebay,
}

/// A URL on its sender's own host. Only the rules of this module make one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyUrl {
    host: KeyHost,
    url: Box<str>,
}

impl KeyUrl {
    /// Whose it is.
    pub fn host(&self) -> KeyHost {
        self.host
    }

    /// The URL, always `https`.
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// Adobe I/O Events name only a path: `/prod/keys/pub-key-<uuid>.pem` (Adobe's guide to webhooks).
    ///
    /// # Errors
    /// Another shape, such as a whole URL.
    pub fn adobe_io(path: &str) -> Result<KeyUrl, Reason> {
        let file = path.strip_prefix("/prod/keys/").or_else(|| path.strip_prefix("/stage/keys/"));
        if !file.is_some_and(|file| is_file(file) && file.ends_with(".pem")) {
            return Err(Reason::KeyUrlRefused);
        }
        Ok(KeyUrl { host: KeyHost::AdobeIo, url: format!("https://static.adobeioevents.com{path}").into() })
    }

    /// PayPal's certificates: `https://api.paypal.com/v1/notifications/certs/…` and the sandbox's.
    ///
    /// # Errors
    /// Another scheme, host or path.
    pub fn paypal(url: &str) -> Result<KeyUrl, Reason> {
        let (host, path) = split(url)?;
        let is_file = path.strip_prefix("/v1/notifications/certs/").is_some_and(is_file);
        if !is_file || !matches!(host, "api.paypal.com" | "api.sandbox.paypal.com") {
            return Err(Reason::KeyUrlRefused);
        }
        Ok(KeyUrl { host: KeyHost::PayPal, url: url.into() })
    }

    /// Amazon's certificates: `https://sns.<region>.amazonaws.com/….pem`, the rule of `aws-php-sns-message-validator`.
    ///
    /// # Errors
    /// Another scheme, host or path.
    pub fn sns(url: &str) -> Result<KeyUrl, Reason> {
        let (host, path) = split(url)?;
        let is_file = path.strip_prefix('/').is_some_and(|file| is_file(file) && file.ends_with(".pem"));
        if !is_sns_host(host) || !is_file {
            return Err(Reason::KeyUrlRefused);
        }
        Ok(KeyUrl { host: KeyHost::Sns, url: url.into() })
    }

    /// eBay names only a key's id (`event-notification-nodejs-sdk`).
    ///
    /// # Errors
    /// An id with other characters than a UUID's.
    pub fn ebay(key_id: &str) -> Result<KeyUrl, Reason> {
        let is_id = (1..=64).contains(&key_id.len())
            && key_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !is_id {
            return Err(Reason::KeyUrlRefused);
        }
        let url = format!("https://api.ebay.com/commerce/notification/v1/public_key/{key_id}");
        Ok(KeyUrl { host: KeyHost::Ebay, url: url.into() })
    }
}

/// The hosts of Amazon SNS, by the rule of `aws-php-sns-message-validator`.
fn is_sns_host(host: &str) -> bool {
    let domain = host.strip_suffix(".amazonaws.com").or_else(|| host.strip_suffix(".amazonaws.com.cn"));
    domain.and_then(|domain| domain.strip_prefix("sns.")).is_some_and(|region| {
        region.len() >= 3 && region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

/// Whether a URL leads to a host of Amazon SNS, by `https`, and has no character that a log or a header would take for
/// something else. For the links that confirm a subscription.
pub fn is_sns_url(url: &str) -> bool {
    let is_link = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?&=%+".contains(&byte);
    let host = split(url).map(|(host, _)| host);
    host.is_ok_and(is_sns_host) && url.len() <= 2048 && url.bytes().all(is_link)
}

/// Host and path of an `https` URL. The host is whatever stands before the first slash, and every rule compares it
/// whole: a port, a user name or an upper-case letter makes it another one.
fn split(url: &str) -> Result<(&str, &str), Reason> {
    let rest = url.strip_prefix("https://").ok_or(Reason::KeyUrlRefused)?;
    Ok(rest.split_at(rest.find('/').ok_or(Reason::KeyUrlRefused)?))
}

/// One path segment of characters that mean nothing in a URL, so that it can't lead elsewhere (`..`, `%2e`, `?`, `@`).
fn is_file(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !text.starts_with('.')
        && !text.contains("..")
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// The keys that are here, and those that are wanted.
#[derive(Default)]
pub struct KeyCache {
    entries: Mutex<HashMap<KeyUrl, Entry>>,
    wants: Notify,
}

#[derive(Default)]
struct Entry {
    key: Option<Arc<PublicKey>>,
    /// Milliseconds since 1970, as all of these.
    fetched: i64,
    asked: i64,
    /// Before this nothing is fetched again.
    rests_until: i64,
    is_wanted: bool,
}

impl KeyCache {
    /// The key behind a URL if it is here. Otherwise, and when it is getting old, the URL is noted as wanted.
    pub fn key(&self, url: &KeyUrl, now: Timestamp) -> Option<Arc<PublicKey>> {
        let now = now.as_millisecond();
        let mut entries = self.lock();
        if !entries.contains_key(url) && !make_room(&mut entries) {
            return None;
        }
        let entry = entries.entry(url.clone()).or_default();
        entry.asked = now;
        let age = now.saturating_sub(entry.fetched);
        if entry.key.is_none() || age > millis(FRESH) {
            entry.is_wanted = true;
            self.wants.notify_one();
        }
        entry.key.clone().filter(|_| age <= millis(FRESH + STALE))
    }

    /// Waits until a key is wanted.
    pub async fn wait(&self) {
        self.wants.notified().await;
    }

    /// The URLs to fetch now. Each rests until it is inserted, or fails, or takes too long.
    pub fn wanted(&self, now: Timestamp) -> Vec<KeyUrl> {
        let now = now.as_millisecond();
        let mut entries = self.lock();
        let due = entries.iter_mut().filter(|(_, entry)| entry.is_wanted && entry.rests_until <= now);
        due.map(|(url, entry)| {
            entry.rests_until = now.saturating_add(millis(RETRY));
            url.clone()
        })
        .collect()
    }

    /// Takes a fetched document: PEM, or eBay's JSON around it.
    ///
    /// # Errors
    /// The document holds no key; then the URL rests as after [`KeyCache::failed`].
    pub fn insert(&self, url: &KeyUrl, document: &[u8], now: Timestamp) -> Result<(), NoKey> {
        let Some(key) = read(url.host, document) else {
            self.failed(url, now);
            return Err(NoKey);
        };
        let fetched = now.as_millisecond();
        let mut entries = self.lock();
        if entries.contains_key(url) || make_room(&mut entries) {
            let entry =
                Entry { key: Some(Arc::new(key)), fetched, asked: fetched, rests_until: 0, is_wanted: false };
            entries.insert(url.clone(), entry);
        }
        Ok(())
    }

    /// Notes that a fetch failed, so that it isn't tried again at once.
    pub fn failed(&self, url: &KeyUrl, now: Timestamp) {
        if let Some(entry) = self.lock().get_mut(url) {
            entry.is_wanted = false;
            entry.rests_until = now.as_millisecond().saturating_add(millis(RETRY));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<KeyUrl, Entry>> {
        // The map is whole between any two statements, so a panic elsewhere leaves nothing half done.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets the name without a key that was asked for longest ago. A key that is here is never given up for a new
/// name, or whoever invents names could push the real ones out.
fn make_room(entries: &mut HashMap<KeyUrl, Entry>) -> bool {
    if entries.len() < KEY_LIMIT {
        return true;
    }
    let empty = entries.iter().filter(|(_, entry)| entry.key.is_none());
    let oldest = empty.min_by_key(|(_, entry)| entry.asked).map(|(url, _)| url.clone());
    oldest.is_some_and(|url| entries.remove(&url).is_some())
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn read(host: KeyHost, document: &[u8]) -> Option<PublicKey> {
    #[derive(Deserialize)]
    struct Ebay {
        key: String,
    }
    if document.len() > DOCUMENT_LIMIT_BYTES {
        return None;
    }
    match host {
        KeyHost::Ebay => {
            let Ebay { key } = serde_json::from_slice(document).ok()?;
            // eBay's key comes on one line; the reader of PEM doesn't mind.
            PublicKey::from_pem(&key)
        }
        KeyHost::AdobeIo | KeyHost::PayPal | KeyHost::Sns => {
            PublicKey::from_pem(std::str::from_utf8(document).ok()?)
        }
    }
}

/// A fetched document holds no key that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the document holds no public key that can be read")]
pub struct NoKey;

impl fmt::Debug for KeyCache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KeyCache").field("entries", &self.lock().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "-----BEGIN PUBLIC KEY-----MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEZhhxXKtR+TOvtDbgTPCkSof02qgBB7IsYOyf76ilExJ/upAa/vKIKheOoCyOpcLmi4t0b4uepb7LLjmMr90FUg==-----END PUBLIC KEY-----";

    #[test]
    fn a_key_comes_from_its_senders_host_alone() {
        let sns = "https://sns.us-west-2.amazonaws.com/SimpleNotificationService-0.pem";
        for url in [sns, "https://sns.cn-north-1.amazonaws.com.cn/x.pem"] {
            assert_eq!(KeyUrl::sns(url).as_ref().map(KeyUrl::as_str), Ok(url));
        }
        for url in [
            "http://sns.us-west-2.amazonaws.com/x.pem",
            "https://sns.us-west-2.amazonaws.com.evil.tld/x.pem",
            "https://sns.us-west-2.amazonaws.com:8443/x.pem",
            "https://user@sns.us-west-2.amazonaws.com/x.pem",
            "https://evil.tld/sns.us-west-2.amazonaws.com/x.pem",
            "https://evil.tld#sns.us-west-2.amazonaws.com/x.pem",
            "https://evil.tld?sns.us-west-2.amazonaws.com/x.pem",
            "https://sns.evil.tld.amazonaws.com/x.pem",
            "https://sns..amazonaws.com/x.pem",
            "https://xsns.us-west-2.amazonaws.com/x.pem",
            "https://bucket.s3.us-west-2.amazonaws.com/x.pem",
            "https://SNS.us-west-2.amazonaws.com/x.pem",
            "https://sns.us-west-2.amazonaws.com/a/x.pem",
            "https://sns.us-west-2.amazonaws.com/x.pem?a=.pem",
            "https://sns.us-west-2.amazonaws.com/x.txt",
            "https://sns.us-west-2.amazonaws.com/",
            "https://sns.us-west-2.amazonaws.com",
            "https:///x.pem",
            " https://sns.us-west-2.amazonaws.com/x.pem",
            "",
        ] {
            assert_eq!(KeyUrl::sns(url), Err(Reason::KeyUrlRefused), "{url}");
        }
    }

    #[test]
    fn the_other_senders_rules_are_as_strict() {
        assert!(KeyUrl::paypal("https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1-2").is_ok());
        for url in [
            "https://api.paypal.com/v1/notifications/certs/",
            "https://api.paypal.com/v1/notifications/certs/../../x",
            "https://api.paypal.com/v1/notifications/certs/..",
            "https://api.paypal.com/v1/notifications/certs/%2e%2e",
            "https://api.paypal.com/other/x",
            "https://api.paypal.com.evil.tld/v1/notifications/certs/x",
            "https://www.paypal.com/v1/notifications/certs/x",
            "http://api.paypal.com/v1/notifications/certs/x",
        ] {
            assert_eq!(KeyUrl::paypal(url), Err(Reason::KeyUrlRefused), "{url}");
        }
        let adobe = KeyUrl::adobe_io("/prod/keys/pub-key-3fVj0Lv0QB.pem").unwrap();
        assert_eq!(adobe.as_str(), "https://static.adobeioevents.com/prod/keys/pub-key-3fVj0Lv0QB.pem");
        for path in [
            "https://evil.tld/prod/keys/x.pem",
            "//evil.tld/prod/keys/x.pem",
            "@evil.tld/prod/keys/x.pem",
            ".evil.tld/prod/keys/x.pem",
            "/prod/keys/../x.pem",
            "/prod/keys/a/x.pem",
            "/prod/keys/x.txt",
            "/prod/keys/.pem",
            "prod/keys/x.pem",
        ] {
            assert_eq!(KeyUrl::adobe_io(path), Err(Reason::KeyUrlRefused), "{path}");
        }
        assert!(KeyUrl::ebay("9936261a-7d7b-4621-a0f1-96ccb428af49").is_ok());
        for id in ["", "a/b", "..", "a?b", "a%2Fb", &"a".repeat(65)] {
            assert_eq!(KeyUrl::ebay(id), Err(Reason::KeyUrlRefused), "{id}");
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn url(name: usize) -> KeyUrl {
        KeyUrl::sns(&format!("https://sns.us-west-2.amazonaws.com/{name}.pem")).unwrap()
    }

    #[tokio::test]
    async fn a_key_that_is_missing_is_wanted_once() {
        let cache = KeyCache::default();
        assert_eq!(cache.wanted(at(0)), []);
        assert!(cache.key(&url(1), at(0)).is_none());
        assert!(cache.key(&url(1), at(0)).is_none());
        cache.wait().await;
        assert_eq!(cache.wanted(at(0)), [url(1)]);
        assert_eq!(cache.wanted(at(1)), [], "it is being fetched");
        cache.failed(&url(1), at(2));
        assert!(cache.key(&url(1), at(3)).is_none());
        assert_eq!(cache.wanted(at(3)), [], "a failure rests");
        assert_eq!(cache.wanted(at(32)), [url(1)]);
        assert_eq!(cache.insert(&url(1), b"<html>", at(33)), Err(NoKey));
        assert_eq!(cache.insert(&url(1), KEY.as_bytes(), at(70)), Ok(()));
        assert!(cache.key(&url(1), at(71)).is_some());
        assert_eq!(cache.wanted(at(71)), []);
    }

    #[test]
    fn an_old_key_is_used_while_it_is_fetched_again() {
        let cache = KeyCache::default();
        cache.insert(&url(1), KEY.as_bytes(), at(0)).unwrap();
        assert!(cache.key(&url(1), at(3601)).is_some());
        assert_eq!(cache.wanted(at(3601)), [url(1)]);
        assert!(cache.key(&url(1), at(86_400)).is_some());
        assert!(cache.key(&url(1), at(86_401)).is_none());
    }

    #[test]
    fn made_up_names_push_no_key_out() {
        let cache = KeyCache::default();
        cache.insert(&url(0), KEY.as_bytes(), at(0)).unwrap();
        for name in 1..10_000 {
            assert!(cache.key(&url(name), at(1)).is_none());
        }
        assert_eq!(cache.lock().len(), KEY_LIMIT);
        assert!(cache.key(&url(0), at(2)).is_some());
        assert_eq!(cache.wanted(at(2)).len(), KEY_LIMIT - 1);
    }

    #[test]
    fn documents_are_read_as_their_senders_write_them() {
        let ebay = format!("{{\"key\":\"{KEY}\",\"algorithm\":\"ECDSA\"}}");
        assert!(read(KeyHost::Ebay, ebay.as_bytes()).is_some());
        assert!(read(KeyHost::Ebay, KEY.as_bytes()).is_none());
        assert!(read(KeyHost::Sns, KEY.as_bytes()).is_some());
        assert!(read(KeyHost::Sns, b"\xFF").is_none());
        let long = KEY.to_owned() + &" ".repeat(DOCUMENT_LIMIT_BYTES);
        assert!(read(KeyHost::Sns, long.as_bytes()).is_none());
    }
}
