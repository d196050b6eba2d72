//! A gateway inside the test's process.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use retrieve_gateway::config::{Config, env};
use retrieve_gateway::gateway::Gateway;
use retrieve_gateway::shutdown::Shutdown;
use serde_json::json;
use tempfile::TempDir;

use super::client::{Answer, exchange, get, post, try_get};
use super::{eventually, eventually_within};

/// The embedded queue begins a new file every 4 MiB then, a sixteenth of its limit.
pub const SMALL_FILES: (&str, &str) = ("RETRIEVE_EMBEDDED_LIMIT", "64MiB");

/// The files of the embedded queue in a gateway's folder.
pub fn file_names(folder: &TempDir) -> BTreeSet<String> {
    let names = std::fs::read_dir(folder.path().join("data")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("jobs-") && name.ends_with(".log")).collect()
}

/// A running gateway with ports and a folder of its own.
pub struct TestGateway {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    _folder: TempDir,
}

/// Settings on free ports with the integration `demo`, and an embedded queue in that folder.
pub fn settings(folder: &TempDir, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let queue = format!("embedded:{}", folder.path().join("data").display());
    let journal = folder.path().join("journal").display().to_string();
    let mut settings: BTreeMap<String, String> = [
        ("RETRIEVE_LISTEN", "127.0.0.1:0"),
        ("RETRIEVE_ADMIN_LISTEN", "127.0.0.1:0"),
        ("RETRIEVE_INTEGRATIONS_FILE", "config/integrations.toml"),
        ("RETRIEVE_QUEUE", &queue),
        ("RETRIEVE_DATA_DIR", &journal),
        // A busy test machine may take longer than a user would like; what is tested is not its speed.
        ("RETRIEVE_QUEUE_TIMEOUT", "10s"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    settings.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    settings
}

impl TestGateway {
    pub async fn start(more: &[(&str, &str)]) -> TestGateway {
        TestGateway::start_with(more, |_| {}).await
    }

    /// Starts with limits changed that no setting changes.
    pub async fn start_with(more: &[(&str, &str)], change: impl FnOnce(&mut Config)) -> TestGateway {
        let folder = TempDir::new().unwrap();
        let settings = settings(&folder, more);
        let (config, problems) = env::read(&settings);
        let mut config = config.unwrap_or_else(|| panic!("{problems}"));
        change(&mut config);
        let gateway = Gateway::start(config).await.unwrap();
        let (address, admin) = (gateway.address().unwrap(), gateway.admin_address().unwrap());
        tokio::spawn(gateway.run(Shutdown::default()));
        eventually("the private plane answers", || async {
            tokio::net::TcpStream::connect(admin).await.ok()
        })
        .await;
        TestGateway { address, admin, _folder: folder }
    }

    /// Starts with an `integrations.toml` of that text.
    pub async fn with_integrations(toml: &str, more: &[(&str, &str)]) -> TestGateway {
        TestGateway::with_integrations_and(toml, more, |_| {}).await
    }

    /// The same with limits changed that no setting changes.
    pub async fn with_integrations_and(
        toml: &str,
        more: &[(&str, &str)],
        change: impl FnOnce(&mut Config),
    ) -> TestGateway {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("integrations.toml");
        std::fs::write(&path, toml).unwrap();
        let path = path.display().to_string();
        let mut all = vec![("RETRIEVE_INTEGRATIONS_FILE", path.as_str())];
        all.extend_from_slice(more);
        TestGateway::start_with(&all, change).await
    }

    pub async fn post_json(&self, body: impl AsRef<[u8]>) -> Answer {
        exchange(self.address, post("/integration/demo", "application/json", body)).await
    }

    /// Posts `{"n": …}` with each of these numbers in order, and has them all taken.
    pub async fn take_numbers(&self, numbers: Range<u64>) {
        for number in numbers {
            assert_eq!(self.post_json(format!("{{\"n\":{number}}}")).await.status, 200, "{number}");
        }
    }

    /// Waits until it takes webhooks.
    pub async fn ready(&self) {
        eventually("the gateway is ready", || async {
            (get(self.admin, "/ready").await.status == 200).then_some(())
        })
        .await;
    }

    /// Waits until Redis has what the outage journal held.
    pub async fn sent_its_journal(&self) {
        journal_is_sent_within(60, self.admin).await;
    }

    /// Why it takes no webhooks, once that holds all of these texts.
    pub async fn why_not_ready(&self, expect: &[&str]) -> String {
        self.queue_says(503, "why", expect).await
    }

    /// Why its webhooks go to the outage journal, once that holds all of these texts.
    pub async fn note(&self, expect: &[&str]) -> String {
        self.queue_says(200, "note", expect).await
    }

    async fn queue_says(&self, status: u16, field: &str, expect: &[&str]) -> String {
        let mut said = String::new();
        let saying = async {
            loop {
                let ready = get(self.admin, "/ready").await;
                if let Some(text) = ready.json()["probes"]["queue"][field].as_str()
                    && ready.status == status
                    && expect.iter().all(|expect| text.contains(expect))
                {
                    return text.to_owned();
                }
                said = ready.body;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let text = tokio::time::timeout(Duration::from_secs(15), saying).await;
        text.unwrap_or_else(|_| panic!("not {status} and {expect:?}, but {said}"))
    }

    /// All jobs of the queue, in order.
    pub async fn jobs(&self) -> Vec<serde_json::Value> {
        jobs(self.admin).await
    }

    /// The value of a metric's line, by how the line begins.
    pub async fn metric(&self, line: &str) -> Option<f64> {
        metric(self.admin, line).await
    }
}

/// The value of a metric's line, by how the line begins; None without it, or from a gateway that is too busy to answer.
pub async fn metric(admin: SocketAddr, line: &str) -> Option<f64> {
    let text = try_get(admin, "/metrics").await?.body;
    text.lines().find_map(|other| other.strip_prefix(line)?.strip_prefix(' ')?.parse().ok())
}

/// Waits until Redis has what the outage journal held, and takes jobs directly again. The metric alone wouldn't do: that of
/// a gateway that has just started is 0 until its worker runs.
pub async fn journal_is_sent_within(seconds: u64, admin: SocketAddr) {
    eventually_within(seconds, "the journal is sent", || async {
        let ready = try_get(admin, "/ready").await?;
        let is_up = ready.status == 200 && ready.json()["probes"]["queue"] == json!({ "ready": true });
        (is_up && metric(admin, "retrieve_journal_jobs").await? == 0.0).then_some(())
    })
    .await;
}

/// The bytes of an acknowledgement up to and with a position.
pub fn acknowledgement(admin: SocketAddr, last: impl std::fmt::Display) -> String {
    let body = format!("{{\"last\":\"{last}\"}}");
    format!(
        "POST /api/jobs/ack HTTP/1.1\r\nHost: {admin}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// All jobs that a gateway's queue holds, read through its private plane page by page.
pub async fn jobs(admin: SocketAddr) -> Vec<serde_json::Value> {
    let mut jobs = Vec::new();
    let mut after = "0".to_owned();
    loop {
        let page = get(admin, &format!("/api/jobs?after={after}&limit=1000")).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let before = jobs.len();
        for line in page.body.lines() {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            jobs.push(line["job"].take());
        }
        if jobs.len() == before {
            return jobs;
        }
        after = page.header("x-retrieve-last-id").unwrap().to_owned();
    }
}
