//! Connections to the node that takes an app's jobs.
//!
//! A connection never repairs itself and never sends anything twice: what was in flight when it broke is the
//! producer's to judge. Sentinels and clusters only decide which address is dialled, anew each time.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, RedisConnectionInfo, RedisError, RedisFuture, Value,
};
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::checks::Facts;
use super::slots;
use super::target::{Address, Login, Target, Topology};
use super::{Ack, CONNECT_TIMEOUT, Settings, describe};

/// How many nodes of a cluster are remembered besides the seeds.
const NODES_LIMIT: usize = 32;

/// A connection; it is closed when the last clone is dropped, whatever it still waits for.
#[derive(Clone)]
pub struct Connection {
    commands: MultiplexedConnection,
    ack: Ack,
    _driver: Arc<AbortOnDropHandle<()>>,
}

impl Connection {
    /// Sends a command that writes; its answer comes when what it wrote, and everything before it on this connection, is
    /// where [`Ack`] wants it.
    pub async fn write(&mut self, command: Cmd) -> Result<Value, RedisError> {
        let timeout = self.ack.confirm_timeout();
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let mut wait = Cmd::new();
        match self.ack {
            Ack::Redis => return command.query_async(self).await,
            Ack::Replicas(count) => wait.arg("WAIT").arg(count).arg(millis),
            Ack::Fsync => wait.arg("WAITAOF").arg(1).arg(0).arg(millis),
        };
        let mut pipeline = Pipeline::new();
        pipeline.add_command(command).add_command(wait);
        let mut replies = self.req_packed_commands(&pipeline, 0, 2).await?.into_iter();
        let reply = replies.next().unwrap_or_default().extract_error()?;
        let confirmed = match replies.next().unwrap_or_default().extract_error()? {
            // WAITAOF says how many servers' own files, then how many replicas'.
            Value::Array(counts) => counts.into_iter().next().unwrap_or_default(),
            count => count,
        };
        let confirmed: u32 = redis::from_redis_value(confirmed)?;
        let missing = match self.ack {
            Ack::Replicas(count) if confirmed < count => {
                format!("{confirmed} of {count} replicas confirmed within {timeout:?} (RETRIEVE_ACK)")
            }
            Ack::Fsync if confirmed < 1 => {
                format!("Redis's disk didn't confirm within {timeout:?} (RETRIEVE_ACK)")
            }
            Ack::Redis | Ack::Replicas(_) | Ack::Fsync => return Ok(reply),
        };
        Err((ErrorKind::UnexpectedReturnType, "not confirmed", missing).into())
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        self.commands.req_packed_command(command)
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.commands.req_packed_commands(commands, offset, count)
    }

    fn get_db(&self) -> i64 {
        self.commands.get_db()
    }
}

/// Where the app's streams are, and how they are reached.
#[derive(Clone)]
pub struct Server {
    settings: Arc<Settings>,
    /// The nodes of a cluster in the order in which they are asked.
    nodes: Arc<Mutex<Vec<Address>>>,
    /// What was logged of the server, so that it is logged when it changes.
    said: Arc<Mutex<String>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("topology", &self.settings.target.topology).finish_non_exhaustive()
    }
}

impl Server {
    /// Nothing is connected to yet.
    pub fn new(settings: &Settings) -> Server {
        let nodes = match &settings.target.topology {
            Topology::Cluster { seeds } => seeds.clone(),
            Topology::Single(_) | Topology::Sentinel { .. } => Vec::new(),
        };
        Server {
            settings: Arc::new(settings.clone()),
            nodes: Arc::new(Mutex::new(nodes)),
            said: Arc::default(),
        }
    }

    /// What the queue was told.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Says in the log what the server makes of a 200, if that is news.
    pub fn announce(&self, facts: &Facts) {
        let said = facts.survival(self.settings.ack);
        let mut last = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != said {
            info!("{said}");
            for warning in facts.warnings(self.settings.ack) {
                warn!("{warning}");
            }
            *last = said;
        }
    }

