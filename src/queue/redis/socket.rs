//! The connection that batches go out on: one task writes and reads it, without a copy or a wake-up more than needed.
//!
//! Commands are put into a buffer as they are made, and answers come in the order of the commands. The library's own
//! connection hands every command to another task and every answer back, which costs more than the rest of a batch.

mod reply;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use redis::aio::ConnectionLike;
use redis::{Cmd, Pipeline, RedisError, RedisFuture, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use super::server::{Open, Opening, confirm, log_in};
use super::{Ack, describe};

/// How much is read at once at the least.
const READ_BYTES: usize = 8 << 10;

/// A buffer that has grown beyond this isn't kept when it is empty.
const KEPT_BYTES: usize = 256 << 10;

/// A socket, with TLS or without.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection; it is closed when it is dropped, whatever it still waits for.
pub struct Socket {
    stream: Box<dyn Duplex>,
    unsent: BytesMut,
    received: BytesMut,
    database: i64,
    response_timeout: Duration,
    ack: Ack,
}

impl Open for Socket {
    async fn open(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        opening: Opening<'_>,
    ) -> Result<Socket, String> {
        let mut socket = Socket {
            stream: Box::new(stream),
            unsent: BytesMut::new(),
            received: BytesMut::new(),
            database: opening.database,
            response_timeout: opening.response_timeout,
            ack: opening.ack,
        };
        // Whatever a Redis says to this, it says something; what isn't one, or takes no more clients, is found out here.
        let replies = socket.exchange(&redis::cmd("PING").get_packed_command(), 1).await;
        for reply in replies.map_err(|error| describe(&error))? {
            match reply.extract_error() {
                Err(error) if error.to_string().contains("max number of clients") => {
                    return Err(describe(&error));
                }
                Ok(_) | Err(_) => {}
            }
        }
        log_in(&mut socket, opening).await?;
        Ok(socket)
    }
}

impl Socket {
    /// When a batch counts as confirmed.
    pub fn ack(&self) -> Ack {
        self.ack
    }

    /// How long an answer may take.
    pub fn response_timeout(&self) -> Duration {
        self.response_timeout
    }

    /// Where commands are put; they go out while the next answer is waited for.
    pub fn unsent(&mut self) -> &mut BytesMut {
        &mut self.unsent
    }

    /// Sends a command that writes, as [`super::server::Connection::write`] does.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub async fn write(&mut self, command: Cmd) -> Result<Value, RedisError> {
        let ack = self.ack;
        confirm(self, ack, command).await
    }

    /// The next answer; what is unsent goes out meanwhile. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The connection broke, or what came isn't RESP.
    pub async fn next_reply(&mut self) -> Result<Value, RedisError> {
        poll_fn(|context| self.poll_reply(context)).await
    }

    fn poll_reply(&mut self, context: &mut Context<'_>) -> Poll<Result<Value, RedisError>> {
        if let Poll::Ready(Err(error)) = self.poll_send(context) {
            return Poll::Ready(Err(error.into()));
        }
        loop {
            if let Some((reply, length)) = reply::parse(&self.received)? {
                self.received.advance(length);
                release(&mut self.received);
                return Poll::Ready(Ok(reply));
            }
            self.received.reserve(READ_BYTES);
            if ready!(poll_read_buf(Pin::new(&mut self.stream), context, &mut self.received))? == 0 {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
            }
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, &self.unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                length => self.unsent.advance(length),
            }
        }
        release(&mut self.unsent);
        // TLS holds back what doesn't fill the socket.
        Pin::new(&mut self.stream).poll_flush(context)
    }

    async fn exchange(&mut self, commands: &[u8], replies: usize) -> Result<VecDeque<Value>, RedisError> {
        self.unsent.extend_from_slice(commands);
        let mut values = VecDeque::with_capacity(replies);
        while values.len() < replies {
            let reply = tokio::time::timeout(self.response_timeout, self.next_reply()).await;
            values.push_back(reply.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))?);
        }
        Ok(values)
    }
}

/// Lets go of memory that a large batch took.
fn release(buffer: &mut BytesMut) {
    if buffer.is_empty() && buffer.capacity() > KEPT_BYTES {
        *buffer = BytesMut::new();
    }
}

impl ConnectionLike for Socket {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let mut replies = self.exchange(&command.get_packed_command(), 1).await?;
            replies.pop_front().unwrap_or_default().extract_error()
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let mut replies = self.exchange(&commands.get_packed_pipeline(), offset + count).await?;
            // What precedes the answers are those to MULTI and to what it queues.
            for skipped in replies.drain(..offset) {
                skipped.extract_error()?;
            }
            Ok(replies.into())
        })
    }

    fn get_db(&self) -> i64 {
        self.database
    }
}
