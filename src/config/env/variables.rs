//! The table of variables.

/// One variable, as `--help`, README and `config/retrieve.env.example` show it.
#[derive(Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Its default, as one would write it; empty for none.
    pub default: &'static str,
    /// Whether it may hold a secret, and so may be given as `<name>_FILE`.
    pub is_secret: bool,
    /// What it is for.
    pub help: &'static str,
}

const fn variable(name: &'static str, default: &'static str, help: &'static str) -> Variable {
    Variable { name, default, is_secret: false, help }
}

const fn secret(name: &'static str, default: &'static str, help: &'static str) -> Variable {
    Variable { name, default, is_secret: true, help }
}

/// Every variable.
pub const VARIABLES: &[Variable] = &[
    variable("RETRIEVE_LISTEN", "0.0.0.0:8080", "public listener"),
    variable("RETRIEVE_ADMIN_LISTEN", "127.0.0.1:9090", "private listener: /live /ready /metrics /api"),
    secret("RETRIEVE_ADMIN_TOKEN", "", "bearer token for /api; without one it answers on loopback only"),
    variable("RETRIEVE_APP", "default", "the app's name, part of its Redis keys"),
    variable(
        "RETRIEVE_ALLOWED_LIST",
        "loopback",
        "who may call: addresses, networks, domains, * for everyone",
    ),
    variable("RETRIEVE_ALLOWED_LIST_MODE", "enforce", "report: who is on no list is let in and counted"),
    variable("RETRIEVE_TRUSTED_PROXIES", "", "addresses and networks whose Forwarded headers count"),
    variable("RETRIEVE_PROXY_PROTOCOL", "off", "on: trusted proxies must send a PROXY header (v1 or v2)"),
    variable("RETRIEVE_INTEGRATIONS", "", "ids of integrations without settings; * for every well-formed id"),
    variable(
        "RETRIEVE_INTEGRATIONS_FILE",
        "config/integrations.toml",
        "integrations with their settings, if it exists",
    ),
    secret("RETRIEVE_QUEUE", "embedded:./data", "embedded:<folder> or the URL of a Redis (see below)"),
    variable(
        "RETRIEVE_EMBEDDED_LIMIT",
        "1GiB",
        "jobs in the embedded queue that aren't acknowledged; then 503",
    ),
    variable(
        "RETRIEVE_REDIS_CA",
        "",
        "with rediss://: file of the authorities that Redis's certificate may be of",
    ),
    variable("RETRIEVE_REDIS_CERT", "", "with rediss://: file of the certificate that the gateway shows"),
    variable("RETRIEVE_REDIS_KEY", "", "with rediss://: file of that certificate's private key"),
    variable("RETRIEVE_SHARDS", "1", "with Redis: over how many streams the app's jobs are spread"),
    variable(
        "RETRIEVE_ACK",
        "redis",
        "with Redis: a job counts when redis, replicas:<number> or its fsync has it",
    ),
    variable(
        "RETRIEVE_TRIM",
        "acknowledged",
        "with Redis: what every group has acknowledged is removed; off: nothing",
    ),
    variable("RETRIEVE_STREAM_AGE_LIMIT", "", "with Redis: entries of this age are removed, read or not"),
    variable(
        "RETRIEVE_STREAM_LIMIT",
        "0",
        "with Redis: entries a stream may hold, then the journal; 0 for any",
    ),
    variable("RETRIEVE_QUEUE_TIMEOUT", "80ms", "for the queue to confirm a job; then 503"),
    variable("RETRIEVE_DATA_DIR", "./data", "with Redis: folder of the outage journal; off: none, then 503"),
    variable("RETRIEVE_JOURNAL_LIMIT", "1GiB", "what the outage journal may hold; then 503"),
    variable("RETRIEVE_DNS", "", "address of the resolver that names are looked up at; else the system's"),
    variable("RETRIEVE_HEADER_TIMEOUT", "5s", "for a request's head, from its first byte; then 408"),
    variable("RETRIEVE_HEADER_LIMIT", "16KiB", "size of a request's head; then 431"),
    variable("RETRIEVE_BODY_TIMEOUT", "10s", "for a request's body; then 408"),
    variable("RETRIEVE_BODY_LIMIT", "5MiB", "size of a body, per integration up to 32MiB; then 413"),
    variable(
        "RETRIEVE_COMPRESSION_RATIO_LIMIT",
        "100",
        "how many times larger than its compressed bytes a body may be; then 413",
    ),
    variable("RETRIEVE_DEPTH_LIMIT", "64", "nesting in JSON and XML, up to 256; then 400"),
    variable("RETRIEVE_NAME_LIMIT", "1KiB", "size of a name in XML and multipart; then 400"),
    variable("RETRIEVE_FORM_FIELD_LIMIT", "10000", "fields of a form, parts of a multipart body; then 400"),
    variable("RETRIEVE_XML_ELEMENT_LIMIT", "100000", "elements of an XML document; then 400"),
    variable("RETRIEVE_XML_ATTRIBUTE_LIMIT", "256", "attributes of one XML element; then 400"),
    variable("RETRIEVE_XML_TEXT_LIMIT", "1MiB", "size of the text of one XML element or attribute; then 400"),
    variable("RETRIEVE_XML_OUTPUT_LIMIT", "16MiB", "size of the JSON that an XML document becomes; then 400"),
    variable("RETRIEVE_IN_FLIGHT_LIMIT", "64MiB", "bytes of all bodies in flight; then 503"),
    variable("RETRIEVE_MAX_CONNECTIONS", "4096", "open connections; then 503"),
    variable(
        "RETRIEVE_MAX_CONNECTIONS_PER_ADDRESS",
        "256",
        "the same from one address (an IPv6 /64), trusted proxies aside",
    ),
    variable("RETRIEVE_IDLE_TIMEOUT", "75s", "between two requests of a connection; then it is closed"),
    variable("RETRIEVE_WRITE_TIMEOUT", "10s", "for a peer to take its answer; then the connection is closed"),
    variable("RETRIEVE_DRAIN_DELAY", "0s", "after SIGTERM: not ready, but still accepting"),
    variable("RETRIEVE_DRAIN_TIMEOUT", "15s", "after that: for requests in flight to be answered"),
    variable("RETRIEVE_LOG", "info", "error, warn, info, debug, or directives by module"),
    variable("RETRIEVE_LOG_FORMAT", "text", "text or json"),
];

/// What a variable is when it isn't set. The allowlist's default is a word for people.
pub(super) fn default_of(name: &str) -> &'static str {
    VARIABLES.iter().find(|variable| variable.name == name).map_or("", |variable| variable.default)
}
