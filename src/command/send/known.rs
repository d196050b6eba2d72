//! What the presets don't say because no verifier asks: which event is the commonest, which headers a sender adds, and
//! the bodies that aren't JSON. The samples are this project's own; names of headers and elements are the senders'
//! (their presets, `crate::source`, name the documentation).

use crate::source::Preset;

/// A sender's habits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    name: &'static str,
    /// What the names of its headers begin with, where there are several spellings.
    pub spelling: &'static str,
    /// The event of a sample.
    pub event: &'static str,
    /// Headers that it sends, as templates.
    pub headers: &'static [(&'static str, &'static str)],
    /// The content type of its bodies.
    pub content_type: &'static str,
    /// A body that isn't JSON, as a template.
    pub body: Option<&'static str>,
}

const PLAIN: Known = Known {
    name: "",
    spelling: "",
    event: "order.created",
    headers: &[],
    content_type: "application/json",
    body: None,
};

const XML: Known = Known { content_type: "text/xml; charset=utf-8", ..PLAIN };

/// The habits of a preset's sender.
pub(super) fn of(source: Option<&Preset>) -> Known {
    let known = source.and_then(|preset| KNOWN.iter().find(|known| known.name == preset.name));
    known.copied().unwrap_or(PLAIN)
}

/// What the names of a sender's headers begin with.
pub(super) fn spelling(name: &str) -> &'static str {
    KNOWN.iter().find(|known| known.name == name).map_or("", |known| known.spelling)
}

const KNOWN: [Known; 17] = [
    Known {
        name: "shopify",
        spelling: "x-shopify-",
        event: "orders/create",
        headers: &[
            ("user-agent", "Shopify-Captain-Hook"),
            ("x-shopify-topic", "{event}"),
            ("x-shopify-shop-domain", "sample.myshopify.com"),
            ("x-shopify-api-version", "2025-10"),
            ("x-shopify-webhook-id", "{id}"),
            ("x-shopify-event-id", "{id}"),
            ("x-shopify-triggered-at", "{now}"),
        ],
        ..PLAIN
    },
    Known {
        name: "woocommerce",
        headers: &[
            ("user-agent", "WooCommerce/10.0.0 Hookshot (WordPress/6.8)"),
            ("x-wc-webhook-source", "https://shop.example/"),
            ("x-wc-webhook-topic", "{event}"),
            ("x-wc-webhook-resource", "order"),
            ("x-wc-webhook-event", "created"),
            ("x-wc-webhook-id", "1"),
            ("x-wc-webhook-delivery-id", "{id}"),
        ],
        ..PLAIN
    },
    Known { name: "stripe", event: "charge.succeeded", ..PLAIN },
    Known { name: "paypal", event: "PAYMENT.CAPTURE.COMPLETED", ..PLAIN },
    Known { name: "square", event: "payment.created", ..PLAIN },
    Known { name: "paddle", event: "transaction.completed", ..PLAIN },
    Known { name: "bigcommerce", event: "store/order/created", ..PLAIN },
    Known { name: "github", event: "push", headers: &[("user-agent", "GitHub-Hookshot/sample")], ..PLAIN },
    Known { name: "gitlab", event: "Push Hook", headers: &[("x-gitlab-event", "{event}")], ..PLAIN },
    Known { name: "svix", spelling: "svix-", ..PLAIN },
    // The manifest that it signs needs an id.
    Known { name: "mercado-pago", event: "payment.created", headers: &[("x-request-id", "{id}")], ..PLAIN },
    Known { name: "rtrvr", event: "task.completed", ..PLAIN },
    Known { name: "maxun", event: "run_completed", ..PLAIN },
    Known {
        name: "twilio",
        content_type: "application/x-www-form-urlencoded",
        body: Some(
            "MessageSid=SM0123456789abcdef0123456789abcdef&From=%2B15550100&To=%2B15550101&Body=Hello",
        ),
        ..PLAIN
    },
    Known {
        name: "salesforce",
        event: "Account",
        headers: &[("soapaction", "\"\"")],
        body: Some(concat!(
            r#"<?xml version="1.0" encoding="UTF-8"?>"#,
            r#"<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>"#,
            r#"<notifications xmlns="http://soap.sforce.com/2005/09/outbound">"#,
            "<OrganizationId>{secret}</OrganizationId><ActionId>04k000000000001AAA</ActionId>",
            "<Notification><Id>{id}</Id>",
            r#"<sObject xmlns:sf="urn:sobject.enterprise.soap.sforce.com" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" "#,
            r#"xsi:type="sf:{event}"><sf:Id>001000000000001AAA</sf:Id></sObject></Notification>"#,
            "</notifications></soapenv:Body></soapenv:Envelope>"
        )),
        ..XML
    },
    Known {
        name: "cxml",
        body: Some(concat!(
            r#"<?xml version="1.0" encoding="UTF-8"?>"#,
            r#"<!DOCTYPE cXML SYSTEM "http://xml.cxml.org/schemas/cXML/1.2.014/cXML.dtd">"#,
            r#"<cXML payloadID="{id}" timestamp="{now}"><Header>"#,
            r#"<From><Credential domain="NetworkId"><Identity>buyer</Identity></Credential></From>"#,
            r#"<To><Credential domain="NetworkId"><Identity>supplier</Identity></Credential></To>"#,
            r#"<Sender><Credential domain="NetworkId"><Identity>buyer</Identity>"#,
            "<SharedSecret>{secret}</SharedSecret></Credential><UserAgent>sample</UserAgent></Sender></Header>",
            r#"<Request><OrderRequest><OrderRequestHeader orderID="1001" type="new"/></OrderRequest></Request></cXML>"#
        )),
        ..XML
    },
    Known {
        name: "ebay-platform",
        event: "ItemSold",
        headers: &[("soapaction", "\"https://developer.ebay.com/notification/{event}\"")],
        body: Some(concat!(
            r#"<?xml version="1.0" encoding="UTF-8"?>"#,
            r#"<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Header>"#,
            r#"<ebl:RequesterCredentials xmlns:ebl="urn:ebay:apis:eBLBaseComponents">"#,
            "<ebl:NotificationSignature>{signature}</ebl:NotificationSignature></ebl:RequesterCredentials>",
            r#"</soapenv:Header><soapenv:Body><GetItemResponse xmlns="urn:ebay:apis:eBLBaseComponents">"#,
            "<Timestamp>{time}</Timestamp><CorrelationID>{id}</CorrelationID>",
            "<NotificationEventName>{event}</NotificationEventName>",
            "<Item><ItemID>1001</ItemID></Item></GetItemResponse></soapenv:Body></soapenv:Envelope>"
        )),
        ..XML
    },
];
