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
    /// Nobody looks whether the stream still holds what the marker speaks of.
    StreamUnwatched,
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
    Emptied,
}

/// What the server's script decides about a batch: the same rules in the same order. `lacks_entries` is whether the stream is
/// empty though the marker speaks of an entry.
pub(in crate::queue) fn decide(
    marker: Option<Marker>,
    lacks_entries: bool,
    epoch: Epoch,
    seq: u64,
) -> Verdict {
    let Some(marker) = marker else { return Verdict::Unknown };
    let reached = marker.position;
    if epoch.number < reached.epoch || (epoch.number == reached.epoch && epoch.nonce != marker.nonce) {
        return Verdict::Fenced;
    }
    if epoch.number > reached.epoch {
        return Verdict::Gap;
    }
    if lacks_entries {
        return Verdict::Emptied;
    }
    match seq {
        seq if seq <= reached.seq => Verdict::Duplicate,
        seq if seq == reached.seq + 1 => Verdict::Appended,
        _ => Verdict::Gap,
    }
}

/// What the server's script makes of a fence: the marker that it writes. `lacks_all` is whether nothing is there of the
/// producer. None if another epoch counts.
pub(in crate::queue) fn fence(marker: Option<Marker>, lacks_all: bool, epoch: Epoch) -> Option<Marker> {
    let position = Position { epoch: epoch.number, seq: FENCE };
    let is_fenced = |marker: &Marker| {
        let is_same = marker.position == position && marker.nonce == epoch.nonce;
        epoch.number <= marker.position.epoch && !is_same
    };
    if marker.as_ref().is_some_and(is_fenced) {
        return None;
    }
    let reached = marker.map_or(BEGINNING, |marker| marker.reached());
    let prior = if lacks_all { BEGINNING } else { reached };
    Some(Marker { position, nonce: epoch.nonce, prior })
}

#[derive(Clone, Copy)]
pub(super) struct Earlier {
    stream_len: usize,
    marker: Option<Marker>,
    last_entry: LastEntry,
}

/// What the marker says of the last entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LastEntry {
    #[default]
    None,
    Some,
    /// A fence found the stream emptied.
    Lost,
}

#[derive(Clone, Default)]
pub(super) struct Server {
    pub(super) stream: Vec<Job>,
    pub(super) marker: Option<Marker>,
    last_entry: LastEntry,
    /// Earlier states, for a server that forgets.
    pub(super) history: VecDeque<Earlier>,
    pub(super) refuses_writes: bool,
}

impl Server {
    pub(super) fn execute(&mut self, request: &Request, ablation: Ablation) -> Verdict {
        let reached = self.marker.map_or(BEGINNING, |marker| marker.position);
        let lacks_entries = ablation != Ablation::StreamUnwatched && self.lacks_entries();
        let verdict = decide(self.marker, lacks_entries, request.epoch, request.seq);
        let verdict = match (ablation, verdict) {
            (Ablation::NoMarker, _) => Verdict::Appended,
            (Ablation::NotCumulative, Verdict::Duplicate) if request.seq != reached.seq => Verdict::Appended,
            (Ablation::GapsAccepted, Verdict::Gap) => Verdict::Appended,
            (_, verdict) => verdict,
        };
        if verdict == Verdict::Appended {
            self.remember();
            if !request.body.is_empty() {
                self.last_entry = LastEntry::Some;
            }
            self.stream.extend(&request.body);
            let position = Position { epoch: request.epoch.number, seq: request.seq };
            let prior = self.marker.map_or(BEGINNING, |marker| marker.prior);
            self.marker = Some(Marker { position, nonce: request.epoch.nonce, prior });
        }
        verdict
    }

    fn lacks_entries(&self) -> bool {
        self.stream.is_empty() && self.last_entry == LastEntry::Some
    }

    /// What a new connection reads: a marker that speaks of what isn't there counts for nothing.
    pub(super) fn sound_marker(&self, ablation: Ablation) -> Option<Marker> {
        self.marker.filter(|_| ablation == Ablation::StreamUnwatched || !self.lacks_entries())
    }

    /// Takes the fence of an epoch: the marker then, and whether nothing is there of the producer. None if a later epoch has
    /// begun.
    pub(super) fn begin_epoch(&mut self, epoch: Epoch) -> Option<(Marker, bool)> {
        let lacks_all = match self.last_entry {
            // Batches without a job leave no entry.
            LastEntry::None if self.marker.is_some_and(|marker| marker.reached() != BEGINNING) => false,
            LastEntry::None | LastEntry::Some => self.stream.is_empty(),
            LastEntry::Lost => true,
        };
        let marker = fence(self.marker, lacks_all, epoch)?;
        self.remember();
        if lacks_all && self.last_entry == LastEntry::Some {
            self.last_entry = LastEntry::Lost;
        }
        self.marker = Some(marker);
        Some((marker, lacks_all))
    }

    fn remember(&mut self) {
        let Server { marker, last_entry, .. } = *self;
        self.history.push_back(Earlier { stream_len: self.stream.len(), marker, last_entry });
        if self.history.len() > 6 {
            self.history.pop_front();
        }
    }

    /// Falls back by so many steps.
    pub(super) fn forget(&mut self, steps: u64) {
        for _ in 0..steps {
            let Some(earlier) = self.history.pop_back() else { return };
            self.stream.truncate(earlier.stream_len);
            self.marker = earlier.marker;
            self.last_entry = earlier.last_entry;
        }
    }

    /// Loses the marker, and keeps the stream.
    pub(super) fn lose_marker(&mut self) {
        (self.marker, self.last_entry) = (None, LastEntry::None);
        self.history.clear();
    }

    /// Loses everything.
    pub(super) fn wipe(&mut self) {
        *self = Server { refuses_writes: self.refuses_writes, ..Server::default() };
    }

    /// Loses the stream, and keeps the marker.
    pub(super) fn lose_stream(&mut self) {
        self.stream.clear();
        self.history.clear();
    }
}
