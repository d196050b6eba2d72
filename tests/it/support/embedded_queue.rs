//! The embedded queue without a gateway around it.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use retrieve_gateway::job::Job;
use retrieve_gateway::memory::MemoryBudget;
use retrieve_gateway::queue::embedded::Embedded;
use retrieve_gateway::queue::files::OpenDisk;
use retrieve_gateway::queue::{Health, Queue, QueueError, Receipt};
use tokio::runtime::Handle;
use tokio::sync::watch;
use uuid::Uuid;

/// More than these tests queue.
pub const LIMIT_BYTES: u64 = 1 << 30;

/// The queue in that folder, and its writer.
pub fn open(folder: &Path, file: OpenDisk, limit_bytes: u64) -> (Arc<Queue>, JoinHandle<()>) {
    let (embedded, writer) = Embedded::open(folder, file, limit_bytes).unwrap();
    let runtime = Handle::current();
    (Arc::new(Queue::Embedded(embedded)), std::thread::spawn(move || writer.run(&runtime)))
}

pub async fn append(queue: &Queue, text: &str) -> Result<Receipt, QueueError> {
    let job = Job { id: Uuid::now_v7(), document: text.to_owned().into(), dedupe: None };
    let reservation = MemoryBudget::new(1 << 20).reserve(text.len()).unwrap();
    queue.append(job, None, reservation, Duration::from_secs(10)).await
}

pub fn health_of(queue: &Queue) -> watch::Receiver<Health> {
    let Queue::Embedded(embedded) = queue else { panic!("another queue") };
    embedded.health()
}

/// Waits until it takes jobs again.
pub async fn comes_back(queue: &Queue) {
    let mut health = health_of(queue);
    let up = health.wait_for(|health| *health == Health::Up);
    tokio::time::timeout(Duration::from_secs(10), up).await.expect("it doesn't come back").unwrap();
}

pub async fn close(queue: Arc<Queue>, writer: JoinHandle<()>) {
    queue.close();
    tokio::task::spawn_blocking(|| writer.join()).await.unwrap().unwrap();
}
