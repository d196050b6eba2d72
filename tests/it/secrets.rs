//! Canaries: every secret that can be configured or sent holds the word, and no output does: not the log at its most
//! talkative, nor metrics, answers, jobs, problems of settings or `Debug`.

use retrieve_gateway::config::env;
use tempfile::TempDir;

use crate::support::client::{exchange, get};
use crate::support::gateway::settings;
use crate::support::process::{GatewayProcess, binary};

/// Every place of a secret, with a canary in it: `env:` and `file:`, keys, tokens, an application.
struct Canaries {
    folder: TempDir,
    values: Vec<(&'static str, String)>,
}

const INTEGRATIONS: &str = r#"
[[integration]]
id = "demo"

[[integration]]
id = "shop"
source = "shopify"
secrets = ["env:SENDER_SECRET", "file:SECRET_FILE"]

[[integration]]
id = "meta"
source = "meta"
secrets = ["env:SENDER_SECRET"]
verify_token = "env:META_TOKEN"

[[integration]]
id = "ebay"
source = "ebay"
secrets = ["env:EBAY_TOKEN"]
public_url = "https://hooks.example/integration/ebay"
application = { id = "app", secret = "env:CERT_ID" }

[[integration]]
id = "key"
source = "api-key"
secrets = ["env:SENDER_SECRET"]

[[integration]]
id = "basic"
source = "basic"
secrets = ["env:BASIC"]

[[integration]]
id = "blocked"
source = "github"
secrets = ["env:SENDER_SECRET"]
"#;

impl Canaries {
    fn new(queue: Option<&str>) -> Canaries {
        let folder = TempDir::new().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let token = write("token", "canary-token\n");
        let secret = write("secret", "canary-file-secret\n");
        let integrations = write("integrations.toml", &INTEGRATIONS.replace("SECRET_FILE", &secret));
        let mut values = vec![
            ("RETRIEVE_ADMIN_TOKEN_FILE", token),
            ("RETRIEVE_LOG", "trace".to_owned()),
            ("RETRIEVE_INTEGRATIONS_FILE", integrations),
            ("SENDER_SECRET", "canary-sender-secret".to_owned()),
            ("META_TOKEN", "canary-verify-token".to_owned()),
            ("EBAY_TOKEN", "canary-ebay-verification-token-0123".to_owned()),
            ("CERT_ID", "canary-cert-id".to_owned()),
            ("BASIC", "user:canary-password".to_owned()),
        ];
        values.extend(queue.map(|queue| ("RETRIEVE_QUEUE", queue.to_owned())));
        Canaries { folder, values }
    }

