//! The harness: gateways in this process and as real processes, a client that sends raw bytes, a real redis-server and nginx.

pub mod attempts;
pub mod bad_disk;
pub mod certificates;
pub mod client;
pub mod cluster;
pub mod fake_dns;
pub mod gateway;
pub mod hostile;
pub mod load;
pub mod log;
pub mod nginx;
pub mod outbound;
pub mod process;
pub mod redis_cluster;
pub mod redis_server;
pub mod tcp_proxy;

use retrieve_gateway::queue::files::LastCommit;
use std::future::Future;
use std::time::Duration;

/// Polls as [`eventually`] does, for what takes servers that wait for each other.
pub async fn eventually_within<F, T>(seconds: u64, what: &str, condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    tokio::time::timeout(Duration::from_secs(seconds), poll(condition))
        .await
        .unwrap_or_else(|_| panic!("not in {seconds} s: {what}"))
}

async fn poll<F, T>(mut condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Polls until a condition holds; a test that waits for something says what for. Ten seconds are far more than
/// anything here needs, so running out of them is a failure, not a matter of a slow machine.
pub async fn eventually<F, T>(what: &str, condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    eventually_within(10, what, condition).await
}
