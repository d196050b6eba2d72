//! The lane between the path and a store's worker: bounded, in order, settled one by one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use super::{QueueError, Receipt, time_for};
use crate::job::{Dedupe, Job};
use crate::memory::Reservation;

/// How many jobs may wait. Their bytes are bounded by the memory budget, which travels with them.
const WAITING_LIMIT: usize = 4096;

/// How many jobs a batch holds at the most.
pub const BATCH_LIMIT_JOBS: usize = 256;

/// So many jobs are worth a batch of their own while another one is on its way: fewer would cost the store more than the
/// wait for the first one's confirmation costs them.
pub const ENOUGH_JOBS: usize = 16;

/// A batch is full when it holds this many bytes; one job alone may be larger.
pub const BATCH_LIMIT_BYTES: usize = 1 << 20;

/// A job that the store has taken can't be taken back, so its path waits for the outcome rather than answer 503 for a
/// job that may be stored a moment later. Only a store that hangs for so long is given up.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

/// How it went: stored now, or known as a repeat of an earlier job.
pub type Settled = Result<Option<Uuid>, QueueError>;

/// A job on its way to the store.
#[derive(Debug)]
pub struct Append {
    document: Bytes,
    dedupe: Option<Dedupe>,
    waiter: Waiter,
}

/// A path that waits for its job's outcome.
#[derive(Debug)]
pub struct Waiter {
    id: Uuid,
    arrived: Instant,
    settled: oneshot::Sender<Settled>,
    /// Set by whoever comes first: the store that takes the job, or the path that gives up.
    is_decided: Arc<AtomicBool>,
    _reservation: Reservation,
}

/// The path's end of the lane.
#[derive(Debug)]
pub struct Lane {
    /// None once the lane is closed.
    sender: Mutex<Option<mpsc::Sender<Append>>>,
    enough: Arc<Notify>,
}

/// The worker's end of the lane.
#[derive(Debug)]
pub struct Waiting {
    receiver: mpsc::Receiver<Append>,
    /// Told when [`ENOUGH_JOBS`] wait.
    enough: Arc<Notify>,
    /// What didn't fit into the last batch.
    next: Option<Append>,
}

impl Append {
    /// The job's document.
    pub fn document(&self) -> &Bytes {
        &self.document
    }

    /// How repeats of it are known, where they are dropped.
    pub fn dedupe(&self) -> Option<&Dedupe> {
        self.dedupe.as_ref()
    }

    /// The job's id.
    pub fn id(&self) -> Uuid {
        self.waiter.id
    }

    /// Tells the path how it went.
    pub fn settle(self, result: Settled) {
        self.waiter.settle(result);
    }

    /// The document, how repeats are known, and who waits for it.
    pub fn into_parts(self) -> (Bytes, Option<Dedupe>, Waiter) {
        (self.document, self.dedupe, self.waiter)
    }
}

impl Waiter {
    /// The job's id.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// When the path handed the job over.
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    /// Tells the path how it went.
    pub fn settle(self, result: Settled) {
        // A path whose client went away no longer listens.
        let _ = self.settled.send(result);
    }

    /// Takes the job for the store. False if the path has given up: it answered 503 already, so storing the job would
    /// double what is sent again.
    fn take(&self) -> bool {
        !self.is_decided.swap(true, Ordering::AcqRel) && !self.settled.is_closed()
    }
}

/// A lane's two ends.
pub fn lane() -> (Lane, Waiting) {
    let (sender, receiver) = mpsc::channel(WAITING_LIMIT);
    let enough = Arc::new(Notify::new());
    let waiting = Waiting { receiver, enough: Arc::clone(&enough), next: None };
    (Lane { sender: Mutex::new(Some(sender)), enough }, waiting)
}

impl Lane {
    pub(super) async fn append(
        &self,
        job: Job,
        reservation: Reservation,
        timeout: Duration,
    ) -> Result<Receipt, QueueError> {
        let Job { id, document, dedupe } = job;
        let arrived = Instant::now();
        let deadline = arrived + time_for(timeout, document.len());
        let (settled, mut outcome) = oneshot::channel();
        let is_decided = Arc::new(AtomicBool::new(false));
        let waiter =
            Waiter { id, arrived, settled, is_decided: Arc::clone(&is_decided), _reservation: reservation };
        let append = Append { document, dedupe, waiter };
        let sender = self.sender.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let closed = || QueueError::Unavailable("the gateway is stopping".to_owned());
        let sender = sender.ok_or_else(closed)?;
        match sender.try_send(append) {
            Ok(()) if sender.max_capacity() - sender.capacity() == ENOUGH_JOBS => self.enough.notify_one(),
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(QueueError::Full),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(closed()),
        }
        // A sender that is kept would keep the lane from ending.
        drop(sender);
        let mut settled = tokio::time::timeout_at(deadline, &mut outcome).await;
        if settled.is_err() {
            if !is_decided.swap(true, Ordering::AcqRel) {
                return Err(QueueError::Busy);
            }
            settled = tokio::time::timeout_at(deadline + SETTLE_LIMIT, outcome).await;
        }
        match settled {
            Ok(Ok(Ok(first))) => Ok(Receipt { job: first.unwrap_or(id), is_repeat: first.is_some() }),
            Ok(Ok(Err(error))) => Err(error),
            // The worker dropped the job without a word: it ended, and what it did last is unknown.
            Ok(Err(_)) | Err(_) => Err(QueueError::Unconfirmed),
        }
    }

