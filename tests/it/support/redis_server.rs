//! A real redis-server or valkey-server on a free port of loopback.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::{eventually, eventually_within};

/// The stream of the app `default`.
pub const STREAM: &str = "retrieve:{default}:jobs";

/// A port of loopback that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Words as arguments.
pub fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Which server is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The system's redis-server, or what `REDIS_SERVER` names.
    Usual,
    /// The oldest Redis that the gateway takes.
    Redis62,
    Redis8,
    Valkey,
}

impl Release {
    /// Whether there is one for this machine: what the system doesn't have is fetched by `scripts/setup`, and comes ready-made
    /// for Linux on x86-64 alone.
    pub fn is_made_for_this_machine(self) -> bool {
        self == Release::Usual || cfg!(all(target_os = "linux", target_arch = "x86_64"))
    }

    /// The file of the server.
    pub fn binary(self) -> PathBuf {
        let fetched = |path: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers").join(path);
        match self {
            Release::Usual => std::env::var_os("REDIS_SERVER").map_or("redis-server".into(), PathBuf::from),
            Release::Redis62 => fetched("redis-6.2/redis-server"),
            Release::Redis8 => fetched("redis-8/redis-server"),
            Release::Valkey => fetched("valkey/valkey-server"),
        }
    }

    /// Redis's version, or the one that Valkey says it is compatible with.
    pub fn version(self) -> (u32, u32) {
        let output = Command::new(self.binary()).arg("--version").output();
        let output = output.unwrap_or_else(|error| panic!("{self:?}: {error}; scripts/setup installs it"));
        let said = String::from_utf8(output.stdout).unwrap();
        if said.starts_with("Valkey") {
            return (7, 2);
        }
        let version = said.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap();
        let mut numbers = version.split('.').map(|number| number.parse().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }

    pub fn has_waitaof(self) -> bool {
        self.version() >= (7, 2)
    }
}

/// The settings of a server that keeps nothing on its disk and syncs its replicas at once.
pub fn without_a_file() -> Vec<String> {
    words("--appendonly no --repl-diskless-sync-delay 0 --repl-diskless-sync yes")
}

/// A redis-server that can be stopped, frozen and started again on the same port.
pub struct RedisServer {
    pub address: SocketAddr,
    release: Release,
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
        RedisServer::start_release(Release::Usual, more).await
    }

    /// The same of that release.
    pub async fn start_release(release: Release, more: impl Fn() -> Vec<String>) -> RedisServer {
        for _ in 0..20 {
            // Another process may take the port before Redis does; then Redis ends, and another one is tried.
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
            let folder = TempDir::new().unwrap();
            let mut server = RedisServer { address, release, folder, child: None, more: more() };
            server.spawn();
            if server.is_up().await {
                return server;
            }
        }
        panic!("{} doesn't start; scripts/setup installs it", release.binary().display());
    }

    /// A sentinel that watches the master `mymaster` on that port, and takes it for dead after so many ms.
    pub async fn start_sentinel(master_port: u16, dead_after_ms: u64) -> RedisServer {
        RedisServer::start_sentinel_of(Release::Usual, master_port, dead_after_ms, Vec::new).await
    }

    /// The same of that release, with further settings.
    pub async fn start_sentinel_of(
        release: Release,
        master_port: u16,
        dead_after_ms: u64,
        more: impl Fn() -> Vec<String>,
    ) -> RedisServer {
        for _ in 0..20 {
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
            let folder = TempDir::new().unwrap();
            let file = folder.path().join("sentinel.conf");
            let settings = format!(
                "bind 127.0.0.1\nport {}\nsentinel monitor mymaster 127.0.0.1 {master_port} 1\n\
                 sentinel down-after-milliseconds mymaster {dead_after_ms}\n\
                 sentinel failover-timeout mymaster 3000\n",
                address.port()
            );
            std::fs::write(&file, settings).unwrap();
            let more = more();
            let child = Command::new(release.binary())
                .arg(&file)
                .arg("--sentinel")
                .args(&more)
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let mut server = RedisServer { address, release, folder, child: Some(child), more };
            if server.is_up().await {
                return server;
            }
        }
        panic!("the sentinel doesn't start");
    }

