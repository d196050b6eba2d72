//! Every row of the table is read.

use std::collections::HashSet;
use std::sync::Arc;

use http::HeaderName;

use super::*;
use crate::signature::scheme::Headers;
use crate::signature::{CredentialPlace, KeyForm, Verifier};

/// A secret that some scheme's form takes.
const SECRETS: [&str; 4] = [
    "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    "79b5562e8fe654f94078b112e8a98ba7901f853ae695bed7e0e3910bad049664",
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==",
    "-----BEGIN PUBLIC KEY-----MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==-----END PUBLIC KEY-----",
];

#[test]
fn every_row_makes_a_verifier() {
    for preset in presets() {
        let built = SECRETS.iter().any(|secret| {
            let verifier = Verifier::new(&preset.scheme, &[(*secret).into()], &Arc::default());
            matches!(verifier, Ok(Verifier::Signed(_)))
        });
        assert!(built, "{}", preset.name);
    }
}

#[test]
fn names_are_unique_and_plain() {
    let mut seen = HashSet::new();
    for preset in presets() {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        assert!(preset.name.bytes().all(plain) && seen.insert(preset.name), "{}", preset.name);
        assert!(!preset.title.is_empty() && !preset.facts.is_empty(), "{}", preset.name);
        assert_eq!(super::preset(preset.name), Some(preset));
        for domain in preset.domains {
            assert!(domain.contains('.') && *domain == domain.to_ascii_lowercase(), "{domain}");
        }
    }
    assert_eq!(super::preset("Shopify"), None);
    assert!(seen.len() >= 45);
}

/// `HeaderName::from_static` panics on an upper-case letter, and a lookup would never find one.
#[test]
fn header_names_are_in_lower_case() {
    fn names(scheme: &Scheme<'static>) -> Vec<&'static str> {
        let of = |headers: &Headers<'static>| {
            [Some(headers.signature), headers.timestamp, headers.id].into_iter().flatten().collect::<Vec<_>>()
        };
        match scheme {
            Scheme::Signed(signed) => {
                std::iter::once(&signed.headers).chain(signed.others).flat_map(of).collect()
            }
            Scheme::Credential { first, others } => std::iter::once(first)
                .chain(*others)
                .filter_map(|place| match place {
                    CredentialPlace::Header(name) => Some(*name),
                    _ => None,
                })
                .collect(),
            Scheme::AnyOf(schemes) => schemes.iter().flat_map(names).collect(),
            _ => Vec::new(),
        }
    }
    fn located(locator: &Locator) -> Vec<&'static str> {
        match locator {
            Locator::Header(names) => names.to_vec(),
            Locator::FirstOf(places) | Locator::Joined(places) => places.iter().flat_map(located).collect(),
            Locator::Body(pointer) | Locator::Xml(pointer) => {
                assert!(pointer.starts_with('/'), "{pointer}");
                Vec::new()
            }
            Locator::Nowhere | Locator::BodyHash => Vec::new(),
        }
    }
    for preset in presets() {
        let all = names(&preset.scheme).into_iter().chain(located(&preset.event));
        for name in all.chain(located(&preset.delivery_id)) {
            assert_eq!(
                HeaderName::from_lowercase(name.as_bytes()).map(|name| name.to_string()).ok().as_deref(),
                Some(name)
            );
        }
    }
}

