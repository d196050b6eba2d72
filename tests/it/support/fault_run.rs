//! One run of one fault: how often something is broken, and what came of it.

use std::time::Instant;

use serde_json::{Value, json};

use super::attempts::Account;
use super::random::{Random, rounds};

pub struct FaultRun {
    fault: &'static str,
    mode: &'static str,
    pub rounds: u64,
    pub random: Random,
    begin: Instant,
}

impl FaultRun {
    /// With so many rounds, unless `ROUNDS` says otherwise.
    pub fn begin(fault: &'static str, mode: &'static str, default_rounds: u64) -> FaultRun {
        let random = Random::from_environment();
        FaultRun { fault, mode, rounds: rounds(default_rounds), random, begin: Instant::now() }
    }

    /// Prints what came of it, and fails if anything is wrong. `more` is what is particular to this fault.
    pub fn end(self, account: Account, more: &Value) {
        let mut line = json!({
            "fault": self.fault, "mode": self.mode, "seed": self.random.seed, "rounds": self.rounds,
        });
        let members = line.as_object_mut().unwrap();
        members.extend(serde_json::to_value(account).unwrap().as_object().unwrap().clone());
        members.extend([
            ("seconds".to_owned(), self.begin.elapsed().as_secs().into()),
            ("more".to_owned(), more.clone()),
        ]);
        println!("FAULT {line}");
        assert!(account.is_sound(), "{}, {}: {account:?}", self.fault, self.mode);
        assert!(account.accepted > self.rounds, "the load was too small to prove anything: {account:?}");
    }
}
