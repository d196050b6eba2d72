//! A small Redis cluster of real servers.

use super::eventually_within;
use super::redis_server::{RedisServer, Release, STREAM, words};

/// Masters without replicas that share the slots evenly.
pub struct Cluster {
    pub nodes: Vec<Node>,
}

pub struct Node {
    pub server: RedisServer,
    /// Its name among the others.
    pub id: String,
}

impl Cluster {
    /// Starts one of so many masters with further settings.
    pub async fn start(release: Release, masters: usize, more: impl Fn() -> Vec<String>) -> Cluster {
        let settings = || [words("--cluster-node-timeout 1500"), more()].concat();
        let mut nodes = Vec::new();
        for _ in 0..masters {
            nodes.push(Node::start(release, settings).await);
        }
        share_slots(&nodes.iter().collect::<Vec<_>>()).await;
        meet(&nodes.iter().collect::<Vec<_>>()).await;
        Cluster { nodes }
    }

    /// The owner of a slot by the range that it was given, and another node.
    pub fn owner_and_other(&self, slot: u16) -> (&Node, &Node) {
        let owner = first_owner(slot, self.nodes.len());
        (&self.nodes[owner], &self.nodes[(owner + 1) % self.nodes.len()])
    }

    /// Says on all nodes who owns a slot.
    pub async fn give(&self, slot: u16, to: &Node) {
        give(slot, to, &self.nodes.iter().collect::<Vec<_>>()).await;
    }
}

/// Which of so many masters that share the slots evenly owns one.
pub fn first_owner(slot: u16, masters: usize) -> usize {
    (0..masters).find(|number| usize::from(slot) < 16384 * (number + 1) / masters).unwrap()
}

/// Has these nodes share the slots evenly.
pub async fn share_slots(masters: &[&Node]) {
    for (number, node) in masters.iter().enumerate() {
        let slots = (16384 * number / masters.len())..(16384 * (number + 1) / masters.len());
        let slots: Vec<String> = slots.map(|slot| slot.to_string()).collect();
        let slots = slots.iter().map(String::as_str);
        node.server.command(&["CLUSTER", "ADDSLOTS"].into_iter().chain(slots).collect::<Vec<_>>()).await;
    }
}

/// Makes one cluster of nodes that share the slots.
pub async fn meet(nodes: &[&Node]) {
    let port = nodes[0].port().to_string();
    for (number, node) in nodes.iter().enumerate() {
        node.server.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]).await;
        if number > 0 {
            node.server.command(&["CLUSTER", "MEET", "127.0.0.1", &port]).await;
        }
    }
    for node in nodes {
        eventually_within(30, "the cluster is whole", || async {
            let info = node.server.try_command(&["CLUSTER", "INFO"]).await.ok()?;
            let info: String = redis::from_redis_value(info).ok()?;
            let known = format!("cluster_known_nodes:{}", nodes.len());
            (info.contains("cluster_state:ok") && info.contains(&known)).then_some(())
        })
        .await;
    }
}

/// Says on these masters who owns a slot.
pub async fn give(slot: u16, to: &Node, masters: &[&Node]) {
    // The new owner first: the old one would forget the slot's keys otherwise.
    for node in [to].into_iter().chain(masters.iter().copied().filter(|node| node.id != to.id)) {
        node.server.command(&["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &to.id]).await;
    }
}

impl Node {
    /// A node that nobody knows yet. Its bus is on a port that Redis derives from the other one.
    pub async fn start(release: Release, more: impl Fn() -> Vec<String>) -> Node {
        let settings = || [words("--cluster-enabled yes"), more()].concat();
        let server = RedisServer::start_release(release, settings).await;
        let id = redis::from_redis_value(server.command(&["CLUSTER", "MYID"]).await).unwrap();
        Node { server, id }
    }

    /// The slot of the app `default`.
    pub async fn slot(&self) -> u16 {
        let slot = self.server.command(&["CLUSTER", "KEYSLOT", STREAM]).await;
        redis::from_redis_value(slot).unwrap()
    }

    /// The port that the cluster speaks of.
    pub fn port(&self) -> u16 {
        match self.server.more.iter().any(|word| word == "--tls-cluster") {
            true => self.server.setting("--tls-port").parse().unwrap(),
            false => self.server.address.port(),
        }
    }

    /// Begins to hand a slot over.
    pub async fn begin_to_give(&self, slot: u16, to: &Node) {
        let slot = slot.to_string();
        to.server.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.id]).await;
        self.server.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to.id]).await;
    }

    /// Hands over one key. With `--tls-cluster` there has to be `--tls-replication`, which `MIGRATE` obeys.
    pub async fn give_key(&self, key: &str, to: &Node) {
        let port = to.port().to_string();
        self.server.command(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]).await;
    }

    /// Hands over all keys of a slot.
    pub async fn give_keys(&self, slot: u16, to: &Node) {
        while let Some(key) = self.keys(slot).await.first() {
            self.give_key(key, to).await;
        }
    }

    /// Keys of a slot.
    pub async fn keys(&self, slot: u16) -> Vec<String> {
        let keys = self.server.command(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "100"]).await;
        redis::from_redis_value(keys).unwrap()
    }
}
