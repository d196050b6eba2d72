//! Domain entries against a real resolver's wire: who is admitted, who is not, and what it costs. The callers' addresses
//! come from a trusted proxy's header, so that they can be any.

mod floods;
mod logs;
mod spoofs;

use std::time::Duration;

use retrieve_gateway::config::Config;

use crate::support::client::{Answer, exchange};
use crate::support::eventually;
use crate::support::fake_dns::{A, AAAA, FakeDns, NXDOMAIN, PTR, Reply, SERVFAIL, reverse_name};
use crate::support::gateway::TestGateway;
use crate::support::process::GatewayProcess;

/// A test machine may be slow, and a test asks faster than strangers may; only the tests of these two limits keep them.
fn patient(config: &mut Config) {
    config.domains.reverse.patience = Duration::from_secs(10);
    config.domains.reverse.queries.count = 100_000.try_into().unwrap();
}

/// Look-ups again and again, so that a change is seen at once.
fn quick(config: &mut Config) {
    patient(config);
    config.domains.own.ttl_min = Duration::from_millis(10);
    config.domains.own.margin = Duration::from_millis(30);
    config.domains.own.retry = Duration::from_millis(10);
}

async fn start(dns: &FakeDns, list: &str, change: impl FnOnce(&mut Config)) -> TestGateway {
    let resolver = dns.address.to_string();
    let settings = [
        ("RETRIEVE_ALLOWED_LIST", list),
        ("RETRIEVE_TRUSTED_PROXIES", "127.0.0.1"),
        ("RETRIEVE_DNS", &resolver),
    ];
    TestGateway::start_with(&settings, change).await
}

fn request(path: &str, client: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {client}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
    )
}

/// A webhook from that address.
async fn call(gateway: &TestGateway, client: &str) -> Answer {
    exchange(gateway.address, request("/integration/demo", client)).await
}

/// Waits until calls from that address are answered so.
async fn answered(gateway: &TestGateway, client: &str, status: u16) {
    eventually(&format!("{client} gets {status}"), || async {
        (call(gateway, client).await.status == status).then_some(())
    })
    .await;
}

/// Waits until every domain was looked up.
async fn resolved(gateway: &TestGateway, addresses: f64) {
    eventually("the domains are resolved", || async {
        (gateway.metric("retrieve_domain_addresses").await? >= addresses).then_some(())
    })
    .await;
}

fn refused(client: &str) -> String {
    format!("{{\"result\":false,\"error\":\"This domain/IP ({client}) isn't authorized on Retrieve\"}}")
}

