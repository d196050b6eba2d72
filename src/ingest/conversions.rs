//! Turns at the work that grows with a body: decompressing it and making a job of it.
//!
//! As many long bodies as there are cores are worked on at once; with more, each would end as late as the last. Who
//! gets no turn in time is told to come again, because an early answer is better than one that the sender has given up
//! waiting for. Short bodies need no turn, so they never wait behind long ones.

use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::payload::inflate::Coding;

/// A body from this size on needs a turn. It takes up to a millisecond.
pub const LONG_BODY_BYTES: usize = 64 << 10;

/// The longest wait for a turn. What follows it fits into the rest of 100 ms, but for the largest of bodies.
pub const TURN_WAIT: Duration = Duration::from_millis(50);

/// By how much a compressed body counts for more than its size: 8 KiB that become a hundred times as much are inflated
/// in about the time in which 64 KiB of XML are converted.
const COMPRESSED_WEIGHT: usize = 8;

/// The conversions that may run at once.
#[derive(Debug)]
pub struct Conversions {
    turns: Semaphore,
}

/// Leave to work on a body, until it is dropped; a short one needs none.
#[derive(Debug)]
pub struct Turn<'c> {
    permit: Option<SemaphorePermit<'c>>,
}

/// No turn was free in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTurn;

impl Conversions {
    /// So many at once; at least one.
    pub fn new(at_once: usize) -> Conversions {
        Conversions { turns: Semaphore::new(at_once.clamp(1, Semaphore::MAX_PERMITS)) }
    }

    /// One for each core that the process may use.
    pub fn one_per_core() -> Conversions {
        Conversions::new(available_parallelism().map_or(1, usize::from))
    }

    /// Waits for the turn of a body as it was received, first come, first served.
    ///
    /// # Errors
    /// [`NoTurn`] after [`TURN_WAIT`].
    pub async fn turn(&self, coding: Option<Coding>, body_bytes: usize) -> Result<Turn<'_>, NoTurn> {
        let weight = if coding.is_some() { COMPRESSED_WEIGHT } else { 1 };
        let mut turn = Turn { permit: None };
        self.extend(&mut turn, body_bytes.saturating_mul(weight)).await?;
        Ok(turn)
    }

    /// The same turn for a content of this size, which a short body may have become.
    ///
    /// # Errors
    /// [`NoTurn`] after [`TURN_WAIT`].
    pub async fn extend<'c>(&'c self, turn: &mut Turn<'c>, content_bytes: usize) -> Result<(), NoTurn> {
        if content_bytes >= LONG_BODY_BYTES && turn.permit.is_none() {
            let permit = timeout(TURN_WAIT, self.turns.acquire()).await;
            turn.permit = Some(permit.map_err(|_| NoTurn)?.map_err(|_| NoTurn)?);
        }
        Ok(())
    }
}

impl Turn<'_> {
    /// Does the work; that on a long body where no other connection waits for the thread.
    pub fn work<T>(&self, work: impl FnOnce() -> T) -> T {
        if self.permit.is_some() { tokio::task::block_in_place(work) } else { work() }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const SHORT: usize = LONG_BODY_BYTES - 1;

    /// With the only turn taken, a short body goes on and a long one is told to come again, however it got long.
    #[tokio::test]
    async fn only_long_bodies_wait_and_none_for_ever() {
        let conversions = Conversions::new(0);
        let mut first = conversions.turn(None, LONG_BODY_BYTES).await.unwrap();
        conversions.extend(&mut first, usize::MAX).await.unwrap();

        for (coding, bytes) in [(None, 0), (None, SHORT), (Some(Coding::Gzip), SHORT / COMPRESSED_WEIGHT)] {
            let mut short = conversions.turn(coding, bytes).now_or_never().expect("no wait").unwrap();
            conversions.extend(&mut short, SHORT).now_or_never().expect("no wait").unwrap();
            assert_eq!(conversions.extend(&mut short, LONG_BODY_BYTES).await, Err(NoTurn));
        }
        for (coding, bytes) in
            [(None, LONG_BODY_BYTES), (Some(Coding::Deflate), LONG_BODY_BYTES / COMPRESSED_WEIGHT)]
        {
            assert_eq!(conversions.turn(coding, bytes).await.unwrap_err(), NoTurn);
        }

        drop(first);
        assert!(conversions.turn(None, LONG_BODY_BYTES).await.is_ok(), "a turn comes back");
    }

    /// Who waits gets the turn that is given back.
    #[tokio::test]
    async fn a_waiting_body_gets_the_next_turn() {
        let conversions = Conversions::new(1);
        let first = conversions.turn(None, LONG_BODY_BYTES).await.unwrap();
        let (second, ()) = tokio::join!(conversions.turn(None, LONG_BODY_BYTES), async { drop(first) });
        assert!(second.is_ok());
    }
}
