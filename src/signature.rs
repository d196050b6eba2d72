//! Signatures: raw bytes in, proof out. Nothing of a body reaches the payload's readers before it has been through
//! here.
//!
//! A [`Scheme`] describes how a sender signs; a [`Verifier`] is a scheme with its secrets, keyed once at start-up.
//! Reading list: [`scheme`] (the description), `signed` (nearly all senders), `credential`, `in_body` and `fetched`
//! (the rest), [`keys`] (keys that come over the network), [`reason`] (what the log says), [`custom`] (schemes of the
//! settings). The senders themselves stand in [`crate::source`].
//!
//! Whatever is compared with a secret or made of one is compared in constant time (`subtle`), decoded to bytes.

mod credential;
pub mod custom;
mod der;
mod encoding;
pub mod fetch;
mod fetched;
pub(crate) mod headers;
mod in_body;
pub mod keys;
mod mac;
mod mercado_pago;
pub mod message;
pub(crate) mod pointer;
mod public_key;
pub mod reason;
pub mod scheme;
mod secret;
pub mod sign;
mod signed;
#[cfg(test)]
mod tests;
mod timestamp;
mod twilio;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderMap, Method, Uri};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

pub use credential::Place as CredentialPlace;
pub use encoding::Encoding;
pub use mac::MacAlgorithm;
pub use public_key::{PublicAlgorithm, PublicKey};
pub use reason::{Reason, Unverified};
pub use scheme::Scheme;
pub use secret::{KeyForm, SECRET_MIN_BYTES, SecretProblem};
pub use timestamp::{Clock, TOLERANCE, Unit};

use credential::CredentialCheck;
use fetched::{FetchedCheck, Sender};
use in_body::{EbayPlatformCheck, InBodyCheck, MailgunCheck};
use keys::KeyCache;
use mac::Fingerprint;
use signed::SignedCheck;

/// How many signatures of one header are looked at: a sender in rotation has two.
pub const SIGNATURE_LIMIT: usize = 16;

/// What a verifier looks at.
#[derive(Debug, Clone, Copy)]
pub struct SignedRequest<'r> {
    /// The method.
    pub method: &'r Method,
    /// Path and query as they were received.
    pub uri: &'r Uri,
    /// The headers.
    pub headers: &'r HeaderMap,
    /// The body as it was received.
    pub body: &'r Bytes,
    /// The time by this machine's clock.
    pub now: Timestamp,
    /// The URL that the sender calls, for the schemes that sign it ([`Scheme::needs_public_url`]). Its query doesn't
    /// count: the received one does.
    pub public_url: Option<&'r str>,
}

/// How the webhooks of an integration prove where they come from.
#[derive(Clone, Debug, Default)]
pub enum Verifier {
    /// The allowlist decides alone.
    #[default]
    Unsigned,
    /// A scheme and its secrets.
    Signed(Checks),
}

/// The schemes of a verifier with their keys. `Debug` shows no secret.
#[derive(Clone)]
pub struct Checks(Arc<[Check]>);

struct Check {
    name: &'static str,
    covers_body: bool,
    kind: Kind,
}

enum Kind {
    Signed(SignedCheck),
    Credential(CredentialCheck),
    InBody(InBodyCheck),
    Mailgun(MailgunCheck),
    EbayPlatform(EbayPlatformCheck),
    Fetched(FetchedCheck),
}

/// A secret that can't be used: its index among the secrets, and why. No index if there is none at all.
pub type SecretError = (Option<usize>, SecretProblem);

/// A body that has passed its integration's verifier; only [`Verifier::verify`] makes one. `Debug` shows its length.
#[derive(Clone)]
pub struct Verified {
    body: Bytes,
    proof: Option<Proof>,
}

/// What verified a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// The scheme's name.
    pub scheme: &'static str,
    /// Which of the integration's secrets: when the old one of a rotation is no longer seen, it can go.
    pub secret: usize,
    /// Whether the body itself is signed. If not, the proof says who called and not what was said.
    pub covers_body: bool,
}

impl Verified {
    /// The body: as it was received, or what [`crate::ingest::body::decompress`] made of it.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The same proof over what the body holds once its `Content-Encoding` is undone.
    pub(crate) fn with_content(self, content: Bytes) -> Verified {
        Verified { body: content, ..self }
    }

    /// Whether a signature or credential was checked (`source.verified` of the job).
    pub fn signed(&self) -> bool {
        self.proof.is_some()
    }

