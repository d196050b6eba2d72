//! Measures what payloads cost: XML to JSON, and the validation of JSON, each beside what the machine takes to read the
//! same text and do nothing with it (`quick-xml`'s events, `serde_json` alone).
//!
//! `cargo bench --bench payload [-- --json] [--write] [--rounds N]`: a table, or JSON; `--write` puts the table into
//! docs/evidence/payload.md. Candidates and baselines alternate in rounds, and the medians count. The exit status is 1
//! if a bar isn't met.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use quick_xml::Reader;
use quick_xml::events::Event;
use retrieve_gateway::payload::json;
use retrieve_gateway::payload::xml::{XmlLimits, XmlOptions, convert};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

const EVIDENCE: &str = "docs/evidence/payload.md";

/// How long each measurement of a round takes, about.
const SLICE: Duration = Duration::from_millis(20);

/// What has to be reached.
#[derive(Clone, Copy)]
enum Bar {
    None,
    MegabytesPerSecond(f64),
    Microseconds(f64),
}

/// One way of reading one text.
struct Contender<'t> {
    what: &'static str,
    text: &'t str,
    run: fn(&str) -> usize,
    bar: Bar,
    microseconds: Vec<f64>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let rounds = arguments.iter().position(|argument| argument == "--rounds");
    let rounds: usize = rounds
        .and_then(|index| arguments.get(index + 1))
        .map_or(21, |rounds| rounds.parse().expect("a number of rounds"));

    let xml: Vec<String> = [4, 48, 490].map(xml_order).into();
    let json: Vec<String> = [8, 90, 900].map(json_order).into();
    let mut contenders = Vec::new();
    let xml_bars = [Bar::Microseconds(20.0), Bar::MegabytesPerSecond(100.0), Bar::None];
    for (text, bar) in xml.iter().zip(xml_bars) {
        contenders.push(Contender::new("XML to JSON", text, convert_xml, bar));
        contenders.push(Contender::new("quick-xml, events alone", text, count_events, Bar::None));
    }
    for text in &json {
        let bar = Bar::MegabytesPerSecond(500.0);
        contenders.push(Contender::new("JSON, validated", text, validate_json, bar));
        contenders.push(Contender::new("serde_json, RawValue", text, raw_value, Bar::None));
        contenders.push(Contender::new("serde_json, IgnoredAny", text, ignored_any, Bar::None));
    }
    for _ in 0..rounds {
        contenders.iter_mut().for_each(Contender::measure);
    }

    let table = table(&contenders);
    if has("--json") {
        println!("{}", as_json(&contenders))
    } else {
        print!("{table}")
    }
    if has("--write") {
        std::fs::write(EVIDENCE, evidence(&table, rounds)).expect("docs/evidence can be written");
    }
    if contenders.iter().all(Contender::meets_its_bar) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl<'t> Contender<'t> {
    fn new(what: &'static str, text: &'t str, run: fn(&str) -> usize, bar: Bar) -> Contender<'t> {
        Contender { what, text, run, bar, microseconds: Vec::new() }
    }

    fn measure(&mut self) {
        let mut runs = 0u32;
        let start = Instant::now();
        while start.elapsed() < SLICE {
            for _ in 0..8 {
                black_box((self.run)(black_box(self.text)));
            }
            runs += 8;
        }
        self.microseconds.push(start.elapsed().as_secs_f64() * 1e6 / f64::from(runs));
    }

    fn median_microseconds(&self) -> f64 {
        let mut sorted = self.microseconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }

    fn megabytes_per_second(&self) -> f64 {
        self.text.len() as f64 / self.median_microseconds()
    }

    fn meets_its_bar(&self) -> bool {
        match self.bar {
            Bar::None => true,
            Bar::MegabytesPerSecond(least) => self.megabytes_per_second() >= least,
            Bar::Microseconds(most) => self.median_microseconds() <= most,
        }
    }

    fn verdict(&self) -> String {
        let met = if self.meets_its_bar() { "met" } else { "MISSED" };
        match self.bar {
            Bar::None => String::new(),
            Bar::MegabytesPerSecond(least) => format!("at least {least} MB/s: {met}"),
            Bar::Microseconds(most) => format!("at most {most} µs: {met}"),
        }
    }
}

