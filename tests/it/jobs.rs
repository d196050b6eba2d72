//! The job as a worker sees it: the order of the documents, as JSON and as XML, out of `tail` and out of `XRANGE`.

use retrieve_gateway::job::one_line;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::client::{exchange, post};
use crate::support::gateway::TestGateway;
use crate::support::process::{GatewayProcess, binary};
use crate::support::redis_server::RedisServer;

const ORDER_JSON: &str = include_str!("fixtures/order.json");
const ORDER_XML: &str = include_str!("fixtures/order.xml");

fn order_of_the_xml() -> Value {
    json!({"webhook": {
        "@event": "order.created",
        "created_at": "2025-12-10T14:30:00Z",
        "order": {
            "@id": "9007199254740993",
            "number": "000000123",
            "total": {"@currency": "EUR", "#text": "156.50"},
            "customer": {"name": "Zoë & Co", "email": "zoe@example.com", "company": null},
            "items": {"item": [
                {"sku": "24-MB01", "quantity": "1"},
                {"sku": "24-WB04", "quantity": "2"}
            ]}
        }
    }})
}

async fn post_both(address: std::net::SocketAddr) {
    let answer = exchange(address, post("/integration/demo", "application/json", ORDER_JSON)).await;
    assert_eq!(answer.status, 200);
    let answer = exchange(address, post("/integration/demo/xml", "application/xml", ORDER_XML)).await;
    assert_eq!(answer.status, 200);
}

fn check_both(jobs: &[Value]) {
    let [json_job, xml_job] = jobs else { panic!("{} jobs", jobs.len()) };
    assert_eq!(json_job["data"]["data"], serde_json::from_str::<Value>(ORDER_JSON).unwrap());
    assert_eq!(json_job["data"]["data"]["order"]["id"].as_u64(), Some(9_007_199_254_740_993));
    assert_eq!((&json_job["data"]["format"], &json_job["data"]["raw"]), (&json!("json"), &Value::Null));
    assert_eq!(xml_job["data"]["data"], order_of_the_xml());
    assert_eq!((&xml_job["data"]["format"], &xml_job["data"]["raw"]), (&json!("xml"), &json!(ORDER_XML)));
    for job in jobs {
        assert_eq!(job["v"], 1);
        assert_eq!(job["app"], "shop");
        assert_eq!(job["integration"], "demo");
        assert_eq!(job["source"]["ip"], "127.0.0.1");
        assert_eq!(job["source"]["rule"], "127.0.0.0/8");
        assert_eq!(job["request"]["headers"]["host"], "gateway.test");
        let id: uuid::Uuid = job["id"].as_str().unwrap().parse().unwrap();
        assert_eq!(id.get_version_num(), 7);
        let received_at = job["received_at"].as_str().unwrap();
        assert!(received_at.len() == 27 && received_at.ends_with('Z'), "{received_at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_orders_come_out_of_tail() {
    let folder = TempDir::new().unwrap();
    let gateway = GatewayProcess::start(&folder, &[("RETRIEVE_APP", "shop")]).await;
    let admin = gateway.admin.to_string();
    let tail = |from: &str| {
        let mut command = binary();
        command
            .args(["tail", "--json", "--from", from, "--admin", &admin])
            .stdout(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    post_both(gateway.address).await;
    let mut child = tail("start");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut jobs = Vec::new();
    for expect in [ORDER_JSON, ORDER_XML] {
        let line = lines.next_line().await.unwrap().unwrap();
        if expect == ORDER_JSON {
            // Byte for byte, but for the line ends that would break one job a line.
            let payload = String::from_utf8(one_line(ORDER_JSON.trim().as_bytes())).unwrap();
            assert!(line.contains(&format!("\"data\":{{\"format\":\"json\",\"data\":{payload},")), "{line}");
        }
        jobs.push(serde_json::from_str(&line).unwrap());
    }
    check_both(&jobs);
    // It goes on following: what arrives now comes out now.
    post_both(gateway.address).await;
    for job in &jobs {
        let next: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
        assert_eq!(next["data"], job["data"]);
        assert_ne!(next["id"], job["id"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_orders_come_out_of_xrange_and_of_tail_on_redis() {
    let redis = RedisServer::start().await;
    let gateway = TestGateway::start(&[("RETRIEVE_APP", "shop"), ("RETRIEVE_QUEUE", &redis.url())]).await;
    gateway.ready().await;
    post_both(gateway.address).await;
    check_both(&redis.jobs("shop").await);
    check_both(&gateway.jobs().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_from_now_shows_only_what_comes() {
    let gateway = TestGateway::start(&[]).await;
    gateway.post_json("{\"n\":1}").await;
    let end = crate::support::client::get(gateway.admin, "/api/jobs?after=$").await;
    assert_eq!(end.body, "");
    let last = end.header("x-retrieve-last-id").unwrap();
    gateway.post_json("{\"n\":2}").await;
    let next = crate::support::client::get(gateway.admin, &format!("/api/jobs?after={last}&wait=10s")).await;
    assert_eq!(next.body.lines().count(), 1);
    assert!(next.body.contains("{\"n\":2}"), "{}", next.body);
}
