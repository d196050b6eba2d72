//! A folder that one process alone uses, and why it, or a file in it, can't be used.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The folder's lock. The file stays when the process ends; the lock doesn't.
const LOCK: &str = "lock";

/// A process that is just ending, or a child on its way to `exec`, may hold the lock for a moment longer.
const LOCK_TRIES: usize = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Why a folder or a file of it can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the folder.
    #[error(
        "another gateway is using the folder {folder}; stop it, or give this one a folder of its own \
         (RETRIEVE_QUEUE=embedded:./other; with Redis RETRIEVE_DATA_DIR=./other)"
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder can't be made, locked, read or written.
    #[error("the queue's folder {folder} can't be used: {source}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file can't be opened or made.
    #[error("the queue's file {path} can't be opened: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The disk fails.
    #[error("the disk fails under the queue's file {path}: {message}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system said.
        message: String,
    },
    /// The last commit isn't whole.
    #[error("the last commit to the queue's file {path} isn't whole")]
    CutOff {
        /// The file.
        path: PathBuf,
    },
    /// A file's content isn't what was written.
    #[error("the queue's file {path} is damaged: {message}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

/// A folder that this process alone uses, as long as this value lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: fs::File,
}

impl Folder {
    /// Makes the folder if it is missing, readable by its owner alone (jobs hold what customers ordered), and locks it.
    ///
    /// # Errors
    /// Another process has it, or it can't be made or locked.
    pub fn open(path: &Path) -> Result<Arc<Folder>, OpenError> {
        let failed = |source| OpenError::Folder { folder: path.to_owned(), source };
        create_folder(path).map_err(failed)?;
        let file = fs::File::options().create(true).truncate(false).write(true).open(path.join(LOCK));
        let file = file.map_err(failed)?;
        for _ in 0..LOCK_TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Arc::new(Folder { path: path.to_owned(), _lock: file })),
                Err(fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
                Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        Err(OpenError::InUse { folder: path.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the names in it durable: a new, renamed or removed file survives a crash only once its folder is on disk.
    ///
    /// # Errors
    /// What the system said.
    pub fn sync(&self) -> io::Result<()> {
        fs::File::open(&self.path)?.sync_all()
    }
}

/// Writes a file's pages to the disk and forgets them, so that it is read from there.
///
/// # Errors
/// What the system said.
pub fn drop_cache(path: &Path) -> io::Result<()> {
    let file = fs::File::open(path)?;
    file.sync_data()?;
    Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
}

fn create_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}
