//! Who may call what: the app's allowlist, then the integration, then the integration's own policy.
//!
//! The order keeps ids secret: a caller that no rule admits gets the same refusal whether or not the integration
//! exists. Not so while the allowlists only report: then everyone is admitted, and learns what doesn't exist.

pub mod allowlist;
pub mod domains;
pub mod networks;
pub mod rate;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::admission::allowlist::{Allowlist, Proof, Rule};
use crate::admission::domains::Finding;
use crate::app::App;
use crate::integration::Integration;

/// Proof that a caller was admitted to an integration; only [`admit`] makes one.
#[derive(Debug)]
pub struct Caller<'a> {
    integration: &'a Integration,
    rule: &'a Rule,
    needs_signature: bool,
}

impl<'a> Caller<'a> {
    /// The integration that the caller may use.
    pub fn integration(&self) -> &'a Integration {
        self.integration
    }

    /// The rule that admits it.
    pub fn rule(&self) -> &'a Rule {
        self.rule
    }

    /// Whether only a valid signature makes the rule true. Until then nothing but the signature may be looked at.
    pub fn needs_signature(&self) -> bool {
        self.needs_signature
    }
}

/// What the allowlists are for: `RETRIEVE_ALLOWED_LIST_MODE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListMode {
    /// A caller that no list admits is refused.
    #[default]
    Enforce,
    /// It is let in and counted, to find the right list before it is enforced. Every other check stays.
    Report,
}

/// What admits a caller that no list holds: no entry, and no proof of anything.
static REPORTED: Rule = Rule { proof: Proof::Report, entry: String::new() };

/// Why a caller was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No allowlist holds the caller's address, nor a domain that it belongs to.
    Caller,
    /// It couldn't be found out in time whether the caller belongs to a listed domain.
    Undecided,
    /// The app has no such integration.
    UnknownIntegration,
    /// The integration is switched off.
    Disabled,
    /// The integration's rate is used up for so long.
    Rate(Duration),
}

/// Decides on a caller before anything of its body is read.
///
/// # Errors
/// The first rule that refuses it.
pub async fn admit<'a>(app: &'a App, id: &str, address: IpAddr, now: Instant) -> Result<Caller<'a>, Refusal> {
    let integration = app.integrations.get(id);
    let own = integration.map(|integration| &integration.allowlist);
    let by_signature = integration.and_then(|integration| integration.signature_rule.as_ref());
    let listed = app.allowlist.rule_for(address).or_else(|| own?.rule_for(address));
    let needs_signature = listed.is_none() && by_signature.is_some();
    let rule = match listed.or(by_signature) {
        Some(rule) => rule,
        // Boxed, because each request's future would have room for it, and few need it.
        None => match Box::pin(by_domain(app, own, address, now)).await {
            // What couldn't be decided is let in as well: what is looked for is who would have to be listed.
            Err(_) if app.list_mode == ListMode::Report => &REPORTED,
            found => found?,
        },
    };
    let integration = integration.ok_or(Refusal::UnknownIntegration)?;
    if !integration.enabled {
        return Err(Refusal::Disabled);
    }
    if let Some(limit) = &integration.rate {
        limit.take(now).map_err(Refusal::Rate)?;
    }
    Ok(Caller { integration, rule, needs_signature })
}

/// The rule of a domain that the caller is proven to belong to. What is looked up doesn't depend on the integration.
async fn by_domain<'a>(
    app: &'a App,
    own: Option<&'a Allowlist>,
    address: IpAddr,
    now: Instant,
) -> Result<&'a Rule, Refusal> {
    let Some(domains) = &app.domains else { return Err(Refusal::Caller) };
    let lists = [Some(&app.allowlist), own];
    match domains.prove(lists.into_iter().flatten(), address, now).await {
        Finding::Rule(rule) => Ok(rule),
        Finding::Nothing => Err(Refusal::Caller),
        Finding::Undecided => Err(Refusal::Undecided),
    }
}
