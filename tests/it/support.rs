//! The harness: gateways in this process and as real processes, a client that sends raw bytes, a real redis-server and nginx.

pub mod attempts;
pub mod client;
pub mod fake_dns;
pub mod gateway;
pub mod hostile;
pub mod log;
pub mod nginx;
pub mod outbound;
pub mod process;
pub mod redis_server;

use std::future::Future;
use std::time::Duration;

/// Polls until a condition holds; a test that waits for something says what for. Ten seconds are far more than
/// anything here needs, so running out of them is a failure, not a matter of a slow machine.
pub async fn eventually<F, T>(what: &str, mut condition: impl FnMut() -> F) -> T
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
    tokio::time::timeout(Duration::from_secs(10), polling)
        .await
        .unwrap_or_else(|_| panic!("not in 10 s: {what}"))
}
