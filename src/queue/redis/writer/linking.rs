//! What the writer does about its connection: compares, begins an epoch, goes up and down.

use tracing::error;
use uuid::Uuid;

use super::{RedisWriter, Waiters};
use crate::queue::journal::Change;
use crate::queue::producer::{Epoch, Loss, Standing};
use crate::queue::redis::link::{Link, LinkEvent};
use crate::queue::redis::script::{self, Fence, Verdict};
use crate::queue::redis::socket::Socket;

/// A full stream is tried again after the pause of so many attempts.
const FULL_PAUSE_ATTEMPTS: u32 = 4;

impl RedisWriter {
    /// Does what follows from what happened to the connection.
    pub(super) fn handle(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Rested => self.link = Link::start(&self.server, &self.keys, &self.field),
            LinkEvent::Connected(connection, marker) => {
                let mut settled = Vec::new();
                match self.producer.resume(marker, |waiters| settled.push(waiters)) {
                    Standing::InStep => self.note_numbers(connection),
                    Standing::NeedsFence => self.begin_epoch(connection),
                    Standing::Fenced => self.give_up(),
                }
                settled.into_iter().for_each(Waiters::accept);
            }
            LinkEvent::Numbered(connection, number) => self.send_fence(connection, number),
            LinkEvent::Fenced(connection, Fence::Begun { prior, is_stream_empty }) => {
                let mut settled = Vec::new();
                let loss = self.producer.fenced(prior, is_stream_empty, |waiters| settled.push(waiters));
                settled.into_iter().for_each(Waiters::accept);
                loss.into_iter().for_each(|loss| self.report_loss(loss));
                self.has_new_numbers = true;
                self.note_numbers(connection);
            }
            LinkEvent::Noted(connection) => {
                self.has_new_numbers = false;
                self.go_up(connection);
            }
            LinkEvent::Answered(Verdict::Appended(repeats)) => self.appended(&repeats),
            LinkEvent::Answered(Verdict::Duplicate) => self.appended(&[]),
            LinkEvent::Answered(Verdict::OutOfStep) => {
                self.go_down("Redis doesn't follow the numbers; comparing".to_owned());
            }
            LinkEvent::Answered(Verdict::Emptied) => {
                self.go_down("the stream lost what it held; comparing".to_owned());
            }
            LinkEvent::Answered(Verdict::Full) => {
                self.is_full = true;
                self.go_down("the stream holds as many entries as it may (RETRIEVE_STREAM_LIMIT)".to_owned());
                // The connection is sound, so the next one would be made at once, and end the same way.
                self.link = Link::rest(FULL_PAUSE_ATTEMPTS);
            }
            LinkEvent::Fenced(_, Fence::Fenced) | LinkEvent::Answered(Verdict::Fenced) => self.give_up(),
            LinkEvent::Probed => {}
            LinkEvent::Broken(why) => self.go_down(why),
        }
    }

    fn appended(&mut self, repeats: &[(usize, Uuid)]) {
        if std::mem::take(&mut self.is_full) {
            self.trouble = None;
        }
        if let Some(waiters) = self.producer.appended() {
            waiters.accept_with(repeats);
        }
    }

    fn go_up(&mut self, connection: Socket) {
        self.attempts = 0;
        // Only a batch shows whether there is room again.
        self.trouble = self.trouble.take().filter(|_| self.is_full);
        self.link = Link::up(connection);
    }

    pub(super) fn go_down(&mut self, why: String) {
        self.metrics.redis_broken_connections.inc();
        self.trouble = Some(why);
        self.compared = None;
        self.link = Link::rest(self.attempts);
        self.attempts += 1;
    }

    fn give_up(&mut self) {
        self.attempts = 2;
        let why = "another gateway writes with a copy of this data folder; give each its own and start again";
        self.trouble = Some(why.to_owned());
        self.link = Link::Fenced;
    }

    /// Begins the epoch of this start, or the next one if that has begun already.
    fn begin_epoch(&mut self, connection: Socket) {
        let number = self.producer.epoch().number;
        match (self.producer.is_live(), self.journal.clone()) {
            (false, _) => self.send_fence(connection, number),
            (true, None) => self.send_fence(connection, number + 1),
            (true, Some(journal)) => {
                self.link = Link::Numbering(Box::pin(async move {
                    journal.change(Change::NextEpoch).await.map(|number| (connection, number))
                }));
            }
        }
    }

    fn send_fence(&mut self, connection: Socket, number: u64) {
        let epoch = Epoch { number, nonce: self.nonce };
        self.producer.begin_epoch(epoch);
        self.link = Link::fence(connection, script::fence(&self.keys, &self.field, epoch));
    }

    /// Goes up, once the numbers are on the disk.
    fn note_numbers(&mut self, connection: Socket) {
        let Some(journal) = self.journal.clone().filter(|_| self.has_new_numbers) else {
            return self.go_up(connection);
        };
        let change = Change::Renumber {
            lane: self.keys.lane,
            runs: self.producer.runs().copied().collect(),
            resolved_below: self.producer.resolved_below(),
            promised: self.producer.promised(),
        };
        self.link = Link::Noting(Box::pin(async move { journal.change(change).await.map(|_| connection) }));
    }

    fn report_loss(&self, loss: Loss) {
        self.metrics.redis_losses.inc();
        let Loss { reached, confirmed, is_uncertain } = loss;
        let stream = &self.keys.stream;
        if is_uncertain {
            error!(%stream, "Redis lost its note of what this gateway had written, not the jobs; nothing is sent again");
        } else {
            error!(
                %stream, ?reached, ?confirmed,
                "Redis lost jobs that it had confirmed (a failover, or a restart from an older state)"
            );
        }
    }
}
