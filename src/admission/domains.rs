//! Domain entries: to which listed domains an address is proven to belong, by DNS alone.
//!
//! Two proofs, tried in this order after the entries that need no look-up:
//! 1. **The domain's own addresses** (`own`): a worker keeps the A and AAAA answers of every entry such as
//!    `shopify.com` fresh; a request looks into a table and causes no query.
//! 2. **Forward-confirmed reverse DNS** (`reverse`): a PTR name of the address lies under a listed domain on a label
//!    boundary, and that name resolves back to the address. Only who holds the domain can make both true; the PTR
//!    name alone is its address holder's own text.
//!
//! What can't be decided in time is [`Finding::Undecided`], never an admission. Without a domain entry nothing of this
//! is built.

mod bounded;
mod index;
mod own;
mod reverse;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use self::index::Index;
use self::own::{OwnAddresses, Table};
use self::reverse::Reverse;
use crate::admission::allowlist::{Allowlist, Rule};
use crate::admission::rate::RateLimit;
use crate::resolver::{Resolver, ResolverError};
use crate::telemetry::metrics::DnsMetrics;

pub use self::own::{OwnTimes, Worker};
pub use self::reverse::ReverseLimits;

/// How domains are looked up.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `RETRIEVE_DNS`: the resolver to ask; none for the system's.
    pub resolver: Option<SocketAddr>,
    /// The times of the domains' own addresses.
    pub own: OwnTimes,
    /// The limits of reverse DNS.
    pub reverse: ReverseLimits,
}

/// What the look-ups say of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding<'a> {
    /// It belongs to a listed domain.
    Rule(&'a Rule),
    /// It belongs to none.
    Nothing,
    /// That can't be said now.
    Undecided,
}

/// The domains of one app's lists, its own and its integrations'.
#[derive(Debug)]
pub struct Domains {
    own: Arc<OwnAddresses>,
    reverse: Arc<Reverse>,
    metrics: DnsMetrics,
    stop: CancellationToken,
}

impl Domains {
    /// The domains of these lists, and the worker that keeps their addresses fresh. None if no list has a domain.
    ///
    /// # Errors
    /// The system's resolver settings can't be used.
    pub fn new<'a>(
        lists: impl IntoIterator<Item = &'a Allowlist>,
        settings: &Settings,
        metrics: &DnsMetrics,
    ) -> Result<Option<(Domains, Worker)>, ResolverError> {
        let index = Arc::new(Index::new(lists.into_iter().flat_map(Allowlist::domains)));
        if index.is_empty() {
            return Ok(None);
        }
        // One resolver's queries are counted against a limit, the other's aren't: strangers can't use up what the
        // listed domains need. Neither has a cache, so that the second costs nothing.
        let budget = Arc::new(RateLimit::new(settings.reverse.queries, Instant::now()));
        let refreshing = Resolver::new(settings.resolver, None, metrics)?;
        let limited = Resolver::new(settings.resolver, Some(Arc::clone(&budget)), metrics)?;
        let stop = CancellationToken::new();
        let own = Arc::new(OwnAddresses::new(index.with_own_addresses(), settings.own, metrics.clone()));
        let worker = Worker::new(Arc::clone(&own), refreshing, stop.clone());
        let reverse = Reverse::new(limited, index, budget, settings.reverse, metrics.clone());
        Ok(Some((Domains { own, reverse: Arc::new(reverse), metrics: metrics.clone(), stop }, worker)))
    }

    /// Looks for a domain entry of these lists that the address is proven to belong to. What is looked up doesn't
    /// depend on which of the lists are asked, so that neither the time nor the answer tells whose domains they hold.
    pub async fn prove<'a>(
        &self,
        lists: impl Iterator<Item = &'a Allowlist> + Clone,
        address: IpAddr,
        now: Instant,
    ) -> Finding<'a> {
        let address = address.to_canonical();
        let by_owner =
            |table: &Table| lists.clone().find_map(|list| list.rule_for_owner(table.owners(address, now)));
        if let Some(rule) = by_owner(&self.own.table()) {
            return Finding::Rule(rule);
        }
        let verdict = self.reverse.verdict(address, now).await;
        let confirmed = || verdict.confirmed.iter().map(AsRef::as_ref);
        let rule = lists.clone().find_map(|list| list.rule_for_confirmed(confirmed()));
        // The worker may have learnt something while this waited, at the start above all.
        let table = self.own.table();
        match rule.or_else(|| by_owner(&table)) {
            Some(rule) => Finding::Rule(rule),
            None if verdict.is_complete && table.is_settled() => Finding::Nothing,
            None => {
                self.metrics.undecided.inc();
                Finding::Undecided
            }
        }
    }

    /// Whether every domain's own addresses were looked up, the last time with an answer.
    pub fn is_settled(&self) -> bool {
        self.own.table().is_settled()
    }

    /// How many addresses have a cached verdict.
    pub fn cached_verdicts(&self) -> usize {
        self.reverse.cached()
    }

    /// Ends the worker.
    pub fn close(&self) {
        self.stop.cancel();
    }
}

impl Drop for Domains {
    fn drop(&mut self) {
        self.close();
    }
}

/// Whether an address from DNS, or of a caller, can stand for a remote host at all. Filtering resolvers answer
/// blocked names with 0.0.0.0 or 127.0.0.1; that must not admit whoever comes through a proxy on this machine.
fn is_provable(address: IpAddr) -> bool {
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast())
        && address != IpAddr::V4(std::net::Ipv4Addr::BROADCAST)
}
