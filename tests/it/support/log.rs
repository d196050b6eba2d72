//! The log of a gateway in this process.

use std::io;
use std::sync::{Arc, Mutex};

use super::eventually;

/// Log lines as they come.
#[derive(Clone)]
pub struct Lines {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// With one dispatcher in the process, tracing asks only that of the thread which reaches a line first whether it
    /// is wanted at all, and that may be another test's, which has none.
    _second: tracing::Dispatch,
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// What this thread logs until the guard is dropped: the lines of a gateway if the test's runtime has one thread.
    pub fn of_this_thread() -> (Lines, tracing::subscriber::DefaultGuard) {
        let second = tracing::Dispatch::new(tracing_subscriber::registry());
        let lines = Lines { bytes: Arc::default(), _second: second };
        let writer = lines.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    /// The lines that hold all of these texts.
    pub fn with(&self, texts: &[&str]) -> Vec<String> {
        let all = String::from_utf8(self.bytes.lock().unwrap().clone()).unwrap();
        all.lines().filter(|line| texts.iter().all(|text| line.contains(text))).map(str::to_owned).collect()
    }

    /// Waits for a line that holds all of these texts.
    pub async fn until(&self, texts: &[&str]) {
        eventually(&format!("a line with {texts:?}"), || async {
            (!self.with(texts).is_empty()).then_some(())
        })
        .await;
    }
}
