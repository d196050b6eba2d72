//! The scripts on a real redis-server decide as the model does that the simulation runs with.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use redis::{Connection, ConnectionLike};

use super::*;
use crate::queue::producer::simulation::server::{self, Verdict as Model};
use crate::queue::redis::describe;
use crate::random::Random;

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

/// Appends a batch as the gateway does; the answers in their order are that of the server.
fn append_to(server: &mut Server, keys: &Keys, batch: &Batch<'_>) -> Result<Verdict, RedisError> {
    let mut out = BytesMut::new();
    let mut answer = append(&mut out, keys, batch);
    let replies = server.connection.req_packed_commands(&out, 0, answer.left).unwrap();
    assert_eq!(replies.len(), answer.left);
    let mut ends = replies.into_iter().filter_map(|reply| answer.take(reply));
    let end = ends.next().unwrap();
    assert!(ends.next().is_none());
    end
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Small, or where Lua would print an exponent.
fn number(random: &mut Random) -> u64 {
    let base = if random.one_in(4) { 100_000_000_000_000 } else { 0 };
    base + 1 + random.below(4)
}

fn random_marker(random: &mut Random) -> Option<Marker> {
    (!random.one_in(8)).then(|| Marker {
        position: Position { epoch: number(random), seq: number(random) },
        nonce: u64::MAX - random.below(2),
        prior: Position { epoch: random.below(3), seq: random.below(9) },
    })
}

#[test]
fn the_scripts_decide_as_the_model() {
    let mut server = Server::start();
    for load in load() {
        load.exec(&mut server.connection).unwrap();
    }
    let keys = Keys::of("test", 0);
    let mut random = Random::from_environment();
    let jobs = [1, 2, 3].map(|number| Document { bytes: format!("{{\"n\":{number}}}").into(), dedupe: None });
    let mut decided = std::collections::BTreeMap::new();
    for case in 0..3000 {
        let before = random_marker(&mut random);
        let epoch = Epoch { number: number(&mut random), nonce: u64::MAX - random.below(2) };
        server.set_marker(&keys, before);
        match random.below(4) {
            0 => redis::cmd("DEL").arg(&keys.stream).exec(&mut server.connection).unwrap(),
            1 => redis::cmd("XADD")
                .arg(&keys.stream)
                .arg("*")
                .arg("a")
                .arg("b")
                .exec(&mut server.connection)
                .unwrap(),
            _ => {}
        }
        let length = server.length(&keys);
        if random.below(3) == 0 {
            let expect = server::fence(before, length == 0, epoch);
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
        let seq = number(&mut random);
        let jobs = &jobs[..random.below(4) as usize];
        let may_split = random.below(2) == 0;
        let batch = Batch { producer: "p.0", epoch, seq, limit: 0, jobs, may_split };
        let verdict = append_to(&mut server, &keys, &batch).unwrap();
        let model = server::decide(before, length == 0, epoch, seq);
        let (name, expect) = match model {
            Model::Appended => ("appended", Verdict::Appended(Vec::new())),
            Model::Duplicate => ("duplicate", Verdict::Duplicate),
            Model::Fenced => ("fenced", Verdict::Fenced),
            Model::Gap => ("gap", Verdict::OutOfStep),
            Model::Unknown => ("unknown", Verdict::OutOfStep),
            Model::Emptied => ("emptied", Verdict::Emptied),
        };
        assert_eq!(verdict, expect, "{case}: {before:?} {epoch:?} {seq}");
        let (after, appended) = match (model, before) {
            (Model::Appended, Some(marker)) => {
                let position = Position { epoch: epoch.number, seq };
                (Some(Marker { position, ..marker }), jobs.len() as u64)
            }
            _ => (before, 0),
        };
        assert_eq!(server.marker(&keys), after, "{case}");
        assert_eq!(server.length(&keys), length + appended, "{case}");
        *decided.entry(name).or_insert(0) += 1;
    }
    println!("{decided:?}");
    assert_eq!(decided.len(), 7, "every decision came up: {decided:?}");
}

/// A marker that batches with these numbers follow.
const EPOCH: Epoch = Epoch { number: 7, nonce: 1 };

fn begin(server: &mut Server, keys: &Keys) {
    for load in load() {
        load.exec(&mut server.connection).unwrap();
    }
    redis::cmd("FLUSHALL").exec(&mut server.connection).unwrap();
    assert!(fence_verdict(fence(keys, "p.0", EPOCH).query(&mut server.connection).unwrap()).is_ok());
}

fn entries(server: &mut Server, keys: &Keys) -> Vec<String> {
    let entries: Vec<(String, (String, String))> =
        redis::cmd("XRANGE").arg(&keys.stream).arg("-").arg("+").query(&mut server.connection).unwrap();
    entries.into_iter().map(|(_, (_, job))| job).collect()
}

fn is_there(server: &mut Server, key: &str) -> bool {
    redis::cmd("EXISTS").arg(key).query(&mut server.connection).unwrap()
}

#[test]
fn a_transaction_appends_as_the_script_alone_does_and_leaves_nothing_behind() {
    let mut server = Server::start();
    let keys = Keys::of("test", 0);
    let jobs: Vec<Document> =
        (0..70).map(|number| Document { bytes: format!("job {number}").into(), dedupe: None }).collect();
    let expect: Vec<String> = (0..70).map(|number| format!("job {number}")).collect();
    for may_split in [true, false] {
        begin(&mut server, &keys);
        for (seq, range) in [(2, 0..1), (3, 1..3), (4, 3..64), (5, 64..64), (6, 64..70)] {
            for verdict in [Verdict::Appended(Vec::new()), Verdict::Duplicate] {
                let jobs = &jobs[range.clone()];
                let batch = Batch { producer: "p.0", epoch: EPOCH, seq, limit: 0, jobs, may_split };
                assert_eq!(append_to(&mut server, &keys, &batch).unwrap(), verdict);
                assert_eq!(
                    entries(&mut server, &keys),
                    expect[..range.end],
                    "sent again, it changes nothing"
                );
                assert!(!is_there(&mut server, &keys.open));
            }
        }
        let batch = Batch { producer: "p.0", epoch: EPOCH, seq: 7, limit: 70, jobs: &jobs, may_split };
        assert_eq!(append_to(&mut server, &keys, &batch).unwrap(), Verdict::Full);
        assert_eq!(entries(&mut server, &keys), expect);
    }
}

/// Whatever keeps the script from deciding keeps the commands behind it from doing anything.
#[test]
fn a_transaction_whose_script_fails_does_nothing() {
    let mut server = Server::start();
    let keys = Keys::of("test", 0);
    let jobs: Vec<Document> =
        (0..3).map(|number| Document { bytes: format!("job {number}").into(), dedupe: None }).collect();
    let batch = Batch { producer: "p.0", epoch: EPOCH, seq: 3, limit: 0, jobs: &jobs, may_split: true };
    let commands: [(&[&[&str]], &str); 6] = [
        (&[&["SCRIPT", "FLUSH"]], "NOSCRIPT"),
        (&[&["SET", &keys.open, "in the way"]], "is in the way"),
        (&[&["XADD", &keys.open, "*", "in", "the way"]], "is in the way"),
        (&[&["DEL", &keys.producers], &["SET", &keys.producers, "no hash"]], "WRONGTYPE"),
        (&[&["CONFIG", "SET", "maxmemory", "1"]], "OOM"),
        (&[&["CONFIG", "SET", "min-replicas-to-write", "1"]], "NOREPLICAS"),
    ];
    for (commands, expect) in commands {
        begin(&mut server, &keys);
        let first = Batch { seq: 2, ..batch };
        assert_eq!(append_to(&mut server, &keys, &first).unwrap(), Verdict::Appended(Vec::new()));
        for command in commands {
            let mut call = redis::cmd(command[0]);
            command[1..].iter().for_each(|arg| drop(call.arg(arg).clone()));
            call.exec(&mut server.connection).unwrap();
        }
        let error = describe(&append_to(&mut server, &keys, &batch).unwrap_err());
        assert!(error.contains(expect), "{expect}: {error}");
        assert_eq!(entries(&mut server, &keys).len(), 3, "{expect}");
        for setting in ["maxmemory", "min-replicas-to-write"] {
            redis::cmd("CONFIG").arg("SET").arg(setting).arg(0).exec(&mut server.connection).unwrap();
        }
    }
}
