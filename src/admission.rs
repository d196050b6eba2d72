//! Who may call what: the app's allowlist, then the integration, then the integration's own policy.
//!
//! The order keeps ids secret: a caller that no rule admits gets the same refusal whether or not the integration
//! exists.

pub mod allowlist;
pub mod networks;
pub mod rate;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::admission::allowlist::Rule;
use crate::app::App;
use crate::integration::Integration;

/// Proof that a caller was admitted to an integration; only [`admit`] makes one.
#[derive(Debug)]
pub struct Caller<'a> {
    integration: &'a Integration,
    rule: &'a Rule,
}

impl<'a> Caller<'a> {
    /// The integration that the caller may use.
    pub fn integration(&self) -> &'a Integration {
        self.integration
    }

    /// The rule that admitted it.
    pub fn rule(&self) -> &'a Rule {
        self.rule
    }
}

/// Why a caller was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No allowlist holds the caller's address.
    Caller,
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
/// The first rule that refuses it, in the contract's order.
pub fn admit<'a>(app: &'a App, id: &str, address: IpAddr, now: Instant) -> Result<Caller<'a>, Refusal> {
    let integration = app.integrations.get(id);
    let rule = match (app.allowlist.rule_for(address), integration) {
        (Some(rule), _) => rule,
        (None, Some(integration)) => integration.allowlist.rule_for(address).ok_or(Refusal::Caller)?,
        (None, None) => return Err(Refusal::Caller),
    };
    let integration = integration.ok_or(Refusal::UnknownIntegration)?;
    if !integration.enabled {
        return Err(Refusal::Disabled);
    }
    if let Some(limit) = &integration.rate {
        limit.take(now).map_err(Refusal::Rate)?;
    }
    Ok(Caller { integration, rule })
}
