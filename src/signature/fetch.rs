//! The worker that fetches senders' public keys: off the request's path, a few at a time, and only from the hosts
//! that [`KeyUrl`] pins.
//!
//! A verifier that lacks a key says so ([`super::Unverified::is_temporary`]) and goes on. The path may then wait a
//! moment for the worker, since a sender's first webhook would otherwise always be answered 503:
//!
//! ```text
//! let mut arrivals = keys.arrivals();                 // before the first look
//! let until = Instant::now() + KEY_WAIT;
//! loop { match verifier.verify(&request) {
//!     Err(unverified) if unverified.is_temporary() && arrivals.next(until).await => {}
//!     outcome => break outcome } }                    // still temporary: 503 with Retry-After
//! ```
//!
//! What a stranger can make it do: name keys that don't exist, on hosts that are pinned. So the cache holds a bounded
//! number of names, at most [`IN_FLIGHT_LIMIT`] are fetched at once and [`RATE`] begins, and a failed name rests.

mod ebay;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, StatusCode};
use http_body_util::Full;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

pub use self::ebay::EbayApplication;
use self::ebay::Tokens;
use super::keys::{DOCUMENT_LIMIT_BYTES, KeyCache, KeyHost, KeyUrl, is_sns_url};
use crate::admission::rate::{Rate, RateLimit};
use crate::outbound::{Bounds, Client, OutboundError};
use crate::telemetry::metrics::{FetchOutcome, KeyMetrics};

/// How long a request may wait for a key that is being fetched.
pub const KEY_WAIT: Duration = Duration::from_millis(50);

/// How many keys are fetched at once.
pub const IN_FLIGHT_LIMIT: usize = 4;

/// How many fetches begin: as a burst, and then one in its share of the time.
pub const RATE: Rate = Rate { count: NonZeroU32::MIN.saturating_add(15), per: Duration::from_secs(8) };

const BOUNDS: Bounds = Bounds { limit_bytes: DOCUMENT_LIMIT_BYTES, timeout: Duration::from_secs(5) };

/// How many confirmations may wait. Only the agreed topics' come here, and each waits for one exchange.
const CONFIRMATION_LIMIT: usize = 16;

/// The pauses before the attempts to visit a confirmation's URL: it has been answered 200, so nobody repeats it.
const CONFIRMATION_PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(2), Duration::from_secs(15), Duration::from_secs(60)];

/// What the path sees of the worker.
#[derive(Debug, Clone)]
pub struct Keys {
    cache: Arc<KeyCache>,
    arrived: watch::Receiver<u64>,
    confirmations: mpsc::Sender<String>,
}

/// The keys that arrive from now on.
#[derive(Debug)]
pub struct Arrivals(watch::Receiver<u64>);

impl Keys {
    /// The cache, for the verifiers.
    pub fn cache(&self) -> &Arc<KeyCache> {
        &self.cache
    }

    /// Begins to watch for keys. To be called before the cache is asked, or the key may come in between.
    pub fn arrivals(&self) -> Arrivals {
        let mut arrived = self.arrived.clone();
        arrived.mark_unchanged();
        Arrivals(arrived)
    }

    /// Has the URL of a [`crate::handshake::Notice::Confirm`] visited, in its time. False if too many wait already.
    pub fn confirm(&self, url: String) -> bool {
        self.confirmations.try_send(url).is_ok()
    }
}

impl Arrivals {
    /// Waits for the next key. False if none has come by then.
    pub async fn next(&mut self, until: Instant) -> bool {
        matches!(tokio::time::timeout_at(until, self.0.changed()).await, Ok(Ok(())))
    }
}

/// The worker.
#[derive(Debug)]
pub struct KeyFetcher {
    shared: Arc<Shared>,
    confirmations: mpsc::Receiver<String>,
    rate: RateLimit,
    /// Taken from the cache and not begun yet.
    waiting: VecDeque<KeyUrl>,
    running: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    cache: Arc<KeyCache>,
    client: Client,
    ebay: Option<Tokens>,
    arrived: watch::Sender<u64>,
    metrics: KeyMetrics,
}

/// Why a document didn't come.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    #[error("the answer was {0}")]
    Status(StatusCode),
    #[error("eBay gives keys to applications alone, and the settings name none")]
    NoApplication,
    #[error("eBay's answer to the application holds no token")]
    NoToken,
    #[error("the document holds no public key that can be read")]
    NoKey,
}

impl FetchError {
    fn outcome(&self) -> FetchOutcome {
        match self {
            FetchError::Outbound(OutboundError::Tls(_)) => FetchOutcome::Untrusted,
            FetchError::Outbound(_) => FetchOutcome::Unreachable,
            FetchError::Status(_) | FetchError::NoApplication | FetchError::NoToken => FetchOutcome::Refused,
            FetchError::NoKey => FetchOutcome::NoKey,
        }
    }
}

