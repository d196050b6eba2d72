//! The environment: the one place that knows the names of the variables.

mod redis;
mod variables;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use super::parse::{self, Unreadable};
use super::problems::Problems;
use super::{Backend, Config, Strings, integrations, secret};
use crate::admission::ListMode;
use crate::admission::allowlist::{Allowlist, Entry};
use crate::admission::domains;
use crate::admission::networks::{NetworkTable, parse_network};
use crate::ingest::listener::ConnectionLimits;
use crate::outbound;
use crate::payload::Limits;
use crate::queue::redis::target::Target;
use crate::signature::keys::KeyCache;
use crate::telemetry::{self, LogConfig, LogFormat};

use variables::default_of;
pub use variables::{VARIABLES, Variable};

/// The largest body limit that an integration may have.
pub const BODY_LIMIT_MAX_BYTES: usize = 32 << 20;

const ORIGIN: &str = "environment";
const PREFIX: &str = "RETRIEVE_";

/// Reads all settings. There is a [`Config`] exactly if no problem stops the start.
pub fn read(strings: &dyn Strings) -> (Option<Config>, Problems) {
    let mut problems = Problems::default();
    report_unknown(strings, &mut problems);
    let mut reader = Reader { strings, problems: &mut problems };
    let config = reader.config();
    let config = (!problems.stop_the_start()).then_some(config);
    (config, problems)
}

/// The private listener's address and token alone, for the commands that talk to a running gateway.
///
/// # Errors
/// The problems of these two settings.
pub fn admin(strings: &dyn Strings) -> Result<(std::net::SocketAddr, Option<SecretString>), Problems> {
    let mut problems = Problems::default();
    let mut reader = Reader { strings, problems: &mut problems };
    let (address, token) =
        (reader.socket_address("RETRIEVE_ADMIN_LISTEN"), reader.secret("RETRIEVE_ADMIN_TOKEN"));
    if problems.stop_the_start() { Err(problems) } else { Ok((address, token)) }
}

