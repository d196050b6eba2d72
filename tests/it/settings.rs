//! Settings: every problem with its origin; the example file, README and the code name the same variables.

use std::collections::BTreeMap;

use retrieve_gateway::config::env::{VARIABLES, read};
use retrieve_gateway::config::problems::Problems;
use tempfile::TempDir;

fn problems(settings: &[(&str, &str)]) -> Problems {
    let strings: BTreeMap<String, String> =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let (config, problems) = read(&strings);
    assert_eq!(config.is_none(), problems.stop_the_start());
    problems
}

#[test]
fn every_bad_value_is_named_with_a_hint() {
    insta::assert_snapshot!(problems(&[
        ("RETRIEVE_LISTEN", "8080"),
        ("RETRIEVE_APP", "my app"),
        ("RETRIEVE_TRUSTED_PROXIES", "10.0.0.0/8, proxy.example"),
        ("RETRIEVE_PROXY_PROTOCOL", "v2"),
        ("RETRIEVE_ALLOWED_LIST_MODE", "monitor"),
        ("RETRIEVE_INTEGRATIONS", "demo, a.b, x"),
        ("RETRIEVE_QUEUE", "postgres://secret@host"),
        ("RETRIEVE_QUEUE_TIMEOUT", "soon"),
        ("RETRIEVE_HEADER_LIMIT", "1KiB"),
        ("RETRIEVE_BODY_LIMIT", "33MiB"),
        ("RETRIEVE_DEPTH_LIMIT", "257"),
        ("RETRIEVE_XML_ELEMENT_LIMIT", "none"),
        ("RETRIEVE_XML_TEXT_LIMIT", "1GiB"),
        ("RETRIEVE_COMPRESSION_RATIO_LIMIT", "100:1"),
        ("RETRIEVE_IN_FLIGHT_LIMIT", "1MiB"),
        ("RETRIEVE_MAX_CONNECTIONS", "0"),
        ("RETRIEVE_LOG", "loud!"),
        ("RETRIEVE_LOG_FORMAT", "xml"),
        ("RETRIEVE_ADMIN_TOKEN", "a"),
        ("RETRIEVE_ADMIN_TOKEN_FILE", "/nowhere"),
        ("RETRIEVE_DNS", "localhost:53"),
        ("RETRIEVE_LISTEM", "0.0.0.0:80"),
        ("RETRIEVE_LISTEN_FILE", "/x"),
        ("RETRIEVE_GATEWAY_SERVICE_HOST", "10.0.0.1"),
    ]));
}

#[test]
fn required_proxy_headers_need_a_trusted_proxy() {
    let on = ("RETRIEVE_PROXY_PROTOCOL", "on");
    insta::assert_snapshot!(problems(&[on, ("RETRIEVE_TRUSTED_PROXIES", " ")]));
    assert!(!problems(&[on, ("RETRIEVE_TRUSTED_PROXIES", "10.0.0.0/8")]).stop_the_start());
    // Nobody's mistake in the other setting is hidden by this one.
    let words = problems(&[on, ("RETRIEVE_TRUSTED_PROXIES", "proxy.example")]).to_string();
    assert!(words.contains("`proxy.example`: ") && !words.contains("no proxy is trusted"), "{words}");
}

#[test]
fn lists_that_only_report_are_a_warning() {
    insta::assert_snapshot!(problems(&[("RETRIEVE_ALLOWED_LIST_MODE", "report")]));
}

#[test]
fn every_problem_of_the_file_has_its_line() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("integrations.toml");
    let toml = r#"
[[integration]]
id = "demo"
enabeld = false

[[integration]]
id = "demo"

[[integration]]
name = "no id"

[[integration]]
id = "a b"
enabled = "yes"
body_limit = "64MiB"
rate = "fast"
admit = "signature"
source = "shopify"
secrets = ["env:X"]
dedupe = { by = "delivery_id" }
allowed_list = ["203.0.113.1", "nonsense", 7]
xml = { force_lists = ["a"], arrays = "never", keep_raw = 1 }
multipart = { files = "keep", file_limt = "1MiB" }
content_type = "multipart/form-data; boundary=x"

[[integration]]
id = "files"
multipart = { file_limit = "64MiB" }
content_type = "image/png"

[[integration]]
id = "text"
multipart = "base64"
content_type = "json"

[server]
port = 1
"#;
    std::fs::write(&path, toml).unwrap();
    let path = path.display().to_string();
    let words = problems(&[("RETRIEVE_INTEGRATIONS_FILE", &path)]).to_string();
    insta::assert_snapshot!(words.replace(&path, "integrations.toml"));

    std::fs::write(&path, "[[integration]\nid = ").unwrap();
    let words = problems(&[("RETRIEVE_INTEGRATIONS_FILE", &path)]).to_string();
    assert!(words.contains(&format!("({path}, line 1)")), "{words}");
    let words = problems(&[("RETRIEVE_INTEGRATIONS_FILE", "/nowhere.toml")]).to_string();
    assert!(words.contains("/nowhere.toml can't be read"), "{words}");
}

#[test]
fn an_empty_variable_counts_as_unset() {
    for variable in VARIABLES {
        assert!(!problems(&[(variable.name, " ")]).stop_the_start(), "{}", variable.name);
    }
}

#[test]
fn the_example_file_has_every_variable_with_its_default() {
    let example = include_str!("../../config/retrieve.env.example");
    let mut settings = Vec::new();
    for variable in VARIABLES {
        let line = format!("#{}={}", variable.name, variable.default);
        assert!(example.lines().any(|other| other == line), "no line {line}");
        settings.push((variable.name, variable.default));
    }
    let named = example.lines().filter(|line| line.starts_with("#RETRIEVE_")).count();
    assert_eq!(named, VARIABLES.len(), "the example names a variable that isn't one");
    // The defaults themselves are good settings; the allowlist's is a word for people.
    settings.retain(|(name, _)| *name != "RETRIEVE_ALLOWED_LIST");
    assert!(!problems(&settings).stop_the_start());
}

#[test]
fn readme_has_every_variable_with_its_default() {
    let readme = include_str!("../../README.md");
    for variable in VARIABLES {
        let default =
            if variable.default.is_empty() { "none".to_owned() } else { format!("`{}`", variable.default) };
        let row = format!("| `{}` | {default} |", variable.name).replace("`loopback`", "loopback");
        assert!(readme.contains(&row), "no row {row}");
    }
}

#[test]
fn the_documentation_lists_every_preset() {
    let page = include_str!("../../docs/who-may-call.md");
    let missing: Vec<_> =
        retrieve_gateway::source::names().filter(|name| !page.contains(&format!("| `{name}` |"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let readme = include_str!("../../README.md");
    assert!(readme.contains(&format!("one of {} presets", retrieve_gateway::source::names().count())));
}
