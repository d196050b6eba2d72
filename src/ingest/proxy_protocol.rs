//! The PROXY protocol: a trusted TCP proxy names the client before the first byte of HTTP.
//!
//! It is required of trusted proxies and believed of nobody else: never guessed, because a header that is only perhaps
//! there would be the sender's to write. After HAProxy's `proxy-protocol.txt`, versions 1 and 2.

pub mod header;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tracing::{debug, warn};

use self::header::{Header, Unreadable, parse};
use crate::admission::networks::NetworkTable;
use crate::telemetry::metrics::ConnectionMetrics;

/// A listener that requires PROXY headers.
#[derive(Clone, Debug)]
pub struct ProxyProtocol {
    /// Who has to send one; a connection of anybody else is plain HTTP.
    pub trusted: Arc<NetworkTable<()>>,
    /// The longest time for a header, from the connection's begin.
    pub timeout: Duration,
}

/// Who a connection speaks for, and the bytes that came behind the header: they belong to HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identified {
    /// The client, or the socket's peer.
    pub peer: SocketAddr,
    /// Read already, and not part of the header.
    pub unread: Bytes,
}

impl ProxyProtocol {
    /// Reads the header of a connection, if its peer has to send one. None if the connection is to be closed.
    pub async fn identify(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        peer: SocketAddr,
        metrics: &ConnectionMetrics,
    ) -> Option<Identified> {
        if !self.trusted.contains(peer.ip()) {
            return Some(Identified { peer, unread: Bytes::new() });
        }
        let reading = tokio::time::timeout(self.timeout, read(stream));
        match reading.await.unwrap_or(Err(Refusal::Timeout)) {
            Ok((header, unread)) => Some(Identified { peer: header.source.unwrap_or(peer), unread }),
            // That is how balancers probe whether a port is open.
            Err(Refusal::Silent) => {
                debug!(%peer, "a trusted proxy closed its connection without a word");
                None
            }
            Err(refusal) => {
                metrics.count_proxy_header(refusal.code());
                warn!(%peer, reason = refusal.code(), "closed the connection of a trusted proxy: {refusal}");
                None
            }
        }
    }
}

/// Why a connection is closed before any HTTP.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("its PROXY header didn't arrive in time")]
    Timeout,
    #[error("it ended within its PROXY header")]
    Incomplete,
    #[error("it ended before its first byte")]
    Silent,
}

impl Refusal {
    fn code(&self) -> &'static str {
        match self {
            Refusal::Unreadable(unreadable) => unreadable.code(),
            Refusal::Timeout => "timeout",
            Refusal::Incomplete => "incomplete",
            Refusal::Silent => "silent",
        }
    }
}

/// The parser bounds what is held: it refuses a header as soon as it is, or says that it will be, too long.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<(Header, Bytes), Refusal> {
    const READ_BYTES: usize = 1 << 10;
    let mut bytes = BytesMut::with_capacity(READ_BYTES);
    loop {
        // A connection that breaks off has ended, too.
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return Err(if bytes.is_empty() { Refusal::Silent } else { Refusal::Incomplete });
        }
        if let Some(header) = parse(&bytes)? {
            bytes.advance(header.length_bytes);
            return Ok((header, bytes.freeze()));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    const HEADER: &[u8] = b"PROXY TCP4 203.0.113.5 192.0.2.1 4711 8080\r\n";

    fn proxy_protocol() -> ProxyProtocol {
        let mut trusted = NetworkTable::default();
        trusted.insert("10.0.0.0/8".parse().unwrap(), ());
        ProxyProtocol { trusted: Arc::new(trusted), timeout: Duration::from_secs(60) }
    }

    /// Gives the pieces one after the other, then the end.
    async fn identify(peer: &str, pieces: Vec<Vec<u8>>) -> Option<Identified> {
        let (mut near, mut far) = tokio::io::duplex(8);
        let sending = async move {
            for piece in pieces {
                // Whoever refuses doesn't read to the end.
                let _ = far.write_all(&piece).await;
            }
        };
        let peer = peer.parse().unwrap();
        let metrics = ConnectionMetrics::default();
        let protocol = proxy_protocol();
        let identifying = async {
            let identified = protocol.identify(&mut near, peer, &metrics).await;
            let mut unread = identified.as_ref().map(|found| found.unread.to_vec()).unwrap_or_default();
            near.read_to_end(&mut unread).await.unwrap();
            identified.map(|found| Identified { unread: unread.into(), ..found })
        };
        tokio::join!(sending, identifying).1
    }

    #[tokio::test]
    async fn only_a_trusted_peer_is_asked_for_a_header() {
        for (peer, expect, unread) in [
            ("10.0.0.1:5000", Some("203.0.113.5:4711"), &b"GET"[..]),
            ("[::ffff:10.0.0.1]:5000", Some("203.0.113.5:4711"), b"GET"),
            ("11.0.0.1:5000", Some("11.0.0.1:5000"), b"PROXY TCP4 203.0.113.5 192.0.2.1 4711 8080\r\nGET"),
        ] {
            let identified = identify(peer, vec![HEADER.to_vec(), b"GET".to_vec()]).await;
            let expect = expect.map(|peer| Identified { peer: peer.parse().unwrap(), unread: unread.into() });
            assert_eq!(identified, expect, "{peer}");
        }
        assert_eq!(identify("10.0.0.1:5000", vec![b"GET / HTTP/1.1\r\n".to_vec()]).await, None);
        assert_eq!(identify("10.0.0.1:5000", vec![HEADER[..20].to_vec()]).await, None);
        assert_eq!(identify("10.0.0.1:5000", Vec::new()).await, None);
    }

    proptest! {
        /// However the bytes are cut, the client is found and nothing behind the header is lost.
        #[test]
        fn nothing_behind_the_header_is_lost(
            http in prop::collection::vec(any::<u8>(), 0..200),
            cuts in prop::collection::vec(1usize..20, 1..100),
        ) {
            let mut rest = [HEADER, &http].concat();
            let mut pieces = Vec::new();
            for cut in cuts {
                let piece = rest.drain(..cut.min(rest.len())).collect();
                pieces.push(piece);
            }
            pieces.push(rest);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let found = runtime.block_on(identify("10.0.0.1:5000", pieces)).unwrap();
            prop_assert_eq!(found.peer, "203.0.113.5:4711".parse().unwrap());
            prop_assert_eq!(&found.unread[..], &http[..]);
        }
    }
}
