//! A small HTTP client for the private listener.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpStream;

use super::AdminArgs;
use crate::config::{Environment, Strings, env};

/// An answer is never larger than a page of the queue with its largest job, written out as JSON lines.
const ANSWER_LIMIT_BYTES: usize = 512 << 20;

/// Where the private listener is, and the token for it.
#[derive(Debug)]
pub struct Admin {
    address: String,
    token: Option<SecretString>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Admin {
    /// From the flag or the environment. A listener on all addresses is reached by loopback.
    ///
    /// # Errors
    /// A setting that can't be used.
    pub fn find(flags: &AdminArgs) -> Result<Admin, String> {
        Admin::find_in(flags.admin.as_deref(), &Environment)
    }

    fn find_in(flag: Option<&str>, strings: &dyn Strings) -> Result<Admin, String> {
        let (address, token) = env::admin(strings).map_err(|problems| problems.to_string())?;
        let address = match flag {
            Some(address) => address.to_owned(),
            None if address.ip().is_unspecified() && address.is_ipv4() => {
                format!("127.0.0.1:{}", address.port())
            }
            None if address.ip().is_unspecified() => format!("[::1]:{}", address.port()),
            None => address.to_string(),
        };
        Ok(Admin { address, token })
    }

    /// The address that is asked.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Asks for a path.
    ///
    /// # Errors
    /// Why there is no answer, in words for the user.
    pub async fn get(&self, path: &str, timeout: Duration) -> Result<Answer, String> {
        match tokio::time::timeout(timeout, self.exchange(path)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                Err(format!("no answer from the private listener at {}: {error}", self.address))
            }
            Err(_) => Err(format!("no answer from the private listener at {} in {timeout:?}", self.address)),
        }
    }

    async fn exchange(&self, path: &str) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(&self.address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let mut request = Request::get(path).header(header::HOST, &self.address);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose_secret()));
        }
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_LIMIT_BYTES).collect().await?.to_bytes();
        connection.abort();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_private_listener_is_found_where_the_gateway_has_it() {
        for (flag, setting, expect) in [
            (None, None, "127.0.0.1:9090"),
            (None, Some("0.0.0.0:9191"), "127.0.0.1:9191"),
            (None, Some("[::]:9191"), "[::1]:9191"),
            (None, Some("192.0.2.1:9191"), "192.0.2.1:9191"),
            (Some("gateway:9090"), Some("0.0.0.0:9191"), "gateway:9090"),
        ] {
            let strings: BTreeMap<String, String> = setting
                .map(|text| ("RETRIEVE_ADMIN_LISTEN".to_owned(), text.to_owned()))
                .into_iter()
                .collect();
            assert_eq!(Admin::find_in(flag, &strings).unwrap().address(), expect);
        }
    }
}
