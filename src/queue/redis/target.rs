//! Where Redis is and who logs in there: what the URL of `RETRIEVE_QUEUE` says.
//!
//! `redis://[user:password@]host[:port][/database]`,
//! `redis-sentinel://[user:password@]host[:port],…/master-name[/database]`, with `?sentinel_user=` and
//! `?sentinel_password=` where the sentinels want a login, `redis-cluster://[user:password@]host[:port],…`; with
//! `rediss` for `redis`, everything goes through TLS.

use std::fmt;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// What the URL says.
#[derive(Clone, Debug)]
pub struct Target {
    /// How the node is found that takes the jobs.
    pub topology: Topology,
    /// Who logs in there.
    pub login: Login,
    /// The number of the database.
    pub database: i64,
    /// Whether every connection is TLS.
    pub is_tls: bool,
}

/// How the node is found that takes the jobs.
#[derive(Clone, Debug)]
pub enum Topology {
    /// It is this one.
    Single(Address),
    /// Sentinels know which one is the master.
    Sentinel {
        /// The sentinels.
        sentinels: Vec<Address>,
        /// The name of the master among them.
        master: String,
        /// Who logs in at the sentinels.
        login: Login,
    },
    /// Every node of a cluster knows which one owns a key.
    Cluster {
        /// Nodes to begin with.
        seeds: Vec<Address>,
    },
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// A user of the server's ACL, or the server's one password.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// The user; none for the server's default one.
    pub user: Option<String>,
    /// The password.
    pub password: Option<SecretString>,
}

/// Why a URL can't be used. It never repeats the URL, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TargetError(&'static str);

impl Target {
    /// Reads a URL. None if its scheme isn't one of Redis.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(url: &str) -> Option<Result<Target, TargetError>> {
        let (scheme, rest) = url.split_once(':')?;
        let (scheme, is_tls) = match scheme {
            "redis" | "redis-sentinel" | "redis-cluster" => (scheme, false),
            "rediss" => ("redis", true),
            "rediss-sentinel" => ("redis-sentinel", true),
            "rediss-cluster" => ("redis-cluster", true),
            _ => return None,
        };
        Some(parse_rest(scheme, is_tls, rest))
    }
}

fn parse_rest(scheme: &str, is_tls: bool, rest: &str) -> Result<Target, TargetError> {
    let rest = rest.strip_prefix("//").ok_or(TargetError("`//` is missing behind its scheme"))?;
    if rest.contains('#') {
        return Err(TargetError("it has a `#`; in a password it is written %23"));
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (read_login(login)?, hosts),
        None => (Login::default(), authority),
    };
    if scheme != "redis-sentinel" && !query.is_empty() {
        return Err(TargetError(
            "it has a `?` with nothing that is known behind it; in a password it is %3F",
        ));
    }
    let (topology, database) = match scheme {
        "redis-sentinel" => {
            let (master, database) = path.split_once('/').unwrap_or((path, ""));
            if master.is_empty() {
                return Err(TargetError("it doesn't name the master that the sentinels watch"));
            }
            let sentinels = read_addresses(hosts, SENTINEL_PORT)?;
            let login = read_sentinel_login(query)?;
            (Topology::Sentinel { sentinels, master: decode(master)?, login }, database)
        }
        "redis-cluster" if !path.is_empty() => {
            return Err(TargetError("a cluster has no databases to choose"));
        }
        "redis-cluster" => (Topology::Cluster { seeds: read_addresses(hosts, PORT)? }, ""),
        _ => match <[Address; 1]>::try_from(read_addresses(hosts, PORT)?) {
            Ok([address]) => (Topology::Single(address), path),
            Err(_) => {
                return Err(TargetError(
                    "it names several servers; say redis-sentinel:// or redis-cluster://",
                ));
            }
        },
    };
    let database = match database.trim_end_matches('/') {
        "" => 0,
        number => number
            .parse()
            .ok()
            .filter(|number| *number >= 0)
            .ok_or(TargetError("its path isn't the number of a database"))?,
    };
    Ok(Target { topology, login, database, is_tls })
}

fn read_login(text: &str) -> Result<Login, TargetError> {
    let (user, password) =
        text.split_once(':').ok_or(TargetError("it names a user without a password (user:password@)"))?;
    let (user, password) = (decode(user)?, decode(password)?);
    if password.is_empty() && !user.is_empty() {
        return Err(TargetError("it names a user without a password (user:password@)"));
    }
    Ok(Login {
        user: Some(user).filter(|user| !user.is_empty()),
        password: Some(password).filter(|password| !password.is_empty()).map(SecretString::from),
    })
}

