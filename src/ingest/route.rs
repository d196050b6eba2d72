//! Method and path to a route. Percent escapes are not decoded: no well-formed id needs one.

use http::Method;

use crate::integration::is_id;

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<'a> {
    /// The integration's id, well-formed.
    pub integration: &'a str,
    /// Whether the path says that the body is XML.
    pub is_xml: bool,
}

/// Why a request has no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrouted {
    /// There is nothing at the path.
    Path,
    /// The path is known, but not for this method.
    Method,
}

impl<'a> Route<'a> {
    /// Finds the route: `/integration/{id}`, `/integration/{id}/xml`, each also with a trailing slash.
    ///
    /// # Errors
    /// Whether the path or the method is wrong.
    pub fn parse(method: &Method, path: &'a str) -> Result<Route<'a>, Unrouted> {
        let rest = path.strip_prefix("/integration/").ok_or(Unrouted::Path)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (integration, is_xml) = match rest.split_once('/') {
            None => (rest, false),
            Some((id, "xml")) => (id, true),
            Some(_) => return Err(Unrouted::Path),
        };
        if !is_id(integration) {
            return Err(Unrouted::Path);
        }
        // Whether a method other than POST is a handshake is known only once the integration is.
        if ![Method::POST, Method::GET, Method::HEAD, Method::OPTIONS].contains(method) {
            return Err(Unrouted::Method);
        }
        Ok(Route { integration, is_xml })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_paths_of_the_contract_and_no_others() {
        let json = |integration| Ok(Route { integration, is_xml: false });
        let xml = |integration| Ok(Route { integration, is_xml: true });
        let long = format!("/integration/{}", "a".repeat(10_000));
        for (path, expect) in [
            ("/integration/demo", json("demo")),
            ("/integration/demo/", json("demo")),
            ("/integration/demo/xml", xml("demo")),
            ("/integration/demo/xml/", xml("demo")),
            ("/integration/xml", json("xml")),
            ("/integration/xml/xml", xml("xml")),
            ("/integration/A_b-9", json("A_b-9")),
            ("/integration/demo//", Err(Unrouted::Path)),
            ("/integration/demo/XML", Err(Unrouted::Path)),
            ("/integration/demo/xml/x", Err(Unrouted::Path)),
            ("/integration//", Err(Unrouted::Path)),
            ("/integration//xml", Err(Unrouted::Path)),
            ("/integration/", Err(Unrouted::Path)),
            ("/integration", Err(Unrouted::Path)),
            ("/Integration/demo", Err(Unrouted::Path)),
            ("//integration/demo", Err(Unrouted::Path)),
            ("/integration/../integration/demo", Err(Unrouted::Path)),
            ("/integration/demo/..", Err(Unrouted::Path)),
            ("/integration/%64emo", Err(Unrouted::Path)),
            ("/integration/demo%00", Err(Unrouted::Path)),
            ("/integration/de\0mo", Err(Unrouted::Path)),
            ("/integration/{demo}", Err(Unrouted::Path)),
            (long.as_str(), Err(Unrouted::Path)),
            ("/", Err(Unrouted::Path)),
            ("*", Err(Unrouted::Path)),
            ("", Err(Unrouted::Path)),
        ] {
            assert_eq!(Route::parse(&Method::POST, path), expect, "{path}");
        }
    }

    #[test]
    fn a_known_path_answers_other_methods_and_an_unknown_one_does_not() {
        for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::CONNECT] {
            assert_eq!(Route::parse(&method, "/integration/demo"), Err(Unrouted::Method));
            assert_eq!(Route::parse(&method, "/nothing"), Err(Unrouted::Path));
        }
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            assert!(Route::parse(&method, "/integration/demo").is_ok(), "it may be a handshake");
            assert_eq!(Route::parse(&method, "/nothing"), Err(Unrouted::Path));
        }
    }

    proptest! {
        /// Whatever is routed has a well-formed id.
        #[test]
        fn a_route_has_a_well_formed_id(path in "/integration/[a-zA-Z0-9_./%{}-]{0,70}") {
            if let Ok(route) = Route::parse(&Method::POST, &path) {
                prop_assert!(is_id(route.integration));
            }
        }
    }
}
