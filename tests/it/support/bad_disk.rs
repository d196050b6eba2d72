//! A disk that can be broken at will, over the real one. The tests of the journal use this file as well.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use redb::{DatabaseError, StorageBackend};

pub const HEALTHY: u8 = 0;
pub const SYNC_FAILS: u8 = 1;
/// Nothing can be written.
pub const FULL: u8 = 2;
pub const UNREADABLE: u8 = 3;
/// Files that are there can be written, new ones can't be made.
pub const NO_NEW_FILES: u8 = 4;
/// Files that are there can be written as far as they are long, new ones can't be made.
pub const NO_ROOM: u8 = 5;

const EIO: i32 = 5;

#[derive(Debug)]
struct Disk {
    file: Box<dyn StorageBackend>,
    fault: Arc<AtomicU8>,
}

impl Disk {
    fn has(&self, fault: u8) -> bool {
        self.fault.load(Ordering::SeqCst) == fault
    }

    fn check_write(&self) -> io::Result<()> {
        if self.has(FULL) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.has(UNREADABLE) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        self.file.read(offset, out)
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        if self.has(NO_ROOM) && length > self.file.len()? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.check_write()?;
        self.file.set_len(length)
    }
    fn sync_data(&self) -> io::Result<()> {
        if self.has(SYNC_FAILS) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_write()?;
        self.file.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

type Open = Arc<dyn Fn(&Path) -> Result<Box<dyn StorageBackend>, DatabaseError> + Send + Sync>;

/// Puts that disk over another one.
pub fn on(fault: &Arc<AtomicU8>, under: Open) -> Open {
    let fault = Arc::clone(fault);
    Arc::new(move |path| {
        let is_new = path.extension().is_some_and(|extension| extension == "new");
        if is_new && [NO_NEW_FILES, NO_ROOM].contains(&fault.load(Ordering::SeqCst)) {
            return Err(io::Error::from(io::ErrorKind::StorageFull).into());
        }
        Ok(Box::new(Disk { file: under(path)?, fault: Arc::clone(&fault) }))
    })
}
