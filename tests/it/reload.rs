//! Reloads under load: nothing fails, nothing is cut, nobody flips.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::harness::{Call, Connection, Haldane, Upstream, eventually, one_arm, two_arms};

const STICKY: &str = "    assign_by: [{ header: x-user }]";

/// Number of reloads, every tenth of them of a broken file.
const RELOADS: u32 = 1_000;

/// One client that keeps its connection and its arm until told to stop; counts its requests.
async fn sticky_client(addr: SocketAddr, user: u32, stop: Arc<AtomicBool>, count: Arc<AtomicU64>) {
    let mut connection = Connection::open(addr, user % 2 == 1).await.unwrap();
    let mut arm = None;
    while !stop.load(Ordering::SeqCst) {
        let call = Call::get("/").header("x-user", &user.to_string());
        let call = if user % 2 == 1 { call.h2() } else { call };
        let answer = connection.call(call).await.expect("no connection is cut");
        assert_eq!(answer.status, 200);
        let now = answer.header("x-haldane-arm").unwrap().to_owned();
        assert_eq!(*arm.get_or_insert_with(|| now.clone()), now, "user {user} flipped");
        count.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn reloads_under_load_fail_nothing_cut_nothing_and_flip_nobody() {
    let upstream = Upstream::text("x").await;
    let yaml = two_arms(upstream.addr, upstream.addr, "30%", STICKY);
    let haldane = Haldane::start(&yaml).await;
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..12)
        .map(|user| {
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            tokio::spawn(sticky_client(haldane.addr, user, stop, count))
        })
        .collect();
    for number in 0..RELOADS {
        let broken = number % 10 == 9;
        let answer = if broken {
            haldane.write_config(&format!("{yaml}unknown_key: {number}\n"));
            haldane.reload().await
        } else {
            let route =
                format!("    response_headers: {{ set: {{ x-generation: '{number}' }} }}\n");
            let new = yaml.replace(
                "routes: [{ name: all, service: shop, timeout: 2s }]\n",
                &format!("routes:\n  - name: all\n    service: shop\n    timeout: 2s\n{route}"),
            );
            haldane.write_config(&new);
            haldane.reload().await
        };
        assert_eq!(answer.status.is_success(), !broken, "{}", answer.text());
        let in_force = if broken { number - 1 } else { number };
        let answer = Call::get("/").header("x-user", "probe").to(haldane.addr).await;
        assert_eq!(answer.header("x-generation"), Some(&*in_force.to_string()));
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    assert!(count.load(Ordering::SeqCst) > u64::from(RELOADS));
}

#[tokio::test]
async fn a_changed_file_comes_into_force_by_itself() {
    let (one, two) = (Upstream::text("one").await, Upstream::text("two").await);
    let haldane = Haldane::start(&one_arm(one.addr)).await;
    assert_eq!(Call::get("/").to(haldane.addr).await.text(), "one");
    haldane.write_config(&one_arm(two.addr));
    eventually("the new upstream answers", async || {
        (Call::get("/").to(haldane.addr).await.text() == "two").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_is_reported() {
    let upstream = Upstream::text("one").await;
    let yaml = one_arm(upstream.addr);
    let haldane = Haldane::start(&yaml).await;
    haldane.write_config(&yaml.replace("arm_header: true", "arm_heder: true"));
    eventually("the metric shows the failure", async || {
        let metrics = haldane.metrics().await;
        metrics.contains("haldane_config_last_reload_successful 0").then_some(())
    })
    .await;
    assert_eq!(Call::get("/").to(haldane.addr).await.text(), "one");
    let answer = haldane.reload().await;
    assert!(answer.status.is_client_error());
    assert!(answer.text().contains("arm_header"), "{}", answer.text());
}

#[tokio::test]
async fn listeners_come_and_go_and_what_needs_a_restart_is_refused_as_a_whole() {
    let upstream = Upstream::text("one").await;
    let yaml = one_arm(upstream.addr);
    let haldane = Haldane::start(&yaml).await;
    let spare = crate::harness::nobody().await;
    let with = |listeners: &str, more: &str| {
        format!(
            "version: 1\nlisteners: [{listeners}]\nadmin: {{ address: \"127.0.0.1:0\" }}
state_dir: {more}state\n{yaml}"
        )
    };
    let first = "{ name: edge, address: \"127.0.0.1:0\" }";
    let second = format!("{first}, {{ name: more, address: \"{spare}\" }}");
    haldane.write_config(&with(&second, ""));
    assert_eq!(haldane.reload().await.status, 200);
    assert_eq!(Call::get("/").to(spare).await.text(), "one");
    haldane.write_config(&with(first, "other-"));
    let answer = haldane.reload().await;
    assert!(answer.status.is_client_error() && answer.text().contains("state_dir"));
    assert_eq!(Call::get("/").to(spare).await.text(), "one");
    // A connection that lives on does not keep the door open for others.
    let mut lives_on = Connection::open(spare, false).await.unwrap();
    assert_eq!(lives_on.call(Call::get("/")).await.unwrap().text(), "one");
    haldane.write_config(&with(first, ""));
    assert_eq!(haldane.reload().await.status, 200);
    eventually("the second listener is closed", async || {
        tokio::net::TcpStream::connect(spare).await.is_err().then_some(())
    })
    .await;
    assert_eq!(lives_on.call(Call::get("/")).await.unwrap().text(), "one");
    assert_eq!(Call::get("/").to(haldane.addr).await.text(), "one");
}
