//! The disk under a redb file, and room on it that is written ahead.
//!
//! A write to blocks that were never written changes what the file system notes of the file, so the fsync behind it writes
//! that as well, one piece behind the other: on ext4 it takes twice as long, and twice the time of the processor, as one
//! of blocks that were written before. So a file that is made ahead is filled with zeros behind what redb has of it. redb
//! then grows into it, and where it would give room back it keeps it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::StorageBackend;
use rustix::fs::{FallocateFlags, OFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

/// So much is written at once: the fsync of a batch that comes meanwhile waits for no more.
const FILL_BYTES: usize = 256 << 10;

/// Where a piece lies in memory, so that the disk can read it from there.
const ALIGNMENT: usize = 4096;

/// A file that never becomes shorter.
#[derive(Debug)]
pub struct Disk {
    file: Box<dyn StorageBackend>,
    /// How long redb knows it to be. Behind that lies the room. redb must see it grow when it makes it longer: it takes
    /// anything else for a file that shrinks, and panics if pages are being written.
    length: AtomicU64,
}

impl Disk {
    /// Over a file as it lies there: redb takes one that is longer than it left it for one whose rest is free.
    ///
    /// # Errors
    /// The file doesn't say how long it is.
    pub fn over(file: Box<dyn StorageBackend>) -> io::Result<Disk> {
        let length = AtomicU64::new(file.len()?);
        Ok(Disk { file, length })
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.length.load(Ordering::Acquire))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        if length > self.file.len()? {
            self.file.set_len(length)?;
        }
        self.length.store(length, Ordering::Release);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// Has the disk keep room for all of a file's length: redb leaves holes in it, which a full disk wouldn't fill. Where
/// `room_bytes` are more than that and the disk has them, the file gets as long and zeros are written wherever nothing was;
/// without them it is slower and nothing else. Nobody may write to the file meanwhile.
///
/// # Errors
/// The disk is full, or fails.
pub fn take_room(path: &Path, room_bytes: u64) -> io::Result<()> {
    let file = fs::File::options().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    if room_bytes > length {
        match allocate(&file, room_bytes) {
            Ok(()) => return fill_holes(&file, path),
            Err(_) => file.set_len(length)?,
        }
    }
    allocate(&file, length)
}

fn allocate(file: &fs::File, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        // Not every file system can.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        result => Ok(result?),
    }
}

/// Writes zeros wherever nothing was, past the page cache: that takes half of the processor's time, and each piece waits for
/// the disk alone, not for the file system to note it.
fn fill_holes(file: &fs::File, path: &Path) -> io::Result<()> {
    let flags = OFlags::DIRECT.bits().cast_signed();
    let direct = fs::File::options().write(true).custom_flags(flags).open(path);
    match direct.and_then(|file| fill(&file)) {
        // Not every file system can, and none can for pieces that aren't whole blocks of the disk.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => fill(file),
        result => result,
    }
}

fn fill(file: &fs::File) -> io::Result<()> {
    let room = vec![0; FILL_BYTES + ALIGNMENT];
    let zeros = &room[room.as_ptr().align_offset(ALIGNMENT)..][..FILL_BYTES];
    let mut at = 0;
    while let Some((begin, end)) = next_hole(file, at)? {
        let piece = usize::try_from(end - begin).map_or(FILL_BYTES, |rest| rest.min(FILL_BYTES));
        file.write_all_at(&zeros[..piece], begin)?;
        at = begin + piece as u64;
    }
    file.sync_data()
}

/// Where the next part lies that was never written. None if there is none, or the file system can't tell.
fn next_hole(file: &fs::File, from: u64) -> io::Result<Option<(u64, u64)>> {
    let end = file.metadata()?.len();
    let begin = match seek(file, SeekFrom::Hole(from)) {
        Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
        result => result?,
    };
    // A file's end counts as a hole.
    if begin >= end {
        return Ok(None);
    }
    match seek(file, SeekFrom::Data(begin)) {
        Err(Errno::NXIO) => Ok(Some((begin, end))),
        result => Ok(Some((begin, result?))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use redb::{Database, ReadableDatabase, TableDefinition};
    use tempfile::TempDir;

    use super::*;
    use crate::queue::files::{LastCommit, builder, open_on_disk};

    const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("table");
    const ROOM_BYTES: u64 = 6 << 20;

    fn open(path: &Path) -> Database {
        let disk = Disk::over(open_on_disk()(path).unwrap()).unwrap();
        builder(LastCommit::Counts).create_with_backend(disk).unwrap()
    }

    /// A file with one value.
    fn begin() -> (TempDir, PathBuf, Database) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.redb");
        let file = open(&path);
        put(&file, 0, b"first");
        (folder, path, file)
    }

    fn put(file: &Database, key: u64, value: &[u8]) {
        let transaction = file.begin_write().unwrap();
        transaction.open_table(TABLE).unwrap().insert(key, value).unwrap();
        transaction.commit().unwrap();
    }

    fn values(file: &Database) -> Vec<(u64, Vec<u8>)> {
        let table = file.begin_read().unwrap().open_table(TABLE).unwrap();
        let all = table.range::<u64>(..).unwrap().map(Result::unwrap);
        all.map(|(key, value)| (key.value(), value.value().to_vec())).collect()
    }

    /// Whether the disk has something of its own for each block.
    fn is_written(path: &Path) -> bool {
        next_hole(&fs::File::open(path).unwrap(), 0).unwrap().is_none()
    }

    #[test]
    fn room_that_is_written_ahead_stays_and_is_used_and_a_crash_in_between_loses_nothing() {
        let (folder, path, file) = begin();
        assert!(!is_written(&path), "redb leaves holes");

        take_room(&path, ROOM_BYTES).unwrap();

        let length = || fs::metadata(&path).unwrap().len();
        assert_eq!((length(), is_written(&path)), (ROOM_BYTES, true));
        assert_eq!(values(&file), [(0, b"first".to_vec())], "what was there is there");
        let mut expected = vec![(0, b"first".to_vec())];
        // Larger ones and smaller ones again, so that redb grows and would shrink.
        for key in 1..60_u64 {
            let value = vec![u8::try_from(key).unwrap(); if key < 30 { 65_000 } else { 100 }];
            put(&file, key, &value);
            expected.push((key, value));
            // A copy is what a crash leaves: nobody closed it.
            if key % 10 == 0 {
                let copy = folder.path().join(format!("copy-{key}.redb"));
                fs::copy(&path, &copy).unwrap();
                assert_eq!(values(&open(&copy)), expected, "after {key}");
            }
        }
        assert_eq!((length(), is_written(&path)), (ROOM_BYTES, true), "it lies in the room, which is kept");
        drop(file);
        let file = open(&path);
        assert_eq!(values(&file), expected);
        put(&file, 60, &vec![60; 8 << 20]);
        assert!(length() > ROOM_BYTES, "beyond the room it grows");
        drop(file);
        assert_eq!(values(&open(&path)).len(), 61);
    }

    /// redb asked the file for its length, and took growing into the room for shrinking.
    #[test]
    fn redb_grows_into_the_room_while_pages_are_being_written() {
        let (_folder, path, file) = begin();
        take_room(&path, ROOM_BYTES).unwrap();
        let transaction = file.begin_write().unwrap();
        {
            let mut table = transaction.open_table(TABLE).unwrap();
            let mut other = transaction.open_table(TableDefinition::<u64, &[u8]>::new("other")).unwrap();
            let mut page = table.insert_reserve(1, 100).unwrap();
            for key in 0..4 {
                other.insert(key, vec![1; 1 << 20].as_slice()).unwrap();
            }
            page.as_mut().fill(7);
        }
        transaction.commit().unwrap();
        drop(file);
        assert_eq!(values(&open(&path))[1], (1, vec![7; 100]));
    }

    #[test]
    fn a_file_without_room_stays_as_it_is() {
        let (_folder, path, file) = begin();
        let length = fs::metadata(&path).unwrap().len();
        // No disk has so much.
        take_room(&path, 1 << 50).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), length);
        put(&file, 1, b"second");
        drop(file);
        assert_eq!(values(&open(&path)).len(), 2);
    }
}
