//! Code hosts, issue trackers, and the scheme that many small senders share.

use super::schemes::{LINEAR_CLOCK, STANDARD_WEBHOOKS, STANDARD_WEBHOOKS_PUBLIC};
use super::{BODY, BodyRules, Locator, PLAIN, Preset, Secret};
use crate::signature::scheme::Signed;
use crate::signature::{CredentialPlace, Encoding, Scheme};

const BOTH_VERSIONS: Scheme<'_> =
    Scheme::AnyOf(&[Scheme::Signed(STANDARD_WEBHOOKS), Scheme::Signed(STANDARD_WEBHOOKS_PUBLIC)]);

const SVIX_FACTS: &str = "standard-webhooks/standard-webhooks specification and libraries, svix-webhooks server/svix-server/src/worker.rs";

pub(super) static PRESETS: [Preset; 6] = [
    Preset {
        name: "github",
        title: "GitHub",
        facts: "github/docs validating-webhook-deliveries.md, octokit/webhooks-methods.js",
        scheme: Scheme::Signed(Signed::body("x-hub-signature-256", "sha256=", Encoding::Hex)),
        secret: Secret::Required("the webhook's secret"),
        event: Locator::Header(&["x-github-event"]),
        delivery_id: Locator::Header(&["x-github-delivery"]),
        domains: &["github.com"],
        body: BodyRules { form_field: Some("payload"), ..BODY },
        ..PLAIN
    },
    Preset {
        name: "gitlab",
        title: "GitLab",
        facts: "docs.gitlab.com user/project/integrations/webhooks, gitlab-org/gitlab merge request 230944",
        scheme: Scheme::AnyOf(&[
            Scheme::Signed(STANDARD_WEBHOOKS),
            Scheme::Credential { first: CredentialPlace::Header("x-gitlab-token"), others: &[] },
        ]),
        secret: Secret::Required("the webhook's secret token or signing token"),
        event: Locator::Header(&["x-gitlab-event"]),
        delivery_id: Locator::FirstOf(&[
            Locator::Header(&["idempotency-key", "webhook-id"]),
            // The event's id is shared by all hooks that it triggers.
            Locator::Joined(&[
                Locator::Header(&["x-gitlab-event-uuid"]),
                Locator::Header(&["x-gitlab-webhook-uuid"]),
            ]),
        ]),
        domains: &["gitlab.com"],
        ..PLAIN
    },
    Preset {
        name: "bitbucket",
        title: "Bitbucket",
        facts: "support.atlassian.com manage webhooks; the header is x-hub-signature although the hash is SHA-256",
        scheme: Scheme::Signed(Signed::body("x-hub-signature", "sha256=", Encoding::Hex)),
        secret: Secret::Required("the webhook's secret"),
        event: Locator::Header(&["x-event-key"]),
        delivery_id: Locator::Header(&["x-request-uuid", "x-request-id"]),
        domains: &["bitbucket.org"],
        ..PLAIN
    },
    Preset {
        name: "linear",
        title: "Linear",
        facts: "linear/linear packages/sdk/src/webhooks",
        // The time is a member of the signed body, in milliseconds.
        scheme: Scheme::Signed(Signed {
            clock: Some(LINEAR_CLOCK),
            clock_in_body: Some("/webhookTimestamp"),
            ..Signed::body("linear-signature", "", Encoding::Hex)
        }),
        secret: Secret::Required("the webhook's signing secret"),
        event: Locator::Joined(&[Locator::Body("/type"), Locator::Body("/action")]),
        delivery_id: Locator::Header(&["linear-delivery"]),
        domains: &["linear.app"],
        ..PLAIN
    },
    Preset {
        name: "standard-webhooks",
        title: "Standard Webhooks",
        facts: SVIX_FACTS,
        scheme: BOTH_VERSIONS,
        secret: Secret::Required("whsec_… (v1) or the public key whpk_… (v1a)"),
        event: Locator::Body("/type"),
        delivery_id: Locator::Header(&["webhook-id", "svix-id"]),
        ..PLAIN
    },
    Preset {
        name: "svix",
        title: "Svix",
        facts: SVIX_FACTS,
        scheme: BOTH_VERSIONS,
        secret: Secret::Required("whsec_… (v1) or the public key whpk_… (v1a)"),
        event: Locator::FirstOf(&[Locator::Body("/type"), Locator::Body("/eventType")]),
        delivery_id: Locator::Header(&["svix-id", "webhook-id"]),
        domains: &["svix.com"],
        ..PLAIN
    },
];
