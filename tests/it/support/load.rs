//! Webhooks without a pause, whose answers are held against the queue afterwards.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::attempts::Attempts;
use super::gateway::TestGateway;

/// Four senders on one gateway.
pub struct Load {
    attempts: Arc<Attempts>,
    clients: JoinSet<()>,
}

impl Load {
    pub fn start(address: SocketAddr) -> Load {
        let attempts = Arc::new(Attempts::default());
        let clients = attempts.start_clients(address, 4);
        Load { attempts, clients }
    }

    /// Waits until more webhooks were accepted.
    pub async fn goes_on(&self) {
        self.attempts.go_on_within(30, 20).await;
    }

    /// Ends the load. Every webhook was answered 200, and what the journal held is sent.
    pub async fn finish(self, gateway: &TestGateway) -> Arc<Attempts> {
        self.attempts.finish();
        self.clients.join_all().await;
        assert_eq!(self.attempts.refused(), HashMap::new(), "what Redis doesn't take lies in the journal");
        gateway.sent_its_journal().await;
        self.attempts
    }
}
