//! Outgoing HTTP: one request, one answer, bounded in bytes and in time. No redirect is followed, no proxy is asked.
//!
//! Who may be reached is decided on the address that is dialled and not on the name, and the address that was judged
//! is the one that is dialled: a name that resolves differently a moment later gains nothing.
//!
//! The gateway looks names up by its own resolver, which `RETRIEVE_DNS` names; `send` by the system's, as every other
//! program of the user's does.
//!
//! The roots are Mozilla's, compiled in: what is asked here are a few public hosts, and they are trusted for the same
//! reasons on every machine, also in a container without certificates. [`Trust::Only`] is for a private authority.

pub mod address;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue, USER_AGENT};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, crypto};
use tokio_util::task::AbortOnDropHandle;

use crate::resolver::{self, Family, Resolver};

/// How many of a name's addresses are tried.
const ADDRESS_LIMIT: usize = 4;
/// How long one address may take to accept a connection before the next is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Who may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Public addresses alone: for URLs that a stranger had a word in.
    Public,
    /// Any address: for URLs that the user wrote.
    Anywhere,
    /// Whatever the name, this address: a stand-in for a sender's host in tests. TLS still asks for the name.
    StandIn(SocketAddr),
}

/// Whose certificates count.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Mozilla's list.
    PublicRoots,
    /// These authorities and no other.
    Only(Vec<CertificateDer<'static>>),
}

/// Whom the gateway's own client trusts and reaches. No setting changes it: a test may put a stand-in in the senders'
/// place, an operator can't.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Whose certificates count.
    pub trust: Trust,
    /// Who may be reached.
    pub reach: Reach,
}

impl Default for Scope {
    fn default() -> Scope {
        Scope { trust: Trust::PublicRoots, reach: Reach::Public }
    }
}

/// The bounds of one exchange.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The largest answer's body in bytes.
    pub limit_bytes: usize,
    /// The longest time from the look-up of the name to the last byte.
    pub timeout: Duration,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer. No text of the answer is in it: what a refused host says is nobody's business.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The URL isn't one that can be called.
    #[error("it isn't an http or https URL with a host")]
    Url,
    /// The name couldn't be looked up.
    #[error("the name can't be looked up: {0}")]
    LookUp(String),
    /// The name has no address.
    #[error("the name has no address")]
    NoAddress,
    /// The name has addresses, and none of them is public.
    #[error("the name leads to no public address")]
    NotPublic,
    /// The name can't be looked up, or nobody accepts a connection.
    #[error("it can't be connected to: {0}")]
    Connect(#[source] std::io::Error),
    /// The certificate isn't trusted, or the peer speaks no TLS.
    #[error("TLS failed: {0}")]
    Tls(#[source] std::io::Error),
    /// The peer doesn't speak HTTP, or hung up.
    #[error("the exchange broke off: {0}")]
    Http(#[source] hyper::Error),
    /// The answer is longer than its limit in bytes.
    #[error("the answer is longer than {0} bytes")]
    TooLarge(usize),
    /// The exchange took longer than its time.
    #[error("there was no answer in {0:?}")]
    TooSlow(Duration),
}

/// A client. Every exchange has a connection of its own: the exchanges are rare.
#[derive(Clone)]
pub struct Client {
    tls: TlsConnector,
    reach: Reach,
    resolver: Option<Arc<Resolver>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Client").field("reach", &self.reach).finish_non_exhaustive()
    }
}

impl Client {
    /// A client.
    ///
    /// # Errors
    /// A certificate of [`Trust::Only`] can't be used.
    pub fn new(trust: Trust, reach: Reach) -> Result<Client, rustls::Error> {
        let mut roots = RootCertStore::empty();
        match trust {
            Trust::PublicRoots => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Trust::Only(certificates) => {
                for certificate in certificates {
                    roots.add(certificate)?;
                }
            }
        }
        // The provider is named here, since the process has no default one.
        let provider = Arc::new(crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Client { tls: TlsConnector::from(Arc::new(config)), reach, resolver: None })
    }

    /// The same client, with names looked up by this resolver instead of the system's.
    pub fn looking_up_by(self, resolver: Resolver) -> Client {
        Client { resolver: Some(Arc::new(resolver)), ..self }
    }

    /// Sends a request to the host of its URL and reads the answer to its end, whatever its status.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        bounds: Bounds,
    ) -> Result<Answer, OutboundError> {
        tokio::time::timeout(bounds.timeout, self.exchange_unbounded(request, bounds.limit_bytes))
            .await
            .map_err(|_| OutboundError::TooSlow(bounds.timeout))?
    }

    async fn exchange_unbounded(
        &self,
        request: Request<Full<Bytes>>,
        limit_bytes: usize,
    ) -> Result<Answer, OutboundError> {
        let target = Target::of(request.uri())?;
        let request = target.request(request)?;
        let stream = self.connect(&target).await?;
        if !target.is_tls {
            return converse(stream, request, limit_bytes).await;
        }
        let name = ServerName::try_from(target.host.clone()).map_err(|_| OutboundError::Url)?;
        let stream = self.tls.connect(name, stream).await.map_err(OutboundError::Tls)?;
        converse(stream, request, limit_bytes).await
    }

    async fn connect(&self, target: &Target) -> Result<TcpStream, OutboundError> {
        let mut failure = OutboundError::NoAddress;
        for address in self.addresses(target).await? {
            match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failure = OutboundError::Connect(error),
                Err(_) => failure = OutboundError::TooSlow(CONNECT_TIMEOUT),
            }
        }
        Err(failure)
    }

    async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, OutboundError> {
        if let Reach::StandIn(address) = self.reach {
            return Ok(vec![address]);
        }
        let found = match &self.resolver {
            Some(resolver) => look_up(resolver, target).await?,
            None => {
                let found = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
                found.map_err(OutboundError::Connect)?.collect()
            }
        };
        if found.is_empty() {
            return Err(OutboundError::NoAddress);
        }
        let may_reach = |ip: IpAddr| self.reach == Reach::Anywhere || address::is_public(ip);
        let mut allowed: Vec<SocketAddr> =
            found.into_iter().filter(|address| may_reach(address.ip())).collect();
        allowed.truncate(ADDRESS_LIMIT);
        if allowed.is_empty() { Err(OutboundError::NotPublic) } else { Ok(allowed) }
    }
}

