//! Signing as senders do: the other direction of [`super::Verifier`], for `send` and for tests. It is made of the same
//! descriptions, and a test holds it to the signatures that senders published.

mod private_key;
#[cfg(test)]
mod tests;

use std::fmt;

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use jiff::Timestamp;
use md5::{Digest, Md5};
use secrecy::{ExposeSecret, SecretString};

use self::private_key::PrivateKey;
use super::credential::Place;
use super::encoding::Encoding;
use super::mac::{MacAlgorithm, MacKey};
use super::message::{Builder, Given};
use super::reason::Unverified;
use super::scheme::{Algorithm, Form, Headers, Scheme, Signed};
use super::secret::{self, SecretProblem};
use super::timestamp::Unit;
use super::{SignedRequest, headers};

/// What proves a request: headers, or a parameter to add to the URL.
#[derive(Debug, Clone, Default)]
pub struct Proof {
    /// To be added to the request's.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// To be added to the query, percent-encoded.
    pub query: Option<String>,
}

/// Why a request can't be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignError {
    /// The key is the sender's and nobody else's.
    SendersKey,
    /// It takes the private key of which the receiver has the public half.
    PrivateKey,
    /// The secret can't be used.
    Secret(SecretProblem),
    /// The request lacks something that is signed.
    Request(Unverified),
    /// The description has a name that isn't a header's, or the secret can't stand in one.
    Header,
}

impl fmt::Display for SignError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignError::SendersKey => formatter.write_str("this sender signs with a key that only it has"),
            SignError::PrivateKey => formatter.write_str(
                "this sender signs with a private key: give one in PEM (PKCS #8), and its public half to the gateway",
            ),
            SignError::Secret(problem) => problem.fmt(formatter),
            SignError::Request(unverified) => unverified.fmt(formatter),
            SignError::Header => formatter.write_str("the secret can't stand in a header"),
        }
    }
}

impl std::error::Error for SignError {}

impl From<SecretProblem> for SignError {
    fn from(problem: SecretProblem) -> Self {
        SignError::Secret(problem)
    }
}

/// What only the sender knows of a delivery.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// Its id, for the schemes that sign one.
    pub id: &'a str,
    /// Where a scheme has several spellings of its headers: what the wanted ones begin with. Otherwise the first is
    /// taken.
    pub spelling: &'a str,
}

/// Signs a request at its time `now`. Of several schemes the first is taken that the secret fits.
///
/// A proof that stands in the body isn't made here: the body is there already.
///
/// # Errors
/// Why the request can't be signed.
pub fn sign(
    scheme: &Scheme<'_>,
    secret: &SecretString,
    request: &SignedRequest<'_>,
    delivery: Delivery<'_>,
) -> Result<Proof, SignError> {
    match scheme {
        Scheme::AnyOf(schemes) => {
            let mut failure = SignError::Secret(SecretProblem::Missing);
            for scheme in *schemes {
                match sign(scheme, secret, request, delivery) {
                    Ok(proof) => return Ok(proof),
                    Err(error) => failure = error,
                }
            }
            Err(failure)
        }
        Scheme::Signed(signed) => {
            let wanted = |names: &&Headers<'_>| names.signature.starts_with(delivery.spelling);
            let names = std::iter::once(&signed.headers).chain(signed.others).find(wanted);
            sign_with(signed, names.unwrap_or(&signed.headers), secret, request, delivery.id)
        }
        Scheme::Credential { first, .. } => credential(first, secret),
        Scheme::None | Scheme::InBody { .. } | Scheme::Mailgun | Scheme::EbayPlatform => Ok(Proof::default()),
        Scheme::AdobeIo | Scheme::PayPal | Scheme::Sns | Scheme::Ebay => Err(SignError::SendersKey),
    }
}

