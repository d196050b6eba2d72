//! What a server says of itself, and what that makes of a 200.

use redis::aio::ConnectionLike;
use redis::{Cmd, RedisError, Value};

use super::{Ack, describe};

/// The oldest version whose scripts and streams are known to do what is needed.
const OLDEST: (u32, u32) = (6, 2);

/// The first version with `WAITAOF`.
const WAITAOF: (u32, u32) = (7, 2);

/// What is known of a server. None: it doesn't say, or this user may not ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Of which Redis it is compatible with.
    version: Option<(u32, u32)>,
    eviction_policy: Option<String>,
    has_append_only_file: Option<bool>,
    appendfsync: Option<String>,
    replicas: Option<u64>,
}

impl Facts {
    /// Asks a server. What this user may not ask stays unknown.
    ///
    /// # Errors
    /// The server doesn't answer.
    pub async fn ask(connection: &mut impl ConnectionLike) -> Result<Facts, RedisError> {
        let info = permitted(redis::cmd("INFO").query_async(connection).await)?;
        let mut facts = Facts::read(&info.unwrap_or_default());
        let mut command = redis::cmd("CONFIG");
        let config: Result<Vec<String>, _> =
            command.arg("GET").arg("appendfsync").query_async(connection).await;
        // A service that hides CONFIG calls it an unknown command.
        facts.appendfsync = match config {
            Ok(pair) => pair.into_iter().nth(1),
            Err(error) if error.code().is_some() => None,
            Err(error) => return Err(error),
        };
        Ok(facts)
    }

    fn read(info: &str) -> Facts {
        let field = |name: &str| {
            info.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value)
        };
        let version = field("redis_version").and_then(|version| {
            let mut numbers = version.split('.').map(str::parse);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        });
        Facts {
            version,
            eviction_policy: field("maxmemory_policy").map(str::to_owned),
            has_append_only_file: field("aof_enabled").map(|enabled| enabled == "1"),
            appendfsync: None,
            replicas: field("connected_slaves").and_then(|count| count.parse().ok()),
        }
    }

    /// Why nothing may be sent to this server.
    ///
    /// # Errors
    /// The reason.
    pub fn require(&self, ack: Ack) -> Result<(), String> {
        if let Some((major, minor)) = self.version.filter(|version| *version < OLDEST) {
            return Err(format!("this is Redis {major}.{minor}; the gateway needs 6.2 or later"));
        }
        if ack == Ack::Fsync {
            if let Some((major, minor)) = self.version.filter(|version| *version < WAITAOF) {
                return Err(format!(
                    "RETRIEVE_ACK=fsync needs WAITAOF, so Redis 7.2 or later; this is {major}.{minor}"
                ));
            }
            if self.has_append_only_file == Some(false) {
                return Err("RETRIEVE_ACK=fsync needs `appendonly yes` at Redis".to_owned());
            }
            if self.appendfsync.as_deref() == Some("no") {
                return Err("RETRIEVE_ACK=fsync needs `appendfsync always` or `everysec` at Redis; with `no` it never \
                            says what is on its disk"
                    .to_owned());
            }
        }
        require_policy(self.eviction_policy.as_deref())
    }

    /// What works, but may surprise.
    pub fn warnings(&self, ack: Ack) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(policy) = self.eviction_policy.as_deref().filter(|policy| policy.starts_with("volatile-"))
        {
            warnings.push(format!(
                "maxmemory-policy is {policy}: when memory is short, Redis may forget which deliveries it has seen, and \
                 then a repeat is queued again; noeviction is better"
            ));
        }
        if ack == Ack::Fsync && self.appendfsync.as_deref() == Some("everysec") {
            warnings.push(
                "appendfsync is everysec: with RETRIEVE_ACK=fsync jobs wait up to a second for Redis's disk, so they go \
                 to the outage journal as well, or are refused where there is none; appendfsync always confirms at once"
                    .to_owned(),
            );
        }
        warnings
    }

    /// What a 200 survives, in a sentence.
    pub fn survival(&self, ack: Ack) -> String {
        let disk = match (self.has_append_only_file, self.appendfsync.as_deref()) {
            _ if ack == Ack::Fsync => "on Redis's disk (RETRIEVE_ACK=fsync): it survives a power cut there",
            (Some(true), Some("always")) => {
                "on Redis's disk (appendonly yes, appendfsync always): it survives a power cut there"
            }
            (Some(true), Some("everysec")) => {
                "in Redis's memory, and on its disk a second or two later (appendfsync everysec): it survives a crash of \
                 Redis; of a power cut the gateway mends what it still holds"
            }
            (Some(true), Some("no")) => {
                "in Redis's memory, and on its disk when the system likes (appendfsync no): it survives a crash of Redis; \
                 of a power cut the gateway mends what it still holds"
            }
            (Some(true), _) => "in Redis's append-only file; how soon that is on the disk isn't known",
            (Some(false), _) => {
                "in Redis's memory alone (appendonly no): when Redis ends, only what the gateway still holds is put back"
            }
            (None, _) => {
                "in Redis; what Redis keeps over a crash isn't known, since this user may not ask (INFO)"
            }
        };
        let replicas = match (ack, self.replicas) {
            (Ack::Replicas(count), _) => format!("{count} of its replicas have it too (RETRIEVE_ACK)"),
            (_, None) => "its replicas aren't known".to_owned(),
            (_, Some(0)) => "it has no replica".to_owned(),
            (_, Some(count)) => {
                format!("it has {count} replica(s), which may lag behind when one has to take over")
            }
        };
        format!("a 200 means: fsynced in the outage journal, or {disk}; {replicas}")
    }
}

