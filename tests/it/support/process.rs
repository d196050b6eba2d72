//! The real binary as a process of its own.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;

use super::gateway::settings;

/// The gateway's binary with no setting of this environment.
pub fn binary() -> Command {
    binary_under(&[])
}

/// The same, started by another program: its words, to which the binary is added.
pub fn binary_under(program: &[&str]) -> Command {
    let binary = env!("CARGO_BIN_EXE_retrieve-gateway");
    let mut words = program.iter().copied().chain([binary]);
    let mut command = Command::new(words.next().unwrap_or(binary));
    command.args(words);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RETRIEVE_") {
            command.env_remove(name);
        }
    }
    command.kill_on_drop(true);
    command
}

/// A running gateway process.
pub struct GatewayProcess {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    child: Child,
    begin_of_log: Vec<serde_json::Value>,
    log: Lines<BufReader<ChildStderr>>,
}

impl GatewayProcess {
    /// Starts it and waits until it says where it listens.
    pub async fn start(folder: &TempDir, more: &[(&str, &str)]) -> GatewayProcess {
        GatewayProcess::start_under(&[], folder, more).await.expect("the gateway ended before it listened")
    }

    /// Starts it by another program, which has to become the gateway (`exec`). None if it ended before it listened.
    pub async fn start_under(
        program: &[&str],
        folder: &TempDir,
        more: &[(&str, &str)],
    ) -> Option<GatewayProcess> {
        let mut child = binary_under(program)
            .envs(settings(folder, more))
            .env("RETRIEVE_LOG_FORMAT", "json")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut begin_of_log = Vec::new();
        loop {
            let line = log.next_line().await.unwrap()?;
            // What isn't a line of the log is why it ends.
            let Ok(line) = serde_json::from_str::<serde_json::Value>(&line) else {
                println!("{line}");
                continue;
            };
            if line["message"] == "listening" {
                let address = |name: &str| line[name].as_str().unwrap().parse().unwrap();
                let (address, admin) = (address("public"), address("private"));
                return Some(GatewayProcess { address, admin, child, begin_of_log, log });
            }
            begin_of_log.push(line);
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Sends a signal by its number.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub async fn ended(&mut self) -> ExitStatus {
        self.child.wait().await.unwrap()
    }

    /// What it logged before it said where it listens.
    pub fn log_before_listening(&self) -> &[serde_json::Value] {
        &self.begin_of_log
    }

    /// What it logged since it listens, once it has ended.
    pub async fn log_to_end(&mut self) -> Vec<serde_json::Value> {
        let mut lines = Vec::new();
        while let Some(line) = self.log.next_line().await.unwrap() {
            lines.push(serde_json::from_str(&line).unwrap_or_else(|_| serde_json::json!({ "text": line })));
        }
        lines
    }

    /// Reads the log for as long as the process runs, so that its pipe never fills.
    pub fn ignore_log(self) -> (SocketAddr, SocketAddr, Child) {
        let RunningGateway { address, admin, child, .. } = self.with_log(|_| {});
        (address, admin, child)
    }

    /// Gives each line of its log away, for as long as it runs.
    pub fn with_log(self, mut take: impl FnMut(&str) + Send + 'static) -> RunningGateway {
        let GatewayProcess { address, admin, child, mut log, .. } = self;
        let reading = tokio::spawn(async move {
            while let Ok(Some(line)) = log.next_line().await {
                take(&line);
            }
        });
        RunningGateway { address, admin, child, reading }
    }
}

/// A gateway process whose log is read by somebody.
pub struct RunningGateway {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    child: Child,
    reading: JoinHandle<()>,
}

impl RunningGateway {
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// `kill -9`. Returns when its log has been read to the end.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
        self.reading.await.unwrap();
    }
}