    /// Appends to its own file with an fsync each time, so that a restart has all that it confirmed.
    fn spawn(&mut self) {
        if self.release != Release::Valkey {
            self.drop_torn_transaction();
        }
        // Without the signal, a file that may not grow is an error to the server, as on a full disk.
        let child = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(self.release.binary())
            .args(["--bind", "127.0.0.1", "--port", &self.address.port().to_string(), "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            .arg("--dir")
            .arg(self.folder.path())
            .args(&self.more)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// What docs/redis.md says of a server that was killed while it wrote: Redis itself leaves a part of a torn transaction in
    /// its file, and executes that at the start after the next one. Valkey 9.1 drops it whole.
    fn drop_torn_transaction(&self) {
        use std::io::Write;
        use std::os::unix::process::CommandExt;
        let Some(file) = self.append_only_file() else { return };
        let manifest = file.with_file_name("appendonly.aof.manifest");
        let whole = if manifest.exists() { manifest } else { file };
        // The server is its own repair tool under another name.
        let mut repair = Command::new(self.release.binary())
            .arg0("redis-check-aof")
            .arg("--fix")
            .arg(whole)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // A whole file isn't asked about.
        let _ = repair.stdin.take().unwrap().write_all(b"y\n");
        assert!(repair.wait().unwrap().success(), "{:?} doesn't repair its file", self.release);
    }

    fn append_only_file(&self) -> Option<PathBuf> {
        let files = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten();
        let folders = [self.folder.path().join("appendonlydir"), self.folder.path().to_owned()];
        let mut paths = folders.iter().flat_map(|folder| files(folder)).map(|entry| entry.unwrap().path());
        paths.find(|path| path.to_str().is_some_and(|path| path.ends_with("aof") && !path.contains(".base.")))
    }

    /// Cuts off what its file holds behind the last argument with these words, but for the begin of the next command. The
    /// server doesn't run.
    pub fn tear_file_behind(&self, words: &str) {
        let path = self.append_only_file().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(words.len()).rposition(|window| window == words.as_bytes()).unwrap();
        let end = at + bytes[at..].windows(2).position(|window| window == b"\r\n").unwrap() + 2;
        assert!(bytes.len() > end + 8, "another command follows");
        std::fs::File::options().write(true).open(&path).unwrap().set_len(end as u64 + 8).unwrap();
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

    /// The value of a setting that it was started with.
    pub fn setting(&self, name: &str) -> &str {
        let place = self.more.iter().position(|word| word == name).unwrap();
        &self.more[place + 1]
    }

    /// Whether it says so in a section of `INFO`.
    pub async fn says(&self, section: &str, line: &str) -> bool {
        let Ok(info) = self.try_command(&["INFO", section]).await else { return false };
        let info: String = redis::from_redis_value(info).unwrap();
        info.lines().any(|other| other == line)
    }

    /// Waits until it does.
    pub async fn will_say(&self, section: &str, line: &str) {
        eventually_within(60, &format!("{section} says {line}"), || async {
            self.says(section, line).await.then_some(())
        })
        .await;
    }

    /// Waits until this sentinel knows a replica by its port.
    pub async fn knows_replica(&self, port: &str) {
        eventually_within(30, "the sentinel knows the replica", || async {
            let replicas = self.try_command(&["SENTINEL", "REPLICAS", "mymaster"]).await.ok()?;
            format!("{replicas:?}").contains(port).then_some(())
        })
        .await;
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
        self.begin_restart();
        assert!(self.is_up().await, "redis-server doesn't come back");
    }

    /// The same without waiting until it answers.
    pub fn begin_restart(&mut self) {
        self.kill();
        self.spawn();
    }

    /// Lets no file of the server grow any more, as a full disk would, or lifts that.
    pub fn fill_disk(&self, is_full: bool) {
        let mut limit = rustix::process::getrlimit(rustix::process::Resource::Fsize);
        if is_full {
            limit.current = Some(1);
        }
        rustix::process::prlimit(Some(self.pid()), rustix::process::Resource::Fsize, limit).unwrap();
    }

    /// Waits until the server has ended by itself.
    pub async fn ended(&mut self) {
        let child = self.child.as_mut().unwrap();
        eventually("redis-server ends", || {
            let ended = child.try_wait().unwrap();
            async move { ended }
        })
        .await;
    }

    fn pid(&self) -> rustix::process::Pid {
        let id = self.child.as_ref().unwrap().id();
        rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
    }

    pub fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for a reply as long as a busy machine may take.
    async fn connect(&self) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
        let patience = Some(Duration::from_secs(30));
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(patience)
            .set_response_timeout(patience);
        redis::Client::open(self.url())?.get_multiplexed_async_connection_with_config(&config).await
    }

    pub async fn try_command(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let mut connection = self.connect().await?;
        command_of(words).query_async(&mut connection).await
    }

    pub async fn command(&self, words: &[&str]) -> redis::Value {
        self.try_command(words).await.unwrap()
    }

    /// The numbers `n` of the jobs on the app `default`'s stream.
    pub async fn numbers(&self) -> Vec<u64> {
        self.jobs("default").await.iter().map(|job| job["data"]["data"]["n"].as_u64().unwrap()).collect()
    }

    /// The jobs on an app's stream, read with XRANGE as a worker would see them, page by page.
    pub async fn jobs(&self, app: &str) -> Vec<serde_json::Value> {
        const PAGE: usize = 2000;
        let stream = format!("retrieve:{{{app}}}:jobs");
        let mut connection = eventually("Redis answers", || async { self.connect().await.ok() }).await;
        let mut jobs = Vec::new();
        let mut from = "-".to_owned();
        loop {
            let mut range = redis::cmd("XRANGE");
            range.arg(&stream).arg(&from).arg("+").arg("COUNT").arg(PAGE);
            let page: redis::streams::StreamRangeReply = range.query_async(&mut connection).await.unwrap();
            for entry in &page.ids {
                assert_eq!(entry.map.len(), 1, "one field");
                let job: String = entry.get("job").expect("the field `job`");
                jobs.push(serde_json::from_str(&job).unwrap());
            }
            match page.ids.last() {
                Some(last) if page.ids.len() == PAGE => from = format!("({}", last.id),
                _ => return jobs,
            }
        }
    }
}

/// A command of these words.
pub fn command_of(words: &[&str]) -> redis::Cmd {
    let mut command = redis::Cmd::new();
    command.arg(words);
    command
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
