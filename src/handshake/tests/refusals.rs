//! What isn't answered, and what an answer can never be.

use proptest::prelude::*;

use super::*;

#[test]
fn meta_is_refused_without_the_agreed_token() {
    let all = "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=";
    for (query, agreed, expect) in [
        (format!("{all}meatyhamhoc"), "meatyhamhock", Refused::VerifyToken),
        (format!("{all}meatyhamhockx"), "meatyhamhock", Refused::VerifyToken),
        (format!("{all}MEATYHAMHOCK"), "meatyhamhock", Refused::VerifyToken),
        (all.to_owned(), "meatyhamhock", Refused::VerifyToken),
        ("hub.mode=subscribe&hub.challenge=1".to_owned(), "meatyhamhock", Refused::VerifyToken),
        // An empty token would be an open door.
        (all.to_owned(), "", Refused::VerifyToken),
        (format!("{all}a&hub.verify_token=a"), "a", Refused::Challenge),
        (format!("{all}a&hub.challenge=2"), "a", Refused::Challenge),
        ("hub.mode=subscribe&hub.verify_token=a".to_owned(), "a", Refused::Challenge),
        ("hub.mode=subscribe&hub.verify_token=a&hub.challenge=".to_owned(), "a", Refused::Challenge),
        (format!("hub.mode=subscribe&hub.verify_token=a&x={}", "x".repeat(9000)), "a", Refused::Challenge),
    ] {
        let answer = Case::get(&query).ask(Handshake::MetaSubscribe, Stage::Head, &token(agreed));
        assert_eq!(answer.unwrap_err(), expect, "{query}");
    }
    let unset = Case::get(&format!("{all}a")).ask(Handshake::MetaSubscribe, Stage::Head, &NOTHING);
    assert_eq!(unset.unwrap_err(), Refused::Settings);
    let browser = Case::get("").ask(Handshake::MetaSubscribe, Stage::Head, &token("a"));
    assert!(browser.unwrap().is_none(), "a browser's GET is no handshake");
}

