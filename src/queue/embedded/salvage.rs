//! What is read of a damaged file of the embedded queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::log::{Log, Records, first_number};
use crate::queue::files::{Loss, Salvage};
use crate::queue::frame::{Found, Frames, Kind};

/// So much is written at once.
const BATCH_BYTES: usize = 1 << 20;

/// Writes what a damaged file still has into a new one. Jobs that were acknowledged don't count as lost.
pub(super) fn salvage(acknowledged: u64) -> Salvage<Log> {
    Arc::new(move |frames, newer, file| {
        let jobs = whole_jobs(frames);
        let ends: Vec<_> =
            frames.of(Kind::End).filter_map(|found| Some((found, frames.read(found)?))).collect();
        let noted =
            ends.iter().filter_map(|(_, content)| first_number(content)).filter(|first| *first > 0).min();
        write_salvaged(file, frames, &jobs, noted, acknowledged)?;
        // The last batch changed one of the two notes.
        let end = (ends.len() == 2).then(|| ends.iter().map(|(end, _)| end.header.numbers.0).max()).flatten();
        Ok(loss(frames, &jobs, newer, acknowledged, noted, end))
    })
}

fn voids(frames: &Frames) -> impl Iterator<Item = (u64, u64)> {
    frames.of(Kind::Void).map(|found| found.header.numbers)
}

/// The jobs by number. What a crash cut off may have had a number that was given to another job after it.
fn whole_jobs(frames: &Frames) -> BTreeMap<u64, &Found> {
    let mut jobs: BTreeMap<u64, &Found> = BTreeMap::new();
    for found in frames.of(Kind::Job) {
        let (number, time) = found.header.numbers;
        if jobs.get(&number).is_none_or(|other| other.header.numbers.1 <= time) {
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
    first: Option<u64>,
    noted_end: Option<u64>,
) -> Loss {
    let damaged = frames.damaged.iter().filter(|header| header.kind == Kind::Job);
    let known = jobs.keys().copied().chain(damaged.map(|header| header.numbers.0)).chain(noted_end);
    let highest = known.max().unwrap_or(0);
    let mut next = None;
    let mut void: BTreeSet<(u64, u64)> = voids(frames).collect();
    for file in newer {
        next = next.or(file.first_number());
        void.extend(file.voids());
    }
    // Without the number that the file begins with, some of what is counted may lie in older files.
    let begin = first.unwrap_or(0).max(acknowledged + 1);
    let end = next.map_or(highest, |next| highest.max(next - 1));
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
        is_end_unknown: next.is_none() && noted_end.is_none(),
    }
}

/// Writes what is whole into a new file.
fn write_salvaged(
    file: &Log,
    frames: &Frames,
    jobs: &BTreeMap<u64, &Found>,
    first: Option<u64>,
    acknowledged: u64,
) -> Result<(), redb::Error> {
    let voids: Vec<_> = voids(frames).collect::<BTreeSet<_>>().into_iter().collect();
    file.note_voids(&voids)?;
    let mut records = Records::default();
    if let Some(first) = first {
        records.begin(first);
    }
    // Without its job a mark would have the next delivery dropped, which is the only one then.
    let marks = frames.of(Kind::Mark);
    for found in marks
        .filter(|found| found.header.numbers.1 <= acknowledged || jobs.contains_key(&found.header.numbers.1))
    {
        let (until, number) = found.header.numbers;
        frames.read(found).iter().for_each(|content| records.mark(number, until, content));
    }
    for found in jobs.values() {
        let (number, time) = found.header.numbers;
        let Some(document) = frames.read(found) else { continue };
        if records.len() + document.len() > BATCH_BYTES {
            file.append(std::mem::take(&mut records))?;
        }
        records.job(number, time, &document);
    }
    Ok(file.append(records)?)
}
