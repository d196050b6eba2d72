//! A gateway inside the test's process.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use retrieve_gateway::config::{Config, env};
use retrieve_gateway::gateway::Gateway;
use retrieve_gateway::shutdown::Shutdown;
use tempfile::TempDir;

use super::client::{Answer, exchange, get, post};
use super::{eventually, eventually_within};

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

    /// Waits until it takes webhooks.
    pub async fn ready(&self) {
        eventually("the gateway is ready", || async {
            (get(self.admin, "/ready").await.status == 200).then_some(())
        })
        .await;
    }

    /// Waits until Redis has what the outage journal held.
    pub async fn sent_its_journal(&self) {
        eventually_within(60, "the journal is sent", || async {
            (self.metric("retrieve_journal_jobs").await? == 0.0).then_some(())
        })
        .await;
    }

    /// All jobs of the queue, in order.
    pub async fn jobs(&self) -> Vec<serde_json::Value> {
        jobs(self.admin).await
    }

    /// The value of a metric's line, by how the line begins.
    pub async fn metric(&self, line: &str) -> Option<f64> {
        let text = get(self.admin, "/metrics").await.body;
        let line = text.lines().find(|other| other.starts_with(&format!("{line} ")))?;
        line.rsplit(' ').next()?.parse().ok()
    }
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