    /// Connects to the node that takes writes for a key. A command may take `response_timeout`.
    ///
    /// # Errors
    /// Why not, in words that hold no password.
    pub async fn connect(&self, key: &str, response_timeout: Duration) -> Result<Connection, String> {
        let Target { topology, login, database, .. } = &self.settings.target;
        match topology {
            Topology::Single(address) => self.dial(address, login, *database, response_timeout).await,
            Topology::Sentinel { sentinels, master, login: sentinel_login } => {
                let mut troubles = Vec::new();
                for sentinel in sentinels {
                    let connecting = async {
                        let address = self.master_of(sentinel, sentinel_login, master).await?;
                        let connection = self.dial(&address, login, *database, response_timeout).await?;
                        require_master(connection, &address).await
                    };
                    match connecting.await {
                        Ok(connection) => return Ok(connection),
                        Err(trouble) => troubles.push(trouble),
                    }
                }
                Err(format!("no sentinel leads to the master `{master}`: {}", troubles.join("; ")))
            }
            Topology::Cluster { seeds } => {
                let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let mut troubles = Vec::new();
                for node in &nodes {
                    match self.connect_by(node, seeds, key, response_timeout).await {
                        Ok(connection) => return Ok(connection),
                        Err(trouble) => troubles.push(trouble),
                    }
                }
                Err(format!("no node of the cluster leads to the owner of `{key}`: {}", troubles.join("; ")))
            }
        }
    }

    async fn master_of(&self, sentinel: &Address, login: &Login, master: &str) -> Result<Address, String> {
        let mut connection = self.dial(sentinel, login, 0, CONNECT_TIMEOUT).await?;
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
        let named: Result<Option<(String, u16)>, _> = command.query_async(&mut connection).await;
        match named {
            Ok(Some((host, port))) => Ok(Address { host, port }),
            Ok(None) => Err(format!("{sentinel} knows no such master")),
            Err(error) => Err(format!("{sentinel}: {}", describe(&error))),
        }
    }

    /// Connects to the owner that one node of the cluster names. The next attempt begins with another node, because a
    /// node that was cut off from the others is the last to know.
    async fn connect_by(
        &self,
        node: &Address,
        seeds: &[Address],
        key: &str,
        response_timeout: Duration,
    ) -> Result<Connection, String> {
        let Target { login, database, .. } = &self.settings.target;
        self.ask_last(node);
        let mut asked = self.dial(node, login, *database, response_timeout).await?;
        let failed = |error: RedisError| format!("{node}: {}", describe(&error));
        let info: String = redis::cmd("CLUSTER").arg("INFO").query_async(&mut asked).await.map_err(failed)?;
        if !info.contains("cluster_state:ok") {
            return Err(format!("{node} says that the cluster is down"));
        }
        let view: Value = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut asked).await.map_err(failed)?;
        let view = slots::read(&view, slots::slot_of(key), node);
        let owner = view.owner.ok_or_else(|| format!("{node} knows no owner of the slot"))?;
        self.remember(seeds, view.nodes);
        if owner == *node {
            return Ok(asked);
        }
        drop(asked);
        self.dial(&owner, login, *database, response_timeout).await
    }

    fn ask_last(&self, node: &Address) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = nodes.iter().position(|other| other == node) {
            let node = nodes.remove(place);
            nodes.push(node);
        }
    }

    /// Keeps the order of the nodes that are known already; those that left the cluster are forgotten, but not the seeds.
    fn remember(&self, seeds: &[Address], named: Vec<Address>) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|node| named.contains(node) || seeds.contains(node));
        for node in named {
            if !nodes.contains(&node) && nodes.len() < NODES_LIMIT + seeds.len() {
                nodes.insert(0, node);
            }
        }
    }

    async fn dial(
        &self,
        address: &Address,
        login: &Login,
        database: i64,
        response_timeout: Duration,
    ) -> Result<Connection, String> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(response_timeout));
        let ack = self.settings.ack;
        let mut is_in_handshake = false;
        let dialling = async {
            let broken = |error: std::io::Error| error.to_string();
            let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(broken)?;
            stream.set_nodelay(true).map_err(broken)?;
            let Some(tls) = &self.settings.tls else {
                return open(stream, config, ack, login, database).await.map_err(plain_trouble);
            };
            let name = ServerName::try_from(address.host.clone())
                .map_err(|_| "its name can't be that of a certificate".to_owned())?;
            is_in_handshake = true;
            let stream = TlsConnector::from(Arc::clone(tls))
                .connect(name, stream)
                .await
                .map_err(|error| tls_trouble(&error))?;
            is_in_handshake = false;
            // TLS 1.3 is done before the server has judged the gateway's certificate.
            open(stream, config, ack, login, database).await.map_err(certificate_trouble)
        };
        let dialled = tokio::time::timeout(CONNECT_TIMEOUT, dialling).await;
        let dialled = dialled.unwrap_or_else(|_| {
            // A Redis without TLS waits for the end of what it takes for a line.
            let hint = if is_in_handshake { "; does it speak TLS on this port?" } else { "" };
            Err(format!("no answer within {CONNECT_TIMEOUT:?}{hint}"))
        });
        dialled.map_err(|trouble| format!("{address}: {trouble}"))
    }
}