    pub(super) fn close(&self) {
        self.sender.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    }
}

impl Waiting {
    /// Waits for jobs and takes what is there, as one batch. None when the lane is closed and empty. Only for a worker with a
    /// thread of its own, which gives way before it takes them: where webhooks keep its core busy, they hand over more
    /// meanwhile, and a batch costs about the same for one job and for many (docs/performance.md).
    pub async fn batch(&mut self) -> Option<Vec<Append>> {
        loop {
            self.first().await?;
            std::thread::yield_now();
            if let Some(batch) = self.take_batch() {
                return Some(batch);
            }
        }
    }

    /// Waits until a job is there, and says when it arrived. None when the lane is closed and empty.
    pub async fn first(&mut self) -> Option<Instant> {
        if self.next.is_none() {
            self.next = Some(self.receiver.recv().await?);
        }
        self.first_arrival()
    }

    /// Waits until [`ENOUGH_JOBS`] jobs are there. It may miss that when several threads hand over jobs in the same moment.
    pub async fn enough(&self) {
        while self.count() < ENOUGH_JOBS {
            self.enough.notified().await;
        }
    }

    /// When the first job arrived, if one is known to be there.
    pub fn first_arrival(&self) -> Option<Instant> {
        self.next.as_ref().map(|append| append.waiter.arrived)
    }

    /// How many jobs wait.
    pub fn count(&self) -> usize {
        self.receiver.len() + usize::from(self.next.is_some())
    }

    /// Takes what is there, as one batch. None if nothing is.
    pub fn take_batch(&mut self) -> Option<Vec<Append>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut next = self.next.take().or_else(|| self.receiver.try_recv().ok());
        while let Some(append) = next.take() {
            if !batch.is_empty() && bytes + append.document.len() > BATCH_LIMIT_BYTES {
                self.next = Some(append);
                break;
            }
            if append.waiter.take() {
                bytes += append.document.len();
                batch.push(append);
            }
            if batch.len() < BATCH_LIMIT_JOBS {
                next = self.receiver.try_recv().ok();
            }
        }
        (!batch.is_empty()).then_some(batch)
    }
}

/// Refuses a batch.
pub fn refuse(batch: Vec<Append>, error: &QueueError) {
    for append in batch {
        append.settle(Err(error.clone()));
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use super::*;
    use crate::memory::MemoryBudget;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn job(bytes: usize) -> Job {
        Job { id: Uuid::now_v7(), document: vec![b' '; bytes].into(), dedupe: None }
    }

    /// Starts an append on the lane and leaves it waiting.
    fn start<'a>(
        lane: &'a Lane,
        budget: &MemoryBudget,
        bytes: usize,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Receipt, QueueError>> + 'a>> {
        let mut append = Box::pin(lane.append(job(bytes), budget.reserve(bytes).unwrap(), TIMEOUT));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(append.as_mut().poll(&mut context).is_pending());
        append
    }

    #[tokio::test]
    async fn a_batch_is_what_is_waiting_up_to_its_limits() {
        let (lane, mut waiting) = lane();
        let budget = MemoryBudget::new(1 << 30);
        let small: Vec<_> = (0..300).map(|_| start(&lane, &budget, 10)).collect();
        let large: Vec<_> = (0..3).map(|_| start(&lane, &budget, 700 << 10)).collect();
        let mut sizes = Vec::new();
        for _ in 0..4 {
            sizes.push(waiting.batch().await.unwrap().len());
        }
        assert_eq!(sizes, [256, 45, 1, 1]);
        drop((small, large));
    }

    #[tokio::test]
    async fn a_job_whose_path_gave_up_is_dropped_before_the_store_sees_it() {
        let (lane, mut waiting) = lane();
        let budget = MemoryBudget::new(100);
        drop(start(&lane, &budget, 40));
        let kept = start(&lane, &budget, 41);
        let batch = waiting.batch().await.unwrap();
        assert_eq!(batch.iter().map(|append| append.document().len()).collect::<Vec<_>>(), [41]);
        assert_eq!(budget.used_bytes(), 41, "the abandoned job gave its memory back");
        drop(batch);
        assert_eq!(
            kept.await.unwrap_err(),
            QueueError::Unconfirmed,
            "a worker that ends leaves the outcome open"
        );
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test]
    async fn a_full_or_closed_lane_refuses_at_once() {
        let (lane, mut waiting) = lane();
        let budget = MemoryBudget::new(1 << 20);
        let waiters: Vec<_> = (0..WAITING_LIMIT).map(|_| start(&lane, &budget, 1)).collect();
        let full = lane.append(job(1), budget.reserve(1).unwrap(), TIMEOUT).await;
        assert_eq!(full.unwrap_err(), QueueError::Full);
        lane.close();
        let closed = lane.append(job(1), budget.reserve(1).unwrap(), TIMEOUT).await;
        assert!(matches!(closed, Err(QueueError::Unavailable(_))));
        // What was waiting when the lane closed is still handed out, then the worker ends.
        let mut handed = 0;
        while let Some(batch) = waiting.batch().await {
            handed += batch.len();
        }
        assert_eq!(handed, WAITING_LIMIT);
        drop(waiters);
    }
}
