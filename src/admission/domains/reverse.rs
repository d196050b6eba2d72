//! Forward-confirmed reverse DNS: the names of an address, of which one lies under a listed domain and resolves back.
//!
//! The look-up that a stranger causes is bounded in every way: how long a request waits, how many run, how many queries
//! they send in a second, how many verdicts are kept. Beyond a bound the caller is undecided.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::debug;

use super::bounded::Bounded;
use super::index::{Index, host_name};
use super::is_provable;
use crate::admission::allowlist::Domain;
use crate::admission::rate::{Rate, RateLimit};
use crate::resolver::{Answer, Family, Resolver};
use crate::telemetry::metrics::{DnsMetrics, QueryOutcome};

/// The limits of reverse DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReverseLimits {
    /// How long a request waits for its caller's look-up, which goes on without it.
    pub patience: Duration,
    /// The longest time for a whole look-up.
    pub look_up_timeout: Duration,
    /// How many queries may be sent. A period is a tenth of a second, so that the burst is small.
    pub queries: Rate,
    /// How many look-ups may run; each has one query under way at a time.
    pub in_flight: usize,
    /// The shortest time for which a proof holds, however short its TTL is.
    pub proof_min: Duration,
    /// The longest, however long the TTL is.
    pub proof_max: Duration,
    /// How long an address is known to belong to no domain; for IPv6 its /64.
    pub refusal: Duration,
    /// How many verdicts are kept: one half for proofs, one for refusals, so that refusals never push out proofs.
    pub verdicts: usize,
}

impl Default for ReverseLimits {
    fn default() -> Self {
        ReverseLimits {
            patience: Duration::from_millis(50),
            look_up_timeout: Duration::from_secs(5),
            queries: Rate { count: NonZeroU32::MIN.saturating_add(19), per: Duration::from_millis(100) },
            in_flight: 64,
            proof_min: Duration::from_secs(30),
            proof_max: Duration::from_secs(3600),
            refusal: Duration::from_secs(60),
            verdicts: 100_000,
        }
    }
}

/// The most PTR names of an address that are looked at; an address has one, as a rule.
const NAMES_LIMIT: usize = 8;

/// In the last tenth of a proof's time a request has it renewed, without waiting.
const RENEWAL_PART: u32 = 10;

/// What reverse DNS says of an address.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    /// The entries that it is proven to belong to.
    pub(super) confirmed: Arc<[Arc<Domain>]>,
    /// Whether it is certain that it belongs to no other one.
    pub(super) is_complete: bool,
}

impl Verdict {
    fn refused() -> Verdict {
        Verdict { confirmed: Arc::default(), is_complete: true }
    }

    fn undecided() -> Verdict {
        Verdict { confirmed: Arc::default(), is_complete: false }
    }
}

#[derive(Debug)]
struct Proven {
    verdict: Verdict,
    renew_at: Instant,
    until: Instant,
}

#[derive(Debug)]
struct State {
    proofs: Bounded<IpAddr, Proven>,
    refusals: Bounded<IpAddr, Instant>,
    pending: HashMap<IpAddr, watch::Receiver<Option<Verdict>>>,
}

/// Looks up the names of callers.
#[derive(Debug)]
pub(super) struct Reverse {
    resolver: Resolver,
    index: Arc<Index>,
    budget: Arc<RateLimit>,
    limits: ReverseLimits,
    state: Mutex<State>,
    metrics: DnsMetrics,
}

impl Reverse {
    pub(super) fn new(
        resolver: Resolver,
        index: Arc<Index>,
        budget: Arc<RateLimit>,
        limits: ReverseLimits,
        metrics: DnsMetrics,
    ) -> Reverse {
        let state = State {
            proofs: Bounded::new(limits.verdicts / 2),
            refusals: Bounded::new(limits.verdicts / 2),
            pending: HashMap::new(),
        };
        Reverse { resolver, index, budget, limits, state: Mutex::new(state), metrics }
    }

    /// What is known of the address, or becomes known within the patience of one request.
    pub(super) async fn verdict(self: &Arc<Self>, address: IpAddr, now: Instant) -> Verdict {
        if !is_provable(address) {
            return Verdict::refused();
        }
        let mut pending = match self.known(address, now) {
            Ok(verdict) => return verdict,
            Err(None) => return Verdict::undecided(),
            Err(Some(pending)) => pending,
        };
        let waiting = tokio::time::timeout(self.limits.patience, pending.wait_for(Option::is_some));
        match waiting.await {
            Ok(Ok(verdict)) => verdict.clone().unwrap_or_else(Verdict::undecided),
            // Too slow, or the look-up's task is gone.
            _ => Verdict::undecided(),
        }
    }