/// The token that would turn the answer into the signature of a chosen body isn't answered.
#[test]
fn zoom_signs_no_chosen_body() {
    for token in
        [r#"v0:1654503849:{\"event\":\"x\"}"#, "v0:1:a", "{}", "a b", "<a>", "", "é", &"a".repeat(257)]
    {
        let body = format!(r#"{{"event":"endpoint.url_validation","payload":{{"plainToken":"{token}"}}}}"#);
        let answer = Case::post(body).ask(Handshake::ZoomUrlValidation, Stage::Verified, &settings("a"));
        assert_eq!(answer.unwrap_err(), Refused::Challenge, "{token}");
    }
}

/// `123` is a JSON document and `a=1` a form: what could be asked of X's handshake is no signed body.
#[test]
fn what_a_handshake_would_sign_is_no_body() {
    for (handshake, signed, expect) in [
        (Handshake::XCrc, "123", true),
        (Handshake::XCrc, "a=1", true),
        (Handshake::XCrc, "true", true),
        (Handshake::XCrc, r#"{"for_user_id":"1"}"#, false),
        (Handshake::XCrc, "[1]", false),
        (Handshake::XCrc, "", false),
        (Handshake::BraintreeChallenge, "20f9f8ed05f77439fe955c977e4c8a53", true),
        (Handshake::BraintreeChallenge, "PG5vdGlmaWNhdGlvbj48L25vdGlmaWNhdGlvbj4=", false),
        (Handshake::ZoomUrlValidation, "123", false),
        (Handshake::SlackUrlVerification, "123", false),
    ] {
        assert_eq!(handshake.would_sign(signed.as_bytes()), expect, "{handshake:?} {signed}");
    }
}

#[test]
fn only_amazons_own_urls_are_ever_visited() {
    for (url, expect) in [
        (SNS_URL, true),
        ("https://sns.cn-north-1.amazonaws.com.cn/?Action=ConfirmSubscription", true),
        ("http://sns.us-west-2.amazonaws.com/?a", false),
        ("https://sns.us-west-2.amazonaws.com", false),
        ("https://sns.us-west-2.amazonaws.com:8443/", false),
        ("https://sns.us-west-2.amazonaws.com.evil.example/", false),
        ("https://sns.us-west-2.amazonaws.com@evil.example/", false),
        ("https://evil.example/sns.us-west-2.amazonaws.com/", false),
        ("https://evil.example#sns.us-west-2.amazonaws.com/", false),
        ("https://sns.a.b.amazonaws.com/", false),
        ("https://sns..amazonaws.com/", false),
        ("https://sns.amazonaws.com/", false),
        ("https://xsns.us-west-2.amazonaws.com/", false),
        ("https://s3.us-west-2.amazonaws.com/", false),
        ("https://sns.us-west-2.amazonaws.com/\\n", false),
        ("https://sns.us-west-2.amazonaws.com/a b", false),
        ("HTTPS://sns.us-west-2.amazonaws.com/", false),
    ] {
        let answer = sns("SubscriptionConfirmation", url).ask(
            Handshake::SnsSubscriptionConfirmation,
            Stage::Verified,
            &NOTHING,
        );
        assert_eq!(answer.is_ok_and(|answer| answer.is_some()), expect, "{url}");
    }
}

/// Every place where a stranger's text is reflected.
fn reflecting(challenge: &str) -> Vec<(Handshake, Stage, Case)> {
    let encoded = percent_encoding::utf8_percent_encode(challenge, percent_encoding::NON_ALPHANUMERIC);
    let quoted = serde_json::to_string(challenge).unwrap();
    let meta = format!("hub.mode=subscribe&hub.verify_token=a&hub.challenge={encoded}");
    let mut cases = vec![
        (Handshake::MetaSubscribe, Stage::Head, Case::get(&meta)),
        (Handshake::DropboxChallenge, Stage::Head, Case::get(&format!("challenge={encoded}"))),
        (
            Handshake::GraphValidationToken,
            Stage::Received,
            Case { query: format!("validationToken={encoded}"), ..Case::post("") },
        ),
        (Handshake::MondayChallenge, Stage::Received, Case::post(format!(r#"{{"challenge":{quoted}}}"#))),
        (
            Handshake::SlackUrlVerification,
            Stage::Verified,
            Case::post(format!(r#"{{"type":"url_verification","challenge":{quoted}}}"#)),
        ),
        (
            Handshake::ZoomUrlValidation,
            Stage::Verified,
            Case::post(format!(
                r#"{{"event":"endpoint.url_validation","payload":{{"plainToken":{quoted}}}}}"#
            )),
        ),
        (
            Handshake::EventGridValidation,
            Stage::Received,
            Case::post(format!(
                r#"[{{"eventType":"Microsoft.EventGrid.SubscriptionValidationEvent","data":{{"validationCode":{quoted}}}}}]"#
            )),
        ),
        (
            Handshake::TwitchCallbackVerification,
            Stage::Verified,
            Case::post(format!(r#"{{"challenge":{quoted}}}"#))
                .header("twitch-eventsub-message-type", "webhook_callback_verification"),
        ),
    ];
    if let Ok(value) = challenge.parse::<http::HeaderValue>() {
        for (handshake, stage, method, name) in [
            (Handshake::OktaChallenge, Stage::Head, Method::GET, "x-okta-verification-challenge"),
            (Handshake::AcrobatSignClientId, Stage::Head, Method::GET, "x-adobesign-clientid"),
            (Handshake::CloudEventsOptions, Stage::Head, Method::OPTIONS, "webhook-request-origin"),
            (Handshake::AsanaHookSecret, Stage::Received, Method::POST, "x-hook-secret"),
        ] {
            let mut case = Case::bare(method);
            case.headers.insert(name, value.clone());
            cases.push((handshake, stage, case));
        }
    }
    cases
}

fn all_settings() -> HandshakeSettings {
    HandshakeSettings { verify_token: Some("a".into()), ..settings("a") }
}

#[test]
fn nothing_that_a_browser_could_run_is_reflected() {
    for challenge in [
        "<script>alert(1)</script>",
        "<svg/onload=alert(1)>",
        "\"><img>",
        "javascript:alert('1')",
        "a&lt;b",
        "a\r\nset-cookie: b=c",
        "a\nb",
        "a\0b",
        "a\u{7f}",
        "caf\u{e9}",
        "\u{202e}",
        "`id`",
        "",
    ] {
        for (handshake, stage, case) in reflecting(challenge) {
            let answer = case.ask(handshake, stage, &all_settings());
            assert!(answer.is_err(), "{handshake:?} {challenge:?}: {answer:?}");
        }
    }
}

#[test]
fn an_answer_is_at_most_a_kibibyte() {
    for (length, may_answer) in [(256, true), (1025, false), (5000, false)] {
        for (handshake, stage, case) in reflecting(&"a".repeat(length)) {
            let answer = case.ask(handshake, stage, &all_settings());
            match answer {
                Ok(Some(answer)) => {
                    assert!(may_answer, "{handshake:?} {length}");
                    assert!(answer.body.len() <= ANSWER_LIMIT_BYTES);
                }
                // Acrobat Sign's is compared with the agreed client id.
                Err(Refused::VerifyToken) => assert_eq!(handshake, Handshake::AcrobatSignClientId),
                other => assert!(!may_answer, "{handshake:?} {length}: {other:?}"),
            }
        }
    }
}

proptest! {
    /// Whatever is reflected, it is inert, short and typed; and no text makes a handshake panic.
    #[test]
    fn whatever_is_reflected_is_inert(challenge in "[ -~]{0,40}|\\PC{0,40}") {
        for (handshake, stage, case) in reflecting(&challenge) {
            let Ok(Some(answer)) = case.ask(handshake, stage, &all_settings()) else { continue };
            prop_assert!(answer.body.len() <= ANSWER_LIMIT_BYTES);
            let response = answer.into_response();
            prop_assert_eq!(&response.headers()["x-content-type-options"], "nosniff");
            prop_assert!(!challenge.contains(['<', '>', '"', '\'', '&', '\n', '\r']));
        }
    }

    /// No handshake panics on any body or query, at any stage.
    #[test]
    fn no_request_makes_a_handshake_panic(query in "\\PC{0,60}", body: Vec<u8>) {
        for handshake in ALL {
            for stage in [Stage::Head, Stage::Received, Stage::Verified] {
                for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST] {
                    let case = Case { method, query: query.clone(), body: body.clone(), ..Case::default() };
                    let _ = case.ask(handshake, stage, &all_settings());
                }
            }
        }
    }
}

const ALL: [Handshake; 23] = [
    Handshake::MetaSubscribe,
    Handshake::DropboxChallenge,
    Handshake::AdobeIoChallenge,
    Handshake::AdobeIoValidationUrl,
    Handshake::EbayChallenge,
    Handshake::XCrc,
    Handshake::OktaChallenge,
    Handshake::AcrobatSignClientId,
    Handshake::BraintreeChallenge,
    Handshake::HeadProbe,
    Handshake::MandrillNoEvents,
    Handshake::CloudEventsOptions,
    Handshake::EventGridValidation,
    Handshake::WooCommercePing,
    Handshake::GraphValidationToken,
    Handshake::MondayChallenge,
    Handshake::AsanaHookSecret,
    Handshake::SlackUrlVerification,
    Handshake::ZoomUrlValidation,
    Handshake::DiscordPing,
    Handshake::SnsSubscriptionConfirmation,
    Handshake::XeroIntentToReceive,
    Handshake::TwitchCallbackVerification,
];

#[test]
fn the_allowed_methods_are_those_of_the_handshakes() {
    for (handshakes, expect) in [
        (&[][..], "POST"),
        (&[Handshake::SlackUrlVerification][..], "POST"),
        (&[Handshake::AdobeIoValidationUrl, Handshake::AdobeIoChallenge][..], "GET, POST"),
        (&[Handshake::HeadProbe][..], "HEAD, POST"),
        (&[Handshake::CloudEventsOptions, Handshake::EventGridValidation][..], "OPTIONS, POST"),
    ] {
        assert_eq!(allow(handshakes), expect);
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT] {
            assert_eq!(takes(handshakes, &method), expect.contains(method.as_str()), "{method}");
        }
    }
}

/// What one handshake refuses ends the request; what it doesn't know goes on to the next.
#[test]
fn several_handshakes_are_asked_in_turn() {
    let both = [Handshake::CloudEventsOptions, Handshake::DropboxChallenge, Handshake::MetaSubscribe];
    let ask = |query: &str| {
        let headers = HeaderMap::new();
        let request = Request { method: &Method::GET, query, headers: &headers, body: b"" };
        respond(&both, Stage::Head, &request, &token("a"))
    };
    assert_eq!(
        wire(ask("hub.mode=subscribe&hub.verify_token=a&hub.challenge=1").unwrap().unwrap()),
        text("1")
    );
    assert_eq!(wire(ask("challenge=2").unwrap().unwrap()), text("2"));
    assert_eq!(ask("challenge=%3C").unwrap_err(), Refused::Challenge);
    assert!(ask("other=1").unwrap().is_none());
}
