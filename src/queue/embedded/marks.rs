//! What deliveries are known by, so that their repeats are dropped, in a file of the embedded queue.
//!
//! | table | key | value |
//! |---|---|---|
//! | `seen` | what repeats of a delivery have in common | a record: the first job's id, and until when repeats are dropped (Unix milliseconds) |
//! | `meta` | `seen_until` | when the last of the marks ends |

use std::ops::Bound;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use uuid::Uuid;

use super::table::META;
use crate::queue::files::open_if_there;
use crate::queue::frame::{self, Kind};
use crate::queue::lane::Append;

pub(super) const SEEN: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("seen");
const SEEN_UNTIL: &str = "seen_until";

/// Marks what was never seen, and finds what was. A batch that asks for none of that touches no table.
pub(super) fn mark(
    transaction: &WriteTransaction,
    older: &[Arc<Database>],
    batch: &[Append],
    now: u64,
) -> Result<Vec<Option<Uuid>>, redb::Error> {
    if batch.iter().all(|append| append.dedupe().is_none()) {
        return Ok(vec![None; batch.len()]);
    }
    let mut seen = transaction.open_table(SEEN)?;
    let mut latest = 0;
    let mut repeats = Vec::with_capacity(batch.len());
    for append in batch {
        let Some(dedupe) = append.dedupe() else {
            repeats.push(None);
            continue;
        };
        let key = dedupe.key.as_str();
        let here = seen.get(key)?.and_then(|mark| decode_mark(mark.value(), key));
        let mut first = here.filter(|(_, until)| *until > now);
        for file in older.iter().rev() {
            first = match first {
                Some(first) => Some(first),
                None => find_mark(file, key)?.filter(|(_, until)| *until > now),
            };
        }
        repeats.push(first.map(|(job, _)| Uuid::from_u128(job)));
        if first.is_none() {
            let within = u64::try_from(dedupe.within.as_millis()).unwrap_or(u64::MAX);
            let until = now.saturating_add(within);
            latest = latest.max(until);
            seen.insert(key, encode_mark(append.id().as_u128(), until, key).as_slice())?;
        }
    }
    note_latest(transaction, latest)?;
    Ok(repeats)
}

fn encode_mark(job: u128, until: u64, key: &str) -> Vec<u8> {
    frame::encode(Kind::Mark, (until, 0), &[&job.to_le_bytes(), key.as_bytes()].concat())
}

/// None if it is damaged, or that of another delivery.
pub(super) fn decode_mark(encoded: &[u8], key: &str) -> Option<(u128, u64)> {
    let ((until, _), content) = frame::decode(encoded, Kind::Mark)?;
    let (job, of) = content.split_first_chunk()?;
    (of == key.as_bytes()).then(|| (u128::from_le_bytes(*job), until))
}

pub(super) fn note_latest(transaction: &WriteTransaction, latest: u64) -> Result<(), redb::Error> {
    let mut meta = transaction.open_table(META)?;
    let before = meta.get(SEEN_UNTIL)?.map_or(0, |until| until.value());
    if latest > before {
        meta.insert(SEEN_UNTIL, latest)?;
    }
    Ok(())
}

fn find_mark(file: &Database, key: &str) -> Result<Option<(u128, u64)>, redb::Error> {
    let transaction = file.begin_read()?;
    let Some(seen) = open_if_there(&transaction, SEEN)? else { return Ok(None) };
    Ok(seen.get(key)?.and_then(|mark| decode_mark(mark.value(), key)))
}

/// When the last mark of a file ends, in Unix milliseconds; 0 if there is none.
pub(super) fn seen_until(file: &Database) -> Result<u64, redb::Error> {
    Ok(file.begin_read()?.open_table(META)?.get(SEEN_UNTIL)?.map_or(0, |until| until.value()))
}

/// Copies marks that still hold, in the order of their keys, from behind a key on. The last key that was looked at; None
/// at the end.
pub(super) fn carry_marks(
    from: &Database,
    to: &Database,
    behind: &str,
    limit: usize,
    now: u64,
) -> Result<Option<String>, redb::Error> {
    let transaction = from.begin_read()?;
    let Some(marks) = open_if_there(&transaction, SEEN)? else { return Ok(None) };
    let range = (Bound::Excluded(behind), Bound::Unbounded);
    let mut last = None;
    let mut count = 0;
    let target = to.begin_write()?;
    let mut latest = 0;
    {
        let mut seen = target.open_table(SEEN)?;
        for mark in marks.range::<&str>(range)?.take(limit) {
            let (key, value) = mark?;
            count += 1;
            last = Some(key.value().to_owned());
            let Some((_, until)) = decode_mark(value.value(), key.value()) else { continue };
            if until > now && seen.get(key.value())?.is_none() {
                seen.insert(key.value(), value.value())?;
                latest = latest.max(until);
            }
        }
    }
    note_latest(&target, latest)?;
    target.commit()?;
    Ok(last.filter(|_| count == limit))
}
