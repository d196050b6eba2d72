//! A cluster of three masters with a replica each, all real processes.

use std::time::Duration;

use super::cluster::{Node, first_owner, give, meet, share_slots};
use super::eventually_within;
use super::redis_server::{RedisServer, Release, free_port, without_a_file, words};

/// A part of the slots: its master and its replica, as of the last time that was looked.
struct Shard {
    master: Node,
    replica: Node,
}

/// The cluster, and who owns the slot of the app `default`.
pub struct ReplicatedCluster {
    shards: Vec<Shard>,
    slot: u16,
    owner: usize,
}

impl ReplicatedCluster {
    pub async fn start() -> ReplicatedCluster {
        let mut shards = Vec::new();
        for _ in 0..3 {
            shards.push(Shard { master: node().await, replica: node().await });
        }
        let masters: Vec<_> = shards.iter().map(|shard| &shard.master).collect();
        share_slots(&masters).await;
        meet(&shards.iter().flat_map(|shard| [&shard.master, &shard.replica]).collect::<Vec<_>>()).await;
        for shard in &shards {
            shard.replica.server.command(&["CLUSTER", "REPLICATE", &shard.master.id]).await;
        }
        let slot = masters[0].slot().await;
        let owner = first_owner(slot, shards.len());
        let mut cluster = ReplicatedCluster { shards, slot, owner };
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
        shard.replica.server.will_say("replication", "role:master").await;
        std::mem::swap(&mut shard.master, &mut shard.replica);
        shard.replica.server.restart().await;
        self.settle().await;
    }

    /// The owner hands over to its replica.
    pub async fn fail_over_by_command(&mut self) {
        let shard = &mut self.shards[self.owner];
        shard.replica.server.command(&["CLUSTER", "FAILOVER"]).await;
        shard.replica.server.will_say("replication", "role:master").await;
        shard.master.server.will_say("replication", "role:slave").await;
        self.settle().await;
    }

    /// Moves the app's slot to the next master, key by key, as `redis-cli --cluster reshard` does.
    pub async fn move_slot(&mut self) {
        let next = (self.owner + 1) % 3;
        let (from, to) = (&self.shards[self.owner].master, &self.shards[next].master);
        from.begin_to_give(self.slot, to).await;
        while let Some(key) = from.keys(self.slot).await.first() {
            from.give_key(key, to).await;
            // What is asked for meanwhile is half here and half there.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        give(self.slot, to, &self.shards.iter().map(|shard| &shard.master).collect::<Vec<_>>()).await;
        self.owner = next;
        // Until its replica has them, the only copy of the keys is the new owner's: killing it would be Redis's loss.
        let moved = replication_offset(&to.server, "master_repl_offset").await.unwrap();
        eventually_within(60, "the replica has the slot's keys", || async {
            let replica = &self.shards[next].replica.server;
            replication_offset(replica, "slave_repl_offset").await.filter(|offset| *offset >= moved)
        })
        .await;
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

async fn replication_offset(server: &RedisServer, name: &str) -> Option<u64> {
    let info: String =
        redis::from_redis_value(server.try_command(&["INFO", "replication"]).await.ok()?).ok()?;
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.parse().ok())
}

async fn node() -> Node {
    let more = "--cluster-node-timeout 1000 --cluster-replica-validity-factor 0";
    Node::start(Release::Usual, || [without_a_file(), words(more)].concat()).await
}
