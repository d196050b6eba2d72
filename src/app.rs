//! The app: a name, who may call it, its integrations and its queue.

use http::HeaderMap;

use crate::admission::ListMode;
use crate::admission::allowlist::Allowlist;
use crate::admission::domains::Domains;
use crate::integration::Integrations;
use crate::queue::Queue;

/// One app. Its name is part of its Redis keys and of every job.
#[derive(Debug)]
pub struct App {
    /// `RETRIEVE_APP`.
    pub name: String,
    /// `RETRIEVE_ALLOWED_LIST`.
    pub allowlist: Allowlist,
    /// The look-ups of the domains on its lists and its integrations'; none if there is no domain.
    pub domains: Option<Domains>,
    /// `RETRIEVE_ALLOWED_LIST_MODE`.
    pub list_mode: ListMode,
    /// What its URLs accept.
    pub integrations: Integrations,
    /// Where its jobs go.
    pub queue: Queue,
}

impl App {
    /// Ends its workers: the queue's, once it has stored what it took, and the one of the domains.
    pub fn close(&self) {
        self.queue.close();
        if let Some(domains) = &self.domains {
            domains.close();
        }
    }
}

/// The apps of this process: today one, later also several, told apart by host name.
#[derive(Debug)]
pub struct Apps {
    only: App,
}

impl Apps {
    /// A process that serves one app under every host name.
    pub fn one(app: App) -> Apps {
        Apps { only: app }
    }

    /// The app that a request is for.
    pub fn select(&self, _headers: &HeaderMap) -> &App {
        &self.only
    }

    /// All apps.
    pub fn iter(&self) -> impl Iterator<Item = &App> {
        std::iter::once(&self.only)
    }
}