fn read_sentinel_login(query: &str) -> Result<Login, TargetError> {
    let mut login = Login::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sentinel_user", user)) => login.user = Some(decode(user)?),
            Some(("sentinel_password", password)) => {
                login.password = Some(SecretString::from(decode(password)?));
            }
            _ => {
                return Err(TargetError(
                    "behind its `?` only sentinel_user= and sentinel_password= are known",
                ));
            }
        }
    }
    if login.user.is_some() && login.password.is_none() {
        return Err(TargetError("it has a sentinel_user without a sentinel_password"));
    }
    Ok(login)
}

fn read_addresses(text: &str, default_port: u16) -> Result<Vec<Address>, TargetError> {
    text.split(',').map(|item| read_address(item.trim(), default_port)).collect()
}

fn read_address(text: &str, default_port: u16) -> Result<Address, TargetError> {
    const BAD_PORT: TargetError = TargetError("a port isn't a number up to 65535");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(TargetError("a `]` is missing"))?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or(BAD_PORT)?) })
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        None => default_port,
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or(BAD_PORT)?,
    };
    if host.is_empty() || host.contains(|character: char| character.is_whitespace() || character == '@') {
        return Err(TargetError("it names no host"));
    }
    Ok(Address { host: host.to_owned(), port })
}

fn decode(text: &str) -> Result<String, TargetError> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(|text| text.into_owned()).map_err(|_| TargetError("its login isn't UTF-8"))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn shown(url: &str) -> Result<String, String> {
        let target = Target::parse(url).ok_or("no scheme of Redis")?.map_err(|error| error.to_string())?;
        let login = |login: &Login| {
            let password = login.password.as_ref().map_or("", |password| password.expose_secret());
            format!("{}:{password}", login.user.as_deref().unwrap_or(""))
        };
        let list = |all: &[Address]| all.iter().map(Address::to_string).collect::<Vec<_>>().join(" ");
        let place = match &target.topology {
            Topology::Single(address) => format!("single {address}"),
            Topology::Sentinel { sentinels, master, login: of } => {
                format!("sentinels {} {} of {master}", login(of), list(sentinels))
            }
            Topology::Cluster { seeds } => format!("cluster {}", list(seeds)),
        };
        let tls = if target.is_tls { " tls" } else { "" };
        Ok(format!("{place} / {} as {}{tls}", target.database, login(&target.login)))
    }

    #[test]
    fn urls_of_every_kind_are_read() {
        for (url, expect) in [
            ("redis://127.0.0.1", "single 127.0.0.1:6379 / 0 as :"),
            ("redis://h:1/", "single h:1 / 0 as :"),
            ("redis://[::1]:1/3", "single [::1]:1 / 3 as :"),
            ("rediss://[::1]", "single [::1]:6379 / 0 as : tls"),
            ("redis://:p%40ss@h", "single h:6379 / 0 as :p@ss"),
            ("redis://user:p@ss:w@h:7", "single h:7 / 0 as user:p@ss:w"),
            ("redis-sentinel://a,b:1/mymaster", "sentinels : a:26379 b:1 of mymaster / 0 as :"),
            (
                "rediss-sentinel://u:p@a/m/2?sentinel_user=s&sentinel_password=t%26",
                "sentinels s:t& a:26379 of m / 2 as u:p tls",
            ),
            ("redis-cluster://u:p@a:1,[::2]:2", "cluster a:1 [::2]:2 / 0 as u:p"),
            ("rediss-cluster://a", "cluster a:6379 / 0 as : tls"),
        ] {
            assert_eq!(shown(url).as_deref(), Ok(expect), "{url}");
        }
    }

    #[test]
    fn bad_urls_are_refused_without_their_password() {
        for (url, expect) in [
            ("embedded:./data", "no scheme of Redis"),
            ("redis:h", "`//` is missing"),
            ("redis://:hunter2@", "names no host"),
            ("redis://hunter2@h", "without a password"),
            ("redis://hunter2:@h", "without a password"),
            ("redis://:hunter2@h:0", "a port"),
            ("redis://:hunter2@h:70000", "a port"),
            ("redis://:hunter2@[::1", "`]` is missing"),
            ("redis://:hunter2@h/x", "number of a database"),
            ("redis://:hunter2@h/-1", "number of a database"),
            ("redis://:hunter2@a,b", "several servers"),
            ("redis://:hunter2@h?x=1", "nothing that is known"),
            ("redis://:hunter#2@h", "%23"),
            ("redis-sentinel://:hunter2@h", "doesn't name the master"),
            ("redis-sentinel://h/m?password=hunter2", "only sentinel_user= and sentinel_password="),
            ("redis-sentinel://h/m?sentinel_user=hunter2", "without a sentinel_password"),
            ("redis-cluster://:hunter2@h/1", "no databases"),
            ("redis://:%ffhunter2@h", "isn't UTF-8"),
        ] {
            let error = shown(url).unwrap_err();
            assert!(error.contains(expect) && !error.contains("hunter"), "{url}: {error}");
        }
        let target = Target::parse("redis://:hunter2@h").unwrap().unwrap();
        assert!(!format!("{target:?}").contains("hunter2"));
    }
}
