//! The idempotent producer of one lane, without input or output: which number a batch has, what is to be sent next,
//! what goes to the journal, and what a server's word settles.
//!
//! A batch is *frozen*: it has a number and keeps it, 2, 3, 4 … in its epoch, without gaps. The server keeps a
//! [`Marker`], the position of the last batch that it appended, written by the same script as the batch, and appends
//! nothing but the batch that follows it in the same epoch. Frozen batches that the server hasn't confirmed are
//! *unresolved*; they are sent in order, and in this order they lie here:
//!
//! ```text
//!  tail (confirmed, kept a while)  ‖  again → journaled → memory   (unresolved)  →  what is frozen next
//! ```
//!
//! `again` holds what a server confirmed and forgot (a failover), `journaled` what lies in the outage journal and was
//! answered 200, `memory` what its callers still wait for.
//!
//! After anything but a success the connection is given up; on the next one [`Producer::resume`] compares the marker
//! with what is held here. An epoch begins with a *fence*, number 1: the server takes the new epoch, refuses from then
//! on whatever of older ones still lies in some buffer, and says what it had reached. Only then is everything
//! unresolved behind that numbered anew ([`Producer::fenced`]). So a copy that arrives late is either a repeat or
//! refused, also on a server that was emptied or went back in time.

pub mod position;
#[cfg(test)]
pub(in crate::queue) mod simulation;

use std::collections::VecDeque;

pub use position::{BEGINNING, Epoch, FENCE, Loss, Marker, Position, Run, Standing, ToSend};

#[derive(Debug)]
struct Batch<B, W> {
    position: Position,
    body: B,
    size_bytes: usize,
    waiters: Option<W>,
    /// It was on its way once, so a server may have it, or get it late.
    was_sent: bool,
}

/// A confirmed batch, kept for a server that forgets it.
#[derive(Debug)]
struct Kept<B> {
    /// The batch that was confirmed before it.
    predecessor: Position,
    position: Position,
    body: B,
    size_bytes: usize,
}

/// One lane's producer. `B` is what a batch holds, `W` those who wait for its outcome.
#[derive(Debug)]
pub struct Producer<B, W> {
    epoch: Epoch,
    /// Whether the server is known to have taken this epoch's fence.
    is_live: bool,
    next_seq: u64,
    next_place: u64,
    confirmed: Position,
    tail: VecDeque<Kept<B>>,
    tail_bytes: usize,
    tail_limit_bytes: usize,
    again: VecDeque<Batch<B, W>>,
    journaled: VecDeque<Run>,
    /// The bodies of the first journaled batches and their sizes, as far as they were read.
    fetched: VecDeque<(B, usize)>,
    memory: VecDeque<Batch<B, W>>,
    /// What of memory is being written to the journal.
    writing: Option<Run>,
    /// How many unresolved batches were sent on this connection.
    in_flight: usize,
}

/// How many bodies of batches that go to the journal stay in memory at the most, to be sent without reading them back.
const KEPT_BODIES: usize = 8;

impl<B: Clone, W> Producer<B, W> {
    /// A producer in a new epoch, behind what the journal holds, and what was noted of [`Producer::promised`]. Of confirmed batches up to so many bytes are kept,
    /// for a server that forgets.
    pub fn new(
        epoch: Epoch,
        confirmed: Position,
        journaled: Vec<Run>,
        next_place: u64,
        tail_limit_bytes: usize,
    ) -> Self {
        // A batch goes to the journal only behind all that isn't confirmed, so what came before the first one was.
        let implied = journaled.first().map(|run| run.first).filter(|first| first.seq > FENCE + 1);
        let implied = implied.map_or(BEGINNING, |first| Position { seq: first.seq - 1, ..first });
        Producer {
            epoch,
            is_live: false,
            next_seq: FENCE + 1,
            next_place,
            confirmed: confirmed.max(implied),
            tail: VecDeque::new(),
            tail_bytes: 0,
            tail_limit_bytes,
            again: VecDeque::new(),
            journaled: journaled.into(),
            fetched: VecDeque::new(),
            memory: VecDeque::new(),
            writing: None,
            in_flight: 0,
        }
    }