    fn settings(&self) -> Vec<(&str, &str)> {
        self.values.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }
}

fn check(what: &str, text: &str) {
    // "canary" in base64, at each of its three offsets.
    for form in ["canary", "Y2FuYXJ5", "NhbmFye", "jYW5hcn"] {
        assert!(!text.contains(form), "{what}: {text}");
    }
}

/// Requests of all kinds: verified by each sort of secret, refused with each, and one that a list blocks.
fn requests() -> Vec<(u16, String)> {
    use ::base64::Engine;
    let base64 = |bytes: &[u8]| ::base64::engine::general_purpose::STANDARD.encode(bytes);
    let signature = |secret: &str| {
        use hmac::{Hmac, KeyInit, Mac};
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(b"{}");
        mac.finalize().into_bytes().to_vec()
    };
    let post = |path: &str, headers: &str| {
        format!("POST /integration/{path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: 2\r\n\r\n{{}}")
    };
    let shopify = |signature: &str| format!("X-Shopify-Hmac-Sha256: {signature}\r\n");
    vec![
        (200, post("shop", &shopify(&base64(&signature("canary-sender-secret"))))),
        (200, post("shop", &shopify(&base64(&signature("canary-file-secret"))))),
        (200, post("key", "X-Api-Key: canary-sender-secret\r\nCookie: session=canary\r\n")),
        (200, post("key?api_key=canary-sender-secret", "")),
        (200, post("basic", &format!("Authorization: Basic {}\r\n", base64(b"user:canary-password")))),
        (200, post("demo", "Authorization: Bearer canary-bearer\r\nProxy-Authorization: canary\r\n")),
        (401, post("shop?api_key=canary-parameter", "X-Shopify-Hmac-Sha256: canary-signature\r\nAuthorization: Bearer canary\r\n")),
        (401, post("key", "X-Api-Key: canary-guess\r\n")),
        (401, post("basic", &format!("Authorization: Basic {}\r\n", base64(b"user:canary-guess")))),
        (
            403,
            "GET /integration/meta?hub.mode=subscribe&hub.challenge=1&hub.verify_token=canary-guess HTTP/1.1\r\nHost: x\r\n\r\n"
                .to_owned(),
        ),
        (
            403,
            post(
                "blocked",
                &format!("X-Forwarded-For: 192.0.2.1\r\nX-Hub-Signature-256: sha256={}\r\n", hex::encode(signature("canary-sender-secret"))),
            ),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_reaches_log_metrics_answers_or_jobs() {
    let canaries = Canaries::new(None);
    let mut settings = canaries.settings();
    settings.extend([("RETRIEVE_ALLOWED_LIST", "127.0.0.1"), ("RETRIEVE_TRUSTED_PROXIES", "127.0.0.1")]);
    let mut gateway = GatewayProcess::start(&canaries.folder, &settings).await;
    for (status, request) in requests() {
        let answer = exchange(gateway.address, &request).await;
        assert_eq!(answer.status, status, "{request}: {answer:?}");
        check("an answer", &format!("{answer:?}"));
    }
    let counted = crate::support::eventually("the blocked one is counted", || async {
        let metrics = get(gateway.admin, "/metrics").await.body;
        metrics.contains("retrieve_signed_but_blocked_total{integration=\"blocked\"} 1").then_some(metrics)
    })
    .await;
    check("the metrics", &counted);
    for token in ["canary-token", "canary-guess"] {
        let request = format!(
            "GET /api/jobs HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\r\n",
            gateway.admin
        );
        let answer = exchange(gateway.admin, request).await;
        assert_eq!(answer.status, if token == "canary-token" { 200 } else { 401 });
        let jobs = answer.body.lines().filter(|line| line.contains("\"job\"")).count();
        assert_eq!(jobs, if token == "canary-token" { 6 } else { 0 });
        check("the jobs", &format!("{answer:?}"));
    }
    check("readiness", &get(gateway.admin, "/ready").await.body);
    gateway.signal(rustix::process::Signal::TERM);
    gateway.ended().await;
    let begin = serde_json::to_string(gateway.log_before_listening()).unwrap();
    let rest = serde_json::to_string(&gateway.log_to_end().await).unwrap();
    assert!(rest.contains("validly signed") && rest.contains("credential_mismatch"), "{rest}");
    check("the log", &(begin + &rest));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_of_redis_is_shown_while_it_is_away() {
    let canaries = Canaries::new(Some("redis://user:canary-password@127.0.0.1:1/0"));
    let mut gateway = GatewayProcess::start(&canaries.folder, &canaries.settings()).await;
    let webhook = crate::support::client::post("/integration/demo", "application/json", "{}");
    let answer = exchange(gateway.address, webhook).await;
    assert_eq!(answer.status, 200, "it lies in the outage journal");
    let shown =
        [answer.body, get(gateway.admin, "/ready").await.body, get(gateway.admin, "/metrics").await.body];
    gateway.signal(rustix::process::Signal::TERM);
    gateway.ended().await;
    let log = serde_json::to_string(&gateway.log_to_end().await).unwrap();
    for text in shown.iter().chain([&log]) {
        check("Redis away", text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_and_their_problems_show_no_secret() {
    let canaries = Canaries::new(Some("redis://user:canary-password@127.0.0.1:1/0"));
    let all = settings(&canaries.folder, &canaries.settings());
    let (config, problems) = env::read(&all);
    check("the problems", &problems.to_string());
    let config = config.unwrap_or_else(|| panic!("{problems}"));
    let shown = format!("{config:?} {config:#?}");
    assert!(shown.contains("shopify"), "it does show something");
    check("Debug", &shown);
    let output = binary().arg("check").envs(&all).output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    check("check", &String::from_utf8([output.stdout, output.stderr].concat()).unwrap());

    // Each secret of a form that its place doesn't take.
    for (name, value) in [
        ("RETRIEVE_QUEUE", "redis://user:canary-password@[::1/0"),
        ("RETRIEVE_QUEUE", "redis-sentinel://user:canary-password@127.0.0.1:1"),
        ("RETRIEVE_QUEUE", "canary-password"),
        ("RETRIEVE_ADMIN_TOKEN", "canary"),
        ("SENDER_SECRET", "canary"),
        ("RETRIEVE_CANARY", "canary"),
    ] {
        let mut broken = all.clone();
        broken.insert(name.to_owned(), value.to_owned());
        let words = env::read(&broken).1.to_string().replace("RETRIEVE_CANARY", "");
        assert!(!words.is_empty(), "{name}={value} is no problem");
        check(name, &words);
    }
    for (source, form) in [("authorize-net", "hexadecimal"), ("svix", "base64"), ("adobe-commerce", "PEM")] {
        let path = canaries.folder.path().join("wrong.toml");
        let toml = format!("[[integration]]\nid = \"a\"\nsource = \"{source}\"\nsecrets = [\"env:WRONG\"]\n");
        std::fs::write(&path, toml).unwrap();
        let mut broken = all.clone();
        broken.insert("RETRIEVE_INTEGRATIONS_FILE".to_owned(), path.display().to_string());
        broken.insert("WRONG".to_owned(), "canary is no such text!".to_owned());
        let words = env::read(&broken).1.to_string();
        assert!(words.contains(form), "{source}: {words}");
        check(source, &words);
    }
}

/// No secret, and nothing made of one, is compared by an operator that stops at the first difference. The types of
/// keys and secrets have no `==` of their own; this looks for the text of one.
#[test]
fn no_secret_is_compared_by_an_operator() {
    fn sources(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut files = Vec::new();
    sources(std::path::Path::new("src"), &mut files);
    assert!(files.len() > 50);
    let mut secrets = 0;
    for path in files.iter().filter(|path| !path.display().to_string().contains("tests")) {
        let text = std::fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for statement in code
            .split(';')
            .filter(|statement| statement.contains("expose_secret()") || statement.contains(".tag("))
        {
            secrets += 1;
            let exposed = statement.find("expose_secret()").or_else(|| statement.find(".tag(")).unwrap();
            let line_end = statement[exposed..].find('\n').map_or(statement.len(), |end| exposed + end);
            let line_begin = statement[..exposed].rfind('\n').map_or(0, |begin| begin + 1);
            let line = &statement[line_begin..line_end];
            for operator in [" == ", " != ", ".eq(", ".ne(", ".starts_with(", ".contains(", ".cmp("] {
                assert!(!line.contains(operator), "{}: {line}", path.display());
            }
        }
    }
    assert!(secrets > 10, "the search finds secrets at all");
}
