//! A scheme that somebody wrote into `integrations.toml`, alone or over a preset's:
//!
//! ```toml
//! signature = { header = "x-my-signature", algorithm = "hmac-sha256", encoding = "hex", prefix = "sha256=", signed = "{timestamp}.{body}", timestamp_header = "x-my-timestamp", tolerance = "300s" }
//! ```

use std::time::Duration;

use http::header::HeaderName;

use super::credential::Place;
use super::encoding::Encoding;
use super::mac::MacAlgorithm;
use super::message::{Builder, PLACEHOLDERS, Part};
use super::scheme::{Algorithm, Form, Message, Scheme, Signed};
use super::secret::KeyForm;
use super::timestamp::{Clock, TOLERANCE, Unit};

/// The keys of `signature` as they were written; the values live as long as the file's text.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fields<'a> {
    /// The signature's header. Alone over a preset with a credential, the credential's.
    pub header: Option<&'a str>,
    /// `hmac-sha1`, `hmac-sha256` (the default), `hmac-sha384` or `hmac-sha512`.
    pub algorithm: Option<&'a str>,
    /// `hex` (the default), `base64` or `base64url`.
    pub encoding: Option<&'a str>,
    /// What stands before the signature, or before each of several.
    pub prefix: Option<&'a str>,
    /// What stands between several signatures; without it there is one.
    pub separator: Option<&'a str>,
    /// What is signed: a text with placeholders.
    pub signed: Option<&'a str>,
    /// The header of the signed time.
    pub timestamp_header: Option<&'a str>,
    /// How it is written: `seconds` (the default), `milliseconds` or `rfc3339`.
    pub timestamp_unit: Option<&'a str>,
    /// How far from now it may be, such as `300s` (the default), or `off`.
    pub tolerance: Option<&'a str>,
    /// The header of the signed id.
    pub id_header: Option<&'a str>,
    /// How the secret is read: `utf8` (the default), `base64`, `hex`, `whsec` or `html-decoded`.
    pub key: Option<&'a str>,
}

/// The names of [`Fields`], for whoever reads the file.
pub const KEYS: [&str; 11] = [
    "header",
    "algorithm",
    "encoding",
    "prefix",
    "separator",
    "signed",
    "timestamp_header",
    "timestamp_unit",
    "tolerance",
    "id_header",
    "key",
];

impl<'a> Fields<'a> {
    /// Sets one by its name; false if there is none of that name.
    pub fn set(&mut self, key: &str, value: &'a str) -> bool {
        let field = match key {
            "header" => &mut self.header,
            "algorithm" => &mut self.algorithm,
            "encoding" => &mut self.encoding,
            "prefix" => &mut self.prefix,
            "separator" => &mut self.separator,
            "signed" => &mut self.signed,
            "timestamp_header" => &mut self.timestamp_header,
            "timestamp_unit" => &mut self.timestamp_unit,
            "tolerance" => &mut self.tolerance,
            "id_header" => &mut self.id_header,
            "key" => &mut self.key,
            _ => return false,
        };
        *field = Some(value);
        true
    }