/// Logs in, and chooses the database. The client library would do that too, but calls every error a wrong password.
async fn open(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    config: AsyncConnectionConfig,
    ack: Ack,
    login: &Login,
    database: i64,
) -> Result<Connection, String> {
    let failed = |error: RedisError| describe(&error);
    let info = RedisConnectionInfo::default();
    let opened = MultiplexedConnection::new_with_config(&info, stream, config).await;
    let (commands, driver) = opened.map_err(failed)?;
    let mut connection =
        Connection { commands, ack, _driver: Arc::new(AbortOnDropHandle::new(tokio::spawn(driver))) };
    if let Some(password) = &login.password {
        let mut command = redis::cmd("AUTH");
        if let Some(user) = &login.user {
            command.arg(user);
        }
        command.arg(password.expose_secret());
        command.query_async::<()>(&mut connection).await.map_err(failed)?;
    }
    if database != 0 {
        redis::cmd("SELECT").arg(database).query_async::<()>(&mut connection).await.map_err(failed)?;
    }
    Ok(connection)
}

fn tls_trouble(error: &std::io::Error) -> String {
    use rustls::CertificateError::{BadSignature, NotValidForName, NotValidForNameContext, UnknownIssuer};
    let reason = error.get_ref().and_then(|error| error.downcast_ref());
    let hint = match reason {
        // An authority that was made anew has the name of the old one, and another key.
        Some(rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature)) => {
            "; its certificate comes from an authority that isn't trusted, see RETRIEVE_REDIS_CA"
        }
        Some(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
            "; its certificate is for another name than the one that is dialled"
        }
        Some(rustls::Error::InvalidMessage(_)) => "; does it speak TLS on this port?",
        _ => "",
    };
    certificate_trouble(format!("TLS failed: {error}{hint}"))
}

/// Why a server may hang up on a new connection.
fn plain_trouble(trouble: String) -> String {
    let is_closed = ["reset by peer", "broken pipe", "Broken pipe"].iter().any(|text| trouble.contains(text));
    if !is_closed {
        return trouble;
    }
    format!(
        "{trouble}; Redis hung up: does this port want TLS (rediss), or has it as many clients as it may (maxclients)?"
    )
}

/// Adds what to do where the server says what it makes of the gateway's certificate.
fn certificate_trouble(trouble: String) -> String {
    let hint = if trouble.contains("CertificateRequired") {
        "Redis asks for a certificate, see RETRIEVE_REDIS_CERT and RETRIEVE_REDIS_KEY"
    } else if trouble.contains("fatal alert") {
        "Redis doesn't take the certificate of RETRIEVE_REDIS_CERT, or not this TLS"
    } else {
        return trouble;
    };
    format!("{trouble}; {hint}")
}

/// A sentinel that was cut off names the master of yesterday.
async fn require_master(mut connection: Connection, address: &Address) -> Result<Connection, String> {
    let role: Result<Vec<Value>, _> = redis::cmd("ROLE").query_async(&mut connection).await;
    let role = role.map_err(|error| format!("{address}: {}", describe(&error)))?;
    match role.first() {
        Some(Value::BulkString(role)) if role == b"master" => Ok(connection),
        _ => Err(format!("{address} isn't the master any more")),
    }
}