fn sign_with(
    signed: &Signed<'_>,
    names: &Headers<'_>,
    secret: &SecretString,
    request: &SignedRequest<'_>,
    id: &str,
) -> Result<Proof, SignError> {
    let timestamp = write_time(signed.clock.map_or(Unit::Seconds, |clock| clock.unit), request.now);
    let in_field = matches!(signed.form, Form::Fields { timestamp: Some(_), .. });
    let given = Given {
        timestamp: (in_field || names.timestamp.is_some()).then_some(timestamp.as_str()),
        id: names.id.map(|_| id),
    };
    let builder = Builder::new(&signed.message).map_err(|_| SignError::Header)?;
    let messages = builder.messages(request, given, &[request.body]).map_err(SignError::Request)?;
    // Where a sender may have signed either of two, it signs the plain one.
    let message = messages.first().map(Vec::as_slice).unwrap_or_default();
    let signature = match signed.algorithm {
        Algorithm::Mac(algorithm) => {
            let keys = secret::mac_keys(secret, signed.key, algorithm)?;
            keys.first().ok_or(SecretProblem::Missing)?.tag(message)
        }
        Algorithm::Public(algorithm) => {
            let key = PrivateKey::read(secret, signed.key, algorithm).ok_or(SignError::PrivateKey)?;
            key.sign(&message.concat()).ok_or(SignError::PrivateKey)?
        }
    };
    let mut proof = Proof::default();
    proof.push(names.signature, &write_signature(signed, &signature, &timestamp))?;
    for (name, value) in [(names.timestamp, timestamp.as_str()), (names.id, id)] {
        if let Some(name) = name {
            proof.push(name, value)?;
        }
    }
    Ok(proof)
}

fn write_signature(signed: &Signed<'_>, signature: &[u8], time: &str) -> String {
    let text = signed.encoding.encode(signature);
    match signed.form {
        Form::Whole { prefix } | Form::List { prefix, .. } => format!("{prefix}{text}"),
        Form::Fields { separator, signature, timestamp: Some(timestamp) } => {
            format!("{timestamp}={time}{separator}{signature}={text}")
        }
        Form::Fields { signature, timestamp: None, .. } => format!("{signature}={text}"),
    }
}

fn write_time(unit: Unit, now: Timestamp) -> String {
    match unit {
        Unit::Seconds | Unit::SecondsOrMilliseconds => now.as_second().to_string(),
        Unit::Milliseconds => now.as_millisecond().to_string(),
        Unit::Rfc3339 => format!("{now:.0}"),
    }
}

fn credential(place: &Place<'_>, secret: &SecretString) -> Result<Proof, SignError> {
    let text = secret.expose_secret();
    let mut proof = Proof::default();
    match place {
        Place::Header(name) => proof.push(name, text)?,
        Place::Basic => {
            let encoded = Encoding::Base64.encode(text.as_bytes());
            proof.push(AUTHORIZATION.as_str(), &format!("Basic {encoded}"))?;
        }
        Place::Bearer => proof.push(AUTHORIZATION.as_str(), &format!("Bearer {text}"))?,
        Place::Authorization => proof.push(AUTHORIZATION.as_str(), text)?,
        Place::Query(name) => {
            let value = percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
            proof.query = Some(format!("{name}={value}"));
        }
    }
    Ok(proof)
}

impl Proof {
    fn push(&mut self, name: &str, value: &str) -> Result<(), SignError> {
        let name = headers::name(name).ok_or(SignError::Header)?;
        let mut value = HeaderValue::from_str(value).map_err(|_| SignError::Header)?;
        value.set_sensitive(true);
        self.headers.push((name, value));
        Ok(())
    }
}

/// Mailgun's code of a time and a token, which stand in the body beside it.
pub fn mailgun(secret: &SecretString, timestamp: &str, token: &str) -> String {
    let key = MacKey::new(MacAlgorithm::HmacSha256, secret.expose_secret().as_bytes());
    let message = [timestamp.as_bytes().into(), token.as_bytes().into()];
    key.map(|key| Encoding::Hex.encode(&key.tag(&message))).unwrap_or_default()
}

/// eBay's hash of a notification's time and an application's keys, for the SOAP header.
pub fn ebay_platform(secret: &SecretString, timestamp: &str) -> String {
    let hash = Md5::new_with_prefix(timestamp).chain_update(secret.expose_secret()).finalize();
    Encoding::Base64.encode(&hash)
}
