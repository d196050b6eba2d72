//! Who may use `/api`: with a token, whoever has it; without one, this machine alone.

use std::net::{IpAddr, SocketAddr};

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::middleware::Next;
use axum::response::IntoResponse;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::{AdminState, problem};

/// Why a request may not use the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Denied {
    /// The bearer token is missing or wrong.
    Token,
    /// There is no token, and the request isn't from this machine.
    NotLocal,
}

pub(super) async fn require_access(
    State(state): State<AdminState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response<Body> {
    match check(state.token.as_deref(), peer.ip(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(Denied::Token) => {
            let problem = problem(StatusCode::UNAUTHORIZED, "the bearer token is missing or wrong");
            ([(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response()
        }
        Err(Denied::NotLocal) => problem(
            StatusCode::FORBIDDEN,
            "without RETRIEVE_ADMIN_TOKEN the API answers only to this machine, by a loopback address",
        ),
    }
}

fn check(token: Option<&SecretString>, peer: IpAddr, headers: &HeaderMap) -> Result<(), Denied> {
    match token {
        Some(token) => check_token(token, headers),
        None if is_local(peer, headers) => Ok(()),
        None => Err(Denied::NotLocal),
    }
}

fn check_token(token: &SecretString, headers: &HeaderMap) -> Result<(), Denied> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(Denied::Token) };
    let value = value.as_bytes();
    let is_bearer = value.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "));
    let given = value.get(7..).unwrap_or_default();
    if is_bearer && bool::from(given.ct_eq(token.expose_secret().as_bytes())) {
        Ok(())
    } else {
        Err(Denied::Token)
    }
}

/// A loopback peer alone is not enough: a page in a browser on this machine can reach loopback under a name of its own
/// (DNS rebinding), and a proxy on this machine forwards strangers. Only a proxy that says so in a header is noticed,
/// so the private listener must never be proxied without a token; README says that.
fn is_local(peer: IpAddr, headers: &HeaderMap) -> bool {
    let forwarded =
        ["forwarded", "x-forwarded-for", "x-real-ip", "via"].iter().any(|name| headers.contains_key(*name));
    peer.to_canonical().is_loopback() && !forwarded && has_local_host(headers)
}

fn has_local_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn without_a_token_only_this_machine_is_let_in() {
        let host = ("host", "127.0.0.1:9090");
        for (peer, pairs, expect) in [
            ("127.0.0.1", &[host][..], Ok(())),
            ("::1", &[("host", "[::1]:9090")], Ok(())),
            ("::ffff:127.0.0.1", &[("host", "localhost")], Ok(())),
            ("127.0.0.1", &[("host", "LOCALHOST:9090")], Ok(())),
            ("192.0.2.1", &[host], Err(Denied::NotLocal)),
            ("127.0.0.1", &[], Err(Denied::NotLocal)),
            ("127.0.0.1", &[("host", "evil.example:9090")], Err(Denied::NotLocal)),
            ("127.0.0.1", &[("host", "127.0.0.1.evil.example")], Err(Denied::NotLocal)),
            ("127.0.0.1", &[host, ("x-forwarded-for", "192.0.2.1")], Err(Denied::NotLocal)),
            ("127.0.0.1", &[host, ("forwarded", "for=192.0.2.1")], Err(Denied::NotLocal)),
        ] {
            assert_eq!(check(None, peer.parse().unwrap(), &headers(pairs)), expect, "{peer} {pairs:?}");
        }
    }

    #[test]
    fn with_a_token_only_the_token_counts() {
        let token = SecretString::from("s3cret");
        let peer: IpAddr = "192.0.2.1".parse().unwrap();
        for (pairs, expect) in [
            (&[("authorization", "Bearer s3cret")][..], Ok(())),
            (&[("authorization", "bearer s3cret")], Ok(())),
            (&[("authorization", "Bearer s3cre")], Err(Denied::Token)),
            (&[("authorization", "Bearer s3cret ")], Ok(())), // HTTP strips white space around a value
            (&[("authorization", "Bearer s3crets")], Err(Denied::Token)),
            (&[("authorization", "Bearer ")], Err(Denied::Token)),
            (&[("authorization", "Basic s3cret")], Err(Denied::Token)),
            (&[("authorization", "s3cret")], Err(Denied::Token)),
            (&[("authorization", "Bearer s3cret"), ("authorization", "Bearer s3cret")], Err(Denied::Token)),
            (&[], Err(Denied::Token)),
        ] {
            let pairs: Vec<_> =
                pairs.iter().map(|(name, value)| (*name, value.trim_end_matches(' '))).collect();
            assert_eq!(check(Some(&token), peer, &headers(&pairs)), expect, "{pairs:?}");
        }
        assert_eq!(check(Some(&token), "127.0.0.1".parse().unwrap(), &headers(&[])), Err(Denied::Token));
    }
}
