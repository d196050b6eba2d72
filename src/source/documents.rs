//! Senders of XML documents that want a document back.

use super::{Answer, Locator, PLAIN, Preset, Secret};
use crate::signature::Scheme;
use crate::signature::scheme::BodyFormat;

pub(super) static PRESETS: [Preset; 2] = [
    Preset {
        name: "salesforce",
        title: "Salesforce Outbound Messages",
        facts: "developer.salesforce.com \"Understanding notifications\"",
        // No signature. An organization's id is no secret: it keeps other customers of Salesforce out, and an
        // allowlist belongs beside it.
        scheme: Scheme::InBody {
            format: BodyFormat::Xml,
            pointer: "/Envelope/Body/notifications/OrganizationId",
        },
        secret: Secret::Required("the organization's id (18 characters)"),
        // The kind of record (`sf:Account`). A message of several notifications has several of both, and so neither.
        event: Locator::Xml("/Envelope/Body/notifications/Notification/*/sObject/@type"),
        delivery_id: Locator::Xml("/Envelope/Body/notifications/Notification/*/Id"),
        answer: Answer::SalesforceAck,
        ..PLAIN
    },
    Preset {
        name: "cxml",
        title: "cXML (Ariba, Coupa, Jaggaer)",
        facts: "cXML user's guide, Header/Sender/Credential; recalled: that JSON answers count as failures",
        scheme: Scheme::InBody {
            format: BodyFormat::Xml,
            pointer: "/cXML/Header/Sender/Credential/*/SharedSecret",
        },
        secret: Secret::Required("the SharedSecret"),
        // The name of an element below Request or Message, which a worker sees first thing.
        event: Locator::Nowhere,
        delivery_id: Locator::Xml("/cXML/@payloadID"),
        answer: Answer::Cxml,
        ..PLAIN
    },
];