    /// What was checked.
    pub fn proof(&self) -> Option<Proof> {
        self.proof
    }

    /// A verified body for the tests of the stages behind this one.
    #[cfg(test)]
    pub(crate) fn for_test(body: &[u8]) -> Verified {
        Verified { body: Bytes::copy_from_slice(body), proof: None }
    }
}

impl Verifier {
    /// A verifier of a scheme and one or more secrets, any of which may verify. `keys` holds the keys that come over
    /// the network; only the schemes of [`Scheme::fetches_keys`] look into it.
    ///
    /// # Errors
    /// Every secret that can't be used, or that there is none: never a verifier that lets everybody in.
    pub fn new(
        scheme: &Scheme<'_>,
        secrets: &[SecretString],
        keys: &Arc<KeyCache>,
    ) -> Result<Verifier, Vec<SecretError>> {
        if *scheme == Scheme::None {
            return Ok(Verifier::Unsigned);
        }
        let checked = secrets
            .iter()
            .enumerate()
            .filter_map(|(index, secret)| secret::check(secret).err().map(|problem| (Some(index), problem)));
        let problems: Vec<SecretError> = checked.collect();
        if problems.is_empty() { Verifier::of_any_length(scheme, secrets, keys) } else { Err(problems) }
    }

    /// The same without the checks of strength, which published vectors don't pass.
    fn of_any_length(
        scheme: &Scheme<'_>,
        secrets: &[SecretString],
        keys: &Arc<KeyCache>,
    ) -> Result<Verifier, Vec<SecretError>> {
        if secrets.is_empty() {
            return Err(vec![(None, SecretProblem::Missing)]);
        }
        let mut building =
            Building { checks: Vec::new(), problems: vec![None; secrets.len()], secrets, keys };
        building.add(scheme);
        // Of several schemes each secret may fit only one, but it must fit that.
        let problems: Vec<SecretError> = building.problems().collect();
        if problems.is_empty() { Ok(Verifier::Signed(Checks(building.checks.into()))) } else { Err(problems) }
    }

    /// Checks the raw bytes of a request.
    ///
    /// # Errors
    /// [`Unverified`] if the integration requires a proof that the request doesn't carry. It is for the log and the
    /// metrics; the sender gets one constant text. [`Unverified::is_temporary`] tells a 503 from a 401.
    pub fn verify(&self, request: &SignedRequest<'_>) -> Result<Verified, Unverified> {
        let proof = match self {
            Verifier::Unsigned => None,
            Verifier::Signed(checks) => Some(checks.prove(request)?),
        };
        Ok(Verified { body: request.body.clone(), proof })
    }
}

impl Verifier {
    /// Whether a header carries this verifier's signature or credential: such a header stays out of logs and jobs,
    /// whatever it is called.
    pub fn carries(&self, header: &HeaderName) -> bool {
        self.any(|kind| match kind {
            Kind::Signed(check) => check.carries(header),
            Kind::Credential(check) => check.carries(header),
            Kind::Fetched(_) => FetchedCheck::carries(header),
            Kind::InBody(_) | Kind::Mailgun(_) | Kind::EbayPlatform(_) => false,
        })
    }

    /// Whether a query parameter carries this verifier's credential: its value stays out of logs and jobs.
    pub fn carries_parameter(&self, name: &str) -> bool {
        self.any(|kind| matches!(kind, Kind::Credential(check) if check.carries_parameter(name)))
    }

    fn any(&self, fits: impl Fn(&Kind) -> bool) -> bool {
        match self {
            Verifier::Unsigned => false,
            Verifier::Signed(checks) => checks.0.iter().any(|check| fits(&check.kind)),
        }
    }
}

impl Checks {
    fn prove(&self, request: &SignedRequest<'_>) -> Result<Proof, Unverified> {
        let mut failure: Option<Unverified> = None;
        for check in self.0.iter() {
            match check.kind.check(request) {
                Ok(secret) => {
                    return Ok(Proof { scheme: check.name, secret, covers_body: check.covers_body });
                }
                // What the sender tried tells more than what it left out.
                Err(unverified) if failure.as_ref().is_none_or(says_little) => failure = Some(unverified),
                Err(_) => {}
            }
        }
        Err(failure.unwrap_or_else(|| Reason::MissingHeader.into()))
    }
}