    /// The epoch that batches are sent in.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether the server is known to have taken this epoch; if not, it can still be begun.
    pub fn is_live(&self) -> bool {
        self.is_live
    }

    /// The highest position that the server has, as far as is known.
    pub fn confirmed(&self) -> Position {
        self.confirmed
    }

    /// What a server must have reached, if it lacks nothing that it confirmed: more than [`Producer::confirmed`] while
    /// batches are sent again that a server forgot. This is what to note on disk.
    pub fn promised(&self) -> Position {
        self.again.back().map_or(self.confirmed, |batch| batch.position)
    }

    /// Whether new batches have to go to the journal at once, because older ones must be sent before them.
    pub fn has_backlog(&self) -> bool {
        !self.again.is_empty() || !self.journaled.is_empty()
    }

    /// How many batches the journal holds unresolved.
    pub fn journaled_len(&self) -> u64 {
        self.journaled.iter().map(|run| run.len).sum()
    }

    /// What of the journal is unresolved.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.journaled.iter()
    }

    /// How many batches wait in memory for their outcome.
    pub fn memory_len(&self) -> usize {
        self.memory.len()
    }

    /// Those who wait longest.
    pub fn oldest_waiters(&self) -> Option<&W> {
        self.memory.iter().find_map(|batch| batch.waiters.as_ref())
    }

    /// How many batches are on their way on this connection.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The journal's places below this one hold nothing that is unresolved.
    pub fn resolved_below(&self) -> u64 {
        let first = self.journaled.front().map(|run| run.place);
        first.or(self.writing.map(|writing| writing.place)).unwrap_or(self.next_place)
    }

    /// Gives a batch its number.
    pub fn freeze(&mut self, body: B, size_bytes: usize, waiters: W) {
        let position = Position { epoch: self.epoch.number, seq: self.next_seq };
        self.memory.push_back(Batch { position, body, size_bytes, waiters: Some(waiters), was_sent: false });
        self.next_seq += 1;
    }

    /// The next batch to send on this connection.
    pub fn to_send(&self) -> ToSend<'_, B> {
        let mut index = self.in_flight;
        if let Some(batch) = self.again.get(index) {
            return ToSend::Batch { seq: batch.position.seq, body: &batch.body };
        }
        index -= self.again.len();
        let mut behind = index as u64;
        for run in &self.journaled {
            if behind < run.len {
                return match self.fetched.get(index) {
                    Some((body, _)) => ToSend::Batch { seq: run.first.seq + behind, body },
                    None => ToSend::Fetch { place: run.place + behind, len: run.len - behind },
                };
            }
            behind -= run.len;
        }
        match usize::try_from(behind).ok().and_then(|behind| self.memory.get(behind)) {
            Some(batch) => ToSend::Batch { seq: batch.position.seq, body: &batch.body },
            None => ToSend::Nothing,
        }
    }

    /// What was read from the journal, from that place on, each with its size in bytes. Bodies that aren't the next
    /// ones to be fetched are ignored.
    pub fn supply(&mut self, place: u64, bodies: impl IntoIterator<Item = (B, usize)>) {
        for (place, body) in (place..).zip(bodies) {
            if self.place_of(self.fetched.len() as u64) == Some(place) {
                self.fetched.push_back(body);
            }
        }
    }

    fn place_of(&self, mut index: u64) -> Option<u64> {
        for run in &self.journaled {
            if index < run.len {
                return Some(run.place + index);
            }
            index -= run.len;
        }
        None
    }

    /// The batch that [`Producer::to_send`] named is on its way.
    pub fn sent(&mut self) {
        let before_memory = self.again.len() as u64 + self.journaled_len();
        let in_memory = (self.in_flight as u64).checked_sub(before_memory);
        if let Some(batch) = in_memory.and_then(|index| self.memory.get_mut(usize::try_from(index).ok()?)) {
            batch.was_sent = true;
        }
        self.in_flight += 1;
    }

    /// The oldest batch on its way was appended, now or earlier. Those who waited for it.
    pub fn appended(&mut self) -> Option<W> {
        self.in_flight = self.in_flight.checked_sub(1)?;
        self.resolve_oldest()
    }

    /// Takes the oldest unresolved batch out; it becomes part of the tail.
    fn resolve_oldest(&mut self) -> Option<W> {
        let predecessor = self.confirmed;
        self.confirmed = self.oldest_position()?;
        let position = self.confirmed;
        let (body, waiters) = if let Some(batch) = self.again.pop_front() {
            (Some((batch.body, batch.size_bytes)), None)
        } else if let Some(run) = self.journaled.front_mut() {
            run.first.seq += 1;
            run.place += 1;
            run.len -= 1;
            if run.len == 0 {
                self.journaled.pop_front();
            }
            (self.fetched.pop_front(), None)
        } else {
            let batch = self.memory.pop_front()?;
            (Some((batch.body, batch.size_bytes)), batch.waiters)
        };
        match body {
            Some((body, size_bytes)) => self.keep(Kept { predecessor, position, body, size_bytes }),
            // Without the body there is a hole in what could be sent again.
            None => self.forget_tail(),
        }
        waiters
    }

    fn keep(&mut self, kept: Kept<B>) {
        self.tail_bytes += kept.size_bytes;
        self.tail.push_back(kept);
        while self.tail_bytes > self.tail_limit_bytes || self.tail.len() > TAIL_LIMIT_BATCHES {
            let Some(oldest) = self.tail.pop_front() else { return };
            self.tail_bytes -= oldest.size_bytes;
        }
    }

    /// Lets go of what is kept for a server that forgets.
    pub fn forget_tail(&mut self) {
        self.tail.clear();
        self.tail_bytes = 0;
    }

    /// Compares the marker of the server behind a new connection with what is held here, and settles what the server
    /// has: those who waited are given to `settle`. No batch is being written to the journal meanwhile.
    pub fn resume(&mut self, marker: Option<Marker>, settle: impl FnMut(W)) -> Standing {
        self.in_flight = 0;
        let Some(marker) = marker else { return Standing::NeedsFence };
        let is_same_epoch = marker.position.epoch == self.epoch.number;
        if marker.position.epoch > self.epoch.number || (is_same_epoch && marker.nonce != self.epoch.nonce) {
            return Standing::Fenced;
        }
        if is_same_epoch && self.is_live && self.go_to(marker.reached(), settle) {
            return Standing::InStep;
        }
        Standing::NeedsFence
    }

    /// A fence for this epoch is about to be sent. Batches that are frozen from now on are numbered in it, older ones
    /// keep their numbers until the server has answered.
    pub fn begin_epoch(&mut self, epoch: Epoch) {
        if epoch.number != self.epoch.number {
            self.next_seq = FENCE + 1;
        }
        self.epoch = epoch;
        self.is_live = false;
    }

    /// The server took the fence of this epoch, and had reached `prior` before. Settles what it has, takes back what it
    /// forgot, and numbers everything unresolved anew: [`Producer::runs`], this epoch and what is confirmed must be on
    /// disk before anything is sent. `is_stream_empty` tells a server that lost everything from one that lost the marker
    /// alone. No batch is being written to the journal meanwhile.
    pub fn fenced(&mut self, prior: Position, is_stream_empty: bool, settle: impl FnMut(W)) -> Option<Loss> {
        let confirmed = self.confirmed;
        let is_uncertain = prior == BEGINNING && confirmed > BEGINNING && !is_stream_empty;
        let is_lost = is_uncertain || !self.go_to(prior, settle);
        if is_lost {
            self.forget_tail();
        }
        self.confirmed = prior;
        self.is_live = true;
        self.renumber();
        is_lost.then_some(Loss { reached: prior, confirmed, is_uncertain })
    }

    /// Brings what is held here to where the server is. False if the server lacks something that isn't held any more.
    fn go_to(&mut self, reached: Position, settle: impl FnMut(W)) -> bool {
        let confirmed = self.confirmed;
        let mut settle = settle;
        while self.oldest_position().is_some_and(|oldest| oldest <= reached) {
            self.resolve_oldest().into_iter().for_each(&mut settle);
        }
        if reached >= confirmed {
            // A server that is ahead of what is known here appended a batch whose end wasn't written down.
            self.confirmed = reached;
            return true;
        }
        let forgotten = self.tail.partition_point(|kept| kept.position <= reached);
        if self.tail.get(forgotten).is_none_or(|kept| kept.predecessor > reached) {
            return false;
        }
        for kept in self.tail.drain(forgotten..).rev() {
            self.tail_bytes -= kept.size_bytes;
            let Kept { position, body, size_bytes, .. } = kept;
            self.again.push_front(Batch { position, body, size_bytes, waiters: None, was_sent: true });
        }
        self.confirmed = reached;
        true
    }

    fn oldest_position(&self) -> Option<Position> {
        let again = self.again.front().map(|batch| batch.position);
        let journaled = || self.journaled.front().map(|run| run.first);
        again.or_else(journaled).or_else(|| self.memory.front().map(|batch| batch.position))
    }

    fn renumber(&mut self) {
        let mut next = Position { epoch: self.epoch.number, seq: FENCE + 1 };
        let mut take = |count| {
            let position = next;
            next.seq += count;
            position
        };
        self.again.iter_mut().for_each(|batch| batch.position = take(1));
        self.journaled.iter_mut().for_each(|run| run.first = take(run.len));
        self.memory.iter_mut().for_each(|batch| batch.position = take(1));
        self.next_seq = next.seq;
    }

    /// Takes what is in memory to the journal: where the first batch goes, and all bodies. [`Producer::written`] or
    /// [`Producer::refuse`] follows. None if there is nothing, or a write isn't done yet.
    pub fn begin_writing(&mut self) -> Option<(Run, Vec<B>)> {
        if self.writing.is_some() {
            return None;
        }
        let first = self.memory.front()?.position;
        // What was frozen while an epoch begins is not a continuation of what was frozen before.
        let batches = self.memory.iter().take_while(|batch| batch.position.epoch == first.epoch);
        let bodies: Vec<B> = batches.map(|batch| batch.body.clone()).collect();
        let run = Run { first, place: self.next_place, len: bodies.len() as u64 };
        self.next_place += run.len;
        self.writing = Some(run);
        Some((run, bodies))
    }

    /// Whether batches are being written to the journal.
    pub fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// What was being written is on disk: those who waited for it.
    pub fn written(&mut self) -> Vec<W> {
        let Some(writing) = self.writing.take() else { return Vec::new() };
        let end = Position { seq: writing.first.seq + writing.len, ..writing.first };
        let mut settled = Vec::new();
        // The server may have confirmed the first ones meanwhile.
        while let Some(batch) = self.memory.pop_front_if(|batch| batch.position < end) {
            let place = writing.place + (batch.position.seq - writing.first.seq);
            match self.journaled.back_mut() {
                Some(run) if run.is_followed_by(batch.position, place) => run.len += 1,
                _ => self.journaled.push_back(Run { first: batch.position, place, len: 1 }),
            }
            // What is on its way, or next, need not be read from the disk.
            if self.fetched.len() as u64 + 1 == self.journaled_len() && self.fetched.len() < KEPT_BODIES {
                self.fetched.push_back((batch.body, batch.size_bytes));
            }
            settled.extend(batch.waiters);
        }
        settled
    }

    /// The journal can't take what is in memory: those who wait are refused, and the batches keep their numbers but
    /// are emptied, so that what is sent again holds nothing of what was refused. Beside those who wait stands whether their
    /// batch was on its way before: then their jobs may be at the server nevertheless.
    pub fn refuse(&mut self, empty: &B) -> Vec<(W, bool)> {
        self.writing = None;
        let refused = self.memory.iter_mut().map(|batch| {
            batch.body = empty.clone();
            batch.size_bytes = 0;
            batch.waiters.take().map(|waiters| (waiters, batch.was_sent))
        });
        refused.flatten().collect()
    }
}

/// How many confirmed batches are kept at the most, whatever their size.
const TAIL_LIMIT_BATCHES: usize = 4096;
