//! A cluster of three masters with a replica each, all real processes.

use std::time::Duration;

use super::eventually_within;
use super::redis_server::{RedisServer, free_port, without_a_file, words};

/// A node and its id.
struct Node {
    server: RedisServer,
    id: String,
}

/// A part of the slots: its master and its replica, as of the last time that was looked.
struct Shard {
    master: Node,
    replica: Node,
}

/// The cluster, and who owns the slot of the app `default`.
pub struct Cluster {
    shards: Vec<Shard>,
    slot: String,
    owner: usize,
}

impl Cluster {
    pub async fn start() -> Cluster {
        let mut shards = Vec::new();
        for _ in 0..3 {
            shards.push(Shard { master: node().await, replica: node().await });
        }
        for (shard, range) in shards.iter().zip([["0", "5460"], ["5461", "10922"], ["10923", "16383"]]) {
            shard.master.server.command(&["CLUSTER", "ADDSLOTSRANGE", range[0], range[1]]).await;
        }
        let nodes = || shards.iter().flat_map(|shard| [&shard.master, &shard.replica]);
        let seed = &shards[0].master.server;
        for (epoch, node) in nodes().enumerate() {
            node.server.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(epoch + 1).to_string()]).await;
            let (port, cluster_port) = (seed.address.port().to_string(), seed.more.last().unwrap());
            node.server.command(&["CLUSTER", "MEET", "127.0.0.1", &port, cluster_port]).await;
        }
        for node in nodes() {
            eventually_within(30, "the cluster is whole", || async {
                let info = node.server.try_command(&["CLUSTER", "INFO"]).await.ok()?;
                let info: String = redis::from_redis_value(info).ok()?;
                let is_whole = info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:6");
                is_whole.then_some(())
            })
            .await;
        }
        for shard in &shards {
            shard.replica.server.command(&["CLUSTER", "REPLICATE", &shard.master.id]).await;
        }
        let slot = seed.command(&["CLUSTER", "KEYSLOT", "retrieve:{default}:jobs"]).await;
        let slot: u16 = redis::from_redis_value(slot).unwrap();
        let owner = usize::from(slot > 5460) + usize::from(slot > 10922);
        let mut cluster = Cluster { shards, slot: slot.to_string(), owner };
        cluster.settle().await;
        cluster
    }

    /// The URL of two nodes that don't own the slot, behind one that nobody listens on.
    pub fn url(&self) -> String {
        let [one, other] = [1, 2].map(|step| &self.shards[(self.owner + step) % 3]);
        let (one, other) = (one.master.server.address, other.replica.server.address);
        format!("redis-cluster://127.0.0.1:{},{one},{other}", free_port())
    }

    /// The master that owns the app's slot.
    pub fn owner(&self) -> &RedisServer {
        &self.shards[self.owner].master.server
    }

    /// The owner dies by `kill -9` and its replica is elected. Then the old one comes back without what it had.
    pub async fn fail_over_by_a_kill(&mut self) {
        let shard = &mut self.shards[self.owner];
        shard.master.server.kill();
        has_role(&shard.replica, "master").await;
        std::mem::swap(&mut shard.master, &mut shard.replica);
        shard.replica.server.restart().await;
        self.settle().await;
    }

    /// The owner hands over to its replica.
    pub async fn fail_over_by_command(&mut self) {
        let shard = &mut self.shards[self.owner];
        shard.replica.server.command(&["CLUSTER", "FAILOVER"]).await;
        has_role(&shard.replica, "master").await;
        has_role(&shard.master, "slave").await;
        self.settle().await;
    }

    /// Moves the app's slot to the next master, key by key, as `redis-cli --cluster reshard` does.
    pub async fn move_slot(&mut self) {
        let slot = self.slot.as_str();
        let next = (self.owner + 1) % 3;
        let (from, to) = (&self.shards[self.owner].master, &self.shards[next].master);
        to.server.command(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &from.id]).await;
        from.server.command(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &to.id]).await;
        let port = to.server.address.port().to_string();
        loop {
            let keys = from.server.command(&["CLUSTER", "GETKEYSINSLOT", slot, "1"]).await;
            let keys: Vec<String> = redis::from_redis_value(keys).unwrap();
            let Some(key) = keys.first() else { break };
            from.server.command(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]).await;
            // What is asked for meanwhile is half here and half there.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let other = &self.shards[(next + 1) % 3].master;
        for node in [to, from, other] {
            node.server.command(&["CLUSTER", "SETSLOT", slot, "NODE", &to.id]).await;
        }
        self.owner = next;
    }

    /// Waits until each shard has a master and a replica that follows it. Which is which may have changed by itself: on a
    /// busy machine a master that is too slow to answer is replaced.
    async fn settle(&mut self) {
        for shard in &mut self.shards {
            eventually_within(60, "a shard has a master and a replica that follows it", || async {
                let is_master = shard.master.server.says("replication", "role:master").await;
                let follower = if is_master { &shard.replica } else { &shard.master };
                let leader = if is_master { &shard.master } else { &shard.replica };
                (leader.server.says("replication", "role:master").await
                    && follower.server.says("replication", "master_link_status:up").await)
                    .then_some(())
            })
            .await;
            if !shard.master.server.says("replication", "role:master").await {
                std::mem::swap(&mut shard.master, &mut shard.replica);
            }
        }
    }
}

async fn node() -> Node {
    let settings = || {
        let more = "--cluster-enabled yes --cluster-node-timeout 1000 --cluster-replica-validity-factor 0";
        [without_a_file(), words(more), words(&format!("--cluster-port {}", free_port()))].concat()
    };
    let server = RedisServer::start_with(settings).await;
    let id: String = redis::from_redis_value(server.command(&["CLUSTER", "MYID"]).await).unwrap();
    Node { server, id }
}

async fn has_role(node: &Node, role: &str) {
    eventually_within(60, &format!("a node becomes a {role}"), || async {
        node.server.says("replication", &format!("role:{role}")).await.then_some(())
    })
    .await;
}
