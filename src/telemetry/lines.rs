//! Log lines leave the request's thread: they are put into one buffer, and a thread of their own writes it.
//!
//! A thread that was woken for each line would cost a request more than the line itself, so lines are gathered for a
//! few milliseconds and go out with one write.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// How long lines are gathered before they are written.
const GATHERING: Duration = Duration::from_millis(5);

/// What waits to be written holds so many bytes at the most; further lines are dropped, and counted.
const LIMIT_BYTES: usize = 4 << 20;

/// A buffer that has grown beyond this isn't kept.
const KEPT_BYTES: usize = 256 << 10;

/// Takes lines.
#[derive(Clone, Debug)]
pub struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Something is waiting, or it is over.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    dropped_lines: u64,
    is_closed: bool,
}

/// Writes what is left, and ends the thread, when it is dropped.
#[derive(Debug)]
pub struct LinesGuard {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Starts the thread that writes lines to `out`, and tells `report` how many it had to drop.
///
/// # Errors
/// The thread can't be started.
pub fn start(
    out: impl Write + Send + 'static,
    report: impl Fn(u64) + Send + 'static,
) -> io::Result<(Lines, LinesGuard)> {
    let shared = Arc::new(Shared::default());
    let of_thread = Arc::clone(&shared);
    let thread = std::thread::Builder::new().name("log".to_owned());
    let thread = thread.spawn(move || of_thread.write_all(out, report))?;
    Ok((Lines(Arc::clone(&shared)), LinesGuard { shared, thread: Some(thread) }))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, mut out: impl Write, report: impl Fn(u64)) {
        let mut lines = Vec::new();
        loop {
            let is_idle = |waiting: &mut Waiting| waiting.bytes.is_empty() && !waiting.is_closed;
            let waiting = self.changed.wait_while(self.lock(), is_idle);
            let is_closed = waiting.unwrap_or_else(PoisonError::into_inner).is_closed;
            if !is_closed {
                std::thread::sleep(GATHERING);
            }
            let mut waiting = self.lock();
            std::mem::swap(&mut lines, &mut waiting.bytes);
            let dropped = std::mem::take(&mut waiting.dropped_lines);
            drop(waiting);
            // There is nowhere to tell that standard error is gone.
            let _ = out.write_all(&lines).and_then(|()| out.flush());
            lines.clear();
            lines.shrink_to(KEPT_BYTES);
            if dropped > 0 {
                report(dropped);
            }
            if is_closed {
                return;
            }
        }
    }
}

impl Drop for LinesGuard {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &Lines {
    /// Takes the bytes as a whole, or drops them as a whole: what formats a line writes it at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.0.lock();
        let was_empty = waiting.bytes.is_empty();
        if waiting.bytes.len() + line.len() > LIMIT_BYTES {
            waiting.dropped_lines += 1;
        } else {
            waiting.bytes.extend_from_slice(line);
        }
        drop(waiting);
        if was_empty {
            self.0.changed.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Hands over what is written, and waits to be told to go on.
    struct Gate {
        written: mpsc::Sender<Vec<u8>>,
        go_on: mpsc::Receiver<()>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.written.send(bytes.to_vec()).unwrap();
            self.go_on.recv().unwrap();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_whole_and_in_order_and_what_is_too_much_is_counted() {
        let (written, receiver) = mpsc::channel();
        let (go_on, gate) = mpsc::channel();
        let (report, dropped) = mpsc::channel();
        let gate = Gate { written, go_on: gate };
        let (lines, guard) = start(gate, move |lines| report.send(lines).unwrap()).unwrap();
        (&lines).write_all(b"first\n").unwrap();
        assert_eq!(receiver.recv().unwrap(), b"first\n");
        // The thread is held up, so everything waits.
        (&lines).write_all(b"second\n").unwrap();
        (&lines).write_all(&vec![b'x'; LIMIT_BYTES]).unwrap();
        (&lines).write_all(b"third\n").unwrap();
        go_on.send(()).unwrap();
        assert_eq!(receiver.recv().unwrap(), b"second\nthird\n");
        go_on.send(()).unwrap();
        assert_eq!(dropped.recv().unwrap(), 1);
        (&lines).write_all(b"last\n").unwrap();
        go_on.send(()).unwrap();
        go_on.send(()).unwrap();
        drop(guard);
        let rest: Vec<u8> = receiver.try_iter().flatten().collect();
        assert_eq!(rest, b"last\n", "what is left is written at the end");
    }
}
