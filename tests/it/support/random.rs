//! Random numbers that a seed repeats, for every test and benchmark of the project.

// The library's tests and a benchmark include this file as well; each uses some of it.
#![allow(dead_code)]

use std::time::Duration;

/// Random numbers from a seed (splitmix64).
pub struct Random {
    /// What it began with.
    pub seed: u64,
    state: u64,
}

/// A number that the environment sets.
pub fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is a number, not `{value}`")))
}

/// How many rounds: `ROUNDS`, or this many.
pub fn rounds(default: u64) -> u64 {
    from_environment("ROUNDS").unwrap_or(default)
}

impl Random {
    /// From a seed that is printed; `SEED` repeats a run.
    pub fn from_environment() -> Random {
        let seed = from_environment("SEED").unwrap_or_else(|| uuid::Uuid::now_v7().as_u128() as u64);
        println!("SEED={seed}");
        Random::new(seed)
    }

    pub fn new(seed: u64) -> Random {
        Random { seed, state: seed }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    /// A place in something of this length; 0 in what is empty.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len.max(1) as u64)).unwrap()
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// A duration up to so many milliseconds.
    pub fn moment(&mut self, limit_millis: u64) -> Duration {
        Duration::from_millis(self.below(limit_millis))
    }

    /// One of a logarithmically even distribution: as many between 0.1 and 1 s as between 1 and 10 s.
    pub fn log_moment(&mut self, from: Duration, to: Duration) -> Duration {
        let part = self.below(1 << 32) as f64 / (1u64 << 32) as f64;
        from.mul_f64((to.as_secs_f64() / from.as_secs_f64()).powf(part))
    }
}
