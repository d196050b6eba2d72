//! `Content-Type`, as far as the gateway needs it: the essence, the charset and the boundary.

/// A parsed media type (RFC 9110, section 8.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType {
    /// `type/subtype` in lower case.
    pub essence: String,
    /// The `charset` parameter, unquoted.
    pub charset: Option<String>,
    /// The `boundary` parameter, unquoted; none if there are two, since nobody could say which one counts.
    pub boundary: Option<String>,
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
        let (mut charset, mut boundaries) = (None, Vec::new());
        for part in parts {
            let Some((name, value)) = part.split_once('=') else { continue };
            let (name, value) = (name.trim(), value.trim().trim_matches('"'));
            if value.is_empty() {
                continue;
            }
            if name.eq_ignore_ascii_case("charset") {
                charset.get_or_insert_with(|| value.to_owned());
            } else if name.eq_ignore_ascii_case("boundary") {
                boundaries.push(value.to_owned());
            }
        }
        let boundary = if boundaries.len() == 1 { boundaries.pop() } else { None };
        Some(MediaType { essence: essence.to_ascii_lowercase(), charset, boundary })
    }
}

pub(super) fn is_token(text: &str) -> bool {
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
                boundary: None,
            });
            assert_eq!(parsed, expect, "{input}");
        }
    }

    #[test]
    fn one_boundary_is_found_and_two_are_none() {
        for (input, expect) in [
            ("multipart/form-data; boundary=----WebKitFormBoundaryx7", Some("----WebKitFormBoundaryx7")),
            ("multipart/form-data;charset=utf-8;Boundary=\"a=b?c d\"", Some("a=b?c d")),
            ("multipart/form-data; boundary=a; boundary=b", None),
            ("multipart/form-data; boundary=a; boundary=a", None),
            ("multipart/form-data; boundary=", None),
            ("multipart/form-data", None),
        ] {
            assert_eq!(MediaType::parse(input).unwrap().boundary.as_deref(), expect, "{input}");
        }
    }
}
