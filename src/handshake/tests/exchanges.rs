//! The set-up exchanges as their senders make them.

use super::*;

/// As `WC_Webhook::deliver_ping` sends it. Anything but exactly 200 shows the shop's owner an error.
#[test]
fn woocommerces_ping_is_answered_200() {
    let ping = Case::post("webhook_id=17").header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(ping.answer(Handshake::WooCommercePing, Stage::Received, &NOTHING), empty());
    // With a valid signature it would be a delivery; nothing that could be one is thrown away.
    for (case, why) in [
        (ping.header("x-wc-webhook-signature", "AAAA"), "signed"),
        (Case::post("webhook_id="), "no number"),
        (Case::post("webhook_id=17&webhook_id=18"), "more than a ping"),
        (Case::post("webhook_id=17\n"), "a line end"),
        (Case::post("webhook_id=-1"), "a sign"),
        (Case::post("webhook_id=123456789012345678901"), "too long"),
        (Case::post(r#"{"id":17}"#), "a delivery"),
        (Case::bare(Method::GET), "not a POST"),
    ] {
        let answer = case.ask(Handshake::WooCommercePing, Stage::Received, &NOTHING);
        assert!(matches!(answer, Ok(None)), "{why}: {answer:?}");
    }
}

/// The documented `url_verification` of Slack's Events API.
#[test]
fn slack_gets_its_challenge_after_its_signature() {
    let body = br#"{"token":"Jhj5dZrVaK7ZwHHjRyZWjbDl","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYZ8P","type":"url_verification"}"#;
    let case = Case::post(body).header("content-type", "application/json");
    assert_eq!(
        case.answer(Handshake::SlackUrlVerification, Stage::Verified, &NOTHING),
        text("3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYZ8P")
    );
    assert!(
        case.ask(Handshake::SlackUrlVerification, Stage::Received, &NOTHING).unwrap().is_none(),
        "unsigned"
    );
    for body in [
        r#"{"type":"event_callback","event":{"text":"url_verification"},"challenge":"a"}"#,
        r#"{"type":"url_verification"}"#,
        r#"[{"type":"url_verification","challenge":"a"}]"#,
        r#"{"type":"url_verification","type":"event_callback","challenge":"a"}"#,
        "payload=url_verification",
    ] {
        assert!(
            Case::post(body)
                .ask(Handshake::SlackUrlVerification, Stage::Verified, &NOTHING)
                .unwrap()
                .is_none(),
            "{body}"
        );
    }
}

#[test]
fn meta_gets_its_challenge_for_the_agreed_token() {
    let case = Case::get("hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=meatyhamhock");
    assert_eq!(
        case.answer(Handshake::MetaSubscribe, Stage::Head, &token("meatyhamhock")),
        text("1158201444")
    );
    let encoded = Case::get("hub.verify_token=a%26b+%C3%A9&hub.challenge=1&hub.mode=subscribe");
    assert_eq!(encoded.answer(Handshake::MetaSubscribe, Stage::Head, &token("a&b é")), text("1"));
}

/// Zoom's documented body; the code is the one of webhook-co's tests for its token.
#[test]
fn zoom_gets_its_token_back_with_its_code() {
    let body = br#"{"payload":{"plainToken":"pv-plainToken-abc123"},"event_ts":1654503849680,"event":"endpoint.url_validation"}"#;
    let expect = json(
        r#"{"plainToken":"pv-plainToken-abc123","encryptedToken":"924c76d973084bbe133c17ff1c1a9b6639c74aef8bb34daa05c70361039e7beb"}"#,
    );
    let case = Case::post(body);
    assert_eq!(
        case.answer(Handshake::ZoomUrlValidation, Stage::Verified, &settings("zoom-secret-token-xyz")),
        expect
    );
    assert!(
        case.ask(Handshake::ZoomUrlValidation, Stage::Received, &settings("a")).unwrap().is_none(),
        "unsigned"
    );
    assert_eq!(
        case.ask(Handshake::ZoomUrlValidation, Stage::Verified, &NOTHING).unwrap_err(),
        Refused::Settings,
        "no secret"
    );

    // While the secret is replaced, the one that Zoom signed with makes the answer.
    let message = [b"v0:1654503849:", &body[..]].concat();
    let code = head::hmac_sha256(b"zoom-secret-token-xyz", &message).unwrap();
    let signed = case
        .header("x-zm-request-timestamp", "1654503849")
        .header("x-zm-signature", &format!("v0={}", hex::encode(code)));
    let both = HandshakeSettings {
        secrets: vec!["the-next-secret".into(), "zoom-secret-token-xyz".into()],
        ..HandshakeSettings::default()
    };
    assert_eq!(signed.answer(Handshake::ZoomUrlValidation, Stage::Verified, &both), expect);
}

/// Xero's documented body. Its signature has been checked before: 200 here, 401 for the wrongly signed ones there.
#[test]
fn xeros_intent_to_receive_is_an_empty_200() {
    let body = r#"{"events":[],"lastEventSequence":0,"firstEventSequence":0,"entropy":"S0m3r4Nd0mt3xt"}"#;
    let case = Case::post(body);
    assert_eq!(case.answer(Handshake::XeroIntentToReceive, Stage::Verified, &NOTHING), empty());
    assert!(
        case.ask(Handshake::XeroIntentToReceive, Stage::Received, &NOTHING).unwrap().is_none(),
        "unsigned"
    );
    for body in [
        r#"{"events":[{"resourceId":"1"}],"lastEventSequence":1,"firstEventSequence":1,"entropy":"a"}"#,
        r#"{"events":[],"lastEventSequence":0}"#,
        r#"{"events":"[]","entropy":"a"}"#,
        "[]",
    ] {
        assert!(
            Case::post(body)
                .ask(Handshake::XeroIntentToReceive, Stage::Verified, &NOTHING)
                .unwrap()
                .is_none(),
            "{body}"
        );
    }
}

#[test]
fn challenges_in_the_query_are_echoed_as_text() {
    for handshake in [Handshake::DropboxChallenge, Handshake::AdobeIoChallenge] {
        let case = Case::get("challenge=8ec8d7a4-4d3e-4b3a-9b5a-2f7b1c2d3e4f");
        assert_eq!(
            case.answer(handshake, Stage::Head, &NOTHING),
            text("8ec8d7a4-4d3e-4b3a-9b5a-2f7b1c2d3e4f")
        );
        assert!(Case::get("chal=1").ask(handshake, Stage::Head, &NOTHING).unwrap().is_none());
    }
}

/// webhook-co's tests, which took the formula from eBay's documentation.
#[test]
fn ebay_gets_the_hash_of_code_token_and_url() {
    let settings = HandshakeSettings {
        verify_token: Some("webhook-co-ebay-verify-token-0123456789abcdef".into()),
        public_url: Some("https://wbhk.my/t/ebay-acct-deletion".to_owned()),
        ..HandshakeSettings::default()
    };
    let case = Case::get("challenge_code=71745723-9b5e-4f8a-bc11-9f0e2a7d4c63");
    assert_eq!(
        case.answer(Handshake::EbayChallenge, Stage::Head, &settings),
        json(r#"{"challengeResponse":"d24cd543fe79a6b0b79e99e0b27939b4a01fce883ae11a63ca875183a5a07ba4"}"#)
    );
    let without_url = HandshakeSettings { public_url: None, ..settings };
    assert_eq!(case.ask(Handshake::EbayChallenge, Stage::Head, &without_url).unwrap_err(), Refused::Settings);
}

/// webhook-co's tests, with the secret of X's documentation.
#[test]
fn x_gets_its_token_signed() {
    let settings = settings("z3ZX4v7mAAUGykl3EcmkqbartmuW8VFOOzCloLx9Q45P0hLrFu");
    let case = Case::get("crc_token=9b4507b3-9040-4669-9ca3-6b94edb50553&nonce=1");
    assert_eq!(
        case.answer(Handshake::XCrc, Stage::Head, &settings),
        json(r#"{"response_token":"sha256=Cytd4Sq+NvEcV3MMrXxWJGJx5A+y/lXzzU2Maartkx8="}"#)
    );
    for token in ["%7B%22a%22%3A1%7D", "[1]", "%22a%22", "a%20b", "", &"a".repeat(257)] {
        let answer = Case::get(&format!("crc_token={token}")).ask(Handshake::XCrc, Stage::Head, &settings);
        assert_eq!(answer.unwrap_err(), Refused::Challenge, "{token}");
    }
}

/// The test of Braintree's own SDKs, with the keys of their test merchant.
#[test]
fn braintree_gets_its_challenge_signed() {
    let settings = HandshakeSettings {
        account: Some("integration_public_key".to_owned()),
        ..settings("integration_private_key")
    };
    let case = Case::get("bt_challenge=20f9f8ed05f77439fe955c977e4c8a53");
    assert_eq!(
        case.answer(Handshake::BraintreeChallenge, Stage::Head, &settings),
        text("integration_public_key|d9b899556c966b3f06945ec21311865d35df3ce4")
    );
    for challenge in
        ["bad challenge", "20F9F8ED05F77439FE955C977E4C8A53", "20f9f8ed05f77439fe9", &"a".repeat(33)]
    {
        let case = Case::get(&format!("bt_challenge={challenge}"));
        let answer = case.ask(Handshake::BraintreeChallenge, Stage::Head, &settings);
        assert_eq!(answer.unwrap_err(), Refused::Challenge, "{challenge}");
    }
}

#[test]
fn challenges_in_headers_are_answered_where_the_sender_looks() {
    let okta = Case::default().header("x-okta-verification-challenge", "d2hhdHM-x_1");
    assert_eq!(
        okta.answer(Handshake::OktaChallenge, Stage::Head, &NOTHING),
        json(r#"{"verification":"d2hhdHM-x_1"}"#)
    );

    let adobe = Case::default().header("x-adobesign-clientid", "CBJCHBCAABAAo8FbgRMCjEoMYwOBE1");
    let echoed =
        "200\nx-adobesign-clientid: CBJCHBCAABAAo8FbgRMCjEoMYwOBE1\nx-content-type-options: nosniff\n\n";
    assert_eq!(adobe.answer(Handshake::AcrobatSignClientId, Stage::Head, &NOTHING), echoed);
    let agreed = token("CBJCHBCAABAAo8FbgRMCjEoMYwOBE1");
    assert_eq!(adobe.answer(Handshake::AcrobatSignClientId, Stage::Head, &agreed), echoed);
    let other = adobe.ask(Handshake::AcrobatSignClientId, Stage::Head, &token("another"));
    assert_eq!(other.unwrap_err(), Refused::VerifyToken);

    let secret = "b537207f20cbfa02357cf448134da559e8bd39d61597dcd5631b8012eae53e81";
    let asana = Case::post("").header("x-hook-secret", secret);
    assert_eq!(
        asana.answer(Handshake::AsanaHookSecret, Stage::Received, &NOTHING),
        format!("200\nx-content-type-options: nosniff\nx-hook-secret: {secret}\n\n")
    );
    let kept = asana.ask(Handshake::AsanaHookSecret, Stage::Received, &NOTHING).unwrap().unwrap();
    assert!(!format!("{kept:?}").contains(secret), "a log can't show it: {kept:?}");
    let twice =
        asana.header("x-hook-secret", secret).ask(Handshake::AsanaHookSecret, Stage::Received, &NOTHING);
    assert_eq!(twice.unwrap_err(), Refused::Challenge);
}

#[test]
fn probes_are_answered_by_a_bare_200() {
    let probe = Case::bare(Method::HEAD);
    assert_eq!(probe.answer(Handshake::HeadProbe, Stage::Head, &NOTHING), empty());
    assert!(Case::default().ask(Handshake::HeadProbe, Stage::Head, &NOTHING).unwrap().is_none(), "GET");
    for body in ["mandrill_events=[]", "mandrill_events=%5B%5D"] {
        assert_eq!(Case::post(body).answer(Handshake::MandrillNoEvents, Stage::Received, &NOTHING), empty());
    }
    let events = Case::post("mandrill_events=%5B%7B%7D%5D");
    assert!(events.ask(Handshake::MandrillNoEvents, Stage::Received, &NOTHING).unwrap().is_none());
}

/// CloudEvents, HTTP 1.1 Web Hooks, section 4: the origin that asked is allowed, and the rate only if it asked.
#[test]
fn cloud_events_are_allowed_by_origin() {
    let case = Case::bare(Method::OPTIONS).header("webhook-request-origin", "eventgrid.azure.net");
    let allowed = "200\nallow: OPTIONS, POST\nwebhook-allowed-origin: eventgrid.azure.net\n";
    assert_eq!(
        case.answer(Handshake::CloudEventsOptions, Stage::Head, &NOTHING),
        format!("{allowed}x-content-type-options: nosniff\n\n")
    );
    let rated = case.header("webhook-request-rate", "120");
    assert_eq!(
        rated.answer(Handshake::CloudEventsOptions, Stage::Head, &NOTHING),
        format!("{allowed}webhook-allowed-rate: *\nx-content-type-options: nosniff\n\n")
    );
    assert!(
        Case::bare(Method::OPTIONS)
            .ask(Handshake::CloudEventsOptions, Stage::Head, &NOTHING)
            .unwrap()
            .is_none(),
        "a browser's preflight is no handshake"
    );
}

#[test]
fn event_grid_gets_its_code() {
    let body = r#"[{"id":"2d1781af-3a4c-4d7c-bd0c-e34b19da4e66","topic":"/subscriptions/x","subject":"","data":{"validationCode":"512d38b6-c7b8-40c8-89fe-f46f9e9622b6","validationUrl":"https://rp-eastus2.eventgrid.azure.net/x"},"eventType":"Microsoft.EventGrid.SubscriptionValidationEvent","eventTime":"2022-10-28T04:23:35.1981776Z","metadataVersion":"1","dataVersion":"1"}]"#;
    assert_eq!(
        Case::post(body).answer(Handshake::EventGridValidation, Stage::Received, &NOTHING),
        json(r#"{"validationResponse":"512d38b6-c7b8-40c8-89fe-f46f9e9622b6"}"#)
    );
    let event = r#"[{"eventType":"order","data":{"validationCode":"Microsoft.EventGrid.SubscriptionValidationEvent"}}]"#;
    assert!(
        Case::post(event).ask(Handshake::EventGridValidation, Stage::Received, &NOTHING).unwrap().is_none()
    );
}

/// The token is a sentence, percent-encoded by Graph, and comes back decoded.
#[test]
fn graph_gets_its_token_decoded() {
    let query = "a=1&validationToken=Validation%3a+Testing+client+application+reachability+for+subscription+Request-Id%3a+7f3c2a51-9c8e-4f0b-8f0e-6d1f5b9a0c4d";
    let case = Case { query: query.to_owned(), ..Case::post("") };
    assert_eq!(
        case.answer(Handshake::GraphValidationToken, Stage::Received, &NOTHING),
        text(
            "Validation: Testing client application reachability for subscription Request-Id: 7f3c2a51-9c8e-4f0b-8f0e-6d1f5b9a0c4d"
        )
    );
    let notification = Case { body: br#"{"value":[]}"#.to_vec(), ..case };
    let answer = notification.ask(Handshake::GraphValidationToken, Stage::Received, &NOTHING);
    assert!(answer.unwrap().is_none(), "a webhook isn't thrown away for its query");
}

#[test]
fn monday_gets_the_same_json() {
    let body = r#"{ "challenge" : "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P" }"#;
    assert_eq!(
        Case::post(body).answer(Handshake::MondayChallenge, Stage::Received, &NOTHING),
        json(r#"{"challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}"#)
    );
    let event = Case::post(r#"{"challenge":"a","event":{}}"#);
    assert!(event.ask(Handshake::MondayChallenge, Stage::Received, &NOTHING).unwrap().is_none());
}

#[test]
fn discord_gets_a_pong_or_a_204() {
    let pong = Case::post(r#"{"application_id":"1","id":"2","token":"t","type":1,"user":{},"version":1}"#);
    assert_eq!(pong.answer(Handshake::DiscordPing, Stage::Verified, &NOTHING), json(r#"{"type":1}"#));
    let ping = Case::post(r#"{"version":1,"application_id":"1","type":0}"#);
    assert_eq!(
        ping.answer(Handshake::DiscordPing, Stage::Verified, &NOTHING),
        "204\ncontent-type: application/json\nx-content-type-options: nosniff\n\n"
    );
    for (stage, body) in [
        (Stage::Received, r#"{"type":1}"#),
        (Stage::Verified, r#"{"type":1,"event":{"type":"APPLICATION_AUTHORIZED"}}"#),
        (Stage::Verified, r#"{"type":2}"#),
        (Stage::Verified, r#"{"type":"1"}"#),
        (Stage::Verified, r#"{"type":256}"#),
    ] {
        assert!(Case::post(body).ask(Handshake::DiscordPing, stage, &NOTHING).unwrap().is_none(), "{body}");
    }
}

#[test]
fn a_subscription_is_confirmed_only_for_the_agreed_topic() {
    let case = sns("SubscriptionConfirmation", SNS_URL);
    let notice = |settings: &HandshakeSettings| {
        let answer =
            case.ask(Handshake::SnsSubscriptionConfirmation, Stage::Verified, settings).unwrap().unwrap();
        let notice = answer.notice().cloned().unwrap();
        assert_eq!(wire(answer), empty());
        notice
    };
    let by_hand = Notice::ConfirmByHand { sender: "Amazon SNS", url: SNS_URL.to_owned() };
    let topic = |arn: &str| settings(arn);
    assert_eq!(notice(&NOTHING), by_hand);
    assert_eq!(notice(&topic("arn:aws:sns:us-west-2:123456789012:Other")), by_hand);
    assert_eq!(
        notice(&topic("arn:aws:sns:us-west-2:123456789012:MyTopic")),
        Notice::Confirm { url: SNS_URL.to_owned() }
    );
    assert!(
        case.ask(Handshake::SnsSubscriptionConfirmation, Stage::Received, &NOTHING).unwrap().is_none(),
        "unsigned"
    );

    let ended = sns("UnsubscribeConfirmation", SNS_URL).ask(
        Handshake::SnsSubscriptionConfirmation,
        Stage::Verified,
        &NOTHING,
    );
    let topic = "arn:aws:sns:us-west-2:123456789012:MyTopic".to_owned();
    assert_eq!(ended.unwrap().unwrap().notice(), Some(&Notice::Unsubscribed { topic }));
    let delivery =
        sns("Notification", SNS_URL).ask(Handshake::SnsSubscriptionConfirmation, Stage::Verified, &NOTHING);
    assert!(delivery.unwrap().is_none());
}

#[test]
fn adobes_other_way_is_noted_and_never_visited() {
    let url = "https://csm.adobe.io/csm/registrations/validate?id=1&challenge=2";
    let answer = Case::post(format!(r#"{{"validationUrl":"{url}"}}"#))
        .ask(Handshake::AdobeIoValidationUrl, Stage::Received, &NOTHING)
        .unwrap()
        .unwrap();
    let notice = Notice::ConfirmByHand { sender: "Adobe I/O", url: url.to_owned() };
    assert_eq!(answer.notice(), Some(&notice));
    for url in
        ["https://csm.adobe.io.evil.example/", "http://csm.adobe.io/", "https://csm.adobe.io/\\n[ERROR]"]
    {
        let case = Case::post(format!(r#"{{"validationUrl":"{url}"}}"#));
        let answer = case.ask(Handshake::AdobeIoValidationUrl, Stage::Received, &NOTHING);
        assert_eq!(answer.unwrap_err(), Refused::Challenge, "{url}");
    }
    let event = Case::post(r#"{"event_id":"1","validationUrl":"x"}"#);
    assert!(event.ask(Handshake::AdobeIoValidationUrl, Stage::Received, &NOTHING).unwrap().is_none());
}

#[test]
fn twitch_gets_its_challenge_after_its_signature() {
    let case = Case::post(r#"{"challenge":"pogchamp-kappa-360noscope-vohiyo","subscription":{}}"#)
        .header("twitch-eventsub-message-type", "webhook_callback_verification");
    assert_eq!(
        case.answer(Handshake::TwitchCallbackVerification, Stage::Verified, &NOTHING),
        text("pogchamp-kappa-360noscope-vohiyo")
    );
    assert!(
        case.ask(Handshake::TwitchCallbackVerification, Stage::Received, &NOTHING).unwrap().is_none(),
        "unsigned"
    );
}
