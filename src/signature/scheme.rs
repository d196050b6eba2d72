//! Schemes as data: what a sender signs, how, and where it puts the result. A scheme is a description that the
//! preset tables and the settings write; [`super::Verifier::new`] makes a verifier of it.

use super::credential::Place;
use super::encoding::Encoding;
use super::mac::MacAlgorithm;
use super::public_key::PublicAlgorithm;
use super::secret::KeyForm;
use super::timestamp::Clock;

/// How webhooks prove where they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme<'a> {
    /// They don't.
    None,
    /// A signature in a header.
    Signed(Signed<'a>),
    /// A credential that is the same in every request.
    Credential {
        /// The first place to look; the settings' `header` replaces it and all others.
        first: Place<'a>,
        /// More places; the first that the request fills decides.
        others: &'a [Place<'a>],
    },
    /// Any of several schemes: those without their header are passed over, and one that verifies is enough.
    AnyOf(&'a [Scheme<'a>]),
    /// A secret or an account's id in the body.
    InBody {
        /// What the body is written in.
        format: BodyFormat,
        /// Where it stands: a JSON pointer, in which `*` is every element of an array. XML is read as the JSON that
        /// [`crate::payload::xml`] makes of it without prefixes.
        pointer: &'a str,
    },
    /// Mailgun: HMAC-SHA-256 over a time and a token, all three in the body.
    Mailgun,
    /// Adobe I/O Events: RSA with keys that the request names.
    AdobeIo,
    /// PayPal: RSA with the key of a certificate that the request names.
    PayPal,
    /// Amazon SNS: RSA with the key of a certificate that the body names.
    Sns,
    /// eBay's Event Notification API: ECDSA with a key that the request names.
    Ebay,
    /// eBay's Platform Notifications: MD5 of a time and the application's three keys.
    EbayPlatform,
}

/// What a body that holds its own proof is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    /// RFC 8259.
    Json,
    /// XML 1.0.
    Xml,
}

/// A signature in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed<'a> {
    /// What signs.
    pub algorithm: Algorithm,
    /// How a key is made of a secret's text.
    pub key: KeyForm,
    /// The headers.
    pub headers: Headers<'a>,
    /// Other spellings of the same headers; the first whose signature is there counts. Never mixed.
    pub others: &'a [Headers<'a>],
    /// How the header's value is built.
    pub form: Form<'a>,
    /// How each signature is written.
    pub encoding: Encoding,
    /// What is signed.
    pub message: Message<'a>,
    /// The signed time, if there is one.
    pub clock: Option<Clock>,
    /// Where the signed time stands if neither a header nor a field has it: a JSON pointer into the signed body.
    pub clock_in_body: Option<&'a str>,
}

/// What signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Under a secret that both sides know.
    Mac(MacAlgorithm),
    /// Under a key of which this side knows the public half.
    Public(PublicAlgorithm),
}

/// The names of the headers that belong to one signature, in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers<'a> {
    /// The signature, or several.
    pub signature: &'a str,
    /// The signed time.
    pub timestamp: Option<&'a str>,
    /// The signed id.
    pub id: Option<&'a str>,
}

/// How the value of a signature's header is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form<'a> {
    /// One signature after a prefix, which may be empty: `sha256=…`.
    Whole {
        /// What stands before the signature.
        prefix: &'a str,
    },
    /// Several: `v1,… v1,… v2,…`. Those with another prefix are passed over.
    List {
        /// What stands between two of them.
        separator: char,
        /// What stands before each.
        prefix: &'a str,
    },
    /// Named fields: `t=…,v1=…,v1=…`. Other fields are passed over.
    Fields {
        /// What stands between two fields.
        separator: char,
        /// The name of the fields that hold a signature.
        signature: &'a str,
        /// The name of the field that holds the signed time.
        timestamp: Option<&'a str>,
    },
}

