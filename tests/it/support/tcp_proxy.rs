//! A TCP proxy that does to a connection what networks do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

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
}

const ALL: [Replies; 6] =
    [Replies::Pass, Replies::Lost, Replies::Half, Replies::Swallowed, Replies::Slices, Replies::Garbled];

/// A running proxy.
pub struct TcpProxy {
    pub address: SocketAddr,
    replies: Arc<AtomicU8>,
}

impl TcpProxy {
    pub async fn start(target: SocketAddr) -> TcpProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let replies = Arc::new(AtomicU8::new(0));
        let mode = Arc::clone(&replies);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, target, Arc::clone(&mode)));
            }
        });
        TcpProxy { address, replies }
    }

    /// From the next reply on.
    pub fn set(&self, replies: Replies) {
        let number = ALL.iter().position(|other| *other == replies).unwrap();
        self.replies.store(u8::try_from(number).unwrap(), Ordering::SeqCst);
    }
}

async fn pass(client: TcpStream, target: SocketAddr, mode: Arc<AtomicU8>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asking = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(drop) };
    let answering = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = from_server.read(&mut buffer).await?;
            if length == 0 {
                return Ok(());
            }
            match ALL[usize::from(mode.load(Ordering::SeqCst))] {
                Replies::Pass => to_client.write_all(&buffer[..length]).await?,
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
