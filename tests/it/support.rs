//! The harness: gateways in this process and as real processes, a client that sends raw bytes, a real redis-server and nginx.

pub mod attempts;
pub mod bad_disk;
pub mod certificates;
pub mod client;
pub mod cluster;
pub mod embedded_queue;
pub mod fake_dns;
pub mod fault_run;
pub mod gateway;
pub mod groups;
pub mod hostile;
pub mod load;
pub mod log;
pub mod nginx;
pub mod outbound;
pub mod process;
pub mod random;
pub mod redis_server;
pub mod replicated_cluster;
pub mod tcp_proxy;

use std::future::Future;
use std::time::Duration;

/// Polls until a condition holds; a test that waits for something says what for. Ten seconds are far more than
/// anything here needs, so running out of them is a failure, not a matter of a slow machine.
pub async fn eventually<F, T>(what: &str, condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    eventually_within(10, what, condition).await
}

/// Polls as [`eventually`] does, for what takes servers that wait for each other.
pub async fn eventually_within<F, T>(seconds: u64, what: &str, mut condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let polling = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(seconds), polling)
        .await
        .unwrap_or_else(|_| panic!("not in {seconds} s: {what}"))
}
