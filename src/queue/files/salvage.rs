//! What becomes of a damaged file: its records are read one by one, what is whole goes into a new file in its place, and
//! the damaged one is kept under another name.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use crate::queue::frame::Frames;

/// Writes what a damaged file still has into a new one, given the newer files that are open. What is lost.
pub type Salvage<F> = Arc<dyn Fn(&Frames, &[Arc<F>], &F) -> Result<Loss, redb::Error> + Send + Sync>;

/// What a damaged file doesn't give any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Jobs or batches that were read.
    pub kept: u64,
    /// Jobs or batches that are missing, as far as that can be told: some may never have been there.
    pub lost_at_most: u64,
    /// Whether something is missing that is counted elsewhere.
    pub has_gaps: bool,
    /// Whether more may have come behind the last one that is known of.
    pub is_end_unknown: bool,
}

/// Runs what touches a file that may be damaged: redb may panic over one, which is an error like any other here.
///
/// # Errors
/// Those of `work`, and a panic in it.
pub fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(panic) => Err(redb::Error::Corrupted(words_of(panic.as_ref()))),
    }
}

/// What a panic says.
pub fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("a panic: {}", words.unwrap_or("without words"))
}

/// Puts a file in another one's place, which gets another name. At no moment is neither of them there.
pub fn replace(path: &Path, aside: &Path, by: &Path) -> io::Result<()> {
    fs::hard_link(path, aside)?;
    fs::rename(by, path)
}
