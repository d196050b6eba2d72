//! A real redis-server on a free port of loopback.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::eventually;

/// A port of loopback that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Words as arguments.
pub fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A redis-server that can be stopped, frozen and started again on the same port.
pub struct RedisServer {
    pub address: SocketAddr,
    folder: TempDir,
    child: Option<Child>,
    /// Settings besides the usual ones, as on the command line.
    pub more: Vec<String>,
}

impl RedisServer {
    pub async fn start() -> RedisServer {
        RedisServer::start_with(Vec::new).await
    }

    /// Starts one with further settings, which may name free ports: they are made anew for each attempt.
    pub async fn start_with(more: impl Fn() -> Vec<String>) -> RedisServer {
        for _ in 0..20 {
            // Another process may take the port before Redis does; then Redis ends, and another one is tried.
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
            let folder = TempDir::new().unwrap();
            let mut server = RedisServer { address, folder, child: None, more: more() };
            server.spawn();
            if server.is_up().await {
                return server;
            }
        }
        panic!("redis-server doesn't start");
    }

    /// A sentinel that watches the master `mymaster` on that port; its file lies in the folder.
    pub async fn start_sentinel(folder: &Path, master_port: u16) -> RedisServer {
        for number in 0..20 {
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
            let file = folder.join(format!("sentinel-{number}.conf"));
            let settings = format!(
                "bind 127.0.0.1\nport {}\nsentinel monitor mymaster 127.0.0.1 {master_port} 1\n\
                 sentinel down-after-milliseconds mymaster 2000\nsentinel failover-timeout mymaster 3000\n",
                address.port()
            );
            std::fs::write(&file, settings).unwrap();
            let child = Command::new("redis-server")
                .arg(&file)
                .arg("--sentinel")
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let folder = TempDir::new().unwrap();
            let mut server = RedisServer { address, folder, child: Some(child), more: Vec::new() };
            if server.is_up().await {
                return server;
            }
        }
        panic!("the sentinel doesn't start");
    }

    /// Appends to its own file with an fsync each time, so that a restart has all that it confirmed.
    fn spawn(&mut self) {
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &self.address.port().to_string(), "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            .arg("--dir")
            .arg(self.folder.path())
            .args(&self.more)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server; scripts/test installs it");
        self.child = Some(child);
    }

    async fn is_up(&mut self) -> bool {
        for _ in 0..1000 {
            if self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some()) {
                return false;
            }
            if self.try_command(&["PING"]).await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub async fn restart(&mut self) {
        self.kill();
        self.spawn();
        assert!(self.is_up().await, "redis-server doesn't come back");
    }

    pub fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = self.child.as_ref().unwrap().id();
        let pid = rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub async fn try_command(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query_async(&mut connection).await
    }

    pub async fn command(&self, words: &[&str]) -> redis::Value {
        self.try_command(words).await.unwrap()
    }

    /// The jobs on an app's stream, read with XRANGE as a worker would see them.
    pub async fn jobs(&self, app: &str) -> Vec<serde_json::Value> {
        let stream = format!("retrieve:{{{app}}}:jobs");
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection =
            eventually("Redis answers", || async { client.get_multiplexed_async_connection().await.ok() })
                .await;
        let mut jobs = Vec::new();
        let mut from = "-".to_owned();
        loop {
            // Page by page: a stream may be larger than a reply in time.
            let mut page = redis::cmd("XRANGE");
            page.arg(&stream).arg(&from).arg("+").arg("COUNT").arg(200);
            let page: redis::streams::StreamRangeReply = page.query_async(&mut connection).await.unwrap();
            let Some(last) = page.ids.last() else { return jobs };
            from = format!("({}", last.id);
            jobs.extend(page.ids.iter().map(|entry| {
                assert_eq!(entry.map.len(), 1, "one field");
                let job: String = entry.get("job").expect("the field `job`");
                serde_json::from_str::<serde_json::Value>(&job).unwrap()
            }));
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
