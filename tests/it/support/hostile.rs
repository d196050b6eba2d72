//! Payloads that are meant to hurt, for the tests and for `benches/hostile.rs`.

use std::fmt::Write as _;

/// A payload and what it has to be answered.
pub struct Hostile {
    pub name: &'static str,
    pub path: &'static str,
    pub content_type: &'static str,
    /// Whether it is compressed.
    pub is_gzip: bool,
    /// The statuses that are right for it.
    pub expect: &'static [u16],
    pub body: Vec<u8>,
}

impl Hostile {
    /// The bytes of its request.
    pub fn request(&self) -> Vec<u8> {
        let encoding = if self.is_gzip { "Content-Encoding: gzip\r\n" } else { "" };
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: gateway.test\r\nContent-Type: {}\r\n{encoding}Content-Length: {}\r\n\r\n",
            self.path,
            self.content_type,
            self.body.len()
        );
        [head.as_bytes(), &self.body].concat()
    }
}

const REFUSED: &[u16] = &[400];
const TAKEN: &[u16] = &[200];
const UNSUPPORTED: &[u16] = &[415];
const TOO_LARGE: &[u16] = &[413];

/// All of them. The integration `demo` takes 5 MiB, `large` 32 MiB.
pub fn payloads() -> Vec<Hostile> {
    let xml = |name, expect, body: String| Hostile {
        name,
        path: "/integration/demo/xml",
        content_type: "application/xml",
        is_gzip: false,
        expect,
        body: body.into_bytes(),
    };
    let json = |name, expect, body: String| Hostile {
        path: "/integration/demo",
        content_type: "application/json",
        ..xml(name, expect, body)
    };
    let bomb = |name, path, bytes| Hostile {
        path,
        is_gzip: true,
        body: bomb(bytes),
        ..json(name, TOO_LARGE, String::new())
    };
    let numbered = |write: fn(usize) -> String| (0..80_000).map(write).collect::<String>();
    let attributes = numbered(|n| format!(" a{n}=\"\""));
    let distinct = numbered(|n| format!("<a{n}/>"));
    // What as many bytes take that nothing is made of.
    let control = |name, bytes| Hostile {
        content_type: "application/octet-stream",
        ..json(name, UNSUPPORTED, "x".repeat(bytes))
    };
    let keys: Vec<String> = (0..300_000).map(|n| format!("\"k{n}\":0")).collect();
    vec![
        xml("billion laughs", REFUSED, billion_laughs()),
        xml("external entity (XXE)", REFUSED, external_entity("file:///etc/passwd")),
        xml(
            "external DTD, not fetched",
            TAKEN,
            "<!DOCTYPE r SYSTEM \"http://127.0.0.1:9/x.dtd\"><r/>".to_owned(),
        ),
        xml("a million nested tags", REFUSED, "<a>".repeat(1_000_000)),
        xml("80,000 attributes", REFUSED, format!("<r{attributes}/>")),
        xml("80,000 distinct children", REFUSED, format!("<r>{distinct}</r>")),
        xml("80,000 equal children", TAKEN, format!("<r>{}</r>", "<a/>".repeat(80_000))),
        xml("5 MB of references", TAKEN, format!("<r>x{}</r>", "&#65;".repeat(1_000_000))),
        xml("5 MB of comments in text", TAKEN, format!("<r>{}</r>", "x<!---->".repeat(600_000))),
        xml("5 MB without an end", REFUSED, format!("<r a=\"{}", "'".repeat(5_000_000))),
        json("a million brackets", REFUSED, "[".repeat(1_000_000)),
        json("a million nested objects", REFUSED, "{\"a\":".repeat(1_000_000)),
        json("5 MB of string without an end", REFUSED, format!("\"{}", "\\\\".repeat(2_500_000))),
        json("5 MB of white space", REFUSED, " ".repeat(5_000_000)),
        json("300,000 keys", TAKEN, format!("{{{}}}", keys.join(","))),
        json("a number of 5 MB", TAKEN, "9".repeat(5_000_000)),
        Hostile {
            content_type: "application/x-www-form-urlencoded",
            ..json("a form of a million pairs", REFUSED, "a=1&".repeat(1_000_000))
        },
        control("control: 0.8 MB that aren't read", 800_000),
        control("control: 5 MB that aren't read", 5_000_000),
        bomb("5 MB that inflate to 5 GB", "/integration/demo", 5_000_000),
        bomb("10 MB that inflate to 10 GB", "/integration/large", 10_000_000),
    ]
}

fn billion_laughs() -> String {
    let mut text = "<!DOCTYPE l [<!ENTITY l0 \"ha\">".to_owned();
    for level in 1..10 {
        let _ = write!(text, "<!ENTITY l{level} \"{}\">", format!("&l{};", level - 1).repeat(10));
    }
    text + "]><l>&l9;</l>"
}

fn external_entity(target: &str) -> String {
    format!("<!DOCTYPE r [<!ENTITY x SYSTEM \"{target}\">]><r>&x;</r>")
}

/// A gzip stream of about this length which inflates to 1032 times as much: in its one block (RFC 1951, section 3.2.7) a
/// bit 0 is the length 258 and another bit 0 the distance 1, so that nearly all of it is zero.
fn bomb(length_bytes: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    // The last block, with codes of its own: 286 lengths, 1 distance, 18 lengths of codes.
    for (value, width) in [(1, 1), (2, 2), (286 - 257, 5), (0, 5), (18 - 4, 4)] {
        bits.push(value, width);
    }
    // The code lengths' own codes, in the order 16 17 18 0 8 7 9 6 10 5 11 4 12 3 13 2 14 1: 18, 2 and 1 have two bits.
    for width in [0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1] {
        bits.push(width, 3);
    }
    // By section 3.2.2: 1 is `0`, 2 is `10`, 18 (a run of zeros, with 7 bits of its length) is `11`; first bit first.
    let (one, two, zeros) = ((0b0, 1), (0b01, 2), (0b11, 2));
    let codes = [
        &[two][..],                                    // literal 0
        &[zeros, (138 - 11, 7), zeros, (117 - 11, 7)], // 1 to 255
        &[two],                                        // 256, the end
        &[zeros, (28 - 11, 7)],                        // 257 to 284
        &[one],                                        // 285, the length 258
        &[one],                                        // the distance 1
    ];
    for (value, width) in codes.concat() {
        bits.push(value, width);
    }
    // 285 is `0`, literal 0 is `10`: one zero to repeat.
    bits.push(0b01, 2);
    let mut stream = vec![0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255];
    stream.extend(bits.bytes);
    stream.resize(length_bytes, 0);
    stream
}

/// Bits, the lowest of a byte first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    count: usize,
}

impl Bits {
    fn push(&mut self, value: u32, width: usize) {
        for bit in 0..width {
            if self.count.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let last = self.bytes.len() - 1;
            self.bytes[last] |= u8::from(value >> bit & 1 == 1) << (self.count % 8);
            self.count += 1;
        }
    }
}

/// The peak of a process's resident memory so far, in bytes (`VmHWM`).
pub fn peak_memory_bytes(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("kB") << 10
}
