//! The bare server that `benches/run` measures the gateway against: hyper on the same runtime, and nothing else.
//!
//! It reads each body to its end and answers what the gateway answers. What the gateway costs on top of it is the
//! price of admission, JSON, the log line and durability.

use std::io::{self, Write};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

const ACCEPTED: &[u8] = br#"{"result":true,"error":""}"#;

fn main() -> io::Result<()> {
    // Without this, a plain `cargo bench` would start a server that never ends.
    if std::env::args().any(|argument| argument == "--bench") {
        return writeln!(io::stderr(), "bare_hyper: benches/run starts this server");
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve())
}

async fn serve() -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    writeln!(io::stdout(), "listening on {}", listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // A connection that ends early is the load generator's to count.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    request.into_body().collect().await?;
    let mut response = Response::new(Full::new(Bytes::from_static(ACCEPTED)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