    /// Whether something besides the header and the tolerance is written.
    fn describes(&self) -> bool {
        [self.algorithm, self.encoding, self.prefix, self.separator, self.signed, self.timestamp_header]
            .into_iter()
            .chain([self.timestamp_unit, self.id_header, self.key])
            .any(|field| field.is_some())
    }
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which one.
    pub field: &'static str,
    /// One clause.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

/// Reads a scheme. Over a preset's, the written fields replace the preset's; without one, `header` is needed.
///
/// # Errors
/// Every problem at once.
pub fn parse<'a>(fields: &Fields<'a>, base: &Scheme<'a>) -> Result<Scheme<'a>, Vec<Problem>> {
    let mut reading = Reading { problems: Vec::new() };
    let scheme = match *base {
        Scheme::Credential { .. } if !fields.describes() && fields.tolerance.is_none() => {
            let name = reading.header("header", fields.header);
            name.map(|name| Scheme::Credential { first: Place::Header(name), others: &[] })
        }
        Scheme::Signed(signed) => reading.signed(fields, signed).map(Scheme::Signed),
        _ if fields.header.is_some() => {
            reading.signed(fields, Signed::body("", "", Encoding::Hex)).map(Scheme::Signed)
        }
        _ => {
            let message = "a scheme of its own needs the signature's header".to_owned();
            reading.report("header", message, Some("header = \"x-my-signature\"".to_owned()));
            None
        }
    };
    match scheme {
        Some(scheme) if reading.problems.is_empty() => Ok(scheme),
        _ => Err(reading.problems),
    }
}

struct Reading {
    problems: Vec<Problem>,
}

impl Reading {
    fn signed<'a>(&mut self, fields: &Fields<'a>, mut scheme: Signed<'a>) -> Option<Signed<'a>> {
        let own_header = self.header("header", fields.header);
        if let Some(name) = own_header {
            scheme.headers.signature = name;
            // The preset's other spellings would be other ways in.
            scheme.others = &[];
        }
        scheme.algorithm = self.algorithm(fields.algorithm).unwrap_or(scheme.algorithm);
        scheme.encoding = self.encoding(fields.encoding).unwrap_or(scheme.encoding);
        scheme.key = self.key(fields.key).unwrap_or(scheme.key);
        scheme.form = self.form(fields, scheme.form);
        if let Some(template) = fields.signed {
            scheme.message = Message::Template(template);
        }
        if let Some(name) = self.header("timestamp_header", fields.timestamp_header) {
            scheme.headers.timestamp = Some(name);
            scheme.clock = Some(Clock { unit: Unit::Seconds, tolerance: Some(TOLERANCE) });
        }
        scheme.headers.id = self.header("id_header", fields.id_header).or(scheme.headers.id);
        self.clock(fields, &mut scheme);
        self.coherence(&scheme);
        (self.problems.is_empty()).then_some(scheme)
    }

    fn clock(&mut self, fields: &Fields<'_>, scheme: &mut Signed<'_>) {
        let units =
            [("seconds", Unit::Seconds), ("milliseconds", Unit::Milliseconds), ("rfc3339", Unit::Rfc3339)];
        let unit = self.choice("timestamp_unit", fields.timestamp_unit, &units);
        let tolerance = fields.tolerance.and_then(|text| self.tolerance(text));
        let Some(clock) = &mut scheme.clock else {
            for (field, value) in [("timestamp_unit", fields.timestamp_unit), ("tolerance", fields.tolerance)]
            {
                if value.is_some() {
                    let message = "there is no signed timestamp that it could be for".to_owned();
                    self.report(field, message, Some("timestamp_header = \"x-my-timestamp\"".to_owned()));
                }
            }
            return;
        };
        clock.unit = unit.unwrap_or(clock.unit);
        clock.tolerance = tolerance.unwrap_or(clock.tolerance);
    }

    /// What a template names must be there, and what is there must be signed: a time that nobody signed can be set by
    /// anybody.
    fn coherence(&mut self, scheme: &Signed<'_>) {
        let builder = match Builder::new(&scheme.message) {
            Ok(builder) => builder,
            Err(unknown) => {
                let hint = format!("the placeholders are {}", PLACEHOLDERS.join(" "));
                return self.report("signed", format!("`{unknown}` is no placeholder"), Some(hint));
            }
        };
        if !matches!(scheme.message, Message::Template(_)) {
            return;
        }
        let has_time = scheme.headers.timestamp.is_some() || matches!(scheme.form, Form::Fields { .. });
        for (part, placeholder, is_there, field) in [
            (Part::Timestamp, "{timestamp}", has_time, "timestamp_header"),
            (Part::Id, "{id}", scheme.headers.id.is_some(), "id_header"),
        ] {
            match (builder.has(&part), is_there) {
                (true, false) => {
                    self.report("signed", format!("it names `{placeholder}`, but `{field}` isn't set"), None);
                }
                (false, true) => {
                    self.report(
                        field,
                        format!("`signed` doesn't name `{placeholder}`, so anybody could set it"),
                        None,
                    );
                }
                _ => {}
            }
        }
        if !builder.has(&Part::Body) && !builder.has(&Part::Base64Body) {
            let hint = Some("signed = \"{body}\"".to_owned());
            self.report(
                "signed",
                "it doesn't name `{body}`, so anybody could change the body".to_owned(),
                hint,
            );
        }
    }

