//! Names and answers made to be taken for others. Nobody is admitted by mistake, and nothing takes long or much.

use super::{answered, call, patient, quick, refused, resolved, start, undecided};
use crate::support::fake_dns::{
    A, FakeDns, Lie, NXDOMAIN, PTR, REFUSED, Record, Reply, SERVFAIL, address, alias, pointer,
    pointer_of_labels, reverse_name,
};

const LIST: &str = "googlebot.com,*.shopify.com,xn--bcher-kva.example";

/// One caller, the names of its address, what the attacker's or the owner's zone says, and the status.
struct Case {
    names: Vec<Record>,
    zone: Vec<(&'static str, Vec<Record>)>,
    status: u16,
}

fn case(names: &[&str], zone: &[(&'static str, &[&str])], status: u16) -> Case {
    let names = names.iter().map(|name| pointer(name, 60)).collect();
    let records = |addresses: &[&str]| addresses.iter().map(|text| address(text, 60)).collect();
    let zone = zone.iter().map(|(name, addresses)| (*name, records(addresses))).collect();
    Case { names, zone, status }
}

fn cases(client: &str) -> Vec<Case> {
    let own = &[client][..];
    let other = &["192.0.2.1"][..];
    let raw = |labels: &[&[u8]], zone: &[(&'static str, &[&str])], status| {
        let names = vec![pointer_of_labels(labels, 60)];
        Case { names, ..case(&[], zone, status) }
    };
    let aliased = |chain: &[(&'static str, &str)], end: &'static str, status| {
        let mut zone: Vec<(&'static str, Vec<Record>)> =
            chain.iter().map(|(name, target)| (*name, vec![alias(target, 60)])).collect();
        zone.push((end, vec![address(client, 60)]));
        Case { names: vec![pointer("crawl.googlebot.com", 60)], zone, status }
    };
    vec![
        // What is right.
        case(&["crawl.googlebot.com"], &[("crawl.googlebot.com", own)], 200),
        case(&["CRAWL.GoogleBot.Com"], &[("crawl.googlebot.com", own)], 200),
        case(&["googlebot.com"], &[("googlebot.com", own)], 200),
        case(&["a.b.c.shopify.com"], &[("a.b.c.shopify.com", own)], 200),
        case(&["x.xn--bcher-kva.example"], &[("x.xn--bcher-kva.example", own)], 200),
        case(&["other.example", "crawl.googlebot.com"], &[("crawl.googlebot.com", own)], 200),
        case(&["crawl.googlebot.com"], &[("crawl.googlebot.com", &["192.0.2.1", client])], 200),
        aliased(&[("crawl.googlebot.com", "cdn.example")], "cdn.example", 200),
        // PTR names that nobody confirms (alaz/legitbot #85).
        case(&["crawl.googlebot.com"], &[], 403),
        case(&["crawl.googlebot.com"], &[("crawl.googlebot.com", other)], 403),
        case(&["crawl.googlebot.com"], &[("crawl.googlebot.com", &[])], 403),
        // Names beside the domain that do resolve back.
        case(&["evilgooglebot.com"], &[("evilgooglebot.com", own)], 403),
        case(&["googlebot.com.evil.tld"], &[("googlebot.com.evil.tld", own)], 403),
        case(&["crawl-googlebot.com"], &[("crawl-googlebot.com", own)], 403),
        case(&["googlebot.co"], &[("googlebot.co", own)], 403),
        case(&["com"], &[("com", own)], 403),
        case(&["shopify.com"], &[("shopify.com", own)], 403),
        case(&["evilshopify.com"], &[("evilshopify.com", own)], 403),
        case(&["x.bcher-kva.example"], &[("x.bcher-kva.example", own)], 403),
        case(&["xn--bcher-kva.example.evil.tld"], &[("xn--bcher-kva.example.evil.tld", own)], 403),
        // Bytes that a careless reader takes for something else.
        raw(&[b"crawl.googlebot.com", b"evil", b"tld"], &[("crawl.googlebot.com", own)], 403),
        raw(&[b"x", b"googlebot.com"], &[("x.googlebot.com", own)], 403),
        raw(&[b"crawl\0", b"googlebot", b"com"], &[("crawl\0.googlebot.com", own), ("crawl", own)], 403),
        raw(&[b"googlebot", b"com\0", b"evil", b"tld"], &[("googlebot.com", own)], 403),
        raw(&[b"*", b"googlebot", b"com"], &[("*.googlebot.com", own)], 403),
        raw(&[b"a b", b"googlebot", b"com"], &[("a b.googlebot.com", own)], 403),
        raw(&[b"b\xC3\xBCcher", b"example"], &[("xn--bcher-kva.example", own)], 403),
        raw(&[b"g\xD0\xBEoglebot", b"com"], &[("googlebot.com", own)], 403),
        raw(&[], &[], 403),
        // Names that are addresses.
        case(&[client], &[(Box::leak(client.to_owned().into_boxed_str()), own)], 403),
        // Aliases that lead nowhere, or in a circle.
        aliased(&[("crawl.googlebot.com", "gone.example")], "cdn.example", 403),
        aliased(
            &[("crawl.googlebot.com", "b.example"), ("b.example", "crawl.googlebot.com")],
            "x.example",
            403,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_name_passes_for_another() {
    let dns = FakeDns::start().await;
    for kind in [A, crate::support::fake_dns::AAAA] {
        dns.set("googlebot.com", kind, Reply::Records(vec![]));
    }
    let gateway = start(&dns, LIST, patient).await;
    answered(&gateway, "198.51.100.255", 403).await;
    for (number, status) in cases("192.0.2.9").iter().map(|case| case.status).enumerate() {
        let client = format!("198.51.100.{}", number + 1);
        let case = cases(&client).remove(number);
        dns.set(&reverse_name(&client), PTR, Reply::Records(case.names.clone()));
        for (name, records) in &case.zone {
            dns.set(name, A, Reply::Records(records.clone()));
        }
        let answer = call(&gateway, &client).await;
        assert_eq!(answer.status, status, "{number}: {:?} {:?}", case.names, case.zone);
        if status == 403 {
            assert_eq!(answer.body, refused(&client));
        }
        for (name, _) in &case.zone {
            dns.set(name, A, Reply::Code(NXDOMAIN));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_with_a_thousand_names_costs_a_few_queries() {
    let dns = FakeDns::start().await;
    let gateway = start(&dns, "*.googlebot.com", patient).await;
    for (place, client, status) in [(3, "203.0.113.5", 200), (999, "203.0.113.6", 403)] {
        let names: Vec<String> = (0..1000)
            .map(|n| if n == place { format!("c{n}.googlebot.com") } else { format!("c{n}.evil.example") })
            .collect();
        dns.pointers(client, &names.iter().map(String::as_str).collect::<Vec<_>>(), 60);
        dns.host(&format!("c{place}.googlebot.com"), &[client], 60);
        assert_eq!(call(&gateway, client).await.status, status, "{place}");
    }
    // All thousand claim to be ours, and none of them is.
    let names: Vec<String> = (0..1000).map(|n| format!("d{n}.googlebot.com")).collect();
    dns.pointers("203.0.113.7", &names.iter().map(String::as_str).collect::<Vec<_>>(), 60);
    assert_eq!(call(&gateway, "203.0.113.7").await.status, 403);
    let forward = dns.asked().iter().filter(|asked| asked.name.to_ascii_lowercase().starts_with('d')).count();
    assert_eq!(forward, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_and_circular_answers_are_bounded() {
    let dns = FakeDns::start().await;
    let gateway = start(&dns, "shop.example,198.51.100.1", quick).await;
    // 10,000 addresses: as many as a message of 64 KiB holds come over TCP, and a bounded number is kept.
    let many = (0..10_000).map(|n| address(&format!("10.1.{}.{}", n / 256, n % 256), 0)).collect();
    dns.set("shop.example", A, Reply::Records(many));
    resolved(&gateway, 1.0).await;
    assert_eq!(gateway.metric("retrieve_domain_addresses").await, Some(1024.0));
    assert!(dns.asked().iter().any(|asked| asked.tcp && asked.name.eq_ignore_ascii_case("shop.example")));
    answered(&gateway, "10.1.0.1", 200).await;
    assert_eq!(call(&gateway, "203.0.113.5").await.status, 403);

    // A chain of 20 aliases in one answer, as a recursive resolver gives it.
    let link = |n: usize| if n == 0 { "shop.example".to_owned() } else { format!("c{n}.example") };
    let mut chain: Vec<Record> = (0..20).map(|n| alias(&link(n + 1), 0).of(&link(n))).collect();
    chain.push(address("203.0.113.6", 0).of("c20.example"));
    dns.set("shop.example", A, Reply::Records(chain.clone()));
    answered(&gateway, "203.0.113.6", 200).await;
    // The same records for a name that isn't at the chain's end count for nothing, nor does a circle.
    chain.pop();
    chain.push(address("203.0.113.7", 0).of("c21.example"));
    let circle = vec![alias("b.example", 0), alias("shop.example", 0).of("b.example")];
    for bad in [chain, circle, vec![alias("shop.example", 0)]] {
        dns.set("shop.example", A, Reply::Records(bad));
        let before = dns.count("shop.example", A);
        crate::support::eventually("it was asked for again", || async {
            (dns.count("shop.example", A) > before + 2).then_some(())
        })
        .await;
        assert_eq!(call(&gateway, "203.0.113.7").await.status, 403);
        assert_eq!(call(&gateway, "203.0.113.6").await.status, 200, "the last good answer is kept");
        assert_eq!(call(&gateway, "198.51.100.1").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_answers_are_asked_for_again_over_tcp() {
    let dns = FakeDns::start().await;
    let over_tcp = |records| Reply::OverTcp(Box::new(Reply::Records(records)));
    dns.set("shop.example", A, over_tcp(vec![address("203.0.113.5", 60)]));
    dns.set(&reverse_name("203.0.113.6"), PTR, over_tcp(vec![pointer("mail.shop.example", 60)]));
    dns.set("mail.shop.example", A, over_tcp(vec![address("203.0.113.6", 60)]));
    let gateway = start(&dns, "shop.example", patient).await;
    resolved(&gateway, 1.0).await;
    for client in ["203.0.113.5", "203.0.113.6"] {
        assert_eq!(call(&gateway, client).await.status, 200, "{client}");
    }
    assert!(gateway.metric("retrieve_dns_queries_total{outcome=\"Truncated\"}").await.unwrap() >= 3.0);
    // A resolver that never gets to the end has given no answer.
    dns.set(&reverse_name("203.0.113.7"), PTR, Reply::OverTcp(Box::new(Reply::Code(SERVFAIL))));
    undecided(&call(&gateway, "203.0.113.7").await, "203.0.113.7");
    dns.set(&reverse_name("203.0.113.8"), PTR, Reply::Code(REFUSED));
    undecided(&call(&gateway, "203.0.113.8").await, "203.0.113.8");
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_answers_are_not_taken() {
    let dns = FakeDns::start().await;
    let gateway = start(&dns, "*.shop.example", patient).await;
    let mut lies: Vec<Lie> = (1..=200).map(Lie::Id).collect();
    lies.extend([Lie::Port, Lie::Question]);
    let mut forged = 0;
    for (number, last) in [None, Some(Lie::Case)].into_iter().cycle().take(100).enumerate() {
        let client = format!("203.0.113.{}", number + 1);
        let truth = Box::new(Reply::Records(vec![pointer("host.evil.example", 60)]));
        let lies: Vec<Lie> = lies.iter().copied().chain(last).collect();
        forged += lies.len();
        let lie = vec![pointer("mail.shop.example", 60)];
        dns.set(&reverse_name(&client), PTR, Reply::Spoofed(lies, lie, truth));
        dns.host("mail.shop.example", &[&client], 60);
        let answer = call(&gateway, &client).await;
        assert_eq!((answer.status, answer.body), (403, refused(&client)));
    }
    assert!(forged > 20_000, "{forged}");
    assert_eq!(dns.count("mail.shop.example", A), 0, "no forged name was even looked up");
    // Case is randomised: among 100 questions all in lower case would be a wonder.
    assert!(dns.asked().iter().any(|asked| asked.name != asked.name.to_ascii_lowercase()));
}
