//! The domains' own addresses: kept fresh in the background, read from a table.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::is_provable;
use crate::admission::allowlist::Domain;
use crate::resolver::{Answer, Family, Resolver};
use crate::telemetry::metrics::DnsMetrics;

/// When a domain's addresses are looked up again, and how long they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnTimes {
    /// The shortest time between two look-ups, however short the answer's TTL is.
    pub ttl_min: Duration,
    /// The longest, however long the TTL is: how late a change may be noticed.
    pub ttl_max: Duration,
    /// How long an address holds after an answer that doesn't name it any more.
    pub margin: Duration,
    /// How long the last good answer holds, beyond its TTL, when look-ups fail.
    pub grace: Duration,
    /// The time until the next look-up after one that failed.
    pub retry: Duration,
}

impl Default for OwnTimes {
    fn default() -> Self {
        OwnTimes {
            ttl_min: Duration::from_secs(30),
            ttl_max: Duration::from_secs(300),
            margin: Duration::from_secs(30),
            grace: Duration::from_secs(3600),
            retry: Duration::from_secs(5),
        }
    }
}

/// The most addresses that are kept of one answer.
const ADDRESSES_LIMIT: usize = 1024;

/// How many domains are looked up at once.
const REFRESHES_AT_ONCE: usize = 8;

/// How many addresses a log line names.
const LOGGED_ADDRESSES: usize = 8;

/// Whose address is whose; immutable.
#[derive(Debug, Default)]
pub(super) struct Table {
    owners: HashMap<IpAddr, Vec<Owner>>,
    unsettled: bool,
}

#[derive(Debug)]
struct Owner {
    domain: Arc<Domain>,
    until: Instant,
}

impl Table {
    /// The domains whose address this is. A time that has run out ends it, even if nothing refreshes the table.
    pub(super) fn owners(&self, address: IpAddr, now: Instant) -> impl Iterator<Item = &Domain> {
        let owners = self.owners.get(&address).into_iter().flatten();
        owners.filter(move |owner| now < owner.until).map(|owner| &*owner.domain)
    }

    /// Whether every domain's last look-up had an answer, be it that there are no addresses. Otherwise a stranger may
    /// well be a domain's new address.
    pub(super) fn is_settled(&self) -> bool {
        !self.unsettled
    }
}

/// What is known of one domain.
#[derive(Debug)]
struct Known {
    domain: Arc<Domain>,
    addresses: HashMap<IpAddr, Held>,
    status: Status,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    until: Instant,
    /// Whether the latest answer of its family named it.
    is_current: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// Never looked up.
    Unknown,
    Resolved,
    /// Answered with no address.
    Empty,
    Failing,
}

/// What a look-up changed.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    before: Status,
    added: Vec<IpAddr>,
    removed: Vec<IpAddr>,
    /// There were more addresses than are kept.
    cut: bool,
    /// There were addresses that stand for no remote host.
    unusable: bool,
}

impl Known {
    /// Takes in the answers for both families. Returns the time until the next look-up.
    fn learn(&mut self, answers: &[Answer<IpAddr>; 2], now: Instant, times: &OwnTimes) -> (Duration, Change) {
        let mut change = Change {
            before: self.status,
            added: Vec::new(),
            removed: Vec::new(),
            cut: false,
            unusable: false,
        };
        self.addresses.retain(|_, held| now < held.until);
        let ttl = answers.iter().filter_map(|answer| match answer {
            Answer::Found { ttl, .. } => Some(*ttl),
            Answer::Nothing | Answer::Failed(_) => None,
        });
        let Some(ttl) = ttl.min() else {
            let failed = answers.iter().any(|answer| matches!(answer, Answer::Failed(_)));
            self.status = if failed { Status::Failing } else { Status::Empty };
            // A domain without addresses may be meant so (googlebot.com); one that had some is more likely broken.
            let is_lost = failed || self.addresses.values().any(|held| held.is_current);
            return (if is_lost { times.retry } else { times.ttl_min }, change);
        };
        let delay = ttl.clamp(times.ttl_min, times.ttl_max);
        for (family, answer) in [Family::V4, Family::V6].into_iter().zip(answers) {
            match answer {
                Answer::Found { values, .. } => {
                    self.replace(family, values, now, now + delay + times.grace, times, &mut change);
                }
                Answer::Nothing => self.replace(family, &[], now, now, times, &mut change),
                // One family's failure says nothing about its addresses, nor about the other's.
                Answer::Failed(_) => {}
            }
        }
        self.status = Status::Resolved;
        (delay, change)
    }

    fn replace(
        &mut self,
        family: Family,
        values: &[IpAddr],
        now: Instant,
        until: Instant,
        times: &OwnTimes,
        change: &mut Change,
    ) {
        let mut leaving: Vec<IpAddr> = Vec::new();
        for (address, held) in &mut self.addresses {
            if Family::of(*address) == family && held.is_current {
                *held = Held { until: held.until.min(now + times.margin), is_current: false };
                leaving.push(*address);
            }
        }
        change.cut |= values.len() > ADDRESSES_LIMIT;
        change.unusable |= !values.iter().all(|address| is_provable(*address));
        for address in values.iter().take(ADDRESSES_LIMIT).filter(|address| is_provable(**address)) {
            let before = self.addresses.insert(*address, Held { until, is_current: true });
            if before.is_none() {
                change.added.push(*address);
            }
        }
        let is_gone = |address: &IpAddr| self.addresses.get(address).is_none_or(|held| !held.is_current);
        change.removed.extend(leaving.into_iter().filter(is_gone));
    }
}

