//! A TCP proxy that does to a connection what networks do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What becomes of the server's replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replies {
    /// They pass.
    Pass,
    /// They are dropped, and so is the connection: what was asked for was executed.
    Lost,
    /// Half of one passes, then the connection is dropped.
    Half,
    /// They never arrive, and nothing is closed.
    Swallowed,
    /// They come byte by byte.
    Slices,
    /// Something else comes instead of each.
    Garbled,
    /// Those that say that a batch was appended are dropped, and so is the connection.
    AppendsLost,
    /// Those never arrive, nor does anything behind them, and nothing is closed.
    AppendsSwallowed,
}

/// How `append.lua` says that it appended a batch.
const APPENDED: &[u8] = b"$8\r\nappended\r\n";

/// A running proxy.
pub struct TcpProxy {
    pub address: SocketAddr,
    replies: Arc<Mutex<Replies>>,
    /// How many batches were appended whose replies were dropped by [`Replies::AppendsLost`] or
    /// [`Replies::AppendsSwallowed`].
    lost_appends: Arc<AtomicU64>,
}

impl TcpProxy {
    pub async fn start(target: SocketAddr) -> TcpProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let replies = Arc::new(Mutex::new(Replies::Pass));
        let lost_appends = Arc::new(AtomicU64::new(0));
        let (mode, lost) = (Arc::clone(&replies), Arc::clone(&lost_appends));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, target, Arc::clone(&mode), Arc::clone(&lost)));
            }
        });
        TcpProxy { address, replies, lost_appends }
    }

    /// From the next reply on.
    pub fn set(&self, replies: Replies) {
        *self.replies.lock().unwrap() = replies;
    }

    pub fn lost_appends(&self) -> u64 {
        self.lost_appends.load(Ordering::SeqCst)
    }
}

async fn pass(
    client: TcpStream,
    target: SocketAddr,
    mode: Arc<Mutex<Replies>>,
    lost_appends: Arc<AtomicU64>,
) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asking = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(drop) };
    let answering = async {
        let mut buffer = vec![0; 64 << 10];
        let mut swallows_all = false;
        loop {
            let length = from_server.read(&mut buffer).await?;
            if length == 0 {
                return Ok(());
            }
            let mode = *mode.lock().unwrap();
            let appended =
                buffer[..length].windows(APPENDED.len()).filter(|window| *window == APPENDED).count();
            swallows_all |= mode == Replies::AppendsSwallowed && appended > 0;
            if swallows_all || (mode == Replies::AppendsLost && appended > 0) {
                lost_appends.fetch_add(appended as u64, Ordering::SeqCst);
            }
            match mode {
                _ if swallows_all => {}
                Replies::AppendsLost if appended > 0 => return Ok(()),
                Replies::AppendsLost | Replies::AppendsSwallowed | Replies::Pass => {
                    to_client.write_all(&buffer[..length]).await?
                }
                Replies::Lost => return Ok(()),
                Replies::Half => return to_client.write_all(&buffer[..length / 2]).await,
                Replies::Swallowed => {}
                Replies::Garbled => to_client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await?,
                Replies::Slices => {
                    for byte in &buffer[..length] {
                        to_client.write_all(std::slice::from_ref(byte)).await?;
                    }
                }
            }
        }
    };
    // Whichever ends first drops both connections.
    tokio::select! {
        _ = asking => {}
        _ = answering => {}
    }
}
