//! The bytes that requests in flight may hold, counted before they are read.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A budget in bytes, shared by all requests.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    free: Arc<Semaphore>,
    limit_bytes: usize,
}

/// Bytes taken from a budget; dropping it gives them back. It travels with a body until its job is settled, so that
/// a slow queue can't hold more than the budget.
#[derive(Debug)]
pub struct Reservation {
    permit: OwnedSemaphorePermit,
}

impl Reservation {
    /// How many bytes it holds.
    pub fn bytes(&self) -> usize {
        self.permit.num_permits()
    }
}

/// The budget has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

impl MemoryBudget {
    /// A budget of so many bytes, 1 TiB at the most.
    pub fn new(limit_bytes: usize) -> MemoryBudget {
        let limit_bytes = limit_bytes.min(1 << 40).min(Semaphore::MAX_PERMITS);
        MemoryBudget { free: Arc::new(Semaphore::new(limit_bytes)), limit_bytes }
    }

    /// Takes bytes, or says at once that there are none.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub fn reserve(&self, bytes: usize) -> Result<Reservation, Exhausted> {
        let permits = u32::try_from(bytes).map_err(|_| Exhausted)?;
        let permit = Arc::clone(&self.free).try_acquire_many_owned(permits).map_err(|_| Exhausted)?;
        Ok(Reservation { permit })
    }

    /// Adds bytes to a reservation.
    ///
    /// # Errors
    /// [`Exhausted`]; the reservation stays as it was.
    pub fn extend(&self, reservation: &mut Reservation, bytes: usize) -> Result<(), Exhausted> {
        reservation.permit.merge(self.reserve(bytes)?.permit);
        Ok(())
    }

    /// How many bytes are taken.
    pub fn used_bytes(&self) -> usize {
        self.limit_bytes - self.free.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_never_overdrawn_and_returns_to_full() {
        let budget = MemoryBudget::new(10);
        let mut first = budget.reserve(6).unwrap();
        assert_eq!(budget.reserve(5).unwrap_err(), Exhausted);
        budget.extend(&mut first, 4).unwrap();
        assert_eq!(budget.extend(&mut first, 1), Err(Exhausted));
        assert_eq!((budget.used_bytes(), first.bytes()), (10, 10));
        drop(first);
        assert_eq!(budget.used_bytes(), 0);
        assert_eq!(budget.reserve(usize::MAX).unwrap_err(), Exhausted);
    }
}
