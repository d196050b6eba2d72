//! A connection's socket with deadlines that hyper doesn't have: for the head (from its first byte), for the pause
//! between two requests, and for a peer that doesn't take its answer.
//!
//! hyper's own `header_read_timeout` runs from the end of the request before, so it is at the same time the longest
//! pause, and a proxy that keeps connections for a minute could never use a strict one.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// The deadlines of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From a head's first byte (or the connection's begin) to its end.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// For the peer to take any bytes of an answer.
    pub write: Duration,
}

/// Where a connection is; the service tells, the wire acts on it.
#[derive(Debug, Default)]
pub struct Phase(AtomicU8);

const HEAD: u8 = 0;
const EXCHANGE: u8 = 1;
const ANSWERED: u8 = 2;
const IDLE: u8 = 3;

impl Phase {
    /// A head was read: its request is being answered, and the path's own deadlines hold.
    pub fn begin_exchange(&self) {
        self.0.store(EXCHANGE, Ordering::Release);
    }

    /// The answer is ready.
    pub fn end_exchange(&self) {
        self.0.store(ANSWERED, Ordering::Release);
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, phase: u8) {
        self.0.store(phase, Ordering::Release);
    }
}

/// A socket that keeps the deadlines.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    /// What was read of the stream before it was HTTP's.
    unread: Bytes,
    phase: Arc<Phase>,
    timeouts: Timeouts,
    /// When the head or the pause must have ended.
    deadline: Instant,
    /// Fires at `deadline` or before it; then it is set anew. So a busy connection rarely touches the timer.
    timer: Pin<Box<Sleep>>,
    stalled: Option<Pin<Box<Sleep>>>,
    received_any: bool,
    head_timed_out: bool,
    peer_closed: bool,
}

/// How long a finished connection waits for the peer to read the last answer, and how much it throws away meanwhile.
/// Closing a socket with unread bytes resets it, and the peer may lose an answer that it hasn't read yet.
const LINGER: (Duration, usize) = (Duration::from_secs(2), 32 << 20);

impl Wire {
    pub fn new(stream: TcpStream, unread: Bytes, phase: Arc<Phase>, timeouts: Timeouts) -> Wire {
        let deadline = Instant::now() + timeouts.head;
        Wire {
            stream,
            unread,
            phase,
            timeouts,
            deadline,
            timer: Box::pin(sleep_until(deadline)),
            stalled: None,
            received_any: false,
            head_timed_out: false,
            peer_closed: false,
        }
    }

    /// Answers a head that came too slowly, then lets the peer read what it was sent.
    pub async fn close(mut self) {
        if self.head_timed_out() {
            let answer = super::answer::slow_head_bytes();
            let _ = tokio::time::timeout(LINGER.0, self.stream.write_all(&answer)).await;
        }
        if !self.peer_closed && self.may_hold_bytes() {
            linger(self.stream).await;
        }
    }

    /// Whether something was exchanged that the peer may not have read, or sent, to its end.
    fn may_hold_bytes(&self) -> bool {
        match self.phase.get() {
            IDLE => false,
            HEAD => self.received_any,
            _ => true,
        }
    }

    fn poll_bytes(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..length]);
        self.unread.advance(length);
        Poll::Ready(Ok(()))
    }

    /// Whether a head was begun and not ended in time.
    pub fn head_timed_out(&self) -> bool {
        self.head_timed_out && self.received_any
    }

    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.timer.deadline() > self.deadline {
                let deadline = self.deadline;
                self.timer.as_mut().reset(deadline);
            }
            ready!(self.timer.as_mut().poll(context));
            if Instant::now() >= self.deadline {
                return Poll::Ready(());
            }
            let deadline = self.deadline;
            self.timer.as_mut().reset(deadline);
        }
    }

    fn check_stall<T>(
        &mut self,
        poll: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stalled = None;
            return poll;
        }
        let until = Instant::now() + self.timeouts.write;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep_until(until)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Ends the sending side and reads until the peer has closed its own.
pub async fn linger(mut stream: TcpStream) {
    let lingering = async {
        stream.shutdown().await?;
        let mut thrown_away = 0;
        // On the heap: each connection's task holds this future's place from the beginning.
        let mut buffer = vec![0; 4096];
        while thrown_away < LINGER.1 {
            match stream.read(&mut buffer).await? {
                0 => break,
                length => thrown_away += length,
            }
        }
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(LINGER.0, lingering).await;
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.phase.get() == ANSWERED {
            this.phase.set(IDLE);
            this.deadline = Instant::now() + this.timeouts.idle;
        }
        let before = buffer.filled().len();
        if let Poll::Ready(result) = this.poll_bytes(context, buffer) {
            if buffer.filled().len() == before {
                this.peer_closed = true;
            } else if this.phase.get() == IDLE {
                this.phase.set(HEAD);
                this.deadline = Instant::now() + this.timeouts.head;
                this.received_any = true;
            } else {
                this.received_any = true;
            }
            return Poll::Ready(result);
        }
        if this.phase.get() == EXCHANGE {
            return Poll::Pending;
        }
        ready!(this.poll_deadline(context));
        this.head_timed_out = this.phase.get() == HEAD;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.check_stall(poll, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.check_stall(poll, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