fn says_little(unverified: &Unverified) -> bool {
    matches!(
        unverified.reason(),
        Reason::MissingHeader | Reason::WrongCredentialKind | Reason::NoKnownVersion
    )
}

impl Kind {
    fn check(&self, request: &SignedRequest<'_>) -> Result<usize, Unverified> {
        match self {
            Kind::Signed(check) => check.check(request),
            Kind::Credential(check) => check.check(request),
            Kind::InBody(check) => check.check(request),
            Kind::Mailgun(check) => check.check(request),
            Kind::EbayPlatform(check) => check.check(request),
            Kind::Fetched(check) => check.check(request),
        }
    }
}

/// Checks under construction: a secret is fine once one scheme could read it.
struct Building<'b> {
    checks: Vec<Check>,
    /// For each secret: nothing yet, fine, or why no scheme could read it.
    problems: Vec<Option<Result<(), SecretProblem>>>,
    secrets: &'b [SecretString],
    keys: &'b Arc<KeyCache>,
}

impl Building<'_> {
    fn add(&mut self, scheme: &Scheme<'_>) {
        let kind = match scheme {
            Scheme::None => None,
            Scheme::AnyOf(schemes) => {
                schemes.iter().for_each(|scheme| self.add(scheme));
                None
            }
            Scheme::Signed(signed) => self.signed(signed).map(Kind::Signed),
            Scheme::Credential { first, others } => {
                let check = CredentialCheck::new(first, others, self.secrets);
                self.all_readable();
                check.map(Kind::Credential)
            }
            other => {
                self.all_readable();
                self.special(other)
            }
        };
        let (name, covers_body) = (scheme.name(), scheme.covers_body());
        self.checks.extend(kind.map(|kind| Check { name, covers_body, kind }));
    }

    fn special(&self, scheme: &Scheme<'_>) -> Option<Kind> {
        let secrets = self.secrets;
        let fetched = |sender| {
            let keys = self.keys.clone();
            Some(Kind::Fetched(FetchedCheck { sender, secrets: secrets.to_vec(), keys }))
        };
        match scheme {
            Scheme::InBody { format, pointer } => {
                let fingerprint = |secret: &SecretString| Fingerprint::of(secret.expose_secret().as_bytes());
                let secrets = secrets.iter().map(fingerprint).collect();
                Some(Kind::InBody(InBodyCheck { format: *format, pointer: (*pointer).into(), secrets }))
            }
            Scheme::Mailgun => Some(Kind::Mailgun(MailgunCheck::new(secrets))),
            Scheme::EbayPlatform => Some(Kind::EbayPlatform(EbayPlatformCheck { secrets: secrets.to_vec() })),
            Scheme::AdobeIo => fetched(Sender::AdobeIo),
            Scheme::PayPal => fetched(Sender::PayPal),
            Scheme::Sns => fetched(Sender::Sns),
            Scheme::Ebay => fetched(Sender::Ebay),
            Scheme::None | Scheme::AnyOf(_) | Scheme::Signed(_) | Scheme::Credential { .. } => None,
        }
    }

    fn signed(&mut self, scheme: &scheme::Signed<'_>) -> Option<SignedCheck> {
        let mut check = SignedCheck::new(scheme)?;
        for (index, secret) in self.secrets.iter().enumerate() {
            let read = check.add(scheme, index, secret);
            if let Some(problem) = self.problems.get_mut(index)
                && *problem != Some(Ok(()))
            {
                *problem = Some(read);
            }
        }
        check.has_keys().then_some(check)
    }

    fn all_readable(&mut self) {
        self.problems.fill(Some(Ok(())));
    }

    fn problems(&self) -> impl Iterator<Item = SecretError> {
        let unread = self.problems.iter().enumerate().filter_map(|(index, read)| match read {
            Some(Ok(())) => None,
            Some(Err(problem)) => Some((Some(index), *problem)),
            None => Some((Some(index), SecretProblem::Missing)),
        });
        let none = self.checks.is_empty().then_some((None, SecretProblem::Missing));
        let mut unread = unread.peekable();
        let none = if unread.peek().is_some() { None } else { none };
        unread.chain(none)
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verified { body, proof } = self;
        formatter.debug_struct("Verified").field("bytes", &body.len()).field("proof", proof).finish()
    }
}

impl fmt::Debug for Checks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.0.iter().map(|check| check.name)).finish()
    }
}
