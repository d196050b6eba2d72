//! The embedded queue: redb files in one folder, one writer with group commit, an fsync before every receipt.
//!
//! On disk: `jobs-000001.redb`, `jobs-000002.redb`, … Each holds one table from a job's number (1, 2, 3 … over all
//! files) to its document. Jobs are appended to the last file only. A new file is begun after a failed fsync, because
//! the kernel may then have dropped pages that a later, successful fsync of the same file won't write again; the old
//! file is still read. Numbers may have gaps, and are never used twice.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableError,
};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::lane::{Append, Lane, Waiting, lane, refuse};
use super::{Entry, Health, PAGE_LIMIT_BYTES, Page, QueueError, ReadError, ReadRequest};

const JOBS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("jobs");

/// redb's page cache. Its own default is 1 GiB; a queue writes at the end and reads forward, so little is enough.
const CACHE_BYTES: usize = 8 << 20;

/// How long a broken file rests before it is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

/// Opens or creates one file. Tests put a disk that fails in its place.
pub type OpenFile = Arc<dyn Fn(&Path) -> Result<Database, DatabaseError> + Send + Sync>;

/// The embedded queue.
#[derive(Debug)]
pub struct Embedded {
    lane: Lane,
    files: Arc<Files>,
    last: watch::Receiver<u64>,
    health: watch::Receiver<Health>,
}

/// The writer: takes what is waiting, commits it, and settles it.
pub struct EmbeddedWriter {
    waiting: Waiting,
    folder: PathBuf,
    open: OpenFile,
    files: Arc<Files>,
    generation: u32,
    last: watch::Sender<u64>,
    health: watch::Sender<Health>,
}

/// Why the embedded queue can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the folder.
    #[error(
        "another gateway is using the queue in {folder}; stop it, or give this one a folder of its own \
         (RETRIEVE_QUEUE=embedded:./other)"
    )]
    InUse {
        /// The queue's folder.
        folder: PathBuf,
    },
    /// The folder can't be made or read.
    #[error("the queue's folder {folder} can't be used: {source}")]
    Folder {
        /// The queue's folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file can't be opened.
    #[error("the queue's file {path} can't be opened: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// What redb said.
        message: String,
    },
}

/// The open files, oldest first; None while a broken one is being opened again.
struct Files {
    open: RwLock<Option<Vec<Arc<Database>>>>,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Files")
    }
}

/// Opens a file on this machine's disk. redb locks it against a second process.
pub fn open_on_disk() -> OpenFile {
    Arc::new(|path| Database::builder().set_cache_size(CACHE_BYTES).create(path))
}

impl Embedded {
    /// Opens the queue in a folder, which is made if it is missing (readable by its owner alone).
    ///
    /// # Errors
    /// Another gateway has the folder, or it can't be read or written.
    pub fn open(folder: &Path, open: OpenFile) -> Result<(Embedded, EmbeddedWriter), OpenError> {
        let failed = |source| OpenError::Folder { folder: folder.to_owned(), source };
        create_folder(folder).map_err(failed)?;
        let mut generations = generations(folder).map_err(failed)?;
        if generations.is_empty() {
            generations.push(1);
        }
        let files = open_all(folder, &generations, &open)?;
        sync_folder(folder).map_err(failed)?;
        let last = last_number(&files)
            .map_err(|error| OpenError::File { path: folder.to_owned(), message: error.to_string() })?;
        info!(folder = %folder.display(), jobs = last, "embedded queue open");
        let (lane, waiting) = lane();
        let (last_sender, last) = watch::channel(last);
        let (health_sender, health) = watch::channel(Health::Up);
        let files = Arc::new(Files { open: RwLock::new(Some(files)) });
        let writer = EmbeddedWriter {
            waiting,
            folder: folder.to_owned(),
            open,
            files: Arc::clone(&files),
            generation: generations.last().copied().unwrap_or(1),
            last: last_sender,
            health: health_sender,
        };
        Ok((Embedded { lane, files, last, health }, writer))
    }

    pub(super) fn lane(&self) -> &Lane {
        &self.lane
    }

    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    pub(super) async fn read(&self, request: ReadRequest) -> Result<Page, ReadError> {
        let mut last = self.last.clone();
        let after = match &request.after {
            Some(text) => text.parse().map_err(|_| ReadError::Position(text.clone()))?,
            None => *last.borrow_and_update(),
        };
        // A time-out is no error: the page is empty then. Nor is the writer's end: what it wrote can be read.
        let _ = tokio::time::timeout(request.wait, last.wait_for(|last| *last > after)).await;
        let files = Arc::clone(&self.files);
        tokio::task::spawn_blocking(move || files.page(after, request.limit))
            .await
            .map_err(|error| ReadError::Unavailable(error.to_string()))?
    }
}

impl Files {
    fn page(&self, after: u64, limit: usize) -> Result<Page, ReadError> {
        let files = self.open.read().unwrap_or_else(PoisonError::into_inner).clone();
        let files =
            files.ok_or_else(|| ReadError::Unavailable("its file is being opened again".to_owned()))?;
        let mut page = Page { entries: Vec::new(), last: after.to_string() };
        let mut bytes = 0;
        for file in &files {
            add_jobs(file, after, limit, &mut bytes, &mut page)
                .map_err(|error| ReadError::Unavailable(error.to_string()))?;
        }
        if let Some(entry) = page.entries.last() {
            page.last.clone_from(&entry.position);
        }
        Ok(page)
    }

