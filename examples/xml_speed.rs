//! Measures the conversion of orders of 2 KB, 20 KB and 200 KB, and in the same run how long
//! `quick-xml` takes to read the events and attributes of the same text without converting it.
//! Then it times hostile documents. Run with `cargo run --release --example xml_speed`.

#![allow(clippy::panic, clippy::print_stdout)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use quick_xml::Reader;
use quick_xml::events::Event;
use retrieve_gateway::payload::xml::{XmlLimits, XmlOptions, convert};

fn main() {
    for items in [4, 48, 490] {
        let order = write_order(items);
        report("convert", &order, || {
            convert(&order, &XmlOptions::default(), &XmlLimits::default()).map_or(0, |json| json.len())
        });
        report("quick-xml, events only", &order, || count_events(&order));
    }
    for (name, document) in hostile_documents() {
        for (kind, limits) in [("default limits", XmlLimits::default()), ("no limits", unlimited())] {
            let start = Instant::now();
            let result = convert(&document, &XmlOptions::default(), &limits);
            let took = start.elapsed();
            let outcome =
                result.map_or_else(|error| error.to_string(), |json| format!("{} bytes of JSON", json.len()));
            println!("{name:32} {:>9} bytes {kind:15} {took:>12.3?}  {outcome}", document.len());
        }
    }
}

/// The best of several batches, since the machine has other work too.
fn report(what: &str, text: &str, mut run: impl FnMut() -> usize) {
    let rounds = 4_000_000 / text.len();
    let mut best = Duration::MAX;
    for _ in 0..10 {
        let start = Instant::now();
        for _ in 0..rounds {
            black_box(run());
        }
        best = best.min(start.elapsed());
    }
    let micros = best.as_secs_f64() * 1e6 / rounds as f64;
    println!("{what:24} {:>7} bytes {micros:>9.2} us {:>7.0} MB/s", text.len(), text.len() as f64 / micros);
}

fn count_events(text: &str) -> usize {
    let mut reader = Reader::from_str(text);
    let mut count = 0;
    loop {
        match reader.read_event() {
            Ok(Event::Eof) | Err(_) => return count,
            Ok(Event::Start(tag) | Event::Empty(tag)) => count += 1 + tag.attributes().flatten().count(),
            Ok(event) => count += black_box(event).len(),
        }
    }
}

fn write_order(items: usize) -> String {
    let mut xml = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<order xmlns:xsi=\"http://example.com/instance\" id=\"123\">\n  <increment_id>000000123</increment_id>\n  <status>processing</status>\n  <customer_email><![CDATA[roni_cost@example.com]]></customer_email>\n  <grand_total currency=\"USD\">110.0000</grand_total>\n  <created_at>2024-03-01 10:15:30</created_at>\n  <items>\n",
    );
    for item in 0..items {
        let _ = write!(
            xml,
            "    <item id=\"{item}\" type=\"simple\">\n      <sku>24-MB{item:02}</sku>\n      <name>Push It Messenger &amp; Bag, größe {item}</name>\n      <qty_ordered>1.0000</qty_ordered>\n      <price currency=\"USD\">34.0000</price>\n      <tax_amount>2.8900</tax_amount>\n      <discount_amount>0.0000</discount_amount>\n      <options/>\n      <description>A duffle bag for the gym, with a strap and two pockets.</description>\n    </item>\n"
        );
    }
    xml.push_str("  </items>\n  <billing_address><street>6146 Honey Bluff Parkway</street><city>Calder</city><region/><postcode>49628-7978</postcode></billing_address>\n</order>\n");
    xml
}

fn hostile_documents() -> Vec<(&'static str, String)> {
    let numbered = |write: fn(usize) -> String| (0..80_000).map(write).collect::<String>();
    let attributes = numbered(|n| format!(" a{n}=\"\""));
    let distinct = numbered(|n| format!("<a{n}/>"));
    let attributed = numbered(|n| format!("<a b{}=\"x\"/>", n % 15_000));
    vec![
        ("1,000,000 nested tags", "<a>".repeat(1_000_000)),
        ("1,000,000 nested, closed", "<a>".repeat(1_000_000) + &"</a>".repeat(1_000_000)),
        ("80,000 attributes", format!("<r{attributes}/>")),
        ("80,000 distinct children", format!("<r>{distinct}</r>")),
        ("80,000 equal children", format!("<r>{}</r>", "<a/>".repeat(80_000))),
        ("80,000 children, 15,000 attributes", format!("<r>{attributed}</r>")),
        ("1 MB of references", format!("<r>x{}</r>", "&#65;".repeat(200_000))),
        ("1 MB of CR and text", format!("<r>{}</r>", "x\r".repeat(500_000))),
        ("1 MB of comments in text", format!("<r>{}</r>", "x<!---->".repeat(125_000))),
        ("10 MB of white space", format!("<r>{}</r>", " ".repeat(10_000_000))),
        ("5 MB without an end", format!("<r a=\"{}", "'".repeat(5_000_000))),
    ]
}

fn unlimited() -> XmlLimits {
    XmlLimits {
        depth: usize::MAX,
        elements: usize::MAX,
        attributes: usize::MAX,
        distinct_names: usize::MAX,
        name_bytes: usize::MAX,
        text_bytes: usize::MAX,
        json_depth: usize::MAX,
        output_bytes: usize::MAX,
    }
}