fn undecided(answer: &Answer, client: &str) {
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("2")), "{client}");
    let words = format!(
        "{{\"result\":false,\"error\":\"Whether this domain/IP ({client}) is authorized on Retrieve couldn't be looked up in time; send the webhook again later\"}}"
    );
    assert_eq!(answer.body, words);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domains_own_addresses_are_admitted_without_a_query_of_their_own() {
    let dns = FakeDns::start().await;
    dns.host("shop.example", &["203.0.113.5", "2001:db8::5"], 60);
    dns.host("only.example", &["203.0.113.6"], 60);
    let gateway = start(&dns, "Shop.Example.,*.only.example,198.51.100.1", patient).await;
    resolved(&gateway, 2.0).await;
    for client in ["203.0.113.5", "2001:db8::5", "::ffff:203.0.113.5"] {
        assert_eq!(call(&gateway, client).await.status, 200, "{client}");
    }
    assert_eq!(call(&gateway, "198.51.100.1").await.status, 200);
    assert!(dns.asked().iter().all(|asked| asked.kind != PTR), "{:?}", dns.asked());
    for client in ["203.0.113.6", "203.0.113.7", "2001:db8::6"] {
        let answer = call(&gateway, client).await;
        assert_eq!((answer.status, answer.body), (403, refused(client)));
    }
    let jobs = gateway.jobs().await;
    assert_eq!(jobs.len(), 4);
    for job in &jobs[..3] {
        assert_eq!(job["source"]["admitted_by"], "domain");
        assert_eq!(job["source"]["rule"], "Shop.Example.");
    }
    assert_eq!(jobs[3]["source"]["admitted_by"], "address");
    assert_eq!(dns.count("only.example", A), 0, "an entry for subdomains alone has no addresses of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn reverse_dns_is_believed_only_if_the_name_resolves_back() {
    let dns = FakeDns::start().await;
    dns.pointers("203.0.113.5", &["Crawl-5.GoogleBot.COM"], 0);
    dns.host("crawl-5.googlebot.com", &["203.0.113.5"], 0);
    dns.pointers("2001:db8::5", &["crawl-6.googlebot.com"], 60);
    dns.host("crawl-6.googlebot.com", &["2001:db8::5", "203.0.113.99"], 60);
    let gateway = start(&dns, "*.googlebot.com", patient).await;
    for client in ["203.0.113.5", "2001:db8::5"] {
        assert_eq!(call(&gateway, client).await.status, 200, "{client}");
    }
    for job in gateway.jobs().await {
        assert_eq!(job["source"]["admitted_by"], "reverse_dns");
        assert_eq!(job["source"]["rule"], "*.googlebot.com");
    }
    let before = dns.asked().len();
    for _ in 0..20 {
        assert_eq!(call(&gateway, "203.0.113.5").await.status, 200);
    }
    assert_eq!(dns.asked().len(), before, "the proof is cached, with a TTL of 0 too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_runs_out_and_a_neighbour_takes_nothing_from_it() {
    let dns = FakeDns::start().await;
    dns.host("mail.shop.example", &["2001:db8::5"], 0);
    dns.pointers("2001:db8::5", &["mail.shop.example"], 0);
    let gateway = start(&dns, "*.shop.example", |config| {
        patient(config);
        config.domains.reverse.proof_min = Duration::from_millis(50);
        config.domains.reverse.proof_max = Duration::from_millis(50);
    })
    .await;
    assert_eq!(call(&gateway, "2001:db8::5").await.status, 200);
    // A neighbour in its /64 is refused for a minute; the proven one is looked up again when its proof runs out.
    assert_eq!(call(&gateway, "2001:db8::6").await.status, 403);
    let asked = || dns.count(&reverse_name("2001:db8::5"), PTR);
    let before = asked();
    eventually("the proof is looked up again", || async {
        assert_eq!(call(&gateway, "2001:db8::5").await.status, 200);
        (asked() > before + 1).then_some(())
    })
    .await;
    // While that fails, it is undecided; once the name points elsewhere, it is refused.
    dns.set(&reverse_name("2001:db8::5"), PTR, Reply::Code(SERVFAIL));
    answered(&gateway, "2001:db8::5", 503).await;
    dns.pointers("2001:db8::5", &["mail.shop.example"], 0);
    answered(&gateway, "2001:db8::5", 200).await;
    dns.host("mail.shop.example", &["2001:db8::7"], 0);
    answered(&gateway, "2001:db8::5", 403).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_address_is_followed_and_the_old_one_is_refused() {
    let dns = FakeDns::start().await;
    let address = |flip: usize| format!("203.0.113.{}", flip + 1);
    dns.host("shop.example", &[&address(0)], 0);
    let gateway = start(&dns, "shop.example", quick).await;
    resolved(&gateway, 1.0).await;
    for flip in 0..20 {
        let (old, new) = (address(flip), address(flip + 1));
        assert_eq!(call(&gateway, &old).await.status, 200);
        assert_eq!(call(&gateway, &new).await.status, 403);
        dns.host("shop.example", &[&new], 0);
        answered(&gateway, &new, 200).await;
        answered(&gateway, &old, 403).await;
        assert_eq!(call(&gateway, &old).await.status, 403, "and stays refused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_resolver_takes_nothing_from_those_who_are_known() {
    let dns = FakeDns::start().await;
    dns.host("shop.example", &["203.0.113.5"], 0);
    let gateway = start(&dns, "shop.example,198.51.100.1", |config| {
        quick(config);
        config.domains.reverse.patience = Duration::from_millis(50);
    })
    .await;
    resolved(&gateway, 1.0).await;
    for dead in [Reply::Silent, Reply::Code(SERVFAIL), Reply::Garbage] {
        dns.only(dead.clone());
        let failures = || gateway.metric("retrieve_domain_refresh_failures_total");
        let before = failures().await.unwrap();
        eventually("a refresh fails", || async { (failures().await? > before).then_some(()) }).await;
        for _ in 0..20 {
            assert_eq!(call(&gateway, "203.0.113.5").await.status, 200, "{dead:?}: its last address");
            assert_eq!(call(&gateway, "198.51.100.1").await.status, 200, "{dead:?}: a listed address");
        }
        undecided(&call(&gateway, "203.0.113.77").await, "203.0.113.77");
    }
    let of_the_known = ["203.0.113.5", "198.51.100.1"].map(|client| dns.count(&reverse_name(client), PTR));
    assert_eq!(of_the_known, [0, 0], "so their latency can't depend on the resolver");
    assert!(gateway.metric("retrieve_callers_undecided_total").await.unwrap() >= 3.0);
    // When the resolver is back, the strangers get their answer.
    dns.only(Reply::Code(NXDOMAIN));
    answered(&gateway, "203.0.113.77", 403).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_resolver_at_the_start_admits_nobody_by_domain() {
    let dns = FakeDns::start().await;
    dns.only(Reply::Code(SERVFAIL));
    let gateway = start(&dns, "shop.example,198.51.100.1", quick).await;
    assert_eq!(call(&gateway, "198.51.100.1").await.status, 200);
    undecided(&call(&gateway, "203.0.113.5").await, "203.0.113.5");
    // Even a certain "no" of reverse DNS doesn't refuse while the domain's own addresses are unknown.
    dns.set(&reverse_name("203.0.113.6"), PTR, Reply::Code(NXDOMAIN));
    undecided(&call(&gateway, "203.0.113.6").await, "203.0.113.6");
    dns.host("shop.example", &["203.0.113.5"], 60);
    answered(&gateway, "203.0.113.5", 200).await;
    assert_eq!(call(&gateway, "203.0.113.6").await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_undecided_and_not_kept_while_refusals_are() {
    let dns = FakeDns::start().await;
    dns.host("mail.shop.example", &["203.0.113.5"], 60);
    let gateway = start(&dns, "shop.example", patient).await;
    let pointer = reverse_name("203.0.113.5");
    for failure in [Reply::Code(SERVFAIL), Reply::Garbage] {
        dns.set(&pointer, PTR, failure);
        undecided(&call(&gateway, "203.0.113.5").await, "203.0.113.5");
    }
    dns.pointers("203.0.113.5", &["mail.shop.example"], 60);
    dns.set("mail.shop.example", A, Reply::Code(SERVFAIL));
    undecided(&call(&gateway, "203.0.113.5").await, "203.0.113.5");
    dns.host("mail.shop.example", &["203.0.113.5"], 60);
    assert_eq!(call(&gateway, "203.0.113.5").await.status, 200);

    for (client, neighbour) in [("203.0.113.6", "203.0.113.6"), ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9")] {
        assert_eq!(call(&gateway, client).await.status, 403);
        let before = dns.asked().len();
        assert_eq!(call(&gateway, neighbour).await.status, 403);
        assert_eq!(dns.asked().len(), before, "{neighbour}: the refusal is cached, for IPv6 by /64");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_look_up_goes_on_without_its_request_and_only_once() {
    let dns = FakeDns::start().await;
    dns.host("mail.shop.example", &["203.0.113.5"], 60);
    let held = Reply::Records(vec![crate::support::fake_dns::pointer("mail.shop.example", 60)]);
    dns.set(&reverse_name("203.0.113.5"), PTR, Reply::Held(Box::new(held)));
    let gateway = start(&dns, "*.shop.example", |_| {}).await;
    let calls = (0..20).map(|_| call(&gateway, "203.0.113.5"));
    for answer in futures_util::future::join_all(calls).await {
        undecided(&answer, "203.0.113.5");
    }
    assert_eq!(dns.count(&reverse_name("203.0.113.5"), PTR), 1, "one look-up for all of them");
    dns.release();
    answered(&gateway, "203.0.113.5", 200).await;
    assert_eq!(dns.count("mail.shop.example", A), 1);
    assert_eq!(dns.count("mail.shop.example", AAAA), 0, "only the caller's family is asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn domains_of_an_integration_tell_nothing_about_ids() {
    let toml = r#"
        [[integration]]
        id = "demo"
        [[integration]]
        id = "mine"
        allowed_list = ["shop.example"]
    "#;
    let dns = FakeDns::start().await;
    dns.host("shop.example", &["203.0.113.5"], 60);
    dns.pointers("203.0.113.6", &["mail.shop.example"], 60);
    dns.host("mail.shop.example", &["203.0.113.6"], 60);
    let resolver = dns.address.to_string();
    let settings = [("RETRIEVE_TRUSTED_PROXIES", "127.0.0.1"), ("RETRIEVE_DNS", resolver.as_str())];
    let gateway = TestGateway::with_integrations_and(toml, &settings, patient).await;
    resolved(&gateway, 1.0).await;
    let ask = async |id: &str, client: &str| {
        exchange(gateway.address, request(&format!("/integration/{id}"), client)).await
    };
    for client in ["203.0.113.5", "203.0.113.6"] {
        assert_eq!(ask("mine", client).await.status, 200);
        for id in ["demo", "none"] {
            let answer = ask(id, client).await;
            assert_eq!((answer.status, answer.body), (403, refused(client)), "{id}");
        }
    }
    // The same query whatever the id, so that not even the time tells.
    for (id, client) in [("demo", "203.0.113.71"), ("mine", "203.0.113.72"), ("none", "203.0.113.73")] {
        assert_eq!(ask(id, client).await.body, refused(client));
        assert_eq!(dns.count(&reverse_name(client), PTR), 1, "{id}");
    }
    dns.only(Reply::Code(SERVFAIL));
    for (id, client) in [("demo", "203.0.113.81"), ("mine", "203.0.113.82"), ("none", "203.0.113.83")] {
        undecided(&ask(id, client).await, client);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_domain_nothing_is_asked_and_nothing_is_built() {
    let dns = FakeDns::start().await;
    dns.pointers("203.0.113.5", &["mail.shop.example"], 60);
    let gateway = start(&dns, "198.51.100.1", |_| {}).await;
    assert_eq!(call(&gateway, "203.0.113.5").await.status, 403);
    assert_eq!(call(&gateway, "198.51.100.1").await.status, 200);
    assert!(dns.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_stops_while_its_resolver_is_silent() {
    let dns = FakeDns::start().await;
    dns.only(Reply::Silent);
    let folder = tempfile::TempDir::new().unwrap();
    let resolver = dns.address.to_string();
    let settings = [("RETRIEVE_ALLOWED_LIST", "shop.example"), ("RETRIEVE_DNS", resolver.as_str())];
    let mut gateway = GatewayProcess::start(&folder, &settings).await;
    eventually("the domain is asked for", || async { (dns.count("shop.example", A) > 0).then_some(()) })
        .await;
    gateway.signal(rustix::process::Signal::TERM);
    assert_eq!(gateway.ended().await.code(), Some(0));
}
