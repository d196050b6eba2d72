//! `integrations.toml`: every problem with its line.

mod places;
mod values;

use std::sync::Arc;
use std::time::{Duration, Instant};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use self::places::{Places, pieces};
use super::env::{add_entry, body_limit_bytes};
use super::problems::Problems;
use super::source::{SourceSettings, find_preset, read_secret};
use super::{Strings, parse};
use crate::admission::rate::RateLimit;
use crate::integration::{Dedupe, DedupeBy, Integration, Integrations, Policy};
use crate::payload::media_type::MediaType;
use crate::payload::multipart::Files;
use crate::payload::xml::{Arrays, Root};
use crate::payload::{Format, PayloadOptions};
use crate::signature::fetch::EbayApplication;
use crate::signature::keys::KeyCache;

const KEYS: [&str; 18] = [
    "id",
    "name",
    "enabled",
    "source",
    "secrets",
    "admit",
    "allowed_list",
    "body_limit",
    "rate",
    "keep_order",
    "signature",
    "public_url",
    "verify_token",
    "application",
    "content_type",
    "xml",
    "multipart",
    "dedupe",
];
/// Those of [`KEYS`] that speak of the sender.
const SOURCE_KEYS: [&str; 7] =
    ["source", "secrets", "admit", "signature", "public_url", "verify_token", "application"];
const XML_KEYS: [&str; 8] = [
    "force_list",
    "keep_raw",
    "arrays",
    "strip_prefixes",
    "keep_whitespace",
    "root",
    "attribute_prefix",
    "text_key",
];

/// The largest file of a multipart body unless the integration says otherwise.
const FILE_LIMIT_BYTES: usize = 1 << 20;

/// For how long repeats are known unless the integration says otherwise: longer than any sender tries.
const DEDUPE_WITHIN: Duration = Duration::from_secs(72 * 60 * 60);

/// What is wrong with dropping repeats by a number that the sender doesn't give.
fn without_delivery_id(integration: &Integration) -> Option<String> {
    integration.dedupe.filter(|dedupe| dedupe.by == DedupeBy::DeliveryId)?;
    match integration.source {
        Some(source) if source.names_deliveries() => None,
        Some(source) => {
            Some(format!("the source {} numbers no deliveries; write by = \"body\"", source.name))
        }
        None => Some("without a source no delivery has an id; write by = \"body\"".to_owned()),
    }
}

/// An integration without settings of its own.
pub(super) fn plain(body_limit_bytes: usize) -> Integration {
    Integration { enabled: true, body_limit_bytes, ..Integration::default() }
}

/// Reads the file's text and adds its integrations.
pub(super) fn read(
    text: &str,
    file: &str,
    body_limit_bytes: usize,
    strings: &dyn Strings,
    keys: &Arc<KeyCache>,
    all: &mut Integrations,
    problems: &mut Problems,
) {
    let mut file = File { places: Places::new(text, file), strings, keys, problems };
    let mut index = 0;
    for piece in pieces(text) {
        file.places.begin = piece.start;
        let (table, errors) = DeTable::parse_recoverable(&text[piece]);
        for error in &errors {
            let origin = error.span().map_or(file.places.file.to_owned(), |span| file.places.origin(&span));
            file.problems.error("integrations", &origin, error.message(), None);
        }
        if !errors.is_empty() {
            continue;
        }
        for (key, value) in table.get_ref() {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("integration", DeValue::Array(entries)) => {
                    for entry in entries {
                        file.integration(index, entry, body_limit_bytes, all);
                        index += 1;
                    }
                }
                ("integration", _) => {
                    file.error("integration", value.span(), "write each as [[integration]]".to_owned())
                }
                (other, _) => file.unknown(other, "", key.span(), &["integration"]),
            }
        }
    }
}

struct File<'a> {
    places: Places<'a>,
    strings: &'a dyn Strings,
    keys: &'a Arc<KeyCache>,
    problems: &'a mut Problems,
}

type Value<'i> = Spanned<DeValue<'i>>;