    fn form<'a>(&mut self, fields: &Fields<'a>, base: Form<'a>) -> Form<'a> {
        let prefix = fields.prefix.or(match base {
            Form::Whole { prefix } | Form::List { prefix, .. } => Some(prefix),
            Form::Fields { .. } => None,
        });
        let separator = fields.separator.and_then(|text| {
            let mut characters = text.chars();
            let separator = characters.next().filter(|_| characters.next().is_none());
            if separator.is_none_or(|separator| !matches!(separator, ' ' | ',' | ';' | '|')) {
                let message = format!("`{text}` separates nothing");
                self.report("separator", message, Some("a space or one of , ; |".to_owned()));
            }
            separator
        });
        match (base, separator) {
            (Form::Fields { .. }, None) if fields.prefix.is_none() => base,
            (Form::List { separator, .. }, None) | (_, Some(separator)) => {
                Form::List { separator, prefix: prefix.unwrap_or("") }
            }
            _ => Form::Whole { prefix: prefix.unwrap_or("") },
        }
    }

    fn header<'a>(&mut self, field: &'static str, name: Option<&'a str>) -> Option<&'a str> {
        let name = name?;
        if HeaderName::from_bytes(name.as_bytes()).is_ok() {
            return Some(name);
        }
        self.report(field, format!("`{}` isn't a header's name", name.escape_debug()), None);
        None
    }

    fn algorithm(&mut self, text: Option<&str>) -> Option<Algorithm> {
        let algorithms = [
            ("hmac-sha256", MacAlgorithm::HmacSha256),
            ("hmac-sha1", MacAlgorithm::HmacSha1),
            ("hmac-sha384", MacAlgorithm::HmacSha384),
            ("hmac-sha512", MacAlgorithm::HmacSha512),
        ];
        self.choice("algorithm", text, &algorithms).map(Algorithm::Mac)
    }

    fn encoding(&mut self, text: Option<&str>) -> Option<Encoding> {
        let encodings =
            [("hex", Encoding::Hex), ("base64", Encoding::Base64), ("base64url", Encoding::Base64Url)];
        self.choice("encoding", text, &encodings)
    }

    fn key(&mut self, text: Option<&str>) -> Option<KeyForm> {
        let forms = [
            ("utf8", KeyForm::Utf8),
            ("base64", KeyForm::Base64),
            ("hex", KeyForm::Hex),
            ("whsec", KeyForm::Whsec),
            ("html-decoded", KeyForm::HtmlDecoded),
        ];
        self.choice("key", text, &forms)
    }

    fn tolerance(&mut self, text: &str) -> Option<Option<Duration>> {
        if text == "off" {
            return Some(None);
        }
        match humantime::parse_duration(text) {
            Ok(tolerance) if !tolerance.is_zero() => Some(Some(tolerance)),
            _ => {
                let message = format!("`{}` isn't a time span", text.escape_debug());
                self.report("tolerance", message, Some("300s, 5m, or off".to_owned()));
                None
            }
        }
    }

    fn choice<T: Copy>(
        &mut self,
        field: &'static str,
        text: Option<&str>,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let text = text?;
        let chosen = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if chosen.is_none() {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            let message = format!("`{}` is none of {}", text.escape_debug(), names.join(", "));
            let nearest = names.iter().min_by_key(|name| strsim::damerau_levenshtein(text, name));
            self.report(field, message, nearest.map(|name| format!("did you mean `{name}`?")));
        }
        chosen
    }

