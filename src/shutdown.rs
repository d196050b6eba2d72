//! Stopping: the signals' tokens and the named workers.

use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::thread;

use futures_util::FutureExt;
use tokio::sync::oneshot;
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
    async fn a_worker_that_ends_or_panics_is_noticed_by_name() {
        let mut workers = Workers::default();
        workers.spawn_task("forever", std::future::pending());
        workers.spawn_task("task", async { panic!("a bug") });
        assert_eq!(workers.first_to_end().await, "task");
        workers.spawn_thread("thread", || panic!("a bug")).unwrap();
        assert_eq!(workers.first_to_end().await, "thread");
    }
}
