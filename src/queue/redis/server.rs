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
        let ack = self.ack;
        confirm(self, ack, command).await
    }
}

/// What a connection begins with, and is held to.
#[derive(Clone, Copy)]
pub struct Opening<'a> {
    login: &'a Login,
    /// The database's number.
    pub database: i64,
    /// How long an answer may take.
    pub response_timeout: Duration,
    /// When what is written counts as confirmed.
    pub ack: Ack,
}

/// A connection that can be made to a server.
pub trait Open: ConnectionLike + Sized {
    /// Makes it of a socket: logs in, and chooses the database.
    fn open(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        opening: Opening<'_>,
    ) -> impl Future<Output = Result<Self, String>> + Send;
}

impl Open for Connection {
    async fn open(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        opening: Opening<'_>,
    ) -> Result<Connection, String> {
        let info = RedisConnectionInfo::default();
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(opening.response_timeout));
        let opened = MultiplexedConnection::new_with_config(&info, stream, config).await;
        let (commands, driver) = opened.map_err(|error| describe(&error))?;
        let driver = Arc::new(AbortOnDropHandle::new(tokio::spawn(driver)));
        let mut connection = Connection { commands, ack: opening.ack, _driver: driver };
        log_in(&mut connection, opening).await?;
        Ok(connection)
    }
}

/// What asks whether what was written is where [`Ack`] wants it. None where the server's answer alone says so.
pub fn confirmation(ack: Ack) -> Option<Cmd> {
    let millis = u64::try_from(ack.confirm_timeout().as_millis()).unwrap_or(u64::MAX);
    let mut wait = Cmd::new();
    match ack {
        Ack::Redis => return None,
        Ack::Replicas(count) => wait.arg("WAIT").arg(count).arg(millis),
        Ack::Fsync => wait.arg("WAITAOF").arg(1).arg(0).arg(millis),
    };
    Some(wait)
}

/// Reads the answer to [`confirmation`].
///
/// # Errors
/// It isn't there, or the server's.
pub fn require_confirmed(ack: Ack, reply: Value) -> Result<(), RedisError> {
    let confirmed = match reply.extract_error()? {
        // WAITAOF says how many servers' own files, then how many replicas'.
        Value::Array(counts) => counts.into_iter().next().unwrap_or_default(),
        count => count,
    };
    let confirmed: u32 = redis::from_redis_value(confirmed)?;
    let timeout = ack.confirm_timeout();
    let missing = match ack {
        Ack::Replicas(count) if confirmed < count => {
            format!("{confirmed} of {count} replicas confirmed within {timeout:?} (RETRIEVE_ACK)")
        }
        Ack::Fsync if confirmed < 1 => {
            format!("Redis's disk didn't confirm within {timeout:?} (RETRIEVE_ACK)")
        }
        Ack::Redis | Ack::Replicas(_) | Ack::Fsync => return Ok(()),
    };
    Err((ErrorKind::UnexpectedReturnType, "not confirmed", missing).into())
}

/// Sends a command that writes, and waits for its confirmation.
///
/// # Errors
/// The server's, or the connection's.
pub async fn confirm(
    connection: &mut impl ConnectionLike,
    ack: Ack,
    command: Cmd,
) -> Result<Value, RedisError> {
    let Some(confirmation) = confirmation(ack) else {
        return connection.req_packed_command(&command).await?.extract_error();
    };
    let mut pipeline = Pipeline::new();
    pipeline.add_command(command).add_command(confirmation);
    let mut replies = connection.req_packed_commands(&pipeline, 0, 2).await?.into_iter();
    let reply = replies.next().unwrap_or_default().extract_error()?;
    require_confirmed(ack, replies.next().unwrap_or_default())?;
    Ok(reply)
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
    pub async fn connect<C: Open>(&self, key: &str, response_timeout: Duration) -> Result<C, String> {
        let Target { topology, login, database, .. } = &self.settings.target;
        let opening = Opening { login, database: *database, response_timeout, ack: self.settings.ack };
        match topology {
            Topology::Single(address) => self.dial(address, opening).await,
            Topology::Sentinel { sentinels, master, login: sentinel_login } => {
                let mut troubles = Vec::new();
                for sentinel in sentinels {
                    let connecting = async {
                        let address = self.master_of(sentinel, sentinel_login, master).await?;
                        let connection = self.dial(&address, opening).await?;
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
                    match self.connect_by(node, seeds, key, opening).await {
                        Ok(connection) => return Ok(connection),
                        Err(trouble) => troubles.push(trouble),
                    }
                }
                Err(format!("no node of the cluster leads to the owner of `{key}`: {}", troubles.join("; ")))
            }
        }
    }

    async fn master_of(&self, sentinel: &Address, login: &Login, master: &str) -> Result<Address, String> {
        let opening =
            Opening { login, database: 0, response_timeout: CONNECT_TIMEOUT, ack: self.settings.ack };
        let mut connection: Connection = self.dial(sentinel, opening).await?;
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
    async fn connect_by<C: Open>(
        &self,
        node: &Address,
        seeds: &[Address],
        key: &str,
        opening: Opening<'_>,
    ) -> Result<C, String> {
        self.ask_last(node);
        let mut asked: C = self.dial(node, opening).await?;
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
        self.dial(&owner, opening).await
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

    async fn dial<C: Open>(&self, address: &Address, opening: Opening<'_>) -> Result<C, String> {
        let mut is_in_handshake = false;
        let dialling = async {
            let broken = |error: std::io::Error| error.to_string();
            let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(broken)?;
            stream.set_nodelay(true).map_err(broken)?;
            let Some(tls) = &self.settings.tls else {
                return C::open(stream, opening).await.map_err(|trouble| plain_trouble(&trouble));
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
            C::open(stream, opening).await.map_err(certificate_trouble)
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
pub async fn log_in(connection: &mut impl ConnectionLike, opening: Opening<'_>) -> Result<(), String> {
    let Opening { login, database, .. } = opening;
    let failed = |error: RedisError| describe(&error);
    if let Some(password) = &login.password {
        let mut command = redis::cmd("AUTH");
        if let Some(user) = &login.user {
            command.arg(user);
        }
        command.arg(password.expose_secret());
        command.query_async::<()>(connection).await.map_err(failed)?;
    }
    if database != 0 {
        redis::cmd("SELECT").arg(database).query_async::<()>(connection).await.map_err(failed)?;
    }
    Ok(())
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
fn plain_trouble(trouble: &str) -> String {
    let is_closed = ["reset by peer", "broken pipe", "Broken pipe", "max number of clients"]
        .iter()
        .any(|text| trouble.contains(text));
    let hint = "; Redis hung up: does this port want TLS (rediss), or has it as many clients as it may (maxclients)?";
    format!("{trouble}{}", if is_closed { hint } else { "" })
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
async fn require_master<C: Open>(mut connection: C, address: &Address) -> Result<C, String> {
    let role: Result<Vec<Value>, _> = redis::cmd("ROLE").query_async(&mut connection).await;
    let role = role.map_err(|error| format!("{address}: {}", describe(&error)))?;
    match role.first() {
        Some(Value::BulkString(role)) if role == b"master" => Ok(connection),
        _ => Err(format!("{address} isn't the master any more")),
    }
}