/// The addresses of a name, those of IPv4 first: they are the ones that every network leads to.
async fn look_up(by: &Resolver, target: &Target) -> Result<Vec<SocketAddr>, OutboundError> {
    if let Ok(address) = target.host.parse() {
        return Ok(vec![SocketAddr::new(address, target.port)]);
    }
    let families = [Family::V4, Family::V6].map(|family| by.addresses(&target.host, family));
    let (mut found, mut failure) = (Vec::new(), None);
    for answer in futures_util::future::join_all(families).await {
        match answer {
            resolver::Answer::Found { values, .. } => found.extend(values),
            resolver::Answer::Nothing => {}
            resolver::Answer::Failed(error) => failure = Some(OutboundError::LookUp(error)),
        }
    }
    match failure {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found.into_iter().map(|address| SocketAddr::new(address, target.port)).collect()),
    }
}

/// Where a URL leads.
struct Target {
    is_tls: bool,
    host: String,
    port: u16,
}

impl Target {
    fn of(url: &Uri) -> Result<Target, OutboundError> {
        let (is_tls, port) = match url.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            _ => return Err(OutboundError::Url),
        };
        let authority = url.authority().ok_or(OutboundError::Url)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        // A user name in a URL is how one host is made to look like another.
        if host.is_empty() || authority.as_str().contains('@') {
            return Err(OutboundError::Url);
        }
        Ok(Target { is_tls, host, port: authority.port_u16().unwrap_or(port) })
    }

    /// The request with a path as its target and the headers that every request has.
    fn request(&self, request: Request<Full<Bytes>>) -> Result<Request<Full<Bytes>>, OutboundError> {
        let (mut head, body) = request.into_parts();
        let authority = head.uri.authority().map_or("", http::uri::Authority::as_str);
        let host = HeaderValue::from_str(authority).map_err(|_| OutboundError::Url)?;
        head.headers.insert(HOST, host);
        let agent = HeaderValue::from_static(concat!("retrieve-gateway/", env!("CARGO_PKG_VERSION")));
        head.headers.entry(USER_AGENT).or_insert(agent);
        let path = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        head.uri = path.parse().map_err(|_| OutboundError::Url)?;
        Ok(Request::from_parts(head, body))
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
    limit_bytes: usize,
) -> Result<Answer, OutboundError> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(OutboundError::Http)?;
    // The connection ends with this function, in whichever way that ends.
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let (head, body) = sender.send_request(request).await.map_err(OutboundError::Http)?.into_parts();
    let collected = Limited::new(body, limit_bytes).collect().await;
    let body = collected.map_err(|error| match error.downcast::<hyper::Error>() {
        Ok(error) => OutboundError::Http(*error),
        Err(other) => {
            debug_assert!(other.is::<LengthLimitError>());
            OutboundError::TooLarge(limit_bytes)
        }
    })?;
    Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
}

#[cfg(test)]
pub(crate) mod stand_in;
#[cfg(test)]
mod tests;
