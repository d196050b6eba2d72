//! The model of a server: its script, and what it forgets.

use std::collections::VecDeque;

use super::super::{BEGINNING, Epoch, FENCE, Marker, Position};

pub(super) type Job = u64;
pub(super) type Body = Vec<Job>;

/// A rule of the protocol that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ablation {
    None,
    /// What is unresolved after a lost connection is put into new batches.
    RebatchingAfterTimeout,
    /// The journal doesn't keep numbers.
    JournalWithoutIdentity,
    /// The server appends without a look at its marker.
    NoMarker,
    /// A restarted producer sends new batches before the journal's.
    NewEpochBeforeJournal,
    /// The server knows its last batch alone as a repeat.
    NotCumulative,
    /// The server takes any higher number.
    GapsAccepted,
    /// A new epoch doesn't say what came before it.
    NoPreviousPosition,
}

#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) epoch: Epoch,
    pub(super) seq: u64,
    pub(super) body: Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::queue) enum Verdict {
    Appended,
    Duplicate,
    Fenced,
    Gap,
    Unknown,
}

/// What the server's script decides about a batch: the same rules in the same order.
pub(in crate::queue) fn decide(marker: Option<Marker>, epoch: Epoch, seq: u64) -> Verdict {
    let Some(marker) = marker else { return Verdict::Unknown };
    let reached = marker.position;
    if epoch.number < reached.epoch || (epoch.number == reached.epoch && epoch.nonce != marker.nonce) {
        return Verdict::Fenced;
    }
    if epoch.number > reached.epoch {
        return Verdict::Gap;
    }
    match seq {
        seq if seq <= reached.seq => Verdict::Duplicate,
        seq if seq == reached.seq + 1 => Verdict::Appended,
        _ => Verdict::Gap,
    }
}

/// What the server's script makes of a fence: the marker that it writes, or the one that stays.
pub(in crate::queue) fn fence(marker: Option<Marker>, epoch: Epoch) -> Option<Marker> {
    let position = Position { epoch: epoch.number, seq: FENCE };
    let prior = match marker {
        Some(marker) if epoch.number <= marker.position.epoch => {
            return Some(marker).filter(|marker| marker.position == position && marker.nonce == epoch.nonce);
        }
        Some(marker) => marker.reached(),
        None => BEGINNING,
    };
    Some(Marker { position, nonce: epoch.nonce, prior })
}

#[derive(Clone, Default)]
pub(super) struct Server {
    pub(super) stream: Vec<Job>,
    pub(super) marker: Option<Marker>,
    /// Earlier states, for a server that forgets.
    pub(super) history: VecDeque<(usize, Option<Marker>)>,
    pub(super) refuses_writes: bool,
}

impl Server {
    pub(super) fn execute(&mut self, request: &Request, ablation: Ablation) -> Verdict {
        let reached = self.marker.map_or(BEGINNING, |marker| marker.position);
        let verdict = match (ablation, decide(self.marker, request.epoch, request.seq)) {
            (Ablation::NoMarker, _) => Verdict::Appended,
            (Ablation::NotCumulative, Verdict::Duplicate) if request.seq != reached.seq => Verdict::Appended,
            (Ablation::GapsAccepted, Verdict::Gap) => Verdict::Appended,
            (_, verdict) => verdict,
        };
        if verdict == Verdict::Appended {
            self.history.push_back((self.stream.len(), self.marker));
            if self.history.len() > 6 {
                self.history.pop_front();
            }
            self.stream.extend(&request.body);
            let position = Position { epoch: request.epoch.number, seq: request.seq };
            let prior = self.marker.map_or(BEGINNING, |marker| marker.prior);
            self.marker = Some(Marker { position, nonce: request.epoch.nonce, prior });
        }
        verdict
    }
}
