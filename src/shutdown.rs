//! Stopping: the signals' tokens and the named workers.

use std::future::{Future, poll_fn};
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::thread;

use futures_util::FutureExt;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How the process is asked to stop.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// The first signal: drain.
    pub requested: CancellationToken,
    /// The second signal: stop at once.
    pub aborted: CancellationToken,
}

/// Tells many futures at once to end. Watching it costs a future one load when it is polled: a
/// [`CancellationToken`] takes a lock that all of them share.
#[derive(Clone, Debug, Default)]
pub struct Signal(Arc<Given>);

#[derive(Debug, Default)]
struct Given {
    is_given: AtomicBool,
    changed: Notify,
}

impl Signal {
    /// Tells them.
    pub fn give(&self) {
        self.0.is_given.store(true, Ordering::Release);
        self.0.changed.notify_waiters();
    }

    /// Runs a future to its end, or until the signal is given: then it is dropped and the answer is
    /// None.
    pub async fn run_until_given<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut changed = pin!(self.0.changed.notified());
        let mut waker: Option<Waker> = None;
        poll_fn(|context| {
            // A task polls with the same waker again and again, which is known here then.
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                waker = Some(context.waker().clone());
                // Before the look at the flag, so that nothing is missed in between.
                let _ = changed.as_mut().poll(context);
            }
            if self.0.is_given.load(Ordering::Acquire) {
                return Poll::Ready(None);
            }
            future.as_mut().poll(context).map(Some)
        })
        .await
    }
}

/// The workers of a process. They run until the process stops; one that ends before is a fault.
#[derive(Debug, Default)]
pub struct Workers {
    running: JoinSet<&'static str>,
}

impl Workers {
    /// Starts a worker as a task.
    pub fn spawn_task(&mut self, name: &'static str, worker: impl Future<Output = ()> + Send + 'static) {
        self.running.spawn(async move {
            // The panic hook has logged a panic; the worker's end is what counts here.
            let _ = AssertUnwindSafe(worker).catch_unwind().await;
            name
        });
    }

    /// Starts a worker as a thread of its own.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn spawn_thread(
        &mut self,
        name: &'static str,
        worker: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let (alive, ended) = oneshot::channel::<()>();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Dropped when the thread ends, in whichever way.
            let _alive = alive;
            worker();
        })?;
        self.running.spawn(async move {
            let _ = ended.await;
            name
        });
        Ok(())
    }

    /// Waits for any worker to end. Pending forever if there is none.
    pub async fn first_to_end(&mut self) -> &'static str {
        match self.running.join_next().await {
            Some(name) => name.unwrap_or("worker"),
            None => std::future::pending().await,
        }
    }

    /// Waits for all workers to end.
    pub async fn all_to_end(&mut self) {
        while self.running.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_ends_what_waits_now_and_later() {
        let signal = Signal::default();
        assert_eq!(signal.run_until_given(async { 7 }).await, Some(7));
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let signal = signal.clone();
                tokio::spawn(async move { signal.run_until_given(std::future::pending::<()>()).await })
            })
            .collect();
        tokio::task::yield_now().await;
        signal.give();
        for waiting in waiting {
            assert_eq!(waiting.await.unwrap(), None);
        }
        assert_eq!(signal.run_until_given(async { 7 }).await, None, "it stays given");
    }

    #[tokio::test]
    async fn a_worker_that_ends_or_panics_is_noticed_by_name() {
        let mut workers = Workers::default();
        workers.spawn_task("forever", std::future::pending());
        workers.spawn_task("task", async { panic!("a bug") });
        assert_eq!(workers.first_to_end().await, "task");
        workers.spawn_thread("thread", || panic!("a bug")).unwrap();
        assert_eq!(workers.first_to_end().await, "thread");
    }
}
