//! A sentinel that names a server that isn't the master. Failovers and moves of slots under load: `faults::topologies`.

use crate::support::gateway::TestGateway;
use crate::support::redis_server::{RedisServer, free_port, without_a_file};

/// What batches have before they go to the journal is three quarters of this.
const TIMEOUT: (&str, &str) = ("RETRIEVE_QUEUE_TIMEOUT", "400ms");
const NO_JOURNAL: (&str, &str) = ("RETRIEVE_DATA_DIR", "off");

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_isnt_one_any_more_is_refused() {
    let master = RedisServer::start_with(without_a_file).await;
    let sentinel = RedisServer::start_sentinel(master.address.port(), 2000).await;
    // The sentinel would repair this only after some seconds, and doesn't while nothing else can be the master.
    master.command(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]).await;
    for (name, expect) in [("mymaster", "isn't the master any more"), ("other", "knows no such master")] {
        let url = format!("redis-sentinel://{}/{name}", sentinel.address);
        let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &url), NO_JOURNAL, TIMEOUT]).await;
        gateway.why_not_ready(&[expect]).await;
    }
}
