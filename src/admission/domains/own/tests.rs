//! What a domain's answers do to its addresses, on a clock of the test's own.

use super::*;
use crate::admission::allowlist::Entry;

const TIMES: OwnTimes = OwnTimes {
    ttl_min: Duration::from_secs(30),
    ttl_max: Duration::from_secs(300),
    margin: Duration::from_secs(30),
    grace: Duration::from_secs(3600),
    retry: Duration::from_secs(5),
};

fn known(name: &str) -> Known {
    let Ok(Entry::Domain(domain)) = Entry::parse(name) else { panic!("{name}") };
    Known { domain: Arc::new(domain), addresses: HashMap::new(), status: Status::Unknown }
}

fn found(addresses: &[&str], ttl: u64) -> Answer<IpAddr> {
    let values = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Answer::Found { values, ttl: Duration::from_secs(ttl) }
}

fn failed() -> Answer<IpAddr> {
    Answer::Failed("SERVFAIL".to_owned())
}

/// Which addresses hold at a time.
fn held(known: &Known, now: Instant, at_seconds: u64) -> Vec<String> {
    let at = now + Duration::from_secs(at_seconds);
    let known = std::slice::from_ref(known);
    let table = table_of(known, now);
    let mut held: Vec<String> = table
        .owners
        .keys()
        .filter(|address| table.owners(**address, at).next().is_some())
        .map(ToString::to_string)
        .collect();
    held.sort();
    held
}

#[test]
fn the_time_to_the_next_look_up_is_the_ttl_within_its_bounds() {
    let now = Instant::now();
    for (ttl, expect) in [(0, 30), (29, 30), (31, 31), (60, 60), (301, 300), (u64::from(u32::MAX), 300)] {
        let (delay, _) =
            known("a.example").learn(&[found(&["192.0.2.1"], ttl), Answer::Nothing], now, &TIMES);
        assert_eq!(delay.as_secs(), expect, "{ttl}");
    }
    let answers = [found(&["192.0.2.1"], 200), found(&["2001:db8::1"], 100)];
    assert_eq!(known("a.example").learn(&answers, now, &TIMES).0.as_secs(), 100, "the shorter of both");
    for (answers, expect) in [
        ([failed(), failed()], 5),
        ([failed(), Answer::Nothing], 5),
        ([Answer::Nothing, Answer::Nothing], 30),
    ] {
        assert_eq!(known("a.example").learn(&answers, now, &TIMES).0.as_secs(), expect);
    }
}

#[test]
fn an_old_address_holds_for_the_margin_after_a_change() {
    let now = Instant::now();
    let mut domain = known("a.example");
    domain.learn(&[found(&["192.0.2.1", "192.0.2.2"], 60), Answer::Nothing], now, &TIMES);
    let (_, change) = domain.learn(&[found(&["192.0.2.2", "192.0.2.3"], 60), Answer::Nothing], now, &TIMES);
    let only = |text: &str| vec![text.parse::<IpAddr>().unwrap()];
    assert_eq!((change.added, change.removed), (only("192.0.2.3"), only("192.0.2.1")));
    assert_eq!(held(&domain, now, 29), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
    assert_eq!(held(&domain, now, 30), ["192.0.2.2", "192.0.2.3"], "the request's own clock ends it");
    // Further answers don't lengthen it, nor do failures.
    let later = now + Duration::from_secs(29);
    domain.learn(&[found(&["192.0.2.2"], 60), Answer::Nothing], later, &TIMES);
    domain.learn(&[failed(), failed()], later, &TIMES);
    assert_eq!(held(&domain, now, 30), ["192.0.2.2", "192.0.2.3"]);
    // One that comes back is an address like any other.
    let (_, change) = domain.learn(&[found(&["192.0.2.1"], 60), Answer::Nothing], later, &TIMES);
    assert_eq!((change.added, change.removed), (vec![], only("192.0.2.2")));
    assert_eq!(held(&domain, later, 60), ["192.0.2.1"]);
}

#[test]
fn the_last_good_answer_holds_for_the_grace_period() {
    let now = Instant::now();
    let mut domain = known("a.example");
    domain.learn(&[found(&["192.0.2.1"], 60), found(&["2001:db8::1"], 60)], now, &TIMES);
    let both = ["192.0.2.1", "2001:db8::1"];
    for answers in [[failed(), failed()], [Answer::Nothing, Answer::Nothing], [failed(), Answer::Nothing]] {
        let (delay, change) = domain.learn(&answers, now, &TIMES);
        assert_eq!((delay, change.added, change.removed), (TIMES.retry, vec![], vec![]));
        assert_eq!(held(&domain, now, 3659), both);
        assert!(held(&domain, now, 3660).is_empty());
    }
    let end = now + Duration::from_secs(3660);
    domain.learn(&[failed(), failed()], end, &TIMES);
    assert!(domain.addresses.is_empty(), "what has run out is forgotten");
}

#[test]
fn the_families_are_apart() {
    let now = Instant::now();
    let mut domain = known("a.example");
    domain.learn(&[found(&["192.0.2.1"], 60), found(&["2001:db8::1"], 60)], now, &TIMES);
    domain.learn(&[found(&["192.0.2.2"], 60), failed()], now, &TIMES);
    assert_eq!(held(&domain, now, 31), ["192.0.2.2", "2001:db8::1"], "a failure says nothing");
    assert_eq!(domain.status, Status::Resolved);
    domain.learn(&[found(&["192.0.2.2"], 60), Answer::Nothing], now, &TIMES);
    assert_eq!(held(&domain, now, 31), ["192.0.2.2"], "no data is an answer");
}

#[test]
fn a_stranger_is_undecided_while_a_domain_has_no_answer() {
    let now = Instant::now();
    let settled = |known: &Known| table_of(std::slice::from_ref(known), now).is_settled();
    let mut domain = known("a.example");
    for (answers, expect) in [
        (None, false),
        (Some([failed(), failed()]), false),
        (Some([Answer::Nothing, failed()]), false),
        (Some([Answer::Nothing, Answer::Nothing]), true),
        (Some([found(&["192.0.2.1"], 60), failed()]), true),
        (Some([failed(), failed()]), false),
    ] {
        if let Some(answers) = &answers {
            domain.learn(answers, now, &TIMES);
        }
        assert_eq!(settled(&domain), expect, "{answers:?}");
    }
}

#[test]
fn answers_are_bounded_and_the_machine_itself_is_no_answer() {
    let now = Instant::now();
    let many: Vec<String> = (0..10_000).map(|n| format!("10.0.{}.{}", n / 256, n % 256)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut domain = known("a.example");
    let (_, change) = domain.learn(&[found(&many, 60), Answer::Nothing], now, &TIMES);
    assert!(change.cut);
    assert_eq!(domain.addresses.len(), ADDRESSES_LIMIT);
    let own = ["127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "192.0.2.1"];
    let mut domain = known("b.example");
    domain.learn(&[found(&own, 60), found(&["::1", "::", "ff02::1"], 60)], now, &TIMES);
    assert_eq!(held(&domain, now, 0), ["192.0.2.1"]);
}
