//! What is read of a damaged file of the embedded queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use redb::{Database, ReadableTable};

use super::marks::{SEEN, decode_mark, note_latest};
use super::table::{self, JOBS, Total, note_first, note_voids, prepare};
use crate::queue::files::{Loss, Salvage};
use crate::queue::frame::{self, Found, Frames, Kind};

/// Writes what a damaged file still has into a new one. Jobs that were acknowledged don't count as lost.
pub(super) fn salvage(acknowledged: u64) -> Salvage {
    Arc::new(move |frames, newer, file| {
        let jobs = whole_jobs(frames);
        let content = |found: &Found| Some((found.header.numbers, frames.read(found)?));
        let noted = frames.of(Kind::First).map(|found| found.header.numbers.0).min();
        let salvaged = Salvaged {
            first: noted.or_else(|| jobs.keys().next().copied()),
            jobs: jobs.values().filter_map(|found| content(found)),
            marks: frames.of(Kind::Mark).filter_map(content),
            voids: voids(frames).collect::<BTreeSet<_>>().into_iter().collect(),
        };
        write_salvaged(file, salvaged)?;
        loss(frames, &jobs, newer, acknowledged, noted)
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
    newer: &[Arc<Database>],
    acknowledged: u64,
    first: Option<u64>,
) -> Result<Loss, redb::Error> {
    let damaged = frames.damaged.iter().filter(|header| header.kind == Kind::Job);
    let known = jobs.keys().copied().chain(damaged.map(|header| header.numbers.0));
    let highest = known.max().unwrap_or(0);
    let mut next = None;
    let mut void: BTreeSet<(u64, u64)> = voids(frames).collect();
    for file in newer {
        next = next.or(table::first_number(file)?);
        void.extend(table::voids(file)?);
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
    Ok(Loss {
        kept: jobs.len() as u64,
        lost_at_most: all.saturating_sub(there + voids.sum::<u64>()),
        has_gaps: false,
        is_end_unknown: next.is_none(),
    })
}

/// What was read of a damaged file.
struct Salvaged<Jobs, Marks> {
    /// The number that it begins with.
    first: Option<u64>,
    /// Number and time, and the document, in order.
    jobs: Jobs,
    /// Until when it holds; the first job's id and the key.
    marks: Marks,
    /// Numbers that hold nothing: the first, and how many.
    voids: Vec<(u64, u64)>,
}

/// Writes that into a new file. Each job is a value of its own there.
fn write_salvaged(
    file: &Database,
    salvaged: Salvaged<
        impl Iterator<Item = ((u64, u64), Vec<u8>)>,
        impl Iterator<Item = ((u64, u64), Vec<u8>)>,
    >,
) -> Result<(), redb::Error> {
    prepare(file)?;
    note_voids(file, &salvaged.voids)?;
    let transaction = file.begin_write()?;
    if let Some(first) = salvaged.first {
        note_first(&transaction, first)?;
    }
    let mut total = Total::default();
    let mut latest = 0;
    {
        let mut jobs = transaction.open_table(JOBS)?;
        for ((number, time), document) in salvaged.jobs {
            let record = frame::encode(Kind::Job, (number, time), &document);
            jobs.insert(total.key_of(number), record.as_slice())?;
            total.add(document.len());
        }
        let mut seen = transaction.open_table(SEEN)?;
        for ((until, _), content) in salvaged.marks {
            let key = content.get(16..).and_then(|key| std::str::from_utf8(key).ok());
            let Some(key) = key else { continue };
            let before = seen.get(key)?.and_then(|mark| decode_mark(mark.value(), key));
            if before.is_none_or(|(_, before)| before < until) {
                seen.insert(key, frame::encode(Kind::Mark, (until, 0), &content).as_slice())?;
                latest = latest.max(until);
            }
        }
    }
    note_latest(&transaction, latest)?;
    transaction.commit()?;
    Ok(())
}
