//! `send`: a sample webhook, signed as its sender signs, so that an integration can be tried without the sender.

mod known;
mod sample;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::Full;
use jiff::Timestamp;
use secrecy::SecretString;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use uuid::Uuid;

use self::sample::Sample;
use super::complain;
use crate::config::{Environment, secret};
use crate::outbound::{Answer, Bounds, Client, Reach, Trust};
use crate::signature::SignedRequest;
use crate::signature::sign::{Delivery, SignError, sign};
use crate::source::{Preset, Secret, preset, presets};

/// Flags of `send`.
#[derive(Debug, clap::Args)]
pub struct SendArgs {
    /// Where to send it: http or https
    #[arg(required_unless_present = "list")]
    url: Option<String>,
    /// The sender to imitate; --list names them all. Without it the sample is plain JSON, unsigned
    #[arg(long, value_name = "PRESET")]
    source: Option<String>,
    /// What happened, in the sender's own word, such as orders/create
    #[arg(long)]
    event: Option<String>,
    /// The delivery's id; a new one unless given. The same one twice is a repeat
    #[arg(long)]
    id: Option<String>,
    /// The secret to sign with: env:NAME and file:PATH keep it out of the shell's history
    #[arg(long, value_name = "SECRET|env:NAME|file:PATH")]
    secret: Option<String>,
    /// A body to send as it is instead of the sample; - is standard input
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// The content type of --data; found out from its first character unless given
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// One more header, as `name: value`; may be repeated
    #[arg(long, value_name = "HEADER")]
    header: Vec<String>,
    /// The URL that the sender would call, if a proxy stands before URL (some senders sign it)
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// The authority that signed the server's certificate, in PEM, if it isn't a public one
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Only print the presets, and what each takes as its secret
    #[arg(long)]
    list: bool,
}

/// The exit code when there is no answer.
const EXIT_NOTHING_SENT: u8 = 2;
/// The longest body that is read from a file: what the largest integration takes.
const DATA_LIMIT_BYTES: u64 = 32 << 20;
const BOUNDS: Bounds = Bounds { limit_bytes: 1 << 20, timeout: Duration::from_secs(30) };

