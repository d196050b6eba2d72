//! Signatures in headers: every scheme that [`Signed`] describes, from Shopify's to Discord's.

use http::HeaderMap;
use http::header::HeaderName;
use secrecy::SecretString;

use super::encoding::Encoding;
use super::headers;
use super::mac::MacKey;
use super::message::{Builder, Given, Part};
use super::pointer;
use super::public_key::{PublicAlgorithm, PublicKey};
use super::reason::{Reason, Unverified};
use super::scheme::{Algorithm, Form, Headers, Signed};
use super::secret::{self, SecretProblem};
use super::timestamp::Clock;
use super::{SIGNATURE_LIMIT, SignedRequest};

/// Above this size a mismatch isn't explained: that costs the same again, for everybody who sends nonsense.
const EXPLAIN_LIMIT_BYTES: usize = 64 << 10;

/// A scheme with its keys.
#[derive(Debug, Clone)]
pub(super) struct SignedCheck {
    headers: Vec<Names>,
    form: OwnedForm,
    encoding: Encoding,
    message: Builder,
    clock: Option<Clock>,
    clock_in_body: Option<Box<str>>,
    algorithm: Algorithm,
    keys: Vec<(usize, Key)>,
}

#[derive(Debug, Clone)]
pub(super) struct Names {
    signature: HeaderName,
    timestamp: Option<HeaderName>,
    id: Option<HeaderName>,
}

#[derive(Debug, Clone)]
enum OwnedForm {
    Whole { prefix: Box<str> },
    List { separator: char, prefix: Box<str> },
    Fields { separator: char, signature: Box<str>, timestamp: Option<Box<str>> },
}

#[derive(Debug, Clone)]
enum Key {
    Mac(Box<MacKey>),
    Public(PublicKey),
}

/// What the headers of a request hold.
struct Read<'r> {
    signatures: Vec<Vec<u8>>,
    given: Given<'r>,
}

impl SignedCheck {
    /// None if the description has a name or placeholder that isn't one; tests read every preset's, and the
    /// settings' are checked before.
    pub(super) fn new(scheme: &Signed<'_>) -> Option<SignedCheck> {
        let all = std::iter::once(&scheme.headers).chain(scheme.others);
        Some(SignedCheck {
            headers: all.map(Names::new).collect::<Option<_>>()?,
            form: OwnedForm::new(&scheme.form),
            encoding: scheme.encoding,
            message: Builder::new(&scheme.message).ok()?,
            clock: scheme.clock,
            clock_in_body: scheme.clock_in_body.map(Box::from),
            algorithm: scheme.algorithm,
            keys: Vec::new(),
        })
    }

    /// Adds the keys of a secret.
    pub(super) fn add(
        &mut self,
        scheme: &Signed<'_>,
        index: usize,
        secret: &SecretString,
    ) -> Result<(), SecretProblem> {
        match scheme.algorithm {
            Algorithm::Mac(algorithm) => {
                let keys = secret::mac_keys(secret, scheme.key, algorithm)?;
                self.keys.extend(keys.into_iter().map(|key| (index, Key::Mac(Box::new(key)))));
            }
            Algorithm::Public(algorithm) => {
                let key = secret::public_key(secret, scheme.key, algorithm)?;
                self.keys.push((index, Key::Public(key)));
            }
        }
        Ok(())
    }

    pub(super) fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    pub(super) fn headers(&self) -> &[Names] {
        &self.headers
    }

    pub(super) fn carries(&self, header: &HeaderName) -> bool {
        self.headers.iter().any(|names| names.signature == *header)
    }

    /// Checks a request; the answer is the index of the secret that verified it.
    pub(super) fn check(&self, request: &SignedRequest<'_>) -> Result<usize, Unverified> {
        let names = self.names(request.headers)?;
        let read = self.read(names, request.headers)?;
        if let (Some(clock), Some(timestamp)) = (self.clock, read.given.timestamp) {
            clock.check(timestamp, request.now)?;
        }
        let Some(index) = self.verifying(request, &read, &[request.body])? else {
            return Err(Unverified::at(self.explanation(request, &read), &names.signature));
        };
        if let (Some(clock), Some(place)) = (self.clock, &self.clock_in_body) {
            let timestamp = pointer::find(request.body, place).ok_or(Reason::MissingTimestamp)?;
            clock.check(&timestamp, request.now)?;
        }
        Ok(index)
    }

    /// The first spelling whose signature is there.
    fn names(&self, headers: &HeaderMap) -> Result<&Names, Unverified> {
        let found = self.headers.iter().find(|names| headers.contains_key(&names.signature));
        found.ok_or_else(|| match self.headers.first() {
            Some(names) => Unverified::at(Reason::MissingHeader, &names.signature),
            None => Reason::MissingHeader.into(),
        })
    }

