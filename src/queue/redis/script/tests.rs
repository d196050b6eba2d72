//! The scripts on a real redis-server decide as the model does that the simulation runs with.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use redis::Connection;

use super::*;
use crate::queue::producer::simulation::server::{self, Verdict as Model};

/// A redis-server that ends with the test.
struct Server {
    child: Child,
    connection: Connection,
}

impl Server {
    fn start() -> Server {
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut child = Command::new("redis-server")
                .args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()])
                .stdout(Stdio::null())
                .spawn()
                .expect("redis-server; scripts/test installs it");
            let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
            // Another process may have taken the port: then Redis ends, and another one is tried.
            while child.try_wait().unwrap().is_none() {
                if let Ok(connection) = client.get_connection() {
                    return Server { child, connection };
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        panic!("redis-server doesn't start");
    }

    fn set_marker(&mut self, keys: &Keys, marker: Option<Marker>) {
        redis::cmd("DEL").arg(&keys.producers).exec(&mut self.connection).unwrap();
        if let Some(Marker { position, nonce, prior }) = marker {
            let text = format!(
                "{} {} {nonce:016x} {} {} 5-0 1700000000",
                position.epoch, position.seq, prior.epoch, prior.seq
            );
            redis::cmd("HSET").arg(&keys.producers).arg("p.0").arg(text).exec(&mut self.connection).unwrap();
        }
    }

    fn marker(&mut self, keys: &Keys) -> Option<Marker> {
        marker(read_marker(keys, "p.0").query(&mut self.connection).unwrap()).unwrap()
    }

    fn length(&mut self, keys: &Keys) -> u64 {
        redis::cmd("XLEN").arg(&keys.stream).query(&mut self.connection).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Random numbers from a printed seed; `SEED` repeats a run.
struct Random(u64);

impl Random {
    fn from_environment() -> Random {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| Uuid::now_v7().as_u128() as u64);
        println!("SEED={seed}");
        Random(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// Small, or where Lua would print an exponent.
    fn number(&mut self) -> u64 {
        let base = if self.below(4) == 0 { 100_000_000_000_000 } else { 0 };
        base + 1 + self.below(4)
    }

    fn marker(&mut self) -> Option<Marker> {
        (self.below(8) > 0).then(|| Marker {
            position: Position { epoch: self.number(), seq: self.number() },
            nonce: u64::MAX - self.below(2),
            prior: Position { epoch: self.below(3), seq: self.below(9) },
        })
    }
}

#[test]
fn the_scripts_decide_as_the_model() {
    let mut server = Server::start();
    for load in load() {
        load.exec(&mut server.connection).unwrap();
    }
    let keys = Keys::of("test", 0);
    let mut random = Random::from_environment();
    let batch = [Document { bytes: "{}".into(), dedupe: None }];
    let mut decided = std::collections::BTreeMap::new();
    for case in 0..3000 {
        let before = random.marker();
        let epoch = Epoch { number: random.number(), nonce: u64::MAX - random.below(2) };
        server.set_marker(&keys, before);
        let length = server.length(&keys);
        if random.below(3) == 0 {
            let expect = server::fence(before, epoch);
            let reply = fence(&keys, "p.0", epoch).query(&mut server.connection).unwrap();
            match (fence_verdict(reply).unwrap(), expect) {
                (Fence::Fenced, None) => assert_eq!(server.marker(&keys), before, "{case}"),
                (Fence::Begun { prior, is_stream_empty }, Some(marker)) => {
                    assert_eq!((prior, is_stream_empty), (marker.prior, length == 0), "{case}");
                    assert_eq!(server.marker(&keys), Some(marker), "{case}");
                }
                other => panic!("{case}: {before:?} {epoch:?}: {other:?}"),
            }
            assert_eq!(server.length(&keys), length, "{case}");
            *decided.entry("fence").or_insert(0) += 1;
            continue;
        }
        let seq = random.number();
        let reply: Vec<String> =
            append(&keys, "p.0", epoch, seq, 0, &batch).query(&mut server.connection).unwrap();
        let model = server::decide(before, epoch, seq);
        let expect = match model {
            Model::Appended => "appended",
            Model::Duplicate => "duplicate",
            Model::Fenced => "fenced",
            Model::Gap => "gap",
            Model::Unknown => "unknown",
        };
        assert_eq!(reply, [expect], "{case}: {before:?} {epoch:?} {seq}");
        let (after, appended) = match (model, before) {
            (Model::Appended, Some(marker)) => {
                let position = Position { epoch: epoch.number, seq };
                (Some(Marker { position, ..marker }), 1)
            }
            _ => (before, 0),
        };
        assert_eq!(server.marker(&keys), after, "{case}");
        assert_eq!(server.length(&keys), length + appended, "{case}");
        *decided.entry(expect).or_insert(0) += 1;
    }
    println!("{decided:?}");
    assert_eq!(decided.len(), 6, "every decision came up: {decided:?}");
}
