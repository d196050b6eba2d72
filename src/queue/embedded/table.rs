//! What lies in a file of the embedded queue.
//!
//! | table | key | value |
//! |---|---|---|
//! | `jobs` | a job's number | its document |
//! | `batches` | the last number of a batch | jobs and bytes in this file up to it, and its time in Unix milliseconds |
//! | `meta` | `first` | the number that the file begins with, written with its first batch |
//!
//! A file without `first` was made ahead and never used.

use bytes::Bytes;
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction,
};

use crate::queue::lane::{Append, BATCH_LIMIT_BYTES};
use crate::queue::{Entry, PAGE_LIMIT_BYTES, Page};

const JOBS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("jobs");
const BATCHES: TableDefinition<'_, u64, (u64, u64, u64)> = TableDefinition::new("batches");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FIRST: &str = "first";

/// Filler that a new file is given and relieved of: it proves that there is room for a batch, and keeps it.
const SPARE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("spare");

/// How many jobs lie in a file, or in a part of it, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    pub(super) jobs: u64,
    pub(super) bytes: u64,
}

/// What of a file isn't acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rest {
    pub(super) total: Total,
    /// When the oldest of them was stored, in Unix milliseconds.
    pub(super) since: Option<u64>,
}

/// Makes the tables, and fills and empties the spare room; each commit is an fsync.
pub(super) fn prepare(file: &Database) -> Result<(), redb::Error> {
    let transaction = file.begin_write()?;
    transaction.open_table(JOBS)?;
    transaction.open_table(BATCHES)?;
    transaction.open_table(META)?;
    transaction.open_table(SPARE)?.insert("filler", vec![0; BATCH_LIMIT_BYTES].as_slice())?;
    transaction.commit()?;
    let transaction = file.begin_write()?;
    transaction.open_table(SPARE)?.remove("filler")?;
    transaction.commit()?;
    Ok(())
}

/// Stores a batch behind what the file holds already, in one transaction; redb returns from `commit` after its fsync
/// (`Durability::Immediate`, its default). Returns what the file holds then.
pub(super) fn commit(
    file: &Database,
    batch: &[Append],
    first: u64,
    before: Total,
    now: u64,
) -> Result<Total, redb::Error> {
    let transaction = file.begin_write()?;
    if before.jobs == 0 {
        transaction.open_table(META)?.insert(FIRST, first)?;
    }
    let after = insert(&transaction, batch, first, before)?;
    let last = first + batch.len() as u64 - 1;
    transaction.open_table(BATCHES)?.insert(last, (after.jobs, after.bytes, now))?;
    transaction.commit()?;
    Ok(after)
}

fn insert(
    transaction: &WriteTransaction,
    batch: &[Append],
    first: u64,
    mut total: Total,
) -> Result<Total, redb::Error> {
    let mut table = transaction.open_table(JOBS)?;
    for (number, append) in (first..).zip(batch) {
        table.insert(number, append.document().as_ref())?;
        total.jobs += 1;
        total.bytes += append.document().len() as u64;
    }
    Ok(total)
}

/// Adds the jobs with numbers behind `after` and up to `last`, as far as the page has room.
pub(super) fn add_jobs(
    file: &Database,
    after: u64,
    last: u64,
    limit: usize,
    bytes: &mut usize,
    page: &mut Page,
) -> Result<(), redb::Error> {
    if after >= last {
        return Ok(());
    }
    let table = file.begin_read()?.open_table(JOBS)?;
    for job in table.range(after + 1..=last)? {
        if page.entries.len() >= limit || *bytes >= PAGE_LIMIT_BYTES {
            break;
        }
        let (number, document) = job?;
        *bytes += document.value().len();
        let document = Bytes::copy_from_slice(document.value());
        page.entries.push(Entry { position: number.value().to_string(), document });
    }
    Ok(())
}

/// The number that the file begins with; None if it was never used.
pub(super) fn first_number(file: &Database) -> Result<Option<u64>, redb::Error> {
    Ok(file.begin_read()?.open_table(META)?.get(FIRST)?.map(|first| first.value()))
}

/// The last number that is taken, as far as this file knows. The one that it begins with counts as well: the numbers
/// below it were given away in older files.
pub(super) fn last_number(file: &Database) -> Result<u64, redb::Error> {
    let first = first_number(file)?.unwrap_or(0);
    let last = file.begin_read()?.open_table(JOBS)?.last()?.map_or(0, |(number, _)| number.value());
    Ok(last.max(first.saturating_sub(1)))
}

/// All that the file holds.
pub(super) fn total(file: &Database) -> Result<Total, redb::Error> {
    Ok(rest(file, 0)?.total)
}

/// What the file holds behind a number. The bytes of a batch count until all of it is acknowledged.
pub(super) fn rest(file: &Database, acknowledged: u64) -> Result<Rest, redb::Error> {
    let transaction = file.begin_read()?;
    let Some(batches) = open_batches(&transaction)? else { return Ok(Rest::default()) };
    let Some((_, last)) = batches.last()? else { return Ok(Rest::default()) };
    let (jobs, bytes, _) = last.value();
    let (done_jobs, done_bytes) = match batches.range(..=acknowledged)?.next_back().transpose()? {
        Some((_, done)) => (done.value().0, done.value().1),
        None => (0, 0),
    };
    let mut rest = Rest { total: Total { jobs: jobs - done_jobs, bytes: bytes - done_bytes }, since: None };
    if let Some((end, next)) = batches.range(acknowledged.saturating_add(1)..)?.next().transpose()? {
        let (jobs_to_end, _, time) = next.value();
        // The numbers of a batch have no gaps.
        let before_batch = end.value() - (jobs_to_end - done_jobs);
        rest.total.jobs -= acknowledged.saturating_sub(before_batch);
        rest.since = Some(time);
    }
    Ok(rest)
}

type Batches = redb::ReadOnlyTable<u64, (u64, u64, u64)>;

/// None in a file of a version that had no such table.
fn open_batches(transaction: &ReadTransaction) -> Result<Option<Batches>, redb::Error> {
    match transaction.open_table(BATCHES) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
