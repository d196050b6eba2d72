//! `Content-Type`, as far as the gateway needs it: the essence and the charset.

/// A parsed media type (RFC 9110, section 8.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType {
    /// `type/subtype` in lower case.
    pub essence: String,
    /// The `charset` parameter, unquoted.
    pub charset: Option<String>,
}

impl MediaType {
    /// Reads a header's value. None if it isn't a media type. Parameters that can't be read are passed over, since
    /// senders write all sorts of them.
    pub fn parse(text: &str) -> Option<MediaType> {
        let mut parts = text.split(';');
        let essence = parts.next()?.trim();
        let (kind, subtype) = essence.split_once('/')?;
        if !is_token(kind) || !is_token(subtype) {
            return None;
        }
        let charset = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            let value = value.trim().trim_matches('"');
            (name.trim().eq_ignore_ascii_case("charset") && !value.is_empty()).then(|| value.to_owned())
        });
        Some(MediaType { essence: essence.to_ascii_lowercase(), charset })
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn essence_and_charset_are_found_however_senders_write_them() {
        for (input, expect) in [
            ("application/json", Some(("application/json", None))),
            ("Application/JSON; charset=UTF-8", Some(("application/json", Some("UTF-8")))),
            ("text/xml;charset=\"iso-8859-1\"", Some(("text/xml", Some("iso-8859-1")))),
            ("text/xml; x=1 ; Charset = utf-8", Some(("text/xml", Some("utf-8")))),
            ("application/json;", Some(("application/json", None))),
            ("application/json; charset=", Some(("application/json", None))),
            ("json", None),
            ("/json", None),
            ("application/", None),
            ("application /json", None),
            ("", None),
        ] {
            let parsed = MediaType::parse(input);
            let expect = expect.map(|(essence, charset): (&str, Option<&str>)| MediaType {
                essence: essence.to_owned(),
                charset: charset.map(str::to_owned),
            });
            assert_eq!(parsed, expect, "{input}");
        }
    }
}
