//! What lies in a file of the embedded queue: the table `jobs` from a job's number to its document, and in the table
//! `meta` the number that the file begins with.

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::queue::lane::{Append, BATCH_LIMIT_BYTES};
use crate::queue::{Entry, PAGE_LIMIT_BYTES, Page};

const JOBS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("jobs");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FIRST: &str = "first";

/// Filler that a new file is given and relieved of: it proves that there is room for a batch, and keeps it.
const SPARE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("spare");

/// Fills and empties the spare room, and writes down where the numbers begin; each commit is an fsync.
pub(super) fn prepare(file: &Database, first: u64) -> Result<(), redb::Error> {
    let transaction = file.begin_write()?;
    transaction.open_table(JOBS)?;
    transaction.open_table(META)?.insert(FIRST, first)?;
    transaction.open_table(SPARE)?.insert("filler", vec![0; BATCH_LIMIT_BYTES].as_slice())?;
    transaction.commit()?;
    let transaction = file.begin_write()?;
    transaction.open_table(SPARE)?.remove("filler")?;
    transaction.commit()?;
    Ok(())
}

pub(super) fn add_jobs(
    file: &Database,
    after: u64,
    limit: usize,
    bytes: &mut usize,
    page: &mut Page,
) -> Result<(), redb::Error> {
    let table = file.begin_read()?.open_table(JOBS)?;
    for job in table.range(after.saturating_add(1)..)? {
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

/// The last number that is taken. The one that a file begins with counts as well: the numbers below it were given
/// away in older files.
pub(super) fn last_number(file: &Database) -> Result<u64, redb::Error> {
    let transaction = file.begin_read()?;
    let first = transaction.open_table(META)?.get(FIRST)?.map_or(1, |first| first.value());
    let last = transaction.open_table(JOBS)?.last()?.map_or(0, |(number, _)| number.value());
    Ok(last.max(first.saturating_sub(1)))
}

/// One transaction; redb returns from `commit` after its fsync (`Durability::Immediate`, its default).
pub(super) fn commit(file: &Database, batch: &[Append], first: u64) -> Result<(), redb::Error> {
    let transaction = file.begin_write()?;
    {
        let mut table = transaction.open_table(JOBS)?;
        for (number, append) in (first..).zip(batch) {
            table.insert(number, append.document().as_ref())?;
        }
    }
    transaction.commit()?;
    Ok(())
}
