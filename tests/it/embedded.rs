//! The embedded queue keeps what was answered 200, exactly once, whenever the process is killed.
//!
//! A kill leaves the kernel's page cache in place, so it proves the order of commit and answer, not the fsync;
//! `failing_disk` shows that a failed fsync gives no receipt.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::attempts::{Attempts, Random};
use crate::support::client::get;
use crate::support::gateway::{jobs, settings};
use crate::support::process::{GatewayProcess, binary};

const KILLS: usize = 100;
const CLIENTS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_kills_under_load_lose_nothing_and_double_nothing() {
    let folder = TempDir::new().unwrap();
    let attempts = Arc::new(Attempts::default());
    let mut random = Random::from_environment();
    for _ in 0..KILLS {
        let gateway = GatewayProcess::start(&folder, &[]).await;
        let (address, _, mut child) = gateway.ignore_log();
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| tokio::spawn(Arc::clone(&attempts).send_until_gone(address))).collect();
        tokio::time::sleep(Duration::from_millis(5 + random.below(195))).await;
        child.kill().await.unwrap();
        for client in clients {
            client.await.unwrap();
        }
    }
    let gateway = GatewayProcess::start(&folder, &[]).await;
    let accepted = attempts.check(&jobs(gateway.admin).await);
    assert!(accepted > KILLS, "the load was too small to prove anything: {accepted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_gateway_on_the_same_folder_is_refused_in_plain_words() {
    let folder = TempDir::new().unwrap();
    let first = GatewayProcess::start(&folder, &[]).await;
    let second = binary().envs(settings(&folder, &[])).output().await.unwrap();
    assert_eq!(second.status.code(), Some(1));
    let words = String::from_utf8(second.stderr).unwrap();
    let expect = format!(
        "retrieve-gateway: another gateway is using the queue in {}; stop it, or give this one a folder of its own \
         (RETRIEVE_QUEUE=embedded:./other)\n",
        folder.path().join("data").display()
    );
    assert!(words.ends_with(&expect), "{words}");
    assert_eq!(get(first.admin, "/ready").await.status, 200, "the first one goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new().unwrap();
    let _gateway = GatewayProcess::start(&folder, &[]).await;
    let mode = std::fs::metadata(folder.path().join("data")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}