struct Reader<'a> {
    strings: &'a dyn Strings,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    fn config(&mut self) -> Config {
        let body_limit_bytes = self.body_limit();
        let (allowlist, allowlist_is_default) = self.allowlist();
        let keys = Arc::default();
        let mut integrations = self.integrations(body_limit_bytes, &keys);
        integrations.settle_signature_rules(&allowlist);
        integrations.set_payload_limits(self.payload_limits());
        let in_flight_limit_bytes = self.in_flight_limit(integrations.largest_body_bytes());
        Config {
            app: self.parse("RETRIEVE_APP", parse::app_name).unwrap_or_default(),
            listen: self.socket_address("RETRIEVE_LISTEN"),
            admin_listen: self.socket_address("RETRIEVE_ADMIN_LISTEN"),
            admin_token: self.secret("RETRIEVE_ADMIN_TOKEN"),
            allowlist,
            allowlist_is_default,
            domains: domains::Settings { resolver: self.resolver(), ..domains::Settings::default() },
            list_mode: self.list_mode(),
            trusted_proxies: self.trusted_proxies(),
            proxy_protocol: self.proxy_protocol(),
            integrations,
            keys,
            key_scope: outbound::Scope::default(),
            queue: self.queue(),
            embedded_limit_bytes: self.embedded_limit(),
            queue_timeout: self.duration("RETRIEVE_QUEUE_TIMEOUT"),
            data_dir: self.data_dir(),
            journal_limit_bytes: self.parse("RETRIEVE_JOURNAL_LIMIT", parse::size_bytes).unwrap_or(0) as u64,
            connections: ConnectionLimits {
                header_timeout: self.duration("RETRIEVE_HEADER_TIMEOUT"),
                idle_timeout: self.duration("RETRIEVE_IDLE_TIMEOUT"),
                write_timeout: self.duration("RETRIEVE_WRITE_TIMEOUT"),
                header_limit_bytes: self.header_limit(),
                max_connections: self.count("RETRIEVE_MAX_CONNECTIONS"),
                max_per_address: self.count("RETRIEVE_MAX_CONNECTIONS_PER_ADDRESS"),
            },
            body_timeout: self.duration("RETRIEVE_BODY_TIMEOUT"),
            in_flight_limit_bytes,
            drain_delay: self.duration("RETRIEVE_DRAIN_DELAY"),
            drain_timeout: self.duration("RETRIEVE_DRAIN_TIMEOUT"),
            log: self.log(),
        }
    }

    /// What was set, without white space around it. An empty value counts as none: that is what
    /// `RETRIEVE_X=${X:-}` gives in a compose file.
    fn set(&self, name: &str) -> Option<String> {
        self.strings.get(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> String {
        self.set(name).unwrap_or_else(|| default_of(name).to_owned())
    }

    fn parse<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, Unreadable>) -> Option<T> {
        let text = self.text(name);
        parse(&text).map_err(|unreadable| self.error(name, unreadable)).ok()
    }

    /// One of two words.
    fn choice<T: Copy>(&mut self, name: &str, [one, other]: [(&str, T); 2]) -> T {
        let value = self.parse(name, |text| match text {
            _ if text == one.0 => Ok(one.1),
            _ if text == other.0 => Ok(other.1),
            _ => Err(Unreadable::new(format!("`{text}` is neither {} nor {}", one.0, other.0))),
        });
        value.unwrap_or(one.1)
    }

    fn error(&mut self, name: &str, unreadable: Unreadable) {
        self.problems.error(name, ORIGIN, unreadable.message, unreadable.hint);
    }

    fn socket_address(&mut self, name: &str) -> std::net::SocketAddr {
        self.parse(name, parse::socket_address).unwrap_or_else(|| ([127, 0, 0, 1], 0).into())
    }

    /// The drain delay alone may be zero.
    fn duration(&mut self, name: &str) -> std::time::Duration {
        self.parse(name, |text| parse::duration(text, name == "RETRIEVE_DRAIN_DELAY")).unwrap_or_default()
    }

    fn count(&mut self, name: &str) -> usize {
        self.parse(name, parse::count).unwrap_or(1)
    }

    fn body_limit(&mut self) -> usize {
        self.parse("RETRIEVE_BODY_LIMIT", body_limit_bytes).unwrap_or(BODY_LIMIT_MAX_BYTES)
    }

    /// hyper's read buffer begins with 8 KiB, so a smaller limit couldn't be kept.
    fn header_limit(&mut self) -> usize {
        const SMALLEST: usize = 8 << 10;
        const LARGEST: usize = 1 << 20;
        let bytes = self.parse("RETRIEVE_HEADER_LIMIT", |text| {
            let bytes = parse::size_bytes(text)?;
            if (SMALLEST..=LARGEST).contains(&bytes) {
                Ok(bytes)
            } else {
                Err(Unreadable::new(format!("`{text}` isn't between 8KiB and 1MiB")))
            }
        });
        bytes.unwrap_or(SMALLEST)
    }

    fn in_flight_limit(&mut self, largest_body_bytes: usize) -> usize {
        let name = "RETRIEVE_IN_FLIGHT_LIMIT";
        const LARGEST: usize = 1 << 40;
        let Some(limit) = self.parse(name, parse::size_bytes) else { return largest_body_bytes };
        if limit > LARGEST {
            self.problems.error(name, ORIGIN, "it is more than 1TiB", None);
        }
        if limit < largest_body_bytes {
            let message = format!("{limit} bytes are less than the largest body, {largest_body_bytes} bytes");
            self.problems.error(name, ORIGIN, message, Some("raise it, or lower the body limits".to_owned()));
        }
        limit
    }

    fn payload_limits(&mut self) -> Limits {
        Limits {
            depth: self.parse("RETRIEVE_DEPTH_LIMIT", parse::depth).unwrap_or(1),
            xml_elements: self.count("RETRIEVE_XML_ELEMENT_LIMIT"),
            xml_attributes: self.count("RETRIEVE_XML_ATTRIBUTE_LIMIT"),
            xml_text_bytes: self.size_bytes("RETRIEVE_XML_TEXT_LIMIT"),
            xml_output_bytes: self.size_bytes("RETRIEVE_XML_OUTPUT_LIMIT"),
            name_bytes: self.size_bytes("RETRIEVE_NAME_LIMIT"),
            form_fields: self.count("RETRIEVE_FORM_FIELD_LIMIT"),
            compression_ratio: self.count("RETRIEVE_COMPRESSION_RATIO_LIMIT"),
        }
    }

    /// Nothing within a body can be larger than the body, or many times as large as it.
    fn size_bytes(&mut self, name: &str) -> usize {
        const LARGEST: usize = 4 * BODY_LIMIT_MAX_BYTES;
        let bytes = self.parse(name, |text| match parse::size_bytes(text)? {
            bytes if bytes <= LARGEST => Ok(bytes),
            _ => Err(Unreadable::new(format!("`{text}` is more than 128MiB"))),
        });
        bytes.unwrap_or(1)
    }

    fn embedded_limit(&mut self) -> u64 {
        const SMALLEST: usize = 1 << 20;
        let bytes = self.parse("RETRIEVE_EMBEDDED_LIMIT", |text| match parse::size_bytes(text)? {
            bytes if bytes >= SMALLEST => Ok(bytes as u64),
            _ => Err(Unreadable::new(format!("`{text}` is less than 1MiB"))),
        });
        bytes.unwrap_or_default()
    }

    fn allowlist(&mut self) -> (Allowlist, bool) {
        let name = "RETRIEVE_ALLOWED_LIST";
        let Some(text) = self.set(name) else { return (Allowlist::loopback(), true) };
        let mut list = Allowlist::default();
        for item in parse::list(&text) {
            add_entry(&mut list, item, name, ORIGIN, self.problems);
        }
        if list.is_empty() {
            self.problems.warning(name, ORIGIN, "the list has no entry, so nobody is admitted", None);
        }
        if list.admits_everyone() {
            let hint = "list the addresses and networks that should be let in".to_owned();
            self.problems.warning(name, ORIGIN, "`*` admits everyone who can reach this gateway", Some(hint));
        }
        (list, false)
    }

    fn list_mode(&mut self) -> ListMode {
        let name = "RETRIEVE_ALLOWED_LIST_MODE";
        let mode = self.choice(name, [("enforce", ListMode::Enforce), ("report", ListMode::Report)]);
        if mode == ListMode::Report {
            let message = "no allowlist is enforced: everyone who can reach this gateway is let in, and may find out \
                           which integrations exist";
            let hint = "set enforce as soon as the log's `would be refused` lines name no sender of yours"
                .to_owned();
            self.problems.warning(name, ORIGIN, message, Some(hint));
        }
        mode
    }

    fn trusted_proxies(&mut self) -> NetworkTable<()> {
        let name = "RETRIEVE_TRUSTED_PROXIES";
        let mut table = NetworkTable::default();
        for item in parse::list(&self.text(name)) {
            match parse_network(item) {
                Ok(network) => table.insert(network, ()),
                Err(error) => {
                    self.problems.error(name, ORIGIN, format!("`{item}`: {error}"), None);
                }
            }
        }
        table
    }

    fn resolver(&mut self) -> Option<std::net::SocketAddr> {
        let name = "RETRIEVE_DNS";
        let text = self.set(name)?;
        parse::resolver_address(&text).map_err(|unreadable| self.error(name, unreadable)).ok()
    }

    /// Without a proxy to require the header of, nothing would be required of anybody.
    fn proxy_protocol(&mut self) -> bool {
        let name = "RETRIEVE_PROXY_PROTOCOL";
        let is_on = self.choice(name, [("off", false), ("on", true)]);
        if is_on && parse::list(&self.text("RETRIEVE_TRUSTED_PROXIES")).next().is_none() {
            let hint = "name the proxies in RETRIEVE_TRUSTED_PROXIES".to_owned();
            self.problems.error(name, ORIGIN, "no proxy is trusted to send a PROXY header", Some(hint));
        }
        is_on
    }

    fn integrations(
        &mut self,
        body_limit_bytes: usize,
        keys: &Arc<KeyCache>,
    ) -> crate::integration::Integrations {
        let mut all = crate::integration::Integrations::default();
        let name = "RETRIEVE_INTEGRATIONS_FILE";
        let path = PathBuf::from(self.text(name));
        match std::fs::read_to_string(&path) {
            Ok(text) => integrations::read(
                &text,
                &path.display().to_string(),
                body_limit_bytes,
                self.strings,
                keys,
                &mut all,
                self.problems,
            ),
            Err(error) if self.set(name).is_some() => {
                let message = format!("{} can't be read: {error}", path.display());
                self.problems.error(name, ORIGIN, message, None);
            }
            Err(_) => {}
        }
        for item in parse::list(&self.text("RETRIEVE_INTEGRATIONS")) {
            self.add_plain_integration(item, body_limit_bytes, &mut all);
        }
        if all.is_empty() && !self.problems.stop_the_start() {
            let hint = "set RETRIEVE_INTEGRATIONS=<id>, or write config/integrations.toml".to_owned();
            self.problems.warning(
                "RETRIEVE_INTEGRATIONS",
                ORIGIN,
                "there is no integration, so every webhook is answered 404",
                Some(hint),
            );
        }
        all
    }

    fn add_plain_integration(
        &mut self,
        item: &str,
        body_limit_bytes: usize,
        all: &mut crate::integration::Integrations,
    ) {
        let name = "RETRIEVE_INTEGRATIONS";
        let integration = integrations::plain(body_limit_bytes);
        if item == "*" {
            return all.accept_any(integration);
        }
        match parse::integration_id(item) {
            Err(unreadable) => self.error(name, unreadable),
            Ok(id) => {
                if !all.add(id, integration) {
                    self.problems.error(
                        name,
                        ORIGIN,
                        format!("`{item}` is listed twice, here or in the file"),
                        None,
                    );
                }
            }
        }
    }

    fn queue(&mut self) -> Backend {
        let name = "RETRIEVE_QUEUE";
        let text = self.secret(name).unwrap_or_else(|| SecretString::from(default_of(name)));
        let backend = match Target::parse(text.expose_secret()) {
            None => parse_embedded(text.expose_secret()).map(Backend::Embedded),
            Some(Ok(target)) => Ok(Backend::Redis(Box::new(self.redis(target)))),
            Some(Err(error)) => Err(Unreadable::new(error.to_string()).hint(REDIS_HINT)),
        };
        backend.unwrap_or_else(|unreadable| {
            self.error(name, unreadable);
            Backend::Embedded(PathBuf::new())
        })
    }

    /// A secret from its variable, or from the file that `<name>_FILE` names.
    fn secret(&mut self, name: &str) -> Option<SecretString> {
        let file_name = format!("{name}_FILE");
        match (self.set(name), self.set(&file_name)) {
            (Some(_), Some(_)) => {
                let message = format!("it is given twice: by {name} and by {file_name}");
                self.problems.error(name, ORIGIN, message, None);
                None
            }
            (Some(value), None) => Some(SecretString::from(value)),
            (None, Some(path)) => match secret::read_file(Path::new(&path)) {
                Ok(value) => Some(value),
                Err(error) => {
                    self.problems.error(&file_name, ORIGIN, format!("{path} can't be used: {error}"), None);
                    None
                }
            },
            (None, None) => None,
        }
    }

    fn log(&mut self) -> LogConfig {
        let filter = self.text("RETRIEVE_LOG");
        if !telemetry::is_filter(&filter) {
            let hint = "write error, warn, info or debug".to_owned();
            self.problems.error("RETRIEVE_LOG", ORIGIN, format!("`{filter}` isn't a level"), Some(hint));
        }
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        LogConfig { filter, format: self.choice("RETRIEVE_LOG_FORMAT", formats) }
    }

    /// None if there is to be no outage journal.
    fn data_dir(&mut self) -> Option<PathBuf> {
        Some(self.text("RETRIEVE_DATA_DIR")).filter(|text| text != "off").map(PathBuf::from)
    }
}

