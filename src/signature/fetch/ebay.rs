//! eBay gives its public keys to applications that are registered with it: OAuth's client credentials grant, whose
//! token is good for two hours (eBay, "The client credentials grant flow"; event-notification-nodejs-sdk does the same).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::Full;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{BOUNDS, FetchError};
use crate::outbound::{Client, OutboundError};

const TOKEN_URL: &str = "https://api.ebay.com/identity/v1/oauth2/token";
const GRANT: &str = "grant_type=client_credentials&scope=https%3A%2F%2Fapi.ebay.com%2Foauth%2Fapi_scope";
/// A token is given up so long before its end.
const MARGIN: Duration = Duration::from_secs(60);

/// An application that is registered with eBay. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct EbayApplication {
    /// The App ID.
    pub client_id: String,
    /// The Cert ID.
    pub client_secret: SecretString,
}

/// The application's token, fetched when there is none.
#[derive(Debug)]
pub(super) struct Tokens {
    application: EbayApplication,
    current: Mutex<Option<Token>>,
}

#[derive(Debug)]
struct Token {
    authorization: HeaderValue,
    good_until: Instant,
}

/// Without `Debug`: it holds the token.
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: u64,
}

impl Tokens {
    pub(super) fn new(application: EbayApplication) -> Tokens {
        Tokens { application, current: Mutex::new(None) }
    }

    /// The value of `Authorization`. Whoever comes while it is fetched waits for that one fetch.
    pub(super) async fn authorization(&self, client: &Client) -> Result<HeaderValue, FetchError> {
        let mut current = self.current.lock().await;
        if let Some(token) = current.as_ref().filter(|token| Instant::now() < token.good_until) {
            return Ok(token.authorization.clone());
        }
        let token = self.fetch(client).await?;
        let authorization = token.authorization.clone();
        *current = Some(token);
        Ok(authorization)
    }

    /// Gives up a token that eBay doesn't take any more.
    pub(super) async fn forget(&self) {
        *self.current.lock().await = None;
    }

    async fn fetch(&self, client: &Client) -> Result<Token, FetchError> {
        let EbayApplication { client_id, client_secret } = &self.application;
        let credentials = STANDARD.encode(format!("{client_id}:{}", client_secret.expose_secret()));
        let request = Request::post(TOKEN_URL)
            .header(AUTHORIZATION, sensitive(&format!("Basic {credentials}"))?)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from_static(GRANT.as_bytes())))
            .map_err(|_| OutboundError::Url)?;
        let answer = client.exchange(request, BOUNDS).await?;
        if answer.status != StatusCode::OK {
            return Err(FetchError::Status(answer.status));
        }
        let granted: Granted = serde_json::from_slice(&answer.body).map_err(|_| FetchError::NoToken)?;
        let lifetime = Duration::from_secs(granted.expires_in.min(24 * 3600)).saturating_sub(MARGIN);
        Ok(Token {
            authorization: sensitive(&format!("Bearer {}", granted.access_token))?,
            good_until: Instant::now() + lifetime,
        })
    }
}

/// A header value that `Debug` doesn't show.
fn sensitive(text: &str) -> Result<HeaderValue, FetchError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| FetchError::NoToken)?;
    value.set_sensitive(true);
    Ok(value)
}
