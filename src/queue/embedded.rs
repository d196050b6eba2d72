//! The embedded queue: redb files in one folder, one writer with group commit, an fsync before every receipt.
//!
//! On disk: `jobs-000001.redb`, `jobs-000002.redb`, … Each holds the table `jobs` from a job's number (1, 2, 3 … over
//! all files) to its document, and in the table `meta` the number that it begins with. Jobs are appended to the last
//! file only. After any failure a new file is begun, because the kernel may have dropped pages that a later, successful
//! fsync of the same file won't write again; the old one is still read. A file gets its name only when it is complete
//! and on disk (`….redb.new` before), so a crash while it is made leaves nothing that could be taken for a queue.
//! Numbers may have gaps, and are never used twice.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::lane::{Append, BATCH_LIMIT_BYTES, Lane, Waiting, lane, refuse};
use super::{Entry, Health, PAGE_LIMIT_BYTES, Page, QueueError, ReadError, ReadRequest};

const JOBS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("jobs");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FIRST: &str = "first";

/// Filler that a new file is given and relieved of: it proves that there is room for a batch, and keeps it.
const SPARE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("spare");

/// redb's page cache. Its own default is 1 GiB; a queue writes at the end and reads forward, so little is enough.
const CACHE_BYTES: usize = 8 << 20;

/// The pause between two attempts to begin a new file.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

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

/// The files: the last one takes jobs, the older ones are read.
struct Files {
    folder: PathBuf,
    open: OpenFile,
    state: RwLock<State>,
    opening: Mutex<()>,
}

#[derive(Clone)]
struct State {
    /// Oldest first; None for one that couldn't be opened (yet).
    older: Vec<(u32, Option<Arc<Database>>)>,
    /// None while a new file can't be made.
    active: Option<(u32, Arc<Database>)>,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("folder", &self.folder).finish_non_exhaustive()
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
        let files = Files {
            folder: folder.to_owned(),
            open,
            state: RwLock::new(State { older: Vec::new(), active: None }),
            opening: Mutex::new(()),
        };
        let (generation, active) = match generations.pop() {
            None => (1, files.create(1, 1)?),
            Some(last) => (last, files.open_existing(last)?),
        };
        let last = last_number(&active).map_err(|error| files.file_error(generation, &error))?;
        files.update(|state| {
            state.older = generations.iter().map(|generation| (*generation, None)).collect();
            state.active = Some((generation, active));
        });
        if let Err(error @ OpenError::InUse { .. }) = files.open_older() {
            return Err(error);
        }
        info!(folder = %folder.display(), jobs = last, "embedded queue open");
        let (lane, waiting) = lane();
        let (last_sender, last) = watch::channel(last);
        let (health_sender, health) = watch::channel(Health::Up);
        let files = Arc::new(files);
        let writer = EmbeddedWriter {
            waiting,
            files: Arc::clone(&files),
            generation,
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
        let unavailable = |error: &dyn fmt::Display| ReadError::Unavailable(error.to_string());
        self.open_older().map_err(|error| unavailable(&error))?;
        let State { older, active } = self.state();
        let (_, active) = active.ok_or_else(|| unavailable(&"no file can be written at the moment"))?;
        let mut page = Page { entries: Vec::new(), last: after.to_string() };
        let mut bytes = 0;
        for file in older.into_iter().filter_map(|(_, file)| file).chain([active]) {
            add_jobs(&file, after, limit, &mut bytes, &mut page).map_err(|error| unavailable(&error))?;
        }
        if let Some(entry) = page.entries.last() {
            page.last.clone_from(&entry.position);
        }
        Ok(page)
    }

    /// Opens the older files that aren't open. One that can't be read holds up reading, for jobs come in order, but
    /// never the taking of new ones: a repair may take long, and happens outside the state's lock.
    fn open_older(&self) -> Result<(), OpenError> {
        let _one_at_a_time = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        for (generation, _) in self.state().older.into_iter().filter(|(_, file)| file.is_none()) {
            let file = self.open_existing(generation).inspect_err(|error| {
                error!(%error, "a file of the embedded queue can't be read");
            })?;
            self.update(|state| {
                let slot = state.older.iter_mut().find(|(other, _)| *other == generation);
                slot.into_iter().for_each(|(_, slot)| *slot = Some(Arc::clone(&file)));
            });
        }
        Ok(())
    }

