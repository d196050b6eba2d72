//! What the client does and refuses to do, against real sockets on loopback.

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::stand_in::StandIn;
use super::*;

const BOUNDS: Bounds = Bounds { limit_bytes: 1000, timeout: Duration::from_secs(20) };

fn get(url: &str) -> Request<Full<Bytes>> {
    Request::get(url).body(Full::default()).unwrap()
}

fn body(text: impl Into<Bytes>) -> http::Response<Full<Bytes>> {
    http::Response::new(Full::new(text.into()))
}

#[tokio::test]
async fn an_answer_comes_by_tls_from_the_host_that_was_named() {
    let server = StandIn::start(&["keys.example"], |_| body("hello")).await;
    let answer = server.client().exchange(get("https://keys.example/a?b=c"), BOUNDS).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.body.as_ref()), (200, &b"hello"[..]));
    assert_eq!(server.asked(), ["keys.example/a?b=c"]);
}

#[tokio::test]
async fn a_certificate_for_another_name_or_of_another_authority_is_refused() {
    let server = StandIn::start(&["keys.example"], |_| body("hello")).await;
    let other_name = server.client().exchange(get("https://other.example/"), BOUNDS).await;
    assert!(matches!(other_name, Err(OutboundError::Tls(_))), "{other_name:?}");
    let public = Client::new(Trust::PublicRoots, Reach::StandIn(server.address)).unwrap();
    let other_authority = public.exchange(get("https://keys.example/"), BOUNDS).await;
    assert!(matches!(other_authority, Err(OutboundError::Tls(_))), "{other_authority:?}");
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_redirect_is_an_answer_like_any_other() {
    let server = StandIn::start(&["keys.example"], |_| {
        http::Response::builder()
            .status(302)
            .header("location", "https://keys.example/elsewhere")
            .body(Full::default())
            .unwrap()
    })
    .await;
    let answer = server.client().exchange(get("https://keys.example/"), BOUNDS).await.unwrap();
    assert_eq!(answer.status, 302);
    assert_eq!(server.asked(), ["keys.example/"]);
}

#[tokio::test]
async fn a_long_answer_is_cut_off() {
    let server = StandIn::start(&["keys.example"], |request| {
        let length: usize = request.uri().path()[1..].parse().unwrap();
        body(vec![b'a'; length])
    })
    .await;
    let exact = server.client().exchange(get("https://keys.example/1000"), BOUNDS).await.unwrap();
    assert_eq!(exact.body.len(), 1000);
    let longer = server.client().exchange(get("https://keys.example/1001"), BOUNDS).await;
    assert!(matches!(longer, Err(OutboundError::TooLarge(1000))), "{longer:?}");
}

/// A peer that accepts and says nothing.
#[tokio::test]
async fn a_silent_peer_costs_the_time_that_was_given() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(Trust::PublicRoots, Reach::StandIn(listener.local_addr().unwrap())).unwrap();
    let bounds = Bounds { timeout: Duration::from_millis(50), ..BOUNDS };
    for url in ["http://keys.example/", "https://keys.example/"] {
        let answer = client.exchange(get(url), bounds).await;
        assert!(matches!(answer, Err(OutboundError::TooSlow(_))), "{url}: {answer:?}");
    }
}

/// A connection that a test would see is never made: the listener is there, and private.
#[tokio::test]
async fn only_public_addresses_are_dialled() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = Client::new(Trust::PublicRoots, Reach::Public).unwrap();
    for host in ["localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"] {
        let answer = client.exchange(get(&format!("https://{host}:{port}/")), BOUNDS).await;
        assert!(matches!(answer, Err(OutboundError::NotPublic)), "{host}: {answer:?}");
    }
    let reached = Client::new(Trust::PublicRoots, Reach::Anywhere).unwrap();
    let url = format!("http://localhost:{port}/");
    let (mut stream, answer) = tokio::join!(
        async { listener.accept().await.unwrap().0 },
        reached.exchange(get(&url), Bounds { timeout: Duration::from_millis(200), ..BOUNDS })
    );
    assert!(matches!(answer, Err(OutboundError::TooSlow(_))), "{answer:?}");
    let mut first = [0; 14];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"GET / HTTP/1.1");
}

#[tokio::test]
async fn what_is_no_url_is_not_called() {
    let client = Client::new(Trust::PublicRoots, Reach::Anywhere).unwrap();
    for url in
        ["/path", "ftp://a.example/", "https://user@a.example/", "https://u:p@a.example/", "a.example:443"]
    {
        let answer = client.exchange(get(url), BOUNDS).await;
        assert!(matches!(answer, Err(OutboundError::Url)), "{url}: {answer:?}");
    }
}