/// All domains' own addresses.
#[derive(Debug)]
pub(super) struct OwnAddresses {
    table: RwLock<Arc<Table>>,
    known: Mutex<Vec<Known>>,
    times: OwnTimes,
    metrics: DnsMetrics,
}

impl OwnAddresses {
    pub(super) fn new(domains: Vec<Arc<Domain>>, times: OwnTimes, metrics: DnsMetrics) -> OwnAddresses {
        let unsettled = !domains.is_empty();
        let known = domains
            .into_iter()
            .map(|domain| Known { domain, addresses: HashMap::new(), status: Status::Unknown })
            .collect();
        let table = Table { owners: HashMap::new(), unsettled };
        OwnAddresses { table: RwLock::new(Arc::new(table)), known: Mutex::new(known), times, metrics }
    }

    /// The table as it is now.
    pub(super) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn learn(&self, index: usize, answers: &[Answer<IpAddr>; 2]) -> Duration {
        let now = Instant::now();
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = all.get_mut(index) else { return self.times.ttl_max };
        let (delay, change) = known.learn(answers, now, &self.times);
        if known.status == Status::Failing || (known.status == Status::Empty && !known.addresses.is_empty()) {
            self.metrics.refresh_failures.inc();
        }
        report(known, &change, answers);
        let table = table_of(&all, now);
        self.metrics.addresses.set(table.owners.len() as i64);
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        delay
    }
}

fn table_of(all: &[Known], now: Instant) -> Table {
    let mut table = Table::default();
    for known in all {
        table.unsettled |= matches!(known.status, Status::Unknown | Status::Failing);
        for (address, held) in known.addresses.iter().filter(|(_, held)| now < held.until) {
            let owner = Owner { domain: Arc::clone(&known.domain), until: held.until };
            table.owners.entry(*address).or_default().push(owner);
        }
    }
    table
}

/// A line when a domain begins to fail, when it recovers, and when its addresses change.
fn report(known: &Known, change: &Change, answers: &[Answer<IpAddr>; 2]) {
    let domain = known.domain.name.as_str();
    let kept = known.addresses.len();
    let shown = |addresses: &[IpAddr]| format!("{:?}", &addresses[..addresses.len().min(LOGGED_ADDRESSES)]);
    if change.before == known.status && change.added.is_empty() && change.removed.is_empty() {
        return;
    }
    if change.cut {
        warn!(domain, limit = ADDRESSES_LIMIT, "the domain has more addresses than are kept");
    }
    if change.unusable {
        warn!(domain, "the domain names this machine itself, or no host; such addresses admit nobody");
    }
    match (change.before, known.status) {
        (_, Status::Failing) => {
            let why = answers.iter().find_map(|answer| match answer {
                Answer::Failed(why) => Some(why.as_str()),
                Answer::Found { .. } | Answer::Nothing => None,
            });
            warn!(domain, why, kept, "the domain can't be resolved; its last addresses are kept for a while");
        }
        (_, Status::Empty) if kept > 0 => {
            warn!(domain, kept, "the domain has no address any more; its last ones are kept for a while");
        }
        (_, Status::Empty) => {
            info!(domain, "the domain has no address of its own; only reverse DNS can admit its callers");
        }
        (Status::Unknown, _) => info!(domain, addresses = shown(&change.added), "the domain was resolved"),
        (before, _) => {
            let (added, removed) = (shown(&change.added), shown(&change.removed));
            if before != Status::Resolved {
                info!(domain, added, removed, "the domain can be resolved again");
            } else {
                info!(domain, added, removed, "the domain's addresses changed");
            }
        }
    }
}

/// Keeps the domains' own addresses fresh until it is stopped.
#[derive(Debug)]
pub struct Worker {
    own: Arc<OwnAddresses>,
    resolver: Resolver,
    stop: CancellationToken,
    at_once: Semaphore,
}

impl Worker {
    pub(super) fn new(own: Arc<OwnAddresses>, resolver: Resolver, stop: CancellationToken) -> Worker {
        Worker { own, resolver, stop, at_once: Semaphore::new(REFRESHES_AT_ONCE) }
    }

    /// Runs until [`super::Domains::close`].
    pub async fn run(self) {
        let names: Vec<String> = {
            let known = self.own.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.iter().map(|known| known.domain.name.clone()).collect()
        };
        let refreshing = join_all(names.iter().enumerate().map(|(index, name)| self.refresh(index, name)));
        tokio::select! {
            () = self.stop.cancelled() => {}
            // Entries such as *.example.org alone have no addresses to refresh.
            _ = refreshing, if !names.is_empty() => {}
        }
    }

    /// Looks one domain up for ever.
    async fn refresh(&self, index: usize, name: &str) {
        loop {
            let answers = {
                let _place = self.at_once.acquire().await;
                let (v4, v6) = tokio::join!(
                    self.resolver.addresses(name, Family::V4),
                    self.resolver.addresses(name, Family::V6),
                );
                [v4, v6]
            };
            tokio::time::sleep(self.own.learn(index, &answers)).await;
        }
    }
}

#[cfg(test)]
mod tests;