    /// Makes a new, empty file whose numbers begin with `first`.
    fn create(&self, generation: u32, first: u64) -> Result<Arc<Database>, OpenError> {
        let path = self.path(generation);
        let unfinished = path.with_extension("redb.new");
        let failed = |source| OpenError::Folder { folder: self.folder.clone(), source };
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let file = self.open_path(&unfinished)?;
        prepare(&file, first).map_err(|error| self.file_error(generation, &error))?;
        fs::rename(&unfinished, &path).map_err(failed)?;
        sync_folder(&self.folder).map_err(failed)?;
        Ok(file)
    }

    /// What a crash left in the page cache may not be what the disk holds (a page whose write failed counts as
    /// written), so the cache is dropped and the file is judged by the disk.
    fn open_existing(&self, generation: u32) -> Result<Arc<Database>, OpenError> {
        let path = self.path(generation);
        let dropped = fs::File::open(&path).and_then(|file| {
            file.sync_data()?;
            Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
        });
        dropped.map_err(|error| self.file_error(generation, &error))?;
        self.open_path(&path)
    }

    fn open_path(&self, path: &Path) -> Result<Arc<Database>, OpenError> {
        (self.open)(path).map(Arc::new).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { folder: self.folder.clone() },
            error => OpenError::File { path: path.to_owned(), message: error.to_string() },
        })
    }

    fn file_error(&self, generation: u32, error: &dyn fmt::Display) -> OpenError {
        OpenError::File { path: self.path(generation), message: error.to_string() }
    }

    fn path(&self, generation: u32) -> PathBuf {
        self.folder.join(format!("jobs-{generation:06}.redb"))
    }

    fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes the active file out of use; it will be opened anew to be read.
    fn retire_active(&self) {
        self.update(|state| {
            let retired = state.active.take().map(|(generation, _)| (generation, None));
            state.older.extend(retired);
        });
    }
}

/// Fills and empties the spare room, and writes down where the numbers begin; each commit is an fsync.
fn prepare(file: &Database, first: u64) -> Result<(), redb::Error> {
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

fn add_jobs(
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
                    if !self.recover(runtime, number + 1) {
                        return;
                    }
                }
            }
        }
    }

    /// One transaction; redb returns from `commit` after its fsync (`Durability::Immediate`, its default).
    fn commit(&self, batch: &[Append], first: u64) -> Result<(), redb::Error> {
        let (_, file) = self.files.state().active.ok_or(redb::Error::DatabaseClosed)?;
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

    /// The batch may or may not be in the file.
    fn fail(&self, batch: Vec<Append>, error: &redb::Error) {
        error!(%error, jobs = batch.len(), "the embedded queue couldn't commit; its jobs were answered 503");
        self.health.send_replace(Health::Down(error.to_string()));
        refuse(batch, &QueueError::Unconfirmed);
    }

    /// Begins a new file as soon as one can be written; refuses what comes meanwhile. False if the lane closed first.
    fn recover(&mut self, runtime: &Handle, first: u64) -> bool {
        self.files.retire_active();
        loop {
            match self.files.create(self.generation + 1, first) {
                Ok(file) => {
                    self.generation += 1;
                    self.files.update(|state| state.active = Some((self.generation, file)));
                    info!(generation = self.generation, "the embedded queue takes jobs again, in a new file");
                    self.health.send_replace(Health::Up);
                    return true;
                }
                Err(error) => {
                    warn!(%error, "a new file for the embedded queue can't be made yet");
                    self.health.send_replace(Health::Down(error.to_string()));
                }
            }
            if !self.refuse_for(runtime, RETRY_PAUSE) {
                return false;
            }
        }
    }

    fn refuse_for(&mut self, runtime: &Handle, pause: Duration) -> bool {
        let refusal = QueueError::Unavailable("the embedded queue can't write to its disk".to_owned());
        runtime.block_on(async {
            let rest = tokio::time::sleep(pause);
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
        })
    }
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

/// The last number that is taken. The one that a file begins with counts as well: the numbers below it were given
/// away in older files.
fn last_number(file: &Database) -> Result<u64, redb::Error> {
    let transaction = file.begin_read()?;
    let first = transaction.open_table(META)?.get(FIRST)?.map_or(1, |first| first.value());
    let last = transaction.open_table(JOBS)?.last()?.map_or(0, |(number, _)| number.value());
    Ok(last.max(first.saturating_sub(1)))
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
