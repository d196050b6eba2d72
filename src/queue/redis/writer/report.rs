//! What the writer tells: readiness, the log and the metrics.

use tokio::time::Instant;
use tracing::{info, warn};

use super::RedisWriter;
use crate::queue::Health;
use crate::queue::journal::Journal;
use crate::queue::redis::link::Link;

impl RedisWriter {
    fn measure(&mut self) {
        let Some(journal) = &self.journal else { return };
        self.metrics.journal_jobs.set(journal.usage().jobs());
        self.metrics.journal_bytes.set(journal.usage().bytes());
        self.metrics.journal_damaged_files.set(journal.usage().damaged_files());
        self.metrics.journal_lost_batches.set(journal.usage().lost_batches());
        self.backlog_since = match (journal.usage().jobs(), self.backlog_since) {
            (0, _) => None,
            (_, since) => since.or_else(|| Some(Instant::now())),
        };
        let age = self.backlog_since.map_or(0, |since| since.elapsed().as_secs());
        self.metrics.journal_age_seconds.set(age);
    }

    /// Tells readiness, and the log when something changes.
    pub(super) fn report(&mut self) {
        self.measure();
        let health = match (&self.trouble, self.journal.as_ref().map(Journal::health)) {
            (None, _) if !self.producer.has_backlog() => Health::Up,
            (None, None) => Health::Up,
            (Some(why), None) => Health::Down(why.clone()),
            (Some(why), _) if matches!(self.link, Link::Fenced) => Health::Down(why.clone()),
            (why, Some(Health::Up)) => Health::Journaling(
                why.clone().unwrap_or_else(|| "Redis is back; the journal is being sent to it".to_owned()),
            ),
            (why, Some(Health::Down(journal) | Health::Journaling(journal))) => {
                Health::Down(format!("{}; {journal}", why.as_deref().unwrap_or("Redis is back")))
            }
        };
        self.health.send_if_modified(|current| {
            let changed = *current != health;
            if changed {
                let stream = &self.keys.stream;
                match &health {
                    Health::Up => info!(%stream, "Redis takes jobs"),
                    Health::Journaling(why) => warn!(%stream, %why, "jobs go to the outage journal"),
                    Health::Down(why) => warn!(%stream, %why, "webhooks are answered 503"),
                }
                *current = health;
            }
            changed
        });
    }
}