fn table(contenders: &[Contender<'_>]) -> String {
    let mut table = String::from("| what | bytes | µs | MB/s | bar |\n|---|--:|--:|--:|---|\n");
    for contender in contenders {
        let (what, bytes, verdict) = (contender.what, contender.text.len(), contender.verdict());
        let (micros, speed) = (contender.median_microseconds(), contender.megabytes_per_second());
        let _ = writeln!(table, "| {what} | {bytes} | {micros:.2} | {speed:.0} | {verdict} |");
    }
    table
}

fn as_json(contenders: &[Contender<'_>]) -> serde_json::Value {
    let row = |contender: &Contender<'_>| {
        serde_json::json!({
            "what": contender.what,
            "bytes": contender.text.len(),
            "microseconds": contender.median_microseconds(),
            "megabytes_per_second": contender.megabytes_per_second(),
            "bar": contender.verdict(),
            "met": contender.meets_its_bar(),
        })
    };
    contenders.iter().map(row).collect()
}

fn evidence(table: &str, rounds: usize) -> String {
    let (date, commit) = (jiff::Timestamp::now().strftime("%F"), commit());
    format!(
        "# What payloads cost, {date}\n\n`cargo bench --bench payload -- --write`, commit {commit}, one core; medians of {rounds} alternating rounds. Beside each the\nmachine's own baseline in the same run: reading the text and doing nothing with it.\n\n{table}"
    )
}

fn commit() -> String {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

fn convert_xml(text: &str) -> usize {
    convert(text, &XmlOptions::default(), &XmlLimits::default()).expect("a well-formed order").len()
}

fn count_events(text: &str) -> usize {
    let mut reader = Reader::from_str(text);
    let mut count = 0;
    loop {
        match reader.read_event().expect("a well-formed order") {
            Event::Eof => return count,
            Event::Start(tag) | Event::Empty(tag) => count += 1 + tag.attributes().flatten().count(),
            event => count += black_box(event).len(),
        }
    }
}

fn validate_json(text: &str) -> usize {
    json::validate(text.as_bytes()).expect("a valid order").len()
}

fn raw_value(text: &str) -> usize {
    serde_json::from_slice::<&RawValue>(text.as_bytes()).expect("a valid order").get().len()
}

fn ignored_any(text: &str) -> usize {
    serde_json::from_slice::<IgnoredAny>(text.as_bytes()).map(|_| 1).expect("a valid order")
}

/// An order as shop systems export it: 4 items make 2 KB, 48 make 20 KB.
fn xml_order(items: usize) -> String {
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

/// An order as JSON APIs send it, compact: 8 items make 2 KB, 90 make 20 KB, 900 make 200 KB.
fn json_order(items: usize) -> String {
    let items: Vec<String> = (0..items)
        .map(|item| {
            format!(
                "{{\"id\":{},\"variant_id\":{},\"title\":\"Push It Messenger Bag, größe {item}\",\"sku\":\"24-MB{item:02}\",\"quantity\":1,\"price\":\"34.00\",\"grams\":1300,\"taxable\":true,\"gift_card\":false,\"discount\":0.0,\"properties\":[],\"note\":null}}",
                866_550_311_766_439_020 + item,
                808_950_810 + item
            )
        })
        .collect();
    format!(
        "{{\"id\":820982911946154508,\"email\":\"jon@example.com\",\"created_at\":\"2025-12-10T14:30:00-05:00\",\"currency\":\"USD\",\"total_price\":\"403.00\",\"note\":\"Leave at the \\\"back\\\" door\\nplease\",\"customer\":{{\"id\":115310627314723954,\"first_name\":\"John\",\"last_name\":\"Smith\"}},\"line_items\":[{}]}}",
        items.join(",")
    )
}
