//! What is known of a log in memory: where its jobs lie, how many they are, and what else it says.

use super::BEGIN;
use super::records::{End, Record};
use crate::queue::frame::Kind;

/// So many bytes of records are found by one entry of the index.
const GROUP_BYTES: u64 = 64 << 10;

/// How many jobs lie in a file, or in a part of it, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    pub jobs: u64,
    pub bytes: u64,
}

impl Total {
    pub(super) fn add(&mut self, bytes: u64) {
        self.jobs += 1;
        self.bytes += bytes;
    }
}

/// Jobs with numbers behind each other, and where their records begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) offset: u64,
    pub(super) first: u64,
    /// When the first one was stored.
    pub(super) time: u64,
    pub(super) jobs: u64,
    /// What the file holds before them.
    pub(super) before: Total,
}

impl Group {
    pub(super) fn last(&self) -> u64 {
        self.first + self.jobs - 1
    }
}

/// What is known of a file's content.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) end: End,
    /// Which of the two notes is written next.
    pub(super) slot: u64,
    /// Up to here the pages behind the end may hold something.
    pub(super) used_end: u64,
    pub(super) total: Total,
    pub(super) groups: Vec<Group>,
    pub(super) voids: Vec<(u64, u64)>,
    /// When the last of its marks ends, in Unix milliseconds; 0 if there is none.
    pub(super) marks_until: u64,
}

impl Content {
    pub(super) fn empty(slot: u64) -> Content {
        let end = End { offset: BEGIN, first: 0, last: 0 };
        let (total, groups, voids) = (Total::default(), Vec::new(), Vec::new());
        Content { end, slot, used_end: BEGIN, total, groups, voids, marks_until: 0 }
    }

    /// A group, and where its records end.
    pub(super) fn place(&self, index: usize) -> (Group, u64) {
        (self.groups[index], self.groups.get(index + 1).map_or(self.end.offset, |next| next.offset))
    }

    /// Takes note of the next record.
    pub(super) fn add(&mut self, record: &Record) {
        let offset = record.offset;
        match (record.kind, record.numbers) {
            (Kind::Job | Kind::MarkedJob, (number, time)) => {
                let follows = |group: &&mut Group| {
                    group.first + group.jobs == number && offset - group.offset < GROUP_BYTES
                };
                match self.groups.last_mut().filter(follows) {
                    Some(group) => group.jobs += 1,
                    None => {
                        self.groups.push(Group { offset, first: number, time, jobs: 1, before: self.total })
                    }
                }
                self.total.add(record.bytes);
                if self.end.first == 0 {
                    self.end.first = number;
                }
                self.end.last = number;
                self.marks_until = self.marks_until.max(record.until);
            }
            (Kind::Void, void) => self.voids.push(void),
            _ => {}
        }
    }
}