impl File<'_> {
    fn integration(
        &mut self,
        index: usize,
        entry: &Value<'_>,
        body_limit_bytes: usize,
        all: &mut Integrations,
    ) {
        let path = format!("integration[{}]", index + 1);
        let DeValue::Table(table) = entry.get_ref() else {
            return self.error(&path, entry.span(), "it isn't a table".to_owned());
        };
        let mut integration = plain(body_limit_bytes);
        let mut id = None;
        let mut source = SourceSettings::default();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let path = format!("{path}.{name}");
            match name {
                "id" => id = self.parsed(&path, value, parse::integration_id),
                _ if SOURCE_KEYS.contains(&name) => self.source(name, &path, value, &mut source),
                _ if KEYS.contains(&name) => self.setting(name, &path, value, &mut integration),
                _ => self.unknown(name, &path, key.span(), &KEYS),
            }
        }
        for (key, message) in source.apply(&mut integration, self.keys) {
            let span = table
                .iter()
                .find(|(name, _)| name.get_ref() == key)
                .map_or(entry.span(), |(name, _)| name.span());
            self.error(&format!("{path}.{key}"), span, message);
        }
        if let Some(message) = without_delivery_id(&integration) {
            let span =
                table.iter().find(|(name, _)| name.get_ref() == "dedupe").map(|(_, value)| value.span());
            self.error(&format!("{path}.dedupe"), span.unwrap_or(entry.span()), message);
        }
        let Some(id) = id else {
            if !table.keys().any(|key| key.get_ref() == "id") {
                self.error(&path, entry.span(), "it has no id".to_owned());
            }
            return;
        };
        if !all.add(id.clone(), integration) {
            self.error(&format!("{path}.id"), entry.span(), format!("`{id}` is listed twice"));
        }
    }

    fn setting(&mut self, name: &str, path: &str, value: &Value<'_>, integration: &mut Integration) {
        match name {
            "name" => integration.name = self.string(path, value).unwrap_or_default(),
            "enabled" => integration.enabled = self.boolean(path, value).unwrap_or_default(),
            "body_limit" => {
                integration.body_limit_bytes = self.parsed(path, value, body_limit_bytes).unwrap_or_default();
            }
            "keep_order" => integration.is_unordered = !self.boolean(path, value).unwrap_or(true),
            "rate" => {
                let rate = self.parsed(path, value, parse::rate);
                integration.rate = rate.map(|rate| RateLimit::new(rate, Instant::now()));
            }
            "allowed_list" => self.allowed_list(path, value, integration),
            "content_type" => {
                let content_type = self.string(path, value).map(|text| content_type(&text));
                integration.payload.content_type =
                    content_type.and_then(|content_type| self.accepted(path, value, content_type));
            }
            "xml" => self.xml(path, value, &mut integration.payload),
            "multipart" => integration.payload.files = self.files(path, value),
            _ => integration.dedupe = self.dedupe(path, value),
        }
    }

    /// What is said of the sender; it is put together when all of it was read.
    fn source(&mut self, name: &str, path: &str, value: &Value<'_>, source: &mut SourceSettings) {
        match name {
            "source" => {
                let preset = self.string(path, value).map(|text| find_preset(&text));
                source.preset = preset.and_then(|preset| self.accepted(path, value, preset));
            }
            "secrets" => {
                for (text, span) in self.strings(path, value) {
                    match read_secret(&text, self.strings) {
                        Ok(secret) => source.secrets.push(secret),
                        Err(message) => {
                            source.has_unreadable_secret = true;
                            self.error(path, span, message);
                        }
                    }
                }
            }
            "admit" => source.policy = self.admit(path, value),
            "public_url" => source.public_url = self.string(path, value),
            "verify_token" => {
                let token = self.string(path, value).map(|text| read_secret(&text, self.strings));
                source.verify_token = token.and_then(|token| self.accepted(path, value, token));
            }
            "application" => {
                source.has_application = true;
                source.application = self.application(path, value);
            }
            _ => source.signature = Some(self.pairs(path, value, "{ header = \"x-my-signature\", … }")),
        }
    }

    fn application(&mut self, path: &str, value: &Value<'_>) -> Option<EbayApplication> {
        const EXAMPLE: &str = "{ id = \"<App ID>\", secret = \"env:NAME\" }";
        let pairs = self.pairs(path, value, EXAMPLE);
        for (key, _) in pairs.iter().filter(|(key, _)| !matches!(key.as_str(), "id" | "secret")) {
            self.unknown(key, &format!("{path}.{key}"), value.span(), &["id", "secret"]);
        }
        let find = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, text)| text.trim());
        let client_id = find("id").filter(|id| !id.is_empty());
        let (Some(client_id), Some(secret)) = (client_id, find("secret")) else {
            self.error(path, value.span(), format!("write {EXAMPLE}"));
            return None;
        };
        let read = read_secret(secret, self.strings);
        let client_secret = self.accepted(path, value, read)?;
        Some(EbayApplication { client_id: client_id.to_owned(), client_secret })
    }

    fn admit(&mut self, path: &str, value: &Value<'_>) -> Policy {
        match self.string(path, value).as_deref() {
            None | Some("allowlist") => Policy::Allowlist,
            Some("signature") => Policy::Signature,
            Some("allowlist+signature") => Policy::AllowlistAndSignature,
            Some(other) => {
                let message = format!("`{other}` is none of allowlist, signature, allowlist+signature");
                self.error(path, value.span(), message);
                Policy::AllowlistAndSignature
            }
        }
    }

    fn allowed_list(&mut self, path: &str, value: &Value<'_>, integration: &mut Integration) {
        for (item, span) in self.strings(path, value) {
            let origin = self.places.origin(&span);
            add_entry(&mut integration.allowlist, &item, path, &origin, self.problems);
        }
    }

    fn xml(&mut self, path: &str, value: &Value<'_>, payload: &mut PayloadOptions) {
        let DeValue::Table(table) = value.get_ref() else {
            return self.error(path, value.span(), "write { force_list = […], keep_raw = true }".to_owned());
        };
        let options = &mut payload.xml;
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let path = format!("{path}.{name}");
            match name {
                "force_list" => {
                    options.force_list =
                        self.strings(&path, value).into_iter().map(|(item, _)| item).collect();
                }
                "keep_raw" => payload.drop_raw_xml = !self.boolean(&path, value).unwrap_or(true),
                "strip_prefixes" => options.strip_prefixes = self.boolean(&path, value).unwrap_or_default(),
                "keep_whitespace" => options.keep_whitespace = self.boolean(&path, value).unwrap_or_default(),
                "attribute_prefix" => {
                    options.attribute_prefix = self.string(&path, value).unwrap_or_default()
                }
                "text_key" => options.text_key = self.string(&path, value).unwrap_or_default(),
                "arrays" => {
                    let choices = [("when_repeated", Arrays::WhenRepeated), ("always", Arrays::Always)];
                    options.arrays = self.choice(&path, value, choices).unwrap_or(Arrays::WhenRepeated);
                }
                "root" => {
                    let choices = [("keep", Root::Keep), ("unwrap", Root::Unwrap)];
                    options.root = self.choice(&path, value, choices).unwrap_or(Root::Keep);
                }
                _ => self.unknown(name, &path, key.span(), &XML_KEYS),
            }
        }
    }

    fn dedupe(&mut self, path: &str, value: &Value<'_>) -> Option<Dedupe> {
        const EXAMPLE: &str = "write { by = \"delivery_id\", within = \"72h\" }";
        let DeValue::Table(table) = value.get_ref() else {
            self.error(path, value.span(), EXAMPLE.to_owned());
            return None;
        };
        let (mut by, mut within) = (None, Some(DEDUPE_WITHIN));
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let path = format!("{path}.{name}");
            match name {
                "by" => {
                    let choices = [("delivery_id", DedupeBy::DeliveryId), ("body", DedupeBy::Body)];
                    by = self.choice(&path, value, choices);
                }
                "within" => within = self.parsed(&path, value, parse::window),
                _ => self.unknown(name, &path, key.span(), &["by", "within"]),
            }
        }
        if !table.keys().any(|key| key.get_ref() == "by") {
            self.error(path, value.span(), EXAMPLE.to_owned());
        }
        Some(Dedupe { by: by?, within: within? })
    }

    fn files(&mut self, path: &str, value: &Value<'_>) -> Files {
        let DeValue::Table(table) = value.get_ref() else {
            let message = "write { files = \"base64\", file_limit = \"1MiB\" }";
            self.error(path, value.span(), message.to_owned());
            return Files::Refuse;
        };
        let (mut are_taken, mut limit) = (false, None);
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let path = format!("{path}.{name}");
            match name {
                "files" => {
                    let choices = [("refuse", false), ("base64", true)];
                    are_taken = self.choice(&path, value, choices).unwrap_or_default();
                }
                "file_limit" => limit = Some((self.parsed(&path, value, body_limit_bytes), value.span())),
                _ => self.unknown(name, &path, key.span(), &["files", "file_limit"]),
            }
        }
        match limit {
            Some((_, span)) if !are_taken => {
                let message = "it limits nothing unless files = \"base64\"".to_owned();
                self.error(&format!("{path}.file_limit"), span, message);
                Files::Refuse
            }
            _ if !are_taken => Files::Refuse,
            limit => {
                let limit_bytes = limit.and_then(|(limit, _)| limit).unwrap_or(FILE_LIMIT_BYTES);
                Files::Base64 { limit_bytes }
            }
        }
    }
}

/// A content type that bodies can be read as without their own. A multipart body's own names its boundary.
fn content_type(text: &str) -> Result<MediaType, String> {
    let media_type = MediaType::parse(text).ok_or_else(|| format!("`{text}` isn't a content type"))?;
    match Format::of(&media_type) {
        Some(Format::Multipart) => {
            Err("a multipart body can't be read without the content type that it came with".to_owned())
        }
        Some(_) => Ok(media_type),
        None => Err(format!("{text} can't be turned into JSON; write application/json or text/plain")),
    }
}