pub(super) fn send(flags: &SendArgs) -> ExitCode {
    if flags.list {
        print(&list());
        return ExitCode::SUCCESS;
    }
    match exchange(flags) {
        Ok(answer) => {
            print(&written(&answer));
            if answer.status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(problem) => {
            complain(problem);
            ExitCode::from(EXIT_NOTHING_SENT)
        }
    }
}

fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn exchange(flags: &SendArgs) -> Result<Answer, String> {
    let request = request(flags, Timestamp::now())?;
    let trust = flags.ca.as_deref().map_or(Ok(Trust::PublicRoots), authorities)?;
    let client = Client::new(trust, Reach::Anywhere).map_err(|error| format!("--ca: {error}"))?;
    let url = request.uri().clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let answer = runtime.block_on(client.exchange(request, BOUNDS));
    // The query may hold a token.
    let place = url.authority().map_or("the URL", http::uri::Authority::as_str);
    answer.map_err(|error| format!("no answer from {place}: {error}"))
}

/// The request, signed at a time.
fn request(flags: &SendArgs, now: Timestamp) -> Result<Request<Full<Bytes>>, String> {
    let source = flags.source.as_deref().map(find).transpose()?;
    let secret = flags.secret.as_deref().map(read_secret).transpose()?;
    if let (Some(preset), None) = (source, &secret)
        && let Secret::Required(what) = preset.secret
    {
        return Err(format!("{} signs: give --secret ({what})", preset.name));
    }
    let id = flags.id.clone().unwrap_or_else(|| Uuid::now_v7().to_string());
    let wanted = sample::Wanted { event: flags.event.as_deref(), id: &id, secret: secret.as_ref(), now };
    let sample = match &flags.data {
        None => sample::sample(source, &wanted),
        Some(path) => {
            let body = read_data(path)?;
            let sample = sample::around(source, &wanted, body, flags.content_type.as_deref());
            warn_of_unused(flags, source, &sample);
            sample
        }
    };
    let url: Uri = url(flags.url.as_deref().unwrap_or_default())?;
    build(flags, source, secret.as_ref(), url, sample, &id, now)
}

fn build(
    flags: &SendArgs,
    source: Option<&Preset>,
    secret: Option<&SecretString>,
    mut url: Uri,
    sample: Sample,
    id: &str,
    now: Timestamp,
) -> Result<Request<Full<Bytes>>, String> {
    let mut headers = sample.headers;
    for header in &flags.header {
        let (name, value) = header_of(header)?;
        headers.insert(name, value);
    }
    if let (Some(preset), Some(secret)) = (source, secret) {
        let unsigned = SignedRequest {
            method: &Method::POST,
            uri: &url,
            headers: &headers,
            body: &sample.body,
            now,
            public_url: flags.public_url.as_deref().or(flags.url.as_deref()),
        };
        let delivery = Delivery { id, spelling: known::spelling(preset.name) };
        let proof =
            sign(&preset.scheme, secret, &unsigned, delivery).map_err(|error| explain(preset, &error))?;
        headers.extend(proof.headers.into_iter().map(|(name, value)| (Some(name), value)));
        if let Some(query) = proof.query {
            url = with_query(&url, &query)?;
        }
    }
    let mut request = Request::new(Full::new(sample.body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url;
    *request.headers_mut() = headers;
    Ok(request)
}

fn find(name: &str) -> Result<&'static Preset, String> {
    preset(name).ok_or_else(|| {
        let distance = |preset: &&Preset| strsim::damerau_levenshtein(preset.name, name);
        let nearest = presets().min_by_key(distance).map_or("", |preset| preset.name);
        format!("there is no source `{name}`; did you mean `{nearest}`? --list names them all")
    })
}

fn url(text: &str) -> Result<Uri, String> {
    let url: Result<Uri, _> = text.parse();
    let is_web = |url: &Uri| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some();
    url.ok().filter(is_web).ok_or_else(|| format!("`{text}` isn't a URL; write http://host/integration/id"))
}

fn with_query(url: &Uri, more: &str) -> Result<Uri, String> {
    let separator = if url.query().is_some() { '&' } else { '?' };
    format!("{url}{separator}{more}").parse().map_err(|_| "the secret can't stand in a URL".to_owned())
}

fn header_of(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let parts = text.split_once(':').and_then(|(name, value)| {
        Some((
            HeaderName::from_bytes(name.trim().as_bytes()).ok()?,
            HeaderValue::from_str(value.trim()).ok()?,
        ))
    });
    parts.ok_or_else(|| "a --header is written `name: value`".to_owned())
}

/// A secret as it stands, or from an environment variable or a file.
fn read_secret(text: &str) -> Result<SecretString, String> {
    match secret::read_reference(text, &Environment) {
        Some(secret) => secret.map_err(|problem| format!("--secret: {problem}")),
        None if text.is_empty() => Err("--secret: it is empty".to_owned()),
        None => Ok(SecretString::from(text)),
    }
}

fn read_data(path: &Path) -> Result<Bytes, String> {
    let problem = |error: std::io::Error| format!("--data: {}: {error}", path.display());
    let reader: Box<dyn Read> = match path.as_os_str() == OsStr::new("-") {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(path).map_err(problem)?),
    };
    let mut body = Vec::new();
    let length = reader.take(DATA_LIMIT_BYTES + 1).read_to_end(&mut body).map_err(problem)?;
    if length as u64 > DATA_LIMIT_BYTES {
        return Err(format!("--data: {} is longer than {DATA_LIMIT_BYTES} bytes", path.display()));
    }
    Ok(body.into())
}

fn authorities(path: &Path) -> Result<Trust, String> {
    let problem = |error: &dyn std::fmt::Display| format!("--ca: {}: {error}", path.display());
    let text = std::fs::read(path).map_err(|error| problem(&error))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(Trust::Only(certificates)),
        Ok(_) => Err(problem(&"it holds no certificate")),
        Err(error) => Err(problem(&error)),
    }
}

fn warn_of_unused(flags: &SendArgs, source: Option<&Preset>, sample: &Sample) {
    for (flag, given, is_placed) in
        [("--event", &flags.event, sample.places_event), ("--id", &flags.id, sample.places_id)]
    {
        if given.is_some() && !is_placed {
            let sender = source.map_or("a plain sample", |preset| preset.title);
            complain(format!("{flag} isn't used: {sender} has it in the body, and --data is sent as it is"));
        }
    }
}

fn explain(preset: &Preset, error: &SignError) -> String {
    match preset.secret {
        Secret::Required(what) | Secret::Optional(what) => {
            format!("a webhook of {} can't be signed: {error} (its secret is {what})", preset.title)
        }
    }
}

/// Status, headers and body, without what a terminal would take for commands.
fn written(answer: &Answer) -> String {
    let mut text = format!("{}\n", answer.status);
    for (name, value) in &answer.headers {
        text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    text.push('\n');
    text.push_str(&String::from_utf8_lossy(&answer.body));
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.retain(|character| matches!(character, '\n' | '\t') || !character.is_control());
    text
}

fn list() -> String {
    let mut text = String::new();
    for preset in presets() {
        let (Secret::Required(what) | Secret::Optional(what)) = preset.secret;
        let optional = if preset.needs_secret() { "" } else { "optional: " };
        let own = if preset.scheme.fetches_keys() { "; only the sender itself can sign" } else { "" };
        text.push_str(&format!("{:<18} {}\n{:<18}   {optional}{what}{own}\n", preset.name, preset.title, ""));
    }
    text
}

impl Sample {
    fn set_content_type(headers: &mut HeaderMap, media_type: &str) {
        if let Ok(value) = HeaderValue::from_str(media_type) {
            headers.insert(CONTENT_TYPE, value);
        }
    }
}