/// Whether Redis can't throw the stream away when its memory is short: only policies that spare keys without an expiry.
///
/// # Errors
/// It can.
fn require_policy(policy: Option<&str>) -> Result<(), String> {
    match policy.filter(|policy| policy.starts_with("allkeys-")) {
        Some(policy) => Err(format!(
            "maxmemory-policy is {policy}, so Redis may throw the jobs away when its memory is short; set it to noeviction"
        )),
        None => Ok(()),
    }
}

/// Asks for the policy alone, as it may be changed at any time.
pub fn ask_policy() -> Cmd {
    redis::cmd("INFO").arg("memory").to_owned()
}

/// Reads the answer to [`ask_policy`].
///
/// # Errors
/// The server may throw the stream away, or its own.
pub fn check_policy(info: Value) -> Result<(), String> {
    let info = permitted(info.extract_error()).map_err(|error| describe(&error))?;
    require_policy(Facts::read(&info.unwrap_or_default()).eviction_policy.as_deref())
}

/// None for what this user may not ask.
fn permitted(answer: Result<Value, RedisError>) -> Result<Option<String>, RedisError> {
    match answer {
        Ok(answer) => Ok(Some(redis::from_redis_value(answer)?)),
        Err(error) if error.code() == Some("NOPERM") => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(info: &str, appendfsync: Option<&str>) -> Facts {
        Facts { appendfsync: appendfsync.map(str::to_owned), ..Facts::read(&info.replace(' ', "\r\n")) }
    }

    #[test]
    fn what_cant_keep_a_job_is_refused() {
        for (info, ack, expect) in [
            ("", Ack::Fsync, Ok(())),
            ("redis_version:6.2.14 maxmemory_policy:noeviction", Ack::Redis, Ok(())),
            ("redis_version:7.0.15 maxmemory_policy:volatile-lru", Ack::Replicas(2), Ok(())),
            ("redis_version:6.0.16", Ack::Redis, Err("this is Redis 6.0; the gateway needs 6.2")),
            ("redis_version:7.0.15", Ack::Fsync, Err("needs WAITAOF, so Redis 7.2 or later; this is 7.0")),
            ("redis_version:7.2.4 aof_enabled:0", Ack::Fsync, Err("needs `appendonly yes`")),
            ("redis_version:10.0.0 aof_enabled:1", Ack::Fsync, Ok(())),
            ("maxmemory_policy:allkeys-lru", Ack::Redis, Err("maxmemory-policy is allkeys-lru")),
        ] {
            match (facts(info, None).require(ack), expect) {
                (Ok(()), Ok(())) => {}
                (Err(why), Err(expect)) => assert!(why.contains(expect), "{info}: {why}"),
                other => panic!("{info}: {other:?}"),
            }
        }
        let no = facts("redis_version:7.2.4 aof_enabled:1", Some("no"));
        assert!(no.require(Ack::Fsync).unwrap_err().contains("`appendfsync always` or `everysec`"));
        assert_eq!(no.require(Ack::Redis), Ok(()));
        assert_eq!(facts("maxmemory_policy:volatile-ttl", None).warnings(Ack::Redis).len(), 1);
        let everysec = facts("maxmemory_policy:noeviction", Some("everysec"));
        assert_eq!(everysec.warnings(Ack::Redis), [] as [&str; 0]);
        assert_eq!(everysec.warnings(Ack::Fsync).len(), 1);
    }

    #[test]
    fn what_a_200_survives_is_said_in_words() {
        for (info, appendfsync, ack, expect) in [
            (
                "aof_enabled:1 connected_slaves:0",
                Some("always"),
                Ack::Redis,
                ["survives a power cut", "no replica"],
            ),
            (
                "aof_enabled:1 connected_slaves:2",
                Some("everysec"),
                Ack::Redis,
                ["a second or two", "2 replica(s)"],
            ),
            ("aof_enabled:1", Some("no"), Ack::Replicas(2), ["when the system likes", "2 of its replicas"]),
            ("aof_enabled:1 connected_slaves:1", None, Ack::Redis, ["isn't known", "1 replica(s)"]),
            ("aof_enabled:0 connected_slaves:0", None, Ack::Redis, ["memory alone", "no replica"]),
            ("aof_enabled:1", None, Ack::Fsync, ["RETRIEVE_ACK=fsync", "aren't known"]),
            ("", None, Ack::Redis, ["may not ask (INFO)", "aren't known"]),
        ] {
            let said = facts(info, appendfsync).survival(ack);
            assert!(expect.iter().all(|expect| said.contains(expect)), "{info}: {said}");
        }
    }
}
