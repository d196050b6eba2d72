//! The resolver of everything that the gateway looks up, listed domains and the hosts of senders' keys: hickory with
//! the settings that this use needs, every query counted, and plain answers.
//!
//! hickory's own defaults don't fit (hickory-resolver 0.26.3, `config.rs`): 5 s per try, the search domains of
//! resolv.conf, /etc/hosts, no 0x20 case randomisation, a cache of 8192 responses of up to 64 KiB each, two servers
//! asked at once, and up to three datagrams per try.

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, Stream, StreamExt};
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::udp::UdpClientStream;
use hickory_resolver::net::xfer::{DnsExchange, DnsHandle};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{DnsRequest, DnsResponse, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{ConnectionProvider, PoolContext};

use crate::admission::rate::RateLimit;
use crate::telemetry::metrics::{DnsMetrics, QueryOutcome};

/// For one try; there are up to three.
const TRY_TIMEOUT: Duration = Duration::from_millis(800);

/// Queries at once on one TCP connection: more than look-ups can be in flight, so that none is turned away as busy.
const TCP_REQUESTS: usize = 128;

/// Tries after the first one, which is how hickory counts.
const RETRIES: usize = 2;

/// The longest chain of aliases in one answer that is followed. The resolver made the chain; this bounds the work here.
const CHAIN_LIMIT: usize = 24;

/// The system's resolver settings (`/etc/resolv.conf`) can't be used.
#[derive(Debug, thiserror::Error)]
#[error("names have to be looked up, and the system's resolver can't be used ({0}); set RETRIEVE_DNS")]
pub struct ResolverError(#[from] NetError);

/// What a look-up found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// At least one value, and how long they hold.
    Found {
        /// The values.
        values: Vec<T>,
        /// How long they hold.
        ttl: Duration,
    },
    /// The name, or records of this type, don't exist: NXDOMAIN or no data.
    Nothing,
    /// No answer that could be relied on.
    Failed(String),
}

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

impl Family {
    /// An address's.
    pub fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

/// Asks the resolver of `RETRIEVE_DNS`, or the system's.
pub struct Resolver {
    inner: hickory_resolver::Resolver<Counted>,
}

impl Resolver {
    /// With a budget, a query waits until there is room for it.
    ///
    /// # Errors
    /// The system's settings can't be used.
    pub fn new(
        server: Option<SocketAddr>,
        budget: Option<Arc<RateLimit>>,
        metrics: &DnsMetrics,
    ) -> Result<Resolver, ResolverError> {
        let servers = match server {
            Some(server) => vec![name_server(server)],
            None => hickory_resolver::system_conf::read_system_conf()?.0.name_servers().to_vec(),
        };
        // Only the servers are taken over: no search domain, no other option.
        let config = ResolverConfig::from_name_servers(servers);
        let counted = Counted { runtime: TokioRuntimeProvider::default(), budget, metrics: metrics.clone() };
        let inner = hickory_resolver::Resolver::builder_with_config(config, counted)
            .with_options(options())
            .build()?;
        Ok(Resolver { inner })
    }

    /// The names that the address's holder gave it. Their text proves nothing.
    pub async fn pointers(&self, address: IpAddr) -> Answer<Name> {
        self.look_up(Name::from(address), RecordType::PTR, |data| match data {
            RData::PTR(name) => Some(name.0.clone()),
            _ => None,
        })
        .await
    }

    /// The addresses of a host name, which is a full one with or without the trailing dot.
    pub async fn addresses(&self, host: &str, family: Family) -> Answer<IpAddr> {
        let mut name = match Name::from_ascii(host) {
            Ok(name) => name,
            Err(error) => return Answer::Failed(error.to_string()),
        };
        name.set_fqdn(true);
        let record_type = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        let address = |data: &RData| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0).to_canonical()),
            _ => None,
        };
        self.look_up(name, record_type, address).await
    }

    async fn look_up<T>(
        &self,
        name: Name,
        record_type: RecordType,
        value: impl Fn(&RData) -> Option<T>,
    ) -> Answer<T> {
        match self.inner.lookup(name.clone(), record_type).await {
            Ok(lookup) if lookup.message().response_code != ResponseCode::NoError => {
                Answer::Failed(lookup.message().response_code.to_string())
            }
            Ok(lookup) => chained(&name, record_type, lookup.answers(), value),
            Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
            {
                Answer::Nothing
            }
            Err(error) => Answer::Failed(error.to_string()),
        }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

/// The records that belong to the name, through its aliases (RFC 1034, section 3.6.2; RFC 2317 for PTR). A record of
/// any other name in the answer counts for nothing.
fn chained<T>(
    name: &Name,
    record_type: RecordType,
    answers: &[Record],
    value: impl Fn(&RData) -> Option<T>,
) -> Answer<T> {
    let mut name = name.clone();
    let mut ttl = u32::MAX;
    for _ in 0..CHAIN_LIMIT {
        let records = || answers.iter().filter(|record| record.name == name);
        let wanted = records().filter(|record| record.record_type() == record_type);
        let (values, ttls): (Vec<T>, Vec<u32>) =
            wanted.filter_map(|record| Some((value(&record.data)?, record.ttl))).unzip();
        if !values.is_empty() {
            let ttl = ttls.into_iter().fold(ttl, u32::min);
            return Answer::Found { values, ttl: Duration::from_secs(ttl.into()) };
        }
        let alias = records().find_map(|record| match &record.data {
            RData::CNAME(target) => Some((target.0.clone(), record.ttl)),
            _ => None,
        });
        let Some((target, alias_ttl)) = alias else { return Answer::Nothing };
        ttl = ttl.min(alias_ttl);
        name = target;
    }
    Answer::Nothing
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let with_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = vec![with_port(ConnectionConfig::udp()), with_port(ConnectionConfig::tcp())];
    NameServerConfig::new(address.ip(), true, connections)
}

fn options() -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = TRY_TIMEOUT;
    options.attempts = RETRIES;
    options.case_randomization = true;
    options.use_hosts_file = ResolveHosts::Never;
    // The verdicts are cached (`reverse`), and so are the domains' addresses (`own`).
    options.cache_size = 0;
    options.num_concurrent_reqs = 1;
    options.max_active_requests = TCP_REQUESTS;
    options
}

