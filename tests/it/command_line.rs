//! The commands as a user runs them: words, exit codes, output that a program can read.

use tempfile::TempDir;

use crate::support::process::{GatewayProcess, binary};

async fn run(arguments: &[&str], settings: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output = binary().args(arguments).envs(settings.iter().copied()).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn check_prints_every_problem_and_exits_78() {
    let settings = [
        ("RETRIEVE_ALLOWED_LIST", "shopify.com,203.0.113.256,198.51.100.7/24,https://x.example"),
        ("RETRIEVE_BODY_LIMIT", "5MX"),
        ("RETRIEVE_QUEUE", "redis-sentinel://a:hunter2@b"),
        ("RETRIEVE_ALOWED_LIST", "*"),
    ];
    let (code, stdout, stderr) = run(&["check"], &settings).await;
    assert_eq!((code, stderr.as_str()), (Some(78), ""));
    insta::assert_snapshot!(stdout);
    let (code, stdout, _) = run(&["check", "--json"], &settings).await;
    assert_eq!(code, Some(78));
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["ok"], false);
    assert_eq!(report["problems"].as_array().unwrap().len(), 6);
    assert!(!stdout.contains("hunter2"));

    let (code, _, stderr) = run(&[], &settings).await;
    assert_eq!(code, Some(78), "the gateway itself refuses to start for the same reasons");
    assert!(stderr.starts_with("retrieve-gateway: the settings can't be used\n"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_of_good_settings_exits_0() {
    let (code, stdout, _) = run(&["check"], &[]).await;
    assert_eq!((code, stdout.as_str()), (Some(0), "The settings are good: 0 errors, 0 warnings.\n"));
    let (code, stdout, _) = run(&["check"], &[("RETRIEVE_ALLOWED_LIST", "*, shopify.com")]).await;
    assert_eq!(code, Some(0));
    insta::assert_snapshot!(stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_tells_by_its_exit_code() {
    let folder = TempDir::new().unwrap();
    let gateway = GatewayProcess::start(&folder, &[]).await;
    let admin = gateway.admin.to_string();
    for flags in [&["health", "--admin", &admin][..], &["health", "--ready", "--admin", &admin]] {
        let (code, stdout, stderr) = run(flags, &[]).await;
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    }
    drop(gateway);
    let (code, _, stderr) = run(&["health", "--admin", &admin], &[]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains(&format!("no answer from the private listener at {admin}")), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_told_with_its_setting() {
    let folder = TempDir::new().unwrap();
    let gateway = GatewayProcess::start(&folder, &[]).await;
    let taken = gateway.address.to_string();
    let queue = format!("embedded:{}", folder.path().join("other").display());
    let settings = [("RETRIEVE_LISTEN", taken.as_str()), ("RETRIEVE_QUEUE", &queue)];
    let (code, _, stderr) = run(&["serve"], &settings).await;
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains(&format!("retrieve-gateway: RETRIEVE_LISTEN: can't listen on {taken}: ")),
        "{stderr}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_of_a_gateway_that_is_not_there_ends_in_words() {
    let (code, _, stderr) = run(&["tail", "--admin", "127.0.0.1:1"], &[]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("Is the gateway running?"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn help_names_every_command_and_every_setting() {
    let (code, stdout, _) = run(&["--help"], &[]).await;
    assert_eq!(code, Some(0));
    for variable in retrieve_gateway::config::env::VARIABLES {
        assert!(stdout.contains(variable.name), "{}", variable.name);
    }
    for command in ["serve", "check", "send", "tail", "health"] {
        assert!(stdout.contains(command));
    }
}
