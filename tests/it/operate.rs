//! Operating it: readiness, shutdown, metrics.

use std::time::Duration;

use http::Response;
use tokio::time::sleep;

use crate::harness::{Call, Connection, Haldane, Upstream, eventually, full, two_arms};

#[tokio::test]
async fn a_shutdown_lets_what_is_in_flight_finish() {
    let upstream = Upstream::start(|_| async {
        sleep(Duration::from_millis(400)).await;
        Response::new(full("done"))
    })
    .await;
    let haldane = Haldane::start(&two_arms(upstream.addr, upstream.addr, "5%", "")).await;
    assert_eq!(Call::get("/readyz").to(haldane.admin).await.status, 200);
    let mut idle = Connection::open(haldane.addr, false).await.unwrap();
    assert_eq!(idle.call(Call::get("/")).await.unwrap().status, 200);
    let calls: Vec<_> = [false, true]
        .map(|h2| {
            let call = if h2 { Call::get("/").h2() } else { Call::get("/") };
            tokio::spawn(call.to(haldane.addr))
        })
        .into();
    eventually("the requests are in flight", async || (upstream.seen() == 3).then_some(())).await;
    haldane.begin_shutdown();
    eventually("it is not ready", async || {
        (Call::get("/readyz").to(haldane.admin).await.status == 503).then_some(())
    })
    .await;
    for call in calls {
        assert_eq!(call.await.unwrap().text(), "done");
    }
    let addr = haldane.addr;
    haldane.stop().await;
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
    assert!(idle.call(Call::get("/")).await.is_err());
}

#[tokio::test]
async fn metrics_begin_at_zero_and_count_refusals() {
    let upstream = Upstream::text("x").await;
    let haldane = Haldane::start(&two_arms(upstream.addr, upstream.addr, "5%", "")).await;
    let metrics = haldane.metrics().await;
    for series in [
        "haldane_requests_total{route=\"all\",cohort=\"default\",arm=\"v2\",outcome=\"hung\"} 0",
        "haldane_canary_weight{service=\"shop\",canary=\"v2\",cohort=\"default\"} 0.05",
        "haldane_shed_total{reason=\"bad_request\"} 0",
        "haldane_config_last_reload_successful 1",
    ] {
        assert!(metrics.contains(series), "{series} is missing in\n{metrics}");
    }
    assert_eq!(Call::get("/%00").to(haldane.addr).await.status, 400);
    let series = "haldane_shed_total{reason=\"bad_request\"} 1";
    eventually(series, async || haldane.metrics().await.contains(series).then_some(())).await;
}