fn facts(name: &str, headers: &[(&'static str, &str)], body: &str) -> (Option<String>, Option<String>) {
    let preset = preset(name).unwrap();
    let headers =
        headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    let body = Verified::for_test(body.as_bytes());
    let labels = preset.labels(&headers, &body);
    (labels.event, labels.delivery_id)
}

#[test]
fn events_and_ids_stand_where_the_senders_put_them() {
    let text = |text: &str| Some(text.to_owned());
    let github = [("x-github-event", "ping"), ("x-github-delivery", "72d3162e")];
    for (name, headers, body, event, id) in [
        (
            "shopify",
            &[
                ("x-shopify-topic", "orders/create"),
                ("x-shopify-event-id", "e"),
                ("x-shopify-webhook-id", "w"),
            ][..],
            "{}",
            text("orders/create"),
            text("e"),
        ),
        ("shopify", &[("x-shopify-webhook-id", "w")], "{}", None, text("w")),
        (
            "shopify",
            &[("shopify-topic", "orders/create"), ("shopify-event-id", "e")],
            "{}",
            text("orders/create"),
            text("e"),
        ),
        ("github", &github, "{}", text("ping"), text("72d3162e")),
        (
            "stripe",
            &[],
            r#"{"id":"evt_1","type":"customer.created"}"#,
            text("customer.created"),
            text("evt_1"),
        ),
        (
            "slack",
            &[],
            r#"{"type":"event_callback","event":{"type":"message"},"event_id":"Ev1"}"#,
            text("message"),
            text("Ev1"),
        ),
        ("slack", &[], "payload=%7B%22type%22%3A%22block_actions%22%7D", text("block_actions"), None),
        ("xero", &[], r#"{"events":[],"firstEventSequence":1,"lastEventSequence":2}"#, None, text("1|2")),
        ("intuit", &[], r#"[{"id":"a","type":"t"}]"#, text("t"), text("a")),
        ("intuit", &[], r#"[{"id":"a","type":"t"},{"id":"b","type":"t"}]"#, None, None),
        (
            "rtrvr",
            &[],
            r#"{"event":"task.completed","timestamp":"T","task":{"id":"1"}}"#,
            text("task.completed"),
            text("task.completed|1|T"),
        ),
        ("gitlab", &[("x-gitlab-event-uuid", "e"), ("x-gitlab-webhook-uuid", "w")], "", None, text("e|w")),
        (
            "linear",
            &[("linear-delivery", "d")],
            r#"{"type":"Comment","action":"create"}"#,
            text("Comment|create"),
            text("d"),
        ),
        ("webrun", &[], "", None, None),
        (
            "salesforce",
            &[],
            r#"<s:Envelope xmlns:s="u"><s:Body><notifications><Notification><Id>04l1</Id><sObject xsi:type="sf:Account" xmlns:xsi="i"/></Notification></notifications></s:Body></s:Envelope>"#,
            text("sf:Account"),
            text("04l1"),
        ),
        (
            "salesforce",
            &[],
            "<Envelope><Body><notifications><Notification><Id>1</Id></Notification><Notification><Id>2</Id></Notification></notifications></Body></Envelope>",
            None,
            None,
        ),
        (
            "cxml",
            &[],
            r#"<cXML payloadID="1233444-2001@premier.example"><Header/></cXML>"#,
            None,
            text("1233444-2001@premier.example"),
        ),
        ("cxml", &[], "<cXML", None, None),
    ] {
        assert_eq!(facts(name, headers, body), (event, id), "{name} {body}");
    }
}

/// Two deliveries of one webhook in one second share WooCommerce's delivery id.
#[test]
fn woocommerces_id_survives_its_one_second_clock() {
    let headers = [
        ("x-wc-webhook-topic", "order.updated"),
        ("x-wc-webhook-source", "https://shop.example/"),
        ("x-wc-webhook-id", "7"),
        ("x-wc-webhook-delivery-id", "0123456789abcdef"),
    ];
    let (event, first) = facts("woocommerce", &headers, r#"{"id":1}"#);
    let (_, second) = facts("woocommerce", &headers, r#"{"id":2}"#);
    assert_eq!(event.as_deref(), Some("order.updated"));
    assert!(first.as_ref().unwrap().starts_with("https://shop.example/|7|0123456789abcdef|sha256:"));
    assert_ne!(first, second);
    assert_eq!(first, facts("woocommerce", &headers, r#"{"id":1}"#).1);
    assert_eq!(facts("woocommerce", &headers[..3], "{}").1, None);
}

#[test]
fn a_preset_speaks_for_its_own_domains() {
    let shopify = preset("shopify").unwrap();
    assert!(shopify.speaks_for("shopify.com") && shopify.speaks_for("MyShopify.com"));
    for other in ["evilshopify.com", "shopify.com.evil.tld", "com", "", "admin.shopify.com"] {
        assert!(!shopify.speaks_for(other), "{other}");
    }
}

#[test]
fn only_senders_without_a_proof_may_go_without_a_secret() {
    let optional: Vec<_> =
        presets().filter(|preset| !preset.needs_secret()).map(|preset| preset.name).collect();
    assert_eq!(optional, ["magento-mageplaza", "maxun"]);
}

/// Stripe's secret is its text, Standard Webhooks' is base64, although both begin with `whsec_`.
#[test]
fn whsec_means_two_things() {
    let form = |name: &str| match preset(name).unwrap().scheme {
        Scheme::Signed(signed) => signed.key,
        Scheme::AnyOf([Scheme::Signed(signed), ..]) => signed.key,
        _ => KeyForm::Pem,
    };
    assert_eq!(
        (form("stripe"), form("svix"), form("bigcommerce")),
        (KeyForm::Utf8, KeyForm::Whsec, KeyForm::Utf8)
    );
}