    fn replace(&self, files: Option<Vec<Arc<Database>>>) {
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = files;
    }

    fn active(&self) -> Option<Arc<Database>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).as_ref()?.last().cloned()
    }
}

fn add_jobs(
    file: &Database,
    after: u64,
    limit: usize,
    bytes: &mut usize,
    page: &mut Page,
) -> Result<(), redb::Error> {
    let table = match file.begin_read()?.open_table(JOBS) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
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

impl EmbeddedWriter {
    /// Commits batches until the lane is closed and empty. Blocks its thread; `runtime` drives the waiting.
    pub fn run(mut self, runtime: &Handle) {
        let mut number = *self.last.borrow();
        while let Some(batch) = runtime.block_on(self.waiting.batch()) {
            let first = number + 1;
            number += batch.len() as u64;
            match self.commit(&batch, first) {
                Ok(()) => {
                    self.last.send_replace(number);
                    batch.into_iter().for_each(|append| append.settle(Ok(())));
                }
                Err(error) => {
                    self.fail(batch, &error);
                    if !self.recover(runtime, !is_disk_full(&error)) {
                        return;
                    }
                }
            }
        }
    }

    /// One transaction; redb returns from `commit` after its fsync (`Durability::Immediate`, its default).
    fn commit(&self, batch: &[Append], first: u64) -> Result<(), redb::Error> {
        let file = self.files.active().ok_or(redb::Error::DatabaseClosed)?;
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

    fn fail(&self, batch: Vec<Append>, error: &redb::Error) {
        error!(%error, jobs = batch.len(), "the embedded queue couldn't commit; its jobs were answered 503");
        self.health.send_replace(Health::Down(error.to_string()));
        // A full disk is met before the commit is sealed; after any other error the batch may or may not be there.
        let answer = if is_disk_full(error) {
            QueueError::Unavailable("the disk is full".to_owned())
        } else {
            QueueError::Unconfirmed
        };
        refuse(batch, &answer);
    }

    /// Opens the files again, in a new generation if the last one can't be trusted; refuses what comes meanwhile.
    /// False if the lane closed first.
    fn recover(&mut self, runtime: &Handle, mut new_generation: bool) -> bool {
        self.files.replace(None);
        loop {
            let refusal =
                QueueError::Unavailable("the embedded queue's file is being opened again".to_owned());
            let rest = runtime.block_on(async {
                let rest = tokio::time::sleep(REOPEN_PAUSE);
                tokio::pin!(rest);
                loop {
                    tokio::select! {
                        () = &mut rest => return true,
                        batch = self.waiting.batch() => match batch {
                            Some(batch) => refuse(batch, &refusal),
                            None => return false,
                        },
                    }
                }
            });
            if !rest {
                return false;
            }
            match self.reopen(new_generation) {
                Ok(()) => {
                    info!(generation = self.generation, "the embedded queue takes jobs again");
                    self.health.send_replace(Health::Up);
                    return true;
                }
                Err(error) => {
                    warn!(%error, "the embedded queue can't be opened again yet");
                    self.health.send_replace(Health::Down(error.to_string()));
                    // The new generation's file may exist by now; the next try opens what is there.
                    new_generation &= !self.folder.join(file_name(self.generation + 1)).exists();
                }
            }
        }
    }

    fn reopen(&mut self, new_generation: bool) -> Result<(), OpenError> {
        let failed = |source| OpenError::Folder { folder: self.folder.clone(), source };
        let mut generations = generations(&self.folder).map_err(failed)?;
        if new_generation || generations.is_empty() {
            generations.push(generations.last().copied().unwrap_or(self.generation) + 1);
        }
        let files = open_all(&self.folder, &generations, &self.open)?;
        sync_folder(&self.folder).map_err(failed)?;
        self.generation = generations.last().copied().unwrap_or(1);
        self.files.replace(Some(files));
        Ok(())
    }
}

fn is_disk_full(error: &redb::Error) -> bool {
    let redb::Error::Io(error) = error else { return false };
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn file_name(generation: u32) -> String {
    format!("jobs-{generation:06}.redb")
}

/// The generations in the folder, oldest first.
fn generations(folder: &Path) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix("jobs-")?.strip_suffix(".redb"));
        found.extend(digits.and_then(|digits| digits.parse::<u32>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

fn open_all(folder: &Path, generations: &[u32], open: &OpenFile) -> Result<Vec<Arc<Database>>, OpenError> {
    let open_one = |generation: &u32| {
        let path = folder.join(file_name(*generation));
        open(&path).map(Arc::new).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { folder: folder.to_owned() },
            error => OpenError::File { path, message: error.to_string() },
        })
    };
    generations.iter().map(open_one).collect()
}

fn last_number(files: &[Arc<Database>]) -> Result<u64, redb::Error> {
    let mut last = 0;
    for file in files {
        match file.begin_read()?.open_table(JOBS) {
            Ok(table) => last = last.max(table.last()?.map_or(0, |(number, _)| number.value())),
            Err(TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(last)
}

/// Jobs hold what customers ordered, so nobody but the owner may look into the folder.
fn create_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// A new file survives a crash only once its folder is on disk, too.
fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

impl From<StorageError> for ReadError {
    fn from(error: StorageError) -> Self {
        ReadError::Unavailable(error.to_string())
    }
}
