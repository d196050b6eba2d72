//! A flood of callers: bounded queries, look-ups and memory, and nobody admitted by it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use retrieve_gateway::admission::allowlist::{Allowlist, Entry};
use retrieve_gateway::admission::domains::{Domains, Finding, Settings};
use retrieve_gateway::telemetry::metrics::DnsMetrics;

use super::{answered, call, patient, request, resolved, start};
use crate::support::client::Connection;
use crate::support::eventually;
use crate::support::fake_dns::{FakeDns, NXDOMAIN, PTR, Reply};

/// What the default limits allow in a time: 200 queries a second, and a burst of 20.
fn allowed(elapsed: Duration) -> usize {
    (elapsed.as_secs_f64() * 200.0).ceil() as usize + 20
}

fn pointers_asked(dns: &FakeDns) -> usize {
    dns.asked().iter().filter(|asked| asked.kind == PTR).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_callers_cost_no_more_queries_than_are_allowed() {
    let dns = FakeDns::start().await;
    let mut list = Allowlist::default();
    list.add(Entry::parse("*.shop.example").unwrap(), "*.shop.example");
    let settings = Settings { resolver: Some(dns.address), ..Settings::default() };
    let made = Domains::new([&list], &settings, &DnsMetrics::default()).unwrap();
    let (domains, _worker) = made.expect("there is a domain");
    let started = Instant::now();
    let (mut refused, mut undecided) = (0, 0);
    for number in 0..1_000_000u32 {
        let address = match number % 4 {
            0 => IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) | u128::from(number) << 64 | 1)),
            _ => IpAddr::V4(Ipv4Addr::from_bits(0x0B00_0000 + number)),
        };
        match domains.prove([&list].into_iter(), address, Instant::now()).await {
            Finding::Rule(rule) => panic!("{address} was admitted by {rule:?}"),
            Finding::Nothing => refused += 1,
            Finding::Undecided => undecided += 1,
        }
        if number % 1000 == 0 {
            assert!(dns.asked().len() <= allowed(started.elapsed()), "after {number} callers");
        }
    }
    let elapsed = started.elapsed();
    let asked = dns.asked().len();
    println!(
        "1,000,000 callers in {elapsed:?}: {asked} queries, {refused} refused, {undecided} undecided, {} verdicts",
        domains.cached_verdicts()
    );
    assert!(asked <= allowed(elapsed), "{asked} queries in {elapsed:?}");
    // A refusal that came too late for its own request is cached all the same.
    assert!(domains.cached_verdicts() <= asked && refused <= asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_resolver_holds_up_a_bounded_number_of_look_ups() {
    let dns = FakeDns::start().await;
    dns.otherwise(Reply::Held(Box::new(Reply::Code(NXDOMAIN))));
    let gateway = start(&dns, "*.shop.example", |config| {
        // So many queries that only the number of look-ups in flight bounds them.
        config.domains.reverse.queries.count = 100_000.try_into().unwrap();
        config.domains.reverse.patience = Duration::from_millis(1);
    })
    .await;
    let calls = (0..500).map(|number| {
        let client = format!("203.0.{}.{}", 100 + number / 250, number % 250);
        let gateway = &gateway;
        async move { call(gateway, &client).await.status }
    });
    let started = Instant::now();
    assert!(join_all(calls).await.into_iter().all(|status| status == 503));
    // A look-up ends after three tries of 800 ms, so that a slow test machine may begin a second set.
    let sets = 1 + (started.elapsed().as_millis() / 2400) as usize;
    let asked = eventually("as many look-ups as may be are under way", || async {
        let mut asked: BTreeMap<String, usize> = BTreeMap::new();
        for question in dns.asked() {
            *asked.entry(question.name.to_ascii_lowercase()).or_default() += 1;
        }
        (asked.len() >= 64).then_some(asked)
    })
    .await;
    assert!(asked.len() <= 64 * sets, "{} in {sets} sets", asked.len());
    assert!(asked.values().all(|tries| *tries <= 3), "{asked:?}");
    assert!(gateway.metric("retrieve_dns_queries_total{outcome=\"OverLimit\"}").await.unwrap() > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verdicts_that_are_kept_are_bounded() {
    let dns = FakeDns::start().await;
    dns.pointers("203.0.113.5", &["mail.shop.example"], 60);
    dns.host("mail.shop.example", &["203.0.113.5"], 60);
    let gateway = start(&dns, "*.shop.example", |config| {
        patient(config);
        config.domains.reverse.verdicts = 100;
    })
    .await;
    assert_eq!(call(&gateway, "203.0.113.5").await.status, 200);
    for number in 0..500 {
        let client = format!("11.0.{}.{}", number / 250, number % 250);
        assert_eq!(call(&gateway, &client).await.status, 403);
        let kept = gateway.metric("retrieve_dns_cached_verdicts").await.unwrap();
        assert!(kept <= 100.0, "{kept}");
    }
    let before = dns.asked().len();
    assert_eq!(call(&gateway, "203.0.113.5").await.status, 200);
    assert_eq!(dns.asked().len(), before, "refusals never push out a proof");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_callers_over_http_leave_the_listed_ones_alone() {
    const CONNECTIONS: usize = 16;
    const CALLS: usize = 1250;
    let dns = FakeDns::start().await;
    dns.host("shop.example", &["203.0.113.5"], 60);
    let gateway = start(&dns, "shop.example,198.51.100.1", |_| {}).await;
    resolved(&gateway, 1.0).await;
    let started = Instant::now();
    let flood = (0..CONNECTIONS).map(|connection| {
        let address = gateway.address;
        tokio::spawn(async move {
            let mut connection_to = Connection::open(address).await;
            let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
            for number in 0..CALLS {
                let client = Ipv4Addr::from_bits(0x0B00_0000 + (connection * CALLS + number) as u32);
                connection_to.send(request("/integration/demo", &client.to_string())).await;
                *counts.entry(connection_to.answer().await.status).or_default() += 1;
            }
            counts
        })
    });
    let flood = tokio::spawn(join_all(flood.collect::<Vec<_>>()));
    let mut known = 0;
    while !flood.is_finished() {
        for client in ["203.0.113.5", "198.51.100.1"] {
            assert_eq!(call(&gateway, client).await.status, 200, "{client}, after {known}");
            known += 1;
        }
    }
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    for of_connection in flood.await.unwrap() {
        for (status, count) in of_connection.unwrap() {
            *counts.entry(status).or_default() += count;
        }
    }
    // Look-ups go on in the background: what is kept is read before what was asked, so that one
    // that ends in between can't be counted as kept without having been asked.
    let kept = gateway.metric("retrieve_dns_cached_verdicts").await.unwrap();
    let asked = pointers_asked(&dns);
    let elapsed = started.elapsed();
    println!("20,000 callers in {elapsed:?}: {asked} queries, {counts:?}, {known} calls of listed ones");
    assert_eq!(counts.values().sum::<usize>(), CONNECTIONS * CALLS);
    assert!(counts.keys().all(|status| matches!(status, 403 | 503)), "{counts:?}");
    assert!(asked <= allowed(elapsed), "{asked} queries in {elapsed:?}");
    assert!(kept <= asked as f64, "{kept} verdicts from {asked} queries");
    assert_eq!(gateway.jobs().await.len(), known, "nothing of the flood is in the queue");
    // What was looked up in the background is refused for certain now.
    answered(&gateway, "11.0.0.0", 403).await;
}
