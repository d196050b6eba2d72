//! The settings of the Redis queue.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::ClientConfig;

use super::{ORIGIN, Reader, Unreadable};
use crate::queue::redis::target::Target;
use crate::queue::redis::tls::{self, Identity};
use crate::queue::redis::{Ack, Settings, Trim};

impl Reader<'_> {
    pub(super) fn redis(&mut self, target: Target) -> Settings {
        Settings {
            tls: self.tls(target.is_tls),
            target,
            shards: self.shards(),
            ack: self.ack(),
            trim: self.trim(),
            stream_limit: self.stream_limit(),
            dead_after: Duration::from_secs(60 * 60),
        }
    }

    fn trim(&mut self) -> Trim {
        let acknowledged = self.choice("RETRIEVE_TRIM", [("acknowledged", true), ("off", false)]);
        let name = "RETRIEVE_STREAM_AGE_LIMIT";
        let age_limit = self.set(name).and_then(|text| match humantime::parse_duration(&text) {
            Ok(age) if age >= Duration::from_secs(1) => Some(age),
            _ => {
                let message = format!("`{text}` isn't a duration of a second or more");
                self.error(name, Unreadable::new(message).hint("write 7d, 12h or 30m"));
                None
            }
        });
        if let Some(age) = age_limit {
            let message = format!(
                "jobs older than {} are removed, whether they were read or not",
                humantime::format_duration(age)
            );
            self.problems.warning(name, ORIGIN, message, None);
        }
        Trim { acknowledged, age_limit }
    }

    fn stream_limit(&mut self) -> u64 {
        let limit = self.parse("RETRIEVE_STREAM_LIMIT", |text| {
            text.parse()
                .map_err(|_| Unreadable::new(format!("`{text}` isn't a number of entries; 0 for any")))
        });
        limit.unwrap_or(0)
    }

    fn ack(&mut self) -> Ack {
        let ack = self.parse("RETRIEVE_ACK", |text| {
            let count = text.strip_prefix("replicas:").and_then(|count| count.parse().ok());
            match (text, count) {
                ("redis", _) => Ok(Ack::Redis),
                ("fsync", _) => Ok(Ack::Fsync),
                (_, Some(count @ 1..)) => Ok(Ack::Replicas(count)),
                _ => Err(Unreadable::new(format!("`{text}` is none of redis, replicas:<number>, fsync"))),
            }
        });
        ack.unwrap_or(Ack::Redis)
    }

    fn shards(&mut self) -> u32 {
        const LARGEST: u32 = 256;
        let shards = self.parse("RETRIEVE_SHARDS", |text| match text.parse() {
            Ok(shards @ 1..=LARGEST) => Ok(shards),
            _ => Err(Unreadable::new(format!("`{text}` isn't a number from 1 to {LARGEST}"))),
        });
        shards.unwrap_or(1)
    }

    fn tls(&mut self, is_tls: bool) -> Option<Arc<ClientConfig>> {
        const NAMES: [&str; 3] = ["RETRIEVE_REDIS_CA", "RETRIEVE_REDIS_CERT", "RETRIEVE_REDIS_KEY"];
        let files = NAMES.map(|name| self.set(name));
        if !is_tls {
            for name in NAMES.into_iter().zip(&files).filter_map(|(name, file)| file.as_ref().and(Some(name)))
            {
                let hint = "write rediss:// (or rediss-sentinel://, rediss-cluster://) in RETRIEVE_QUEUE";
                let message = "it means nothing without TLS to Redis";
                self.problems.error(name, ORIGIN, message, Some(hint.to_owned()));
            }
            return None;
        }
        let [authorities, certificate, key] = files;
        let authorities = match authorities {
            Some(path) => Some(self.file(NAMES[0], &path, tls::read_certificates)?),
            None => None,
        };
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(Identity {
                certificates: self.file(NAMES[1], &certificate, tls::read_certificates)?,
                key: self.file(NAMES[2], &key, tls::read_key)?,
            }),
            (None, None) => None,
            (certificate, _) => {
                let missing = if certificate.is_none() { NAMES[1] } else { NAMES[2] };
                let message = format!("it is missing: {} and {} belong together", NAMES[1], NAMES[2]);
                self.problems.error(missing, ORIGIN, message, None);
                return None;
            }
        };
        match tls::config(authorities, identity) {
            Ok(config) => Some(Arc::new(config)),
            Err(error) => {
                let message = format!("the certificates can't be used: {error}");
                self.problems.error(NAMES[0], ORIGIN, message, None);
                None
            }
        }
    }

    fn file<T>(&mut self, name: &str, path: &str, read: impl Fn(&Path) -> Result<T, String>) -> Option<T> {
        let content = read(Path::new(path));
        let problem = |why| self.problems.error(name, ORIGIN, format!("{path} can't be used: {why}"), None);
        content.map_err(problem).ok()
    }
}