/// Makes connections on which every query is counted, one datagram a try.
#[derive(Clone)]
struct Counted {
    runtime: TokioRuntimeProvider,
    budget: Option<Arc<RateLimit>>,
    metrics: DnsMetrics,
}

impl ConnectionProvider for Counted {
    type Conn = CountedConnection;
    type FutureConn = Pin<Box<dyn Future<Output = Result<CountedConnection, NetError>> + Send>>;
    type RuntimeProvider = TokioRuntimeProvider;

    fn new_connection(
        &self,
        ip: IpAddr,
        config: &ConnectionConfig,
        context: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        let Counted { runtime, budget, metrics } = self.clone();
        if let ProtocolConfig::Udp = config.protocol {
            let builder = UdpClientStream::builder(SocketAddr::new(ip, config.port), runtime)
                .with_timeout(Some(context.options.timeout))
                .with_max_retries(1);
            return Ok(Box::pin(async move {
                Ok(CountedConnection { exchange: builder.exchange(), budget, metrics })
            }));
        }
        let connecting = runtime.new_connection(ip, config, context)?;
        Ok(Box::pin(async move { Ok(CountedConnection { exchange: connecting.await?, budget, metrics }) }))
    }

    fn runtime_provider(&self) -> &TokioRuntimeProvider {
        &self.runtime
    }
}

#[derive(Clone)]
struct CountedConnection {
    exchange: DnsExchange<TokioRuntimeProvider>,
    budget: Option<Arc<RateLimit>>,
    metrics: DnsMetrics,
}

impl DnsHandle for CountedConnection {
    type Response = Pin<Box<dyn Stream<Item = Result<DnsResponse, NetError>> + Send>>;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let CountedConnection { exchange, budget, metrics } = self.clone();
        let sending = async move {
            // What was begun is finished, at the pace that is allowed; the look-up as a whole has a deadline.
            while let Some(Err(wait)) = budget.as_ref().map(|budget| budget.take(Instant::now())) {
                tokio::time::sleep(wait).await;
            }
            exchange.send(request)
        };
        let responses = stream::once(sending).flatten();
        Box::pin(responses.inspect(move |result| metrics.count_query(outcome(result))))
    }
}

fn outcome(result: &Result<DnsResponse, NetError>) -> QueryOutcome {
    match result {
        Ok(response) if response.truncation => QueryOutcome::Truncated,
        Ok(response) => match response.response_code {
            ResponseCode::NoError if response.contains_answer() => QueryOutcome::Answered,
            ResponseCode::NoError | ResponseCode::NXDomain => QueryOutcome::Nothing,
            _ => QueryOutcome::Failed,
        },
        Err(NetError::Timeout) => QueryOutcome::TimedOut,
        Err(_) => QueryOutcome::Failed,
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::rdata::{A, CNAME};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn a(owner: &str, address: [u8; 4]) -> Record {
        Record::from_rdata(name(owner), 60, RData::A(A(address.into())))
    }

    fn cname(owner: &str, target: &str) -> Record {
        Record::from_rdata(name(owner), 20, RData::CNAME(CNAME(name(target))))
    }

    fn addresses(answers: &[Record]) -> Answer<IpAddr> {
        chained(&name("a.example."), RecordType::A, answers, |data| match data {
            RData::A(address) => Some(address.0.into()),
            _ => None,
        })
    }

    #[test]
    fn only_records_of_the_name_and_its_aliases_count() {
        let found = |last: u8, ttl| Answer::Found {
            values: vec![IpAddr::from([192, 0, 2, last])],
            ttl: Duration::from_secs(ttl),
        };
        assert_eq!(addresses(&[a("A.Example.", [192, 0, 2, 1])]), found(1, 60));
        let beside = [a("b.example.", [192, 0, 2, 2]), a("a.example.", [192, 0, 2, 1])];
        assert_eq!(addresses(&beside), found(1, 60), "a record of another name is no answer");
        assert_eq!(addresses(&beside[..1]), Answer::Nothing);
        let alias = [a("b.example.", [192, 0, 2, 2]), cname("a.example.", "b.example.")];
        assert_eq!(addresses(&alias), found(2, 20), "in any order, with the alias's time");
        let circle = [cname("a.example.", "b.example."), cname("b.example.", "a.example.")];
        assert_eq!(addresses(&circle), Answer::Nothing);
    }

    #[test]
    fn a_chain_is_followed_up_to_its_limit() {
        let chain = |length: usize| {
            let host =
                |index: usize| if index == 0 { "a.example.".into() } else { format!("c{index}.example.") };
            let mut answers: Vec<Record> =
                (0..length).map(|index| cname(&host(index), &host(index + 1))).collect();
            answers.push(a(&host(length), [192, 0, 2, 1]));
            addresses(&answers)
        };
        assert!(matches!(chain(20), Answer::Found { .. }));
        assert_eq!(chain(CHAIN_LIMIT), Answer::Nothing);
    }
}