    fn report(&mut self, field: &'static str, message: String, hint: Option<String>) {
        self.problems.push(Problem { field, message, hint });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use http::{HeaderMap, Method, Uri};

    use super::*;
    use crate::signature::{SignedRequest, Verifier};
    use crate::source::preset;

    fn read<'a>(base: &str, pairs: &[(&str, &'a str)]) -> Result<Scheme<'a>, Vec<String>> {
        let mut fields = Fields::default();
        for (key, value) in pairs {
            assert!(fields.set(key, value) && KEYS.contains(key), "{key}");
        }
        let base = preset(base).map_or(Scheme::None, |preset| preset.scheme);
        parse(&fields, &base).map_err(|problems| {
            problems.into_iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect()
        })
    }

    #[test]
    fn every_key_can_be_set() {
        let mut fields = Fields::default();
        assert!(KEYS.iter().all(|key| fields.set(key, "x")));
        assert!(!fields.set("headers", "x"));
    }

    #[test]
    fn problems_are_named_all_at_once() {
        let header = ("header", "x-s");
        for (base, pairs, expect) in [
            ("", &[][..], &["header: a scheme of its own needs the signature's header"][..]),
            ("", &[("header", "x s")], &["header: `x s` isn't a header's name"]),
            ("", &[header, ("signed", "{body}{nonce}")], &["signed: `{nonce}` is no placeholder"]),
            (
                "",
                &[header, ("signed", "{timestamp}.{body}")],
                &["signed: it names `{timestamp}`, but `timestamp_header` isn't set"],
            ),
            (
                "",
                &[header, ("timestamp_header", "x-t")],
                &["timestamp_header: `signed` doesn't name `{timestamp}`, so anybody could set it"],
            ),
            (
                "",
                &[header, ("signed", "{id}.{body}")],
                &["signed: it names `{id}`, but `id_header` isn't set"],
            ),
            (
                "",
                &[header, ("signed", "{url}")],
                &["signed: it doesn't name `{body}`, so anybody could change the body"],
            ),
            (
                "",
                &[
                    header,
                    ("algorithm", "sha-256"),
                    ("encoding", "b64"),
                    ("key", "raw"),
                    ("tolerance", "1e3"),
                ],
                &[
                    "algorithm: `sha-256` is none of hmac-sha256, hmac-sha1, hmac-sha384, hmac-sha512",
                    "encoding: `b64` is none of hex, base64, base64url",
                    "key: `raw` is none of utf8, base64, hex, whsec, html-decoded",
                    "tolerance: `1e3` isn't a time span",
                    "tolerance: there is no signed timestamp that it could be for",
                ],
            ),
            ("", &[header, ("separator", "ab")], &["separator: `ab` separates nothing"]),
            ("basic", &[("prefix", "x")], &["header: a scheme of its own needs the signature's header"]),
            (
                "shopify",
                &[("tolerance", "300s")],
                &["tolerance: there is no signed timestamp that it could be for"],
            ),
        ] {
            let expect: Vec<_> = expect.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(read(base, pairs), Err(expect), "{pairs:?}");
        }
    }

    #[test]
    fn a_preset_is_overridden_field_by_field() {
        let Ok(Scheme::Signed(rtrvr)) = read("rtrvr", &[("header", "x-own")]) else { panic!() };
        assert_eq!((rtrvr.headers.signature, rtrvr.others), ("x-own", &[][..]));
        assert_eq!(rtrvr.form, Form::Whole { prefix: "sha256=" });
        let Ok(Scheme::Signed(slack)) = read("slack", &[("tolerance", "off")]) else { panic!() };
        assert_eq!(slack.clock, Some(Clock { unit: Unit::Seconds, tolerance: None }));
        let Ok(Scheme::Signed(stripe)) = read("stripe", &[("tolerance", "10m")]) else { panic!() };
        assert!(matches!(stripe.form, Form::Fields { separator: ',', .. }));
        let own = Scheme::Credential { first: Place::Header("x-token"), others: &[] };
        assert_eq!(read("api-key", &[("header", "x-token")]), Ok(own));
    }

    #[test]
    fn a_written_scheme_verifies() {
        let scheme = read(
            "",
            &[
                ("header", "X-My-Signature"),
                ("algorithm", "hmac-sha512"),
                ("encoding", "base64url"),
                ("prefix", "v1="),
                ("separator", ","),
                ("signed", "{id}|{timestamp}|{body}"),
                ("id_header", "x-id"),
                ("timestamp_header", "x-t"),
                ("timestamp_unit", "milliseconds"),
                ("tolerance", "1m"),
                ("key", "hex"),
            ],
        );
        let verifier =
            Verifier::new(&scheme.unwrap(), &["00112233445566778899".into()], &Arc::default()).unwrap();
        // python3: hmac.new(bytes.fromhex("00112233445566778899"), b"7|1700000000000|{}", "sha512")
        let signature =
            "92yDLt7t2UuaDgXRPlKDCQUEibXuWumaN1wCoCbh9j65VQ9Ao2HmhwctRvAwrl1niYZwoYIvzOVPAiUy5hNz9A";
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-my-signature", format!("v0=x, v1={signature}")),
            ("x-id", "7".to_owned()),
            ("x-t", "1700000000000".to_owned()),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let request = SignedRequest {
            method: &Method::POST,
            uri: &Uri::from_static("/"),
            headers: &headers,
            body: &Bytes::from_static(b"{}"),
            now: jiff::Timestamp::from_second(1_700_000_059).unwrap(),
            public_url: None,
        };
        assert!(verifier.verify(&request).is_ok());
    }
}