/// What is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// A text with placeholders, such as `{timestamp}.{body}`; see [`super::message`].
    Template(&'a str),
    /// Twilio: the URL, then the sorted parameters of a form.
    Twilio,
    /// Mercado Pago: a manifest of the query, a header and the time.
    MercadoPago,
}

impl<'a> Signed<'a> {
    /// The commonest scheme: HMAC-SHA-256 of the body.
    pub const fn body(signature: &'a str, prefix: &'a str, encoding: Encoding) -> Signed<'a> {
        Signed {
            algorithm: Algorithm::Mac(MacAlgorithm::HmacSha256),
            key: KeyForm::Utf8,
            headers: Headers { signature, timestamp: None, id: None },
            others: &[],
            form: Form::Whole { prefix },
            encoding,
            message: Message::Template("{body}"),
            clock: None,
            clock_in_body: None,
        }
    }
}

impl Scheme<'_> {
    /// A name for metrics and jobs.
    pub fn name(&self) -> &'static str {
        match self {
            Scheme::None => "none",
            Scheme::Signed(signed) => signed.algorithm.name(),
            Scheme::Credential { .. } => "credential",
            Scheme::AnyOf(schemes) => schemes.first().map_or("none", Scheme::name),
            Scheme::InBody { .. } => "credential-in-body",
            Scheme::Mailgun => "mailgun",
            Scheme::AdobeIo => "adobe-io",
            Scheme::PayPal => "paypal",
            Scheme::Sns => "sns",
            Scheme::Ebay => "ebay",
            Scheme::EbayPlatform => "ebay-platform",
        }
    }

    /// Whether it signs the URL that the sender calls. Then the integration must say which one that is: what a proxy
    /// leaves of it isn't what was signed.
    pub fn needs_public_url(&self) -> bool {
        match self {
            Scheme::Signed(signed) => match signed.message {
                Message::Template(template) => template.contains("url}"),
                Message::Twilio => true,
                Message::MercadoPago => false,
            },
            Scheme::AnyOf(schemes) => schemes.iter().any(Scheme::needs_public_url),
            _ => false,
        }
    }

    /// Whether a verified body is one that the sender signed, and not only a body beside a proof.
    pub fn covers_body(&self) -> bool {
        match self {
            Scheme::Signed(signed) => match signed.message {
                Message::Template(template) => template.contains("body}"),
                Message::Twilio => true,
                Message::MercadoPago => false,
            },
            Scheme::AnyOf(schemes) => schemes.iter().all(Scheme::covers_body),
            Scheme::AdobeIo | Scheme::PayPal | Scheme::Sns | Scheme::Ebay => true,
            Scheme::None
            | Scheme::Credential { .. }
            | Scheme::InBody { .. }
            | Scheme::Mailgun
            | Scheme::EbayPlatform => false,
        }
    }

    /// Whether keys come over the network (see [`super::keys`]).
    pub fn fetches_keys(&self) -> bool {
        match self {
            Scheme::AdobeIo | Scheme::PayPal | Scheme::Sns | Scheme::Ebay => true,
            Scheme::AnyOf(schemes) => schemes.iter().any(Scheme::fetches_keys),
            _ => false,
        }
    }
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Algorithm::Mac(MacAlgorithm::HmacSha1) => "hmac-sha1",
            Algorithm::Mac(MacAlgorithm::HmacSha256) => "hmac-sha256",
            Algorithm::Mac(MacAlgorithm::HmacSha384) => "hmac-sha384",
            Algorithm::Mac(MacAlgorithm::HmacSha512) => "hmac-sha512",
            Algorithm::Mac(MacAlgorithm::Sha256AfterSecret) => "sha256-after-secret",
            Algorithm::Public(PublicAlgorithm::Ed25519) => "ed25519",
            Algorithm::Public(PublicAlgorithm::EcdsaP256Sha256 | PublicAlgorithm::EcdsaP256Sha1) => {
                "ecdsa-p256"
            }
            Algorithm::Public(PublicAlgorithm::RsaSha256 | PublicAlgorithm::RsaSha1) => "rsa",
        }
    }
}
