//! Which node of a cluster owns a key: the key's slot, and what a node says of the slots.
//!
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>

use redis::Value;

use super::target::Address;

const SLOTS: u16 = 16384;

/// The slot of a key: CRC16 of its hash tag, or of all of it if it has none.
pub fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    crc16(tag.filter(|tag| !tag.is_empty()).unwrap_or(key).as_bytes()) % SLOTS
}

/// CRC-16/XMODEM: polynomial 0x1021, begins with 0.
pub fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

/// What one node says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The master of the slot, if it has one.
    pub owner: Option<Address>,
    /// Every node that was named.
    pub nodes: Vec<Address>,
}

/// Reads the answer to `CLUSTER SLOTS`. A node that doesn't know its own name leaves it out: it is where it was asked.
/// What isn't understood is passed over.
pub fn read(reply: &Value, slot: u16, asked: &Address) -> View {
    let mut view = View::default();
    for range in items(reply) {
        let [Value::Int(first), Value::Int(last), nodes @ ..] = items(range) else { continue };
        for (place, node) in nodes.iter().enumerate() {
            let Some(address) = node_address(node, asked) else { continue };
            if place == 0 && (*first..=*last).contains(&i64::from(slot)) {
                view.owner = Some(address.clone());
            }
            if !view.nodes.contains(&address) {
                view.nodes.push(address);
            }
        }
    }
    view
}

fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        _ => &[],
    }
}

fn node_address(node: &Value, asked: &Address) -> Option<Address> {
    let [host, Value::Int(port), ..] = items(node) else { return None };
    let host = match host {
        Value::Nil => "",
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        Value::SimpleString(host) => host,
        _ => return None,
    };
    let host = match host {
        "" => asked.host.clone(),
        "?" => return None,
        host => host.to_owned(),
    };
    Some(Address { host, port: u16::try_from(*port).ok().filter(|port| *port > 0)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first ones are those of the specification.
    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        for (key, slot) in [
            ("123456789", 12739),
            ("foo", 12182),
            ("{foo}:x", 12182),
            ("a{foo}{bar}", 12182),
            ("foo{}{bar}", crc16(b"foo{}{bar}") % SLOTS),
            ("", 0),
        ] {
            assert_eq!(slot_of(key), slot, "{key}");
        }
    }

    #[test]
    fn a_view_names_the_owner_and_every_node() {
        let asked = Address { host: "seed".to_owned(), port: 1 };
        let node =
            |host: Value, port: i64| Value::Array(vec![host, Value::Int(port), Value::Array(Vec::new())]);
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let range = |first, last, nodes: Vec<Value>| {
            Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat())
        };
        let reply = Value::Array(vec![
            range(0, 99, vec![node(text("a"), 1), node(text("b"), 2)]),
            range(100, 200, vec![node(Value::Nil, 3)]),
            range(300, 300, vec![node(text("?"), 4), node(text(""), 5), node(text("a"), 70_000)]),
            Value::Int(7),
        ]);
        let shown = |slot| {
            let view = read(&reply, slot, &asked);
            assert_eq!(
                view.nodes.iter().map(Address::to_string).collect::<Vec<_>>(),
                ["a:1", "b:2", "seed:3", "seed:5"]
            );
            view.owner.map(|owner| owner.to_string())
        };
        assert_eq!(shown(99).as_deref(), Some("a:1"));
        assert_eq!(shown(100).as_deref(), Some("seed:3"));
        assert_eq!(shown(250), None);
        assert_eq!(shown(300), None, "nobody knows the owner's name");
    }
}
