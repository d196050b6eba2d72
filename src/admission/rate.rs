//! The rate of one integration: the generic cell rate algorithm on one atomic number.
//!
//! The bucket holds one period's count, so a burst may be as large as the rate's own number. The state is the
//! "theoretical arrival time" of ITU-T I.371: a request conforms when that time lies no further ahead than the
//! burst allows.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// So many requests per so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many requests.
    pub count: NonZeroU32,
    /// In which time.
    pub per: Duration,
}

/// Counts requests against a [`Rate`]. Shared by all connections.
#[derive(Debug)]
pub struct RateLimit {
    start: Instant,
    interval_nanos: u64,
    burst_nanos: u64,
    arrival_nanos: AtomicU64,
}

impl RateLimit {
    /// A full bucket of `rate`, whose clock begins at `start`.
    pub fn new(rate: Rate, start: Instant) -> Self {
        let per = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
        let interval_nanos = (per / u64::from(rate.count.get())).max(1);
        RateLimit { start, interval_nanos, burst_nanos: per, arrival_nanos: AtomicU64::new(0) }
    }

    /// Whether [`RateLimit::take`] would succeed at `now`, without taking anything.
    pub fn has_room(&self, now: Instant) -> bool {
        let now = u64::try_from(now.duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        let next = self.arrival_nanos.load(Ordering::Relaxed).max(now).saturating_add(self.interval_nanos);
        next - now <= self.burst_nanos
    }

    /// Takes one request's place at `now`.
    ///
    /// # Errors
    /// How long to wait, if the rate is used up. A refused request takes no place.
    pub fn take(&self, now: Instant) -> Result<(), Duration> {
        let now = u64::try_from(now.duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        let mut arrival = self.arrival_nanos.load(Ordering::Relaxed);
        loop {
            let next = arrival.max(now).saturating_add(self.interval_nanos);
            let ahead = next - now;
            if ahead > self.burst_nanos {
                return Err(Duration::from_nanos(ahead - self.burst_nanos));
            }
            match self.arrival_nanos.compare_exchange_weak(
                arrival,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(()),
                Err(current) => arrival = current,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(count: u32, per: Duration) -> (RateLimit, Instant) {
        let start = Instant::now();
        (RateLimit::new(Rate { count: NonZeroU32::new(count).unwrap(), per }, start), start)
    }

    #[test]
    fn a_burst_of_the_whole_rate_passes_and_the_next_waits_one_interval() {
        let (limit, now) = limit(4, Duration::from_secs(1));
        for _ in 0..4 {
            assert!(limit.has_room(now));
            assert_eq!(limit.take(now), Ok(()));
        }
        assert!(!limit.has_room(now));
        assert_eq!(limit.take(now), Err(Duration::from_millis(250)));
        assert_eq!(limit.take(now + Duration::from_millis(249)), Err(Duration::from_millis(1)));
        assert_eq!(limit.take(now + Duration::from_millis(250)), Ok(()));
    }

    proptest! {
        /// Whatever the arrival times, no window of one period ever admits more than twice the count
        /// (a full bucket at its start plus what refills within it), and a refusal's wait is enough.
        #[test]
        fn no_window_admits_more_than_burst_and_refill(steps in prop::collection::vec(0u64..300, 1..400)) {
            let (limit, start) = limit(10, Duration::from_secs(1));
            let mut now = start;
            let mut admitted = Vec::new();
            for step in steps {
                now += Duration::from_millis(step);
                match limit.take(now) {
                    Ok(()) => admitted.push(now),
                    Err(wait) => {
                        prop_assert!(wait <= Duration::from_millis(100));
                        now += wait;
                        prop_assert_eq!(limit.take(now), Ok(()));
                        admitted.push(now);
                    }
                }
            }
            for (index, first) in admitted.iter().enumerate() {
                let within = admitted[index..].iter().take_while(|time| **time - *first < Duration::from_secs(1)).count();
                prop_assert!(within <= 20, "{within} in one second");
            }
        }
    }
}