    pub(super) fn cached(&self) -> usize {
        let state = self.state();
        state.proofs.len() + state.refusals.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cached verdict, or the look-up to wait for; neither if no look-up can be begun now.
    #[allow(clippy::type_complexity)]
    fn known(
        self: &Arc<Self>,
        address: IpAddr,
        now: Instant,
    ) -> Result<Verdict, Option<watch::Receiver<Option<Verdict>>>> {
        let mut state = self.state();
        let proof = state.proofs.get(&address);
        let proof = proof.map(|proven| (proven.verdict.clone(), proven.renew_at, proven.until));
        match proof {
            Some((verdict, renew_at, until)) if now < until => {
                if renew_at <= now {
                    let _ = self.begin(&mut state, address, now);
                }
                return Ok(verdict);
            }
            // It was proven once: a neighbour's refusal doesn't count against it.
            Some(_) => {}
            None => {
                if state.refusals.get(&neighbourhood(address)).is_some_and(|until| now < *until) {
                    return Ok(Verdict::refused());
                }
            }
        }
        Err(self.begin(&mut state, address, now))
    }

    /// Joins the look-up of this address, or begins one.
    fn begin(
        self: &Arc<Self>,
        state: &mut State,
        address: IpAddr,
        now: Instant,
    ) -> Option<watch::Receiver<Option<Verdict>>> {
        if let Some(pending) = state.pending.get(&address) {
            return Some(pending.clone());
        }
        if state.pending.len() >= self.limits.in_flight || !self.budget.has_room(now) {
            self.metrics.count_query(QueryOutcome::OverLimit);
            return None;
        }
        let (sender, receiver) = watch::channel(None);
        state.pending.insert(address, receiver.clone());
        let look_up = PendingLookUp { reverse: Arc::clone(self), address };
        tokio::spawn(async move {
            let verdict = look_up.run().await;
            // Forgets the look-up, then wakes who waits for it.
            drop(look_up);
            sender.send_replace(Some(verdict));
        });
        Some(receiver)
    }

    async fn look_up(&self, address: IpAddr) -> (Verdict, Duration) {
        let (names, mut ttl) = match self.resolver.pointers(address).await {
            Answer::Found { values, ttl } => (values, ttl),
            Answer::Nothing => return (Verdict::refused(), Duration::ZERO),
            Answer::Failed(why) => {
                debug!(%address, why, "the names of an address can't be looked up");
                return (Verdict::undecided(), Duration::ZERO);
            }
        };
        let mut confirmed: Vec<Arc<Domain>> = Vec::new();
        let mut is_complete = true;
        for host in names.iter().take(NAMES_LIMIT).filter_map(host_name) {
            let mut domains = self.index.covering(&host);
            domains.retain(|domain| !confirmed.contains(domain));
            if domains.is_empty() {
                continue;
            }
            match self.resolver.addresses(&host, Family::of(address)).await {
                Answer::Found { values, ttl: forward_ttl } if values.contains(&address) => {
                    ttl = ttl.min(forward_ttl);
                    confirmed.append(&mut domains);
                }
                Answer::Found { .. } | Answer::Nothing => {}
                Answer::Failed(why) => {
                    debug!(%address, host, why, "a name of an address can't be looked up");
                    is_complete = false;
                }
            }
        }
        (Verdict { confirmed: confirmed.into(), is_complete }, ttl)
    }

    fn store(&self, address: IpAddr, verdict: &Verdict, ttl: Duration) {
        let now = Instant::now();
        let mut state = self.state();
        if !verdict.confirmed.is_empty() {
            // What may not be all is asked for again soon.
            let ttl = if verdict.is_complete { ttl } else { Duration::ZERO };
            let holds = ttl.clamp(self.limits.proof_min, self.limits.proof_max);
            let renew_at = now + holds - holds / RENEWAL_PART;
            state.proofs.insert(address, Proven { verdict: verdict.clone(), renew_at, until: now + holds });
        } else if verdict.is_complete {
            state.proofs.remove(&address);
            state.refusals.insert(neighbourhood(address), now + self.limits.refusal);
        }
        self.metrics.verdicts.set((state.proofs.len() + state.refusals.len()) as i64);
    }
}

/// A look-up under way. It stops being that when it is dropped, in whichever way it ends.
struct PendingLookUp {
    reverse: Arc<Reverse>,
    address: IpAddr,
}

impl PendingLookUp {
    async fn run(&self) -> Verdict {
        let looking_up = self.reverse.look_up(self.address);
        let in_time = tokio::time::timeout(self.reverse.limits.look_up_timeout, looking_up).await;
        let Ok((verdict, ttl)) = in_time else { return Verdict::undecided() };
        self.reverse.store(self.address, &verdict, ttl);
        verdict
    }
}

impl Drop for PendingLookUp {
    fn drop(&mut self) {
        self.reverse.state().pending.remove(&self.address);
    }
}

/// What a refusal stands for: an IPv4 address, or an IPv6 /64, within which one host can take any address (RFC 4291,
/// section 2.5.1: interface identifiers have 64 bits).
fn neighbourhood(address: IpAddr) -> IpAddr {
    const HOST_BITS: u32 = 64;
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> HOST_BITS << HOST_BITS).into(),
    }
}