    fn read<'r>(&self, names: &Names, headers: &'r HeaderMap) -> Result<Read<'r>, Unverified> {
        let value = headers::require(headers, &names.signature)?;
        let at = |reason| Unverified::at(reason, &names.signature);
        let (texts, field) = self.form.split(value).map_err(at)?;
        let signatures = texts.into_iter().map(|text| self.decode(text)).collect::<Result<_, _>>();
        let mut given = Given { timestamp: field, id: None };
        if let Some(name) = &names.timestamp {
            let missing = || Unverified::at(Reason::MissingTimestamp, name);
            given.timestamp = Some(headers::find(headers, name)?.ok_or_else(missing)?);
        }
        if let Some(name) = &names.id {
            let id = headers::require(headers, name)?;
            // Standard Webhooks, "Signature scheme": an id with a full stop could move the border to the timestamp.
            if id.contains('.') {
                return Err(Unverified::at(Reason::MalformedId, name));
            }
            given.id = Some(id);
        }
        Ok(Read { signatures: signatures.map_err(at)?, given })
    }

    fn decode(&self, text: &str) -> Result<Vec<u8>, Reason> {
        if text.is_empty() {
            return Err(Reason::EmptySignature);
        }
        let bytes = self.encoding.decode(text).ok_or(Reason::WrongEncoding)?;
        let fits = match self.algorithm {
            Algorithm::Mac(algorithm) => bytes.len() == algorithm.length(),
            Algorithm::Public(algorithm) => algorithm.takes_length(bytes.len()),
        };
        if fits { Ok(bytes) } else { Err(Reason::WrongLength) }
    }

    fn verifying<'r>(
        &self,
        request: &SignedRequest<'r>,
        read: &Read<'r>,
        body: &[&'r [u8]],
    ) -> Result<Option<usize>, Unverified> {
        for message in self.message.messages(request, read.given, body)? {
            let verifies = |key: &Key| match (key, self.algorithm) {
                (Key::Mac(key), _) => key.verifies(&message, &read.signatures),
                (Key::Public(key), Algorithm::Public(algorithm)) => {
                    key.verifies_any(algorithm, &message.concat(), &read.signatures)
                }
                (Key::Public(_), Algorithm::Mac(_)) => false,
            };
            if let Some((index, _)) = self.keys.iter().find(|(_, key)| verifies(key)) {
                return Ok(Some(*index));
            }
        }
        Ok(None)
    }

    /// The commonest cause of a mismatch besides a wrong secret is a proxy or a test script that adds or drops a line
    /// end. Only the log learns of it; the request stays refused.
    fn explanation<'r>(&self, request: &SignedRequest<'r>, read: &Read<'r>) -> Reason {
        let body: &[u8] = request.body;
        let is_mac = matches!(self.algorithm, Algorithm::Mac(_));
        if !is_mac || !self.message.has(&Part::Body) || body.len() > EXPLAIN_LIMIT_BYTES {
            return Reason::Mismatch;
        }
        let shorter = body.strip_suffix(b"\r\n").or_else(|| body.strip_suffix(b"\n"));
        let bodies: [&[&[u8]]; 3] = [&[body, b"\n"], &[body, b"\r\n"], &[shorter.unwrap_or(body)]];
        let explains = |body| matches!(self.verifying(request, read, body), Ok(Some(_)));
        if bodies.into_iter().any(explains) { Reason::MismatchTrailingNewline } else { Reason::Mismatch }
    }
}

impl PublicKey {
    fn verifies_any(&self, algorithm: PublicAlgorithm, message: &[u8], signatures: &[Vec<u8>]) -> bool {
        signatures.iter().any(|signature| self.verifies(algorithm, message, signature))
    }
}

impl Names {
    pub(super) fn signature(&self) -> &HeaderName {
        &self.signature
    }

    fn new(headers: &Headers<'_>) -> Option<Names> {
        let optional = |name: Option<&str>| name.map(|name| headers::name(name).ok_or(())).transpose().ok();
        Some(Names {
            signature: headers::name(headers.signature)?,
            timestamp: optional(headers.timestamp)?,
            id: optional(headers.id)?,
        })
    }
}

impl OwnedForm {
    fn new(form: &Form<'_>) -> OwnedForm {
        match *form {
            Form::Whole { prefix } => OwnedForm::Whole { prefix: prefix.into() },
            Form::List { separator, prefix } => OwnedForm::List { separator, prefix: prefix.into() },
            Form::Fields { separator, signature, timestamp } => OwnedForm::Fields {
                separator,
                signature: signature.into(),
                timestamp: timestamp.map(Box::from),
            },
        }
    }

    /// The texts of the signatures, and that of the timestamp.
    fn split<'r>(&self, value: &'r str) -> Result<(Vec<&'r str>, Option<&'r str>), Reason> {
        match self {
            OwnedForm::Whole { prefix } => {
                let text = value.strip_prefix(prefix.as_ref()).ok_or(Reason::WrongPrefix)?;
                Ok((vec![text], None))
            }
            OwnedForm::List { separator, prefix } => {
                let mut items = value.split(*separator);
                let texts: Vec<_> = items
                    .by_ref()
                    .take(SIGNATURE_LIMIT)
                    .filter_map(|item| item.trim().strip_prefix(prefix.as_ref()))
                    .collect();
                limited(items.next().is_some(), texts).map(|texts| (texts, None))
            }
            OwnedForm::Fields { separator, signature, timestamp } => {
                split_fields(value, *separator, signature, timestamp.as_deref())
            }
        }
    }
}

fn split_fields<'r>(
    value: &'r str,
    separator: char,
    signature: &str,
    timestamp: Option<&str>,
) -> Result<(Vec<&'r str>, Option<&'r str>), Reason> {
    let (mut texts, mut time) = (Vec::new(), None);
    // The time, the signatures, and as many of versions that aren't read here.
    let mut items = value.split(separator);
    for item in items.by_ref().take(2 * SIGNATURE_LIMIT + 1) {
        let Some((name, text)) = item.trim().split_once('=') else { continue };
        if name == signature {
            texts.push(text);
        } else if Some(name) == timestamp && time.replace(text).is_some() {
            return Err(Reason::DuplicateField);
        }
    }
    let texts = limited(items.next().is_some() || texts.len() > SIGNATURE_LIMIT, texts)?;
    match (timestamp, time) {
        (Some(_), None) => Err(Reason::MissingField),
        _ => Ok((texts, time)),
    }
}

fn limited(is_over: bool, texts: Vec<&str>) -> Result<Vec<&str>, Reason> {
    match texts.is_empty() {
        _ if is_over => Err(Reason::TooManySignatures),
        true => Err(Reason::NoKnownVersion),
        false => Ok(texts),
    }
}
