//! Webhooks without a pause, whose answers are held against the queue afterwards.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::attempts::Attempts;
use super::eventually_within;
use super::gateway::TestGateway;

/// Four senders on one gateway.
pub struct Load {
    attempts: Arc<Attempts>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start(address: SocketAddr) -> Load {
        let attempts = Arc::new(Attempts::default());
        let clients = (0..4).map(|_| tokio::spawn(Arc::clone(&attempts).send_until_gone(address))).collect();
        Load { attempts, clients }
    }

    /// Waits until more webhooks were accepted.
    pub async fn goes_on(&self) {
        let before = self.attempts.accepted();
        eventually_within(30, "webhooks are accepted", || async {
            (self.attempts.accepted() > before + 20).then_some(())
        })
        .await;
    }

    /// Ends the load. Every webhook was answered 200, and what the journal held is sent.
    pub async fn finish(self, gateway: &TestGateway) -> Arc<Attempts> {
        self.attempts.finish();
        for client in self.clients {
            client.await.unwrap();
        }
        assert_eq!(self.attempts.refused(), HashMap::new(), "what Redis doesn't take lies in the journal");
        gateway.sent_its_journal().await;
        self.attempts
    }
}
