//! What an accepted webhook is answered with. Most senders look at the status alone; these don't.

use std::borrow::Cow;

use jiff::Timestamp;
use uuid::Uuid;

/// The answer to an accepted webhook. A refused one gets the same everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 200 `{"result":true,"error":""}`.
    Standard,
    /// 200 without a body: Xero requires it, BigCommerce recommends it, and to Twilio a body would be a command.
    Empty200,
    /// 204: Discord.
    Empty204,
    /// 200 `{"op":"success"}`: to Adobe Commerce anything else is a failed checkout.
    AdobeOp,
    /// 200 with a SOAP acknowledgement: Salesforce repeats for 24 hours without it.
    SalesforceAck,
    /// 200 with a cXML response: Ariba and Coupa read its status.
    Cxml,
}

/// A body and its content type.
pub type Content = (&'static str, Cow<'static, str>);

const SALESFORCE_ACK: &str = concat!(
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>",
    "<soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\"><soapenv:Body>",
    "<notificationsResponse xmlns=\"http://soap.sforce.com/2005/09/outbound\"><Ack>true</Ack></notificationsResponse>",
    "</soapenv:Body></soapenv:Envelope>"
);

impl Answer {
    /// The status.
    pub fn status(self) -> http::StatusCode {
        match self {
            Answer::Empty204 => http::StatusCode::NO_CONTENT,
            _ => http::StatusCode::OK,
        }
    }

    /// Content type and body, if there is a body. A cXML response has an id and a time of its own.
    pub fn content(self, job: Uuid, now: fn() -> Timestamp) -> Option<Content> {
        match self {
            Answer::Standard => Some(("application/json", r#"{"result":true,"error":""}"#.into())),
            Answer::Empty200 | Answer::Empty204 => None,
            Answer::AdobeOp => Some(("application/json", r#"{"op":"success"}"#.into())),
            Answer::SalesforceAck => Some(("text/xml; charset=utf-8", SALESFORCE_ACK.into())),
            Answer::Cxml => Some(("text/xml; charset=utf-8", cxml(job, now()).into())),
        }
    }
}

fn cxml(job: Uuid, now: Timestamp) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <!DOCTYPE cXML SYSTEM \"http://xml.cxml.org/schemas/cXML/1.2.014/cXML.dtd\">\
         <cXML payloadID=\"{job}@retrieve-gateway\" timestamp=\"{now:.0}\">\
         <Response><Status code=\"200\" text=\"OK\"/></Response></cXML>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::xml::{XmlLimits, XmlOptions, convert};

    #[test]
    fn each_answer_is_what_its_sender_reads() {
        let job = Uuid::parse_str("0199c2de-7a63-7cc1-b0f6-2f4a7d3a9e10").unwrap();
        let now = || "2025-12-10T14:30:00.5Z".parse().unwrap();
        let json = |answer: Answer| {
            let (_, body) = answer.content(job, now).unwrap();
            convert(&body, &XmlOptions::default(), &XmlLimits::default()).unwrap()
        };
        assert!(json(Answer::SalesforceAck).contains(r#""Ack":"true""#));
        assert_eq!(
            json(Answer::Cxml),
            concat!(
                r#"{"cXML":{"@payloadID":"0199c2de-7a63-7cc1-b0f6-2f4a7d3a9e10@retrieve-gateway","#,
                r#""@timestamp":"2025-12-10T14:30:00Z","Response":{"Status":{"@code":"200","@text":"OK"}}}}"#
            )
        );
        assert_eq!(Answer::Empty204.status(), 204);
        assert_eq!((Answer::Empty200.status().as_u16(), Answer::Empty200.content(job, now)), (200, None));
        assert_eq!(Answer::AdobeOp.content(job, now).unwrap().1, r#"{"op":"success"}"#);
    }
}
