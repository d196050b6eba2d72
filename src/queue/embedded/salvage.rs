//! What is read of a damaged file of the embedded queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::log::{Log, Records, first_number, is_job};
use crate::queue::files::{Loss, Salvage};
use crate::queue::frame::{Found, Frames, Header, Kind};
use crate::queue::lane::BATCH_LIMIT_BYTES;

/// Writes what a damaged file still has into a new one. Jobs that were acknowledged don't count as lost.
pub(super) fn salvage(acknowledged: u64) -> Salvage<Log> {
    Arc::new(move |frames, newer, file| {
        let next = newer.iter().find_map(|file| file.first_number());
        let jobs = whole_jobs(frames, next);
        let notes =
            frames.of(Kind::End).filter_map(|found| Some((found, first_number(&frames.read(found)?)?)));
        let notes: Vec<_> = notes.map(|(found, first)| (first, found.header.numbers.0)).collect();
        let damaged = frames.damaged.iter().filter(|header| is_job(header.kind));
        let known = jobs.keys().copied().chain(damaged.map(|header| header.numbers.0));
        let numbers = Numbers {
            first: notes.iter().map(|(first, _)| *first).filter(|first| *first > 0).min(),
            highest: known.chain(notes.iter().map(|(_, last)| *last)).max().unwrap_or(0),
            // The last batch changed one of the two notes.
            is_end_known: notes.len() == 2,
            next,
        };
        write_salvaged(file, frames, &jobs, &numbers)?;
        Ok(loss(frames, &jobs, newer, acknowledged, &numbers))
    })
}

/// Which numbers a file gave away.
struct Numbers {
    first: Option<u64>,
    highest: u64,
    is_end_known: bool,
    /// The first one of the next file.
    next: Option<u64>,
}

impl Numbers {
    /// The last one, also if its job is lost.
    fn last(&self) -> u64 {
        self.next.map_or(self.highest, |next| next - 1)
    }
}

fn voids(frames: &Frames) -> impl Iterator<Item = (u64, u64)> {
    frames.of(Kind::Void).map(|found| found.header.numbers)
}

/// The jobs by number. What a crash cut off may have had a number that was given to another job after it, here or in the next
/// file.
fn whole_jobs(frames: &Frames, next: Option<u64>) -> BTreeMap<u64, &Found> {
    let mut jobs: BTreeMap<u64, &Found> = BTreeMap::new();
    for found in frames.whole.iter().filter(|found| is_job(found.header.kind)) {
        let (number, time) = found.header.numbers;
        let is_later = jobs.get(&number).is_none_or(|other| other.header.numbers.1 <= time);
        if is_later && next.is_none_or(|next| number < next) {
            jobs.insert(number, found);
        }
    }
    jobs
}

fn loss(
    frames: &Frames,
    jobs: &BTreeMap<u64, &Found>,
    newer: &[Arc<Log>],
    acknowledged: u64,
    numbers: &Numbers,
) -> Loss {
    if numbers.is_end_known && numbers.highest == 0 {
        // It was never used.
        return Loss::default();
    }
    let mut void: BTreeSet<(u64, u64)> = voids(frames).collect();
    newer.iter().for_each(|file| void.extend(file.voids()));
    // Without the number that the file begins with, some of what is counted may lie in older files.
    let begin = numbers.first.unwrap_or(0).max(acknowledged + 1);
    let end = numbers.last();
    let is_void = |number: &u64| void.iter().any(|(first, len)| (*first..first + len).contains(number));
    let there =
        jobs.keys().filter(|number| (begin..=end).contains(*number) && !is_void(number)).count() as u64;
    let voids =
        void.iter().map(|(first, len)| (first + len).min(end + 1).saturating_sub((*first).max(begin)));
    let all = (end + 1).saturating_sub(begin);
    Loss {
        kept: jobs.len() as u64,
        lost_at_most: all.saturating_sub(there + voids.sum::<u64>()),
        has_gaps: false,
        is_end_unknown: numbers.next.is_none() && !numbers.is_end_known,
    }
}

/// Writes what is whole into a new file, which gives no number away again.
fn write_salvaged(
    file: &Log,
    frames: &Frames,
    jobs: &BTreeMap<u64, &Found>,
    numbers: &Numbers,
) -> Result<(), redb::Error> {
    let voids: Vec<_> = voids(frames).collect::<BTreeSet<_>>().into_iter().collect();
    file.note_voids(&voids)?;
    let mut records = Records::default();
    let first = numbers.first.or_else(|| jobs.keys().next().copied());
    if let Some(first) = first {
        records.reach(first, numbers.last());
    }
    for found in jobs.values() {
        let Header { kind, numbers: (number, time), .. } = found.header;
        let unreadable = || redb::Error::Corrupted(format!("job {number} can't be read any more"));
        let content = frames.read(found).ok_or_else(unreadable)?;
        if records.len() + content.len() > BATCH_LIMIT_BYTES {
            file.append(std::mem::take(&mut records))?;
        }
        records.job(kind, number, time, &content);
    }
    Ok(file.append(records)?)
}
