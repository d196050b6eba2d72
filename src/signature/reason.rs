//! Why a request isn't verified: precise for the log and the metrics, one constant text for the sender.

use std::fmt;

use http::header::HeaderName;

/// A required signature or credential is missing or wrong.
///
/// Its words are for the log alone. The sender is told one constant text, so that nobody can probe for the cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unverified {
    reason: Reason,
    header: Option<HeaderName>,
}

impl Unverified {
    pub(super) fn at(reason: Reason, header: &HeaderName) -> Unverified {
        Unverified { reason, header: Some(header.clone()) }
    }

    /// What was wrong.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The word for metrics.
    pub fn code(&self) -> &'static str {
        self.reason.code()
    }

    /// Whether the sender may be right and should try again: the gateway lacks something that it fetches. Such a
    /// request is no forgery, so the answer is 503 rather than 401, which some senders never repeat.
    pub fn is_temporary(&self) -> bool {
        self.reason == Reason::KeyUnavailable
    }
}

impl From<Reason> for Unverified {
    fn from(reason: Reason) -> Unverified {
        Unverified { reason, header: None }
    }
}

impl fmt::Display for Unverified {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.header {
            Some(header) => write!(formatter, "{} ({header})", self.reason.words()),
            None => formatter.write_str(self.reason.words()),
        }
    }
}

impl std::error::Error for Unverified {}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident $code:literal $words:literal,)+) => {
        /// What was wrong with a request's signature or credential.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason, for metrics that begin at zero.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)+];

            /// The word for metrics.
            pub fn code(self) -> &'static str {
                match self {
                    $(Reason::$name => $code,)+
                }
            }

            /// The words for the log.
            pub fn words(self) -> &'static str {
                match self {
                    $(Reason::$name => $words,)+
                }
            }
        }
    };
}

reasons! {
    /// The header of the signature or credential isn't there.
    MissingHeader "missing_header" "the header isn't there",
    /// The header is there twice, so nobody can say which one counts.
    DuplicateHeader "duplicate_header" "the header is there more than once",
    /// The header has no value.
    EmptySignature "empty_signature" "the signature is empty",
    /// The header isn't visible ASCII.
    NotText "not_text" "the header isn't visible ASCII",
    /// The value doesn't begin as this sender's values do.
    WrongPrefix "wrong_prefix" "the signature doesn't begin as it should",
    /// Not the hexadecimal or base64 that this sender writes.
    WrongEncoding "wrong_encoding" "the signature isn't in the expected encoding",
    /// Decoded, it has another length than signatures of this algorithm have.
    WrongLength "wrong_length" "the signature has the wrong length",
    /// More than [`super::SIGNATURE_LIMIT`] in one header.
    TooManySignatures "too_many_signatures" "the header has too many signatures",
    /// A list of signatures without one of a kind that is checked here.
    NoKnownVersion "no_known_version" "the header has no signature of a known version",
    /// A header of named fields lacks one of them.
    MissingField "missing_field" "the header lacks a field",
    /// A header of named fields has one of them twice.
    DuplicateField "duplicate_field" "a field of the header is there more than once",
    /// It fits no secret.
    Mismatch "mismatch" "the signature doesn't match; is the secret the right one?",
    /// It fits the body with one line end more or less: something between the sender and here changed the body.
    MismatchTrailingNewline "mismatch_trailing_newline" "the signature would match if the body had one line end more or less",
    /// The signed time isn't there.
    MissingTimestamp "missing_timestamp" "the signed timestamp isn't there",
    /// The signed time isn't written as this sender writes it.
    MalformedTimestamp "malformed_timestamp" "the signed timestamp is malformed",
    /// The signed time is too long ago.
    StaleTimestamp "stale_timestamp" "the signed timestamp is too old; are the clocks right?",
    /// The signed time is too far ahead.
    FutureTimestamp "future_timestamp" "the signed timestamp is in the future; are the clocks right?",
    /// The signed id could be taken for a part of what is signed beside it.
    MalformedId "malformed_id" "the signed id is empty or has a character that separates the signed parts",
    /// Not the credential that was agreed.
    CredentialMismatch "credential_mismatch" "the credential isn't the agreed one",
    /// `Authorization` carries another scheme than the agreed one.
    WrongCredentialKind "wrong_credential_kind" "the credential is of another kind than the agreed one",
    /// A query parameter is there twice.
    DuplicateParameter "duplicate_parameter" "the query parameter is there more than once",
    /// A sender that puts its proof into the body sent one that can't be read.
    UnreadableBody "unreadable_body" "the body, which should hold the proof, can't be read",
    /// The body has no such member.
    MissingMember "missing_member" "the body lacks the member that proves its sender",
    /// The signature covers the URL alone, and the URL has no hash of the body.
    BodyNotCovered "body_not_covered" "the signature doesn't cover the body",
    /// The signed hash of the body isn't the body's.
    BodyHashMismatch "body_hash_mismatch" "the signed hash isn't the body's",
    /// The sender signs the URL that it calls, and the settings don't name it.
    PublicUrlUnknown "public_url_unknown" "this sender signs its URL, and the integration has no public URL",
    /// The sender names a key outside its own hosts.
    KeyUrlRefused "key_url_refused" "the key's address isn't one of the sender's",
    /// The sender's public key isn't here yet.
    KeyUnavailable "key_unavailable" "the sender's public key couldn't be fetched yet",
    /// The signature is valid, but for somebody else's webhook.
    WrongRecipient "wrong_recipient" "the webhook is signed for another recipient",
    /// An algorithm that this sender doesn't document.
    UnknownAlgorithm "unknown_algorithm" "the signature's algorithm isn't one of this sender's",
    /// A mode in which this sender doesn't sign.
    UnsignedDelivery "unsigned_delivery" "the sender doesn't sign deliveries of this kind",
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_has_a_code_and_words_of_its_own() {
        let codes: HashSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        let words: HashSet<_> = Reason::ALL.iter().map(|reason| reason.words()).collect();
        assert_eq!((codes.len(), words.len()), (Reason::ALL.len(), Reason::ALL.len()));
        assert!(codes.iter().all(|code| code.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase())));
    }

    #[test]
    fn the_words_name_the_header() {
        let missing =
            Unverified::at(Reason::MissingHeader, &HeaderName::from_static("x-shopify-hmac-sha256"));
        assert_eq!(missing.to_string(), "the header isn't there (x-shopify-hmac-sha256)");
        assert!(!missing.is_temporary());
        assert!(Unverified::from(Reason::KeyUnavailable).is_temporary());
    }
}