impl KeyFetcher {
    /// A worker that calls by this client, and what the path sees of it. eBay gives its keys only to an application.
    pub fn new(
        cache: Arc<KeyCache>,
        client: Client,
        ebay: Option<EbayApplication>,
        metrics: KeyMetrics,
    ) -> (Keys, KeyFetcher) {
        let (arrived, arrivals) = watch::channel(0);
        let (confirm, confirmations) = mpsc::channel(CONFIRMATION_LIMIT);
        let keys = Keys { cache: Arc::clone(&cache), arrived: arrivals, confirmations: confirm };
        let shared = Shared { cache, client, ebay: ebay.map(Tokens::new), arrived, metrics };
        let worker = KeyFetcher {
            shared: Arc::new(shared),
            confirmations,
            rate: RateLimit::new(RATE, Instant::now().into_std()),
            waiting: VecDeque::new(),
            running: JoinSet::new(),
        };
        (keys, worker)
    }

    /// Fetches what is wanted, for as long as it is polled.
    pub async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            let resume = self.begin();
            let has_room = self.running.len() < IN_FLIGHT_LIMIT;
            tokio::select! {
                () = shared.cache.wait() => self.waiting.extend(shared.cache.wanted(Timestamp::now())),
                Some(_) = self.running.join_next() => {}
                () = sleep_until(resume) => {}
                Some(url) = self.confirmations.recv(), if has_room => {
                    self.running.spawn(confirm(Arc::clone(&shared), url));
                }
            }
        }
    }

    /// Begins what may begin now. When the rate forbids the next one, the time at which it doesn't.
    fn begin(&mut self) -> Option<Instant> {
        while self.running.len() < IN_FLIGHT_LIMIT
            && let Some(url) = self.waiting.pop_front()
        {
            if let Err(wait) = self.rate.take(Instant::now().into_std()) {
                self.waiting.push_front(url);
                return Some(Instant::now() + wait);
            }
            self.running.spawn(fetch(Arc::clone(&self.shared), url));
        }
        None
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn fetch(shared: Arc<Shared>, url: KeyUrl) {
    let fetched = shared.fetch(&url).await;
    shared.metrics.count_fetch(
        url.host(),
        fetched.as_ref().map_or_else(FetchError::outcome, |()| FetchOutcome::Fetched),
    );
    match fetched {
        Ok(()) => {
            info!(url = url.as_str(), "a sender's public key has been fetched");
            shared.arrived.send_modify(|count| *count = count.wrapping_add(1));
        }
        Err(error) => {
            shared.cache.failed(&url, Timestamp::now());
            warn!(url = url.as_str(), %error, "a sender's public key can't be fetched");
        }
    }
}

impl Shared {
    async fn fetch(&self, url: &KeyUrl) -> Result<(), FetchError> {
        let document = match url.host() {
            KeyHost::Ebay => self.get_as_application(url).await?,
            KeyHost::AdobeIo | KeyHost::PayPal | KeyHost::Sns => self.get(request(url)).await?,
        };
        self.cache.insert(url, &document, Timestamp::now()).map_err(|_| FetchError::NoKey)
    }

    async fn get_as_application(&self, url: &KeyUrl) -> Result<Bytes, FetchError> {
        let tokens = self.ebay.as_ref().ok_or(FetchError::NoApplication)?;
        let authorization = tokens.authorization(&self.client).await?;
        let document = self.get(request(url).header(AUTHORIZATION, authorization)).await;
        if matches!(document, Err(FetchError::Status(StatusCode::UNAUTHORIZED))) {
            tokens.forget().await;
        }
        document
    }

    async fn get(&self, request: http::request::Builder) -> Result<Bytes, FetchError> {
        let request = request.body(Full::default()).map_err(|_| OutboundError::Url)?;
        let answer = self.client.exchange(request, BOUNDS).await?;
        if answer.status == StatusCode::OK { Ok(answer.body) } else { Err(FetchError::Status(answer.status)) }
    }
}

fn request(url: &KeyUrl) -> http::request::Builder {
    Request::get(url.as_str())
}

/// Visits the URL of a subscription that the settings name, a few times.
async fn confirm(shared: Arc<Shared>, url: String) {
    // The handshake has looked at it, and this is the last place before the network.
    if !is_sns_url(&url) {
        return warn!("a confirmation's URL isn't Amazon's");
    }
    for pause in CONFIRMATION_PAUSES {
        tokio::time::sleep(pause).await;
        match shared.get(Request::get(&url)).await {
            Ok(_) => return info!("a subscription has been confirmed"),
            Err(error) => warn!(%error, "a subscription can't be confirmed"),
        }
    }
}
