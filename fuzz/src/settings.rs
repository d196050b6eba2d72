//! What an operator writes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use ipnet::IpNet;
use retrieve_gateway::admission::allowlist::{Allowlist, Entry};
use retrieve_gateway::config::env;

/// A folder of this process's own.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

/// One entry. What it is read as is written as an entry that reads alike, and only `*` admits everybody.
pub fn allowlist_entry(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(entry) = Entry::parse(text) else { return };
    let written = match &entry {
        Entry::Any => "*".to_owned(),
        Entry::Network(network) => {
            assert_eq!(*network, network.trunc(), "no bits behind the prefix");
            network.to_string()
        }
        Entry::Domain(domain) => {
            assert_eq!(domain.name, domain.name.to_ascii_lowercase());
            assert!(domain.name.parse::<IpNet>().is_err() && !domain.name.ends_with('.'));
            format!("{}{}", if domain.subdomains_only { "*." } else { "" }, domain.name)
        }
    };
    assert_eq!(Entry::parse(&written).as_ref(), Ok(&entry), "{written}");
    let mut list = Allowlist::default();
    list.add(entry, text);
    assert_eq!(list.admits_everyone(), text == "*");
}

/// The text of integrations.toml.
pub fn integrations(input: &[u8]) {
    // A secret may stand in a file, and not every file has an end.
    if contains(input, b"file:") {
        return;
    }
    let path: PathBuf = FOLDER.path().join("integrations.toml");
    std::fs::write(&path, input).expect("a file");
    read(&[("RETRIEVE_INTEGRATIONS_FILE", &path.display().to_string())]);
}

/// `NAME=value`, one a line.
pub fn environment(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let variables: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once('=')).collect();
    if variables.iter().any(|(name, value)| name.contains("_FILE") || value.contains("file:")) {
        return;
    }
    read(&variables);
}

/// There are settings exactly if no problem stops the start, and every problem says what is wrong.
fn read(variables: &[(&str, &str)]) {
    let variables: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let (config, problems) = env::read(&variables);
    assert_eq!(config.is_some(), !problems.stop_the_start());
    for problem in problems.iter() {
        assert!(!problem.message.is_empty() && !problem.key.is_empty());
    }
    let _ = env::admin(&variables);
    if let Some(config) = config {
        assert!(config.in_flight_limit_bytes >= config.integrations.largest_body_bytes());
        assert!(config.memory_bound_bytes() >= config.in_flight_limit_bytes);
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