pub(super) fn body_limit_bytes(text: &str) -> Result<usize, Unreadable> {
    let bytes = parse::size_bytes(text)?;
    if bytes <= BODY_LIMIT_MAX_BYTES {
        Ok(bytes)
    } else {
        Err(Unreadable::new(format!("`{text}` is more than 32MiB")))
    }
}

/// Adds an entry to an allowlist, or a problem.
pub(super) fn add_entry(list: &mut Allowlist, item: &str, key: &str, origin: &str, problems: &mut Problems) {
    match Entry::parse(item) {
        Ok(entry) => list.add(entry, item),
        Err(error) => {
            let hint =
                "write an address (203.0.113.0), a network (198.51.100.0/24) or a domain (shopify.com)";
            problems.error(key, origin, format!("`{item}`: {error}"), Some(hint.to_owned()));
        }
    }
}

const REDIS_HINT: &str = "write redis://user:password@host:6379/0, redis-sentinel://host:26379,host:26379/mymaster or \
                          redis-cluster://host:6379,host:6379";

/// Never repeats the text: it may hold a password.
fn parse_embedded(text: &str) -> Result<PathBuf, Unreadable> {
    const HINT: &str = "write embedded:./data or redis://127.0.0.1:6379";
    match text.split_once(':') {
        None => Err(Unreadable::new("it has no scheme").hint(HINT)),
        Some(("embedded", "")) => Err(Unreadable::new("`embedded:` names no folder").hint(HINT)),
        Some(("embedded", folder)) => Ok(PathBuf::from(folder)),
        Some(_) => Err(Unreadable::new("its scheme isn't known").hint(HINT)),
    }
}

fn report_unknown(strings: &dyn Strings, problems: &mut Problems) {
    let mut keys = strings.keys();
    keys.sort();
    for key in keys.iter().filter(|key| key.starts_with(PREFIX)) {
        let is_known = VARIABLES.iter().any(|variable| {
            key == variable.name || (variable.is_secret && key.strip_suffix("_FILE") == Some(variable.name))
        });
        if !is_known && !is_from_kubernetes(key) {
            let hint = nearest(key).map(|name| format!("did you mean {name}?"));
            problems.error(key, ORIGIN, "this variable isn't known", hint);
        }
    }
}

/// Kubernetes gives every container the address of a service named `retrieve-gateway` in such variables.
fn is_from_kubernetes(key: &str) -> bool {
    key.starts_with("RETRIEVE_GATEWAY_SERVICE_") || key.starts_with("RETRIEVE_GATEWAY_PORT")
}

fn nearest(key: &str) -> Option<&'static str> {
    const NEAR: usize = 4;
    let distance = |variable: &&Variable| strsim::damerau_levenshtein(key, variable.name);
    let nearest = VARIABLES.iter().min_by_key(distance)?;
    (distance(&nearest) <= NEAR).then_some(nearest.name)
}
