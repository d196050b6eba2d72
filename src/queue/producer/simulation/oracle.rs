//! What the shop was told of each job, held against what lies on the stream at the end.

use std::collections::HashMap;

use super::World;
use super::server::{Body, Job};
use crate::queue::producer::Position;

/// What the shop was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Open,
    Accepted,
    Refused,
    /// Refused, and told that it may be there nevertheless.
    Unconfirmed,
    /// The process died before it answered.
    Unanswered,
}

pub(super) struct Account {
    pub(super) answer: Answer,
    /// Every batch that it ever was in, by position.
    pub(super) positions: Vec<Position>,
}

/// What went wrong, in words.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    pub(super) lost: Vec<Job>,
    pub(super) doubled: Vec<Job>,
    phantoms: Vec<Job>,
    stuck: bool,
    disordered: bool,
}

impl Findings {
    pub(super) fn are_none(&self) -> bool {
        *self == Findings::default()
    }
}

impl World {
    pub(super) fn answer(&mut self, jobs: Body, answer: Answer) {
        for job in jobs {
            let account = self.accounts.get_mut(&job).unwrap();
            if account.answer == Answer::Open {
                account.answer = answer;
            }
        }
    }

    pub(super) fn findings(mut self) -> Findings {
        let mut counts: HashMap<Job, usize> = HashMap::new();
        self.server.stream.iter().for_each(|job| *counts.entry(*job).or_default() += 1);
        let mut findings = Findings { stuck: !self.is_drained(), ..Findings::default() };
        let mut jobs: Vec<_> = std::mem::take(&mut self.accounts).into_iter().collect();
        jobs.sort_by_key(|(job, _)| *job);
        for (job, account) in jobs {
            let count = counts.get(&job).copied().unwrap_or(0);
            if account.answer == Answer::Accepted && count == 0 && !self.was_reported(&account) {
                findings.lost.push(job);
            }
            if count > 1 && !self.was_marker_lost {
                findings.doubled.push(job);
            }
            if account.answer == Answer::Refused && count > 0 {
                findings.phantoms.push(job);
            }
        }
        // Jobs are numbered as they came: the first appearance of each is in that order, unless a server forgot.
        let in_order = self.server.stream.windows(2).all(|pair| pair[0] < pair[1]);
        findings.disordered = !in_order && !self.was_marker_lost;
        findings
    }

    fn was_reported(&self, account: &Account) -> bool {
        let within = |position: &Position| {
            self.reported.iter().any(|(reached, until)| reached < position && position <= until)
        };
        account.positions.iter().any(within)
    }
}
