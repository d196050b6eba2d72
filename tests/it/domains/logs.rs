//! The log says when a domain can't be resolved, when it recovers, and when its addresses change.

use super::{quick, start};
use crate::support::eventually;
use crate::support::fake_dns::{FakeDns, Reply, SERVFAIL};
use crate::support::log::Lines;

// On one thread, so that the subscriber of this thread sees all of the gateway's lines and no other test's.
#[tokio::test]
async fn a_domains_failure_recovery_and_change_are_logged_once() {
    let (lines, _logging) = Lines::of_this_thread();
    let said = |text: &str| lines.with(&[text, "shop.example"]).len();
    let until = async |text: &str| lines.until(&[text, "shop.example"]).await;
    let dns = FakeDns::start().await;
    dns.only(Reply::Code(SERVFAIL));
    let gateway = start(&dns, "shop.example", quick).await;
    until("the domain can't be resolved").await;
    dns.host("shop.example", &["203.0.113.5"], 0);
    until("the domain can be resolved again").await;
    dns.host("shop.example", &["203.0.113.6"], 0);
    until("the domain's addresses changed").await;
    dns.host("shop.example", &[], 0);
    until("the domain has no address any more").await;
    let asked = dns.asked().len();
    eventually("it was asked for often", || async { (dns.asked().len() > asked + 20).then_some(()) }).await;
    for line in ["can't be resolved", "can be resolved again", "addresses changed", "has no address any more"]
    {
        assert_eq!(said(line), 1, "{line}");
    }
    drop(gateway);
}
