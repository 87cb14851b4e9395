//! The whole demo: starts a proxy over two upstreams, sends to it, tells what is seen, and checks
//! at the end that what should happen happened.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use http::HeaderValue;
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, interval_at, timeout},
};
use tracing::level_filters::LevelFilter;

use super::{
    SAMPLES, SECOND, Whole,
    load::{self, Load},
    say, stopped,
    story::Story,
    table::{self, percent},
    tally::{Run, Window},
    upstream::Upstream,
    verdict,
};
use crate::{
    app::{self, Running},
    cli::{
        exit::{Exit, Failure},
        logging::{self, LogFormat},
    },
    config,
    rollout::{Handle, Snapshot},
};

/// The demo's configuration, inside the binary.
const CONFIG: &str = include_str!("../../../config/demo.yaml");
/// When the regression begins, as a share of the time.
const ONSET: f64 = 0.4;
/// The dashboard's port, and how many after it are tried.
const ADMIN_PORTS: std::ops::Range<u16> = 9900..9950;
/// How long the proxy may take to have counted what the clients sent.
const COUNTED_WITHIN: Duration = Duration::from_secs(5);

/// Plays it.
pub(super) async fn play(arguments: &Whole) -> Result<(), Failure> {
    logging::start(LogFormat::Text, LevelFilter::WARN);
    let baseline = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let canary = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let state = StateDir::make()?;
    let addresses = (baseline.local_addr()?, canary.local_addr()?, state.0.clone());
    // The proxy makes runtimes of its own, which must not happen inside of one.
    let starting = spawn_blocking(move || start_proxy(addresses.0, addresses.1, &addresses.2));
    let running =
        starting.await.map_err(|error| Failure::new(Exit::Failed, error.to_string()))??;
    let handle = running.handle();
    let started = Instant::now();
    let until = started + arguments.time;
    let onset = started + arguments.time.mul_f64(ONSET);
    for (name, listener) in [("baseline", baseline), ("canary", canary)] {
        let regress =
            if name == "canary" { arguments.regress } else { super::behaviour::Regress::None };
        let upstream = Upstream { arm: HeaderValue::from_static(name), regress, onset };
        tokio::spawn(upstream.serve(listener));
    }
    let target = *running.listeners().first().ok_or_else(|| {
        Failure::new(Exit::Failed, "the demo's configuration has no listener on a port")
    })?;
    introduce(arguments, target, running.admin())?;
    let (run, story) = watch(arguments, &handle, Span { started, onset, until }, target).await?;
    let sent = run.whole().served() + run.whole().unserved;
    let counted = count(&handle, sent).await;
    let stopping = spawn_blocking(move || running.shutdown());
    conclude(&run, &story, arguments, counted)?;
    stopping.await.map_err(|error| Failure::new(Exit::Failed, error.to_string()))
}

fn start_proxy(baseline: SocketAddr, canary: SocketAddr, state: &Path) -> Result<Running, Failure> {
    let admin = free_admin_address();
    let env = |name: &str| match name {
        "LISTEN" => Some("127.0.0.1:0".to_owned()),
        "ADMIN" => Some(admin.to_string()),
        "STATE_DIR" => Some(state.display().to_string()),
        "BASELINE" => Some(baseline.to_string()),
        "CANARY" => Some(canary.to_string()),
        _ => None,
    };
    let compiled = config::compile_text(CONFIG, Path::new("demo.yaml"), &env)
        .map_err(|problems| Failure::new(Exit::InvalidConfig, problems.to_string()))?;
    let options = app::Options { config_text: CONFIG.into(), ..app::Options::new() };
    app::start(compiled, options)
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot start: {error:#}")))
}

/// The first port of [`ADMIN_PORTS`] that nobody uses, or any.
fn free_admin_address() -> SocketAddr {
    let free = |port: &u16| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let port = ADMIN_PORTS.into_iter().find(free).unwrap_or(0);
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn introduce(arguments: &Whole, target: SocketAddr, admin: SocketAddr) -> Result<(), Failure> {
    let onset = arguments.time.mul_f64(ONSET);
    say(&format!(
        "One proxy, a baseline, a canary, and clients that send {} requests per second for {}.\n\
         \x20 proxy      http://{target}/\n\
         \x20 dashboard  http://{admin}/\n\
         At {:.1} s: {}.\n\
         The plan is 10, 25, 50, 100 %, each step on proof. Look on, or take part:\n\
         \x20 haldane --admin http://{admin} status\n\
         \x20 haldane --admin http://{admin} abort shop --reason \"I saw enough\"\n",
        arguments.rate,
        humantime::format_duration(arguments.time),
        onset.as_secs_f64(),
        arguments.regress.story(),
    ))
}

/// When what happens.
#[derive(Clone, Copy, Debug)]
struct Span {
    started: Instant,
    onset: Instant,
    until: Instant,
}

/// Sends and tells, until the time is over and every request has its answer.
async fn watch(
    arguments: &Whole,
    handle: &Handle,
    span: Span,
    target: SocketAddr,
) -> Result<(Run, Story), Failure> {
    let host = HeaderValue::try_from(target.to_string()).expect("an address is a host");
    let (sender, mut samples) = mpsc::channel(SAMPLES);
    let load = Load { target, host, rate: arguments.rate, until: Some(span.until) };
    let sending = tokio::spawn(load::run(load, sender));
    say(&table::head())?;
    let mut run = Run::new();
    let mut story = Story::default();
    let mut window = Window::new();
    let mut seconds = interval_at(span.started + SECOND, SECOND);
    let mut onset = Some(span.onset);
    let mut stopped = std::pin::pin!(stopped());
    let mut stopping = false;
    let mut at = 0;
    loop {
        tokio::select! {
            sample = samples.recv() => {
                let Some(sample) = sample else { break };
                window.record(&sample);
                run.record(&sample, sample.due >= span.onset, weight(&handle.snapshot()));
            }
            now = seconds.tick(), if !sending.is_finished() => {
                if onset.take_if(|onset| *onset <= now).is_some() {
                    say(&format!("------ {}", arguments.regress.story()))?;
                }
                let (second, window) = window.turn();
                at = (now - span.started).as_secs();
                let weight = weight(&handle.snapshot());
                say(&table::line(at, Some(weight), &second, &window))?;
                for decision in story.follow(&handle.snapshot(), now - span.started) {
                    say(&table::decision(&decision))?;
                }
            }
            () = &mut stopped, if !stopping => {
                // What is under way still gets its answer and is counted.
                stopping = true;
                sending.abort();
            }
        }
    }
    let (second, window) = window.turn();
    if second.served() + second.unserved > 0 {
        say(&table::line(at + 1, Some(weight(&handle.snapshot())), &second, &window))?;
    }
    story.follow(&handle.snapshot(), span.started.elapsed());
    Ok((run, story))
}

/// The canary's weight in force, as a share of 1.
fn weight(snapshot: &Snapshot) -> f64 {
    let default = snapshot.weights.iter().find(|weight| *weight.cohort == *"default");
    default.map_or(0.0, |weight| f64::from(weight.weight_bp) / 10_000.0)
}

/// What the proxy counted as soon as that is `sent`, or what it had counted when we gave up.
async fn count(handle: &Handle, sent: u64) -> u64 {
    let counted = |snapshot: &Snapshot| -> u64 {
        snapshot.recorders.iter().map(|view| view.totals.started).sum()
    };
    let mut snapshots = handle.watch();
    let complete = snapshots.wait_for(|snapshot| counted(snapshot) == sent);
    match timeout(COUNTED_WITHIN, complete).await {
        Ok(Ok(_)) => sent,
        Ok(Err(_)) | Err(_) => counted(&handle.snapshot()),
    }
}

fn conclude(run: &Run, story: &Story, arguments: &Whole, counted: u64) -> Result<(), Failure> {
    say(&format!("\n{}", table::summary(run)))?;
    let (share, failed) = (run.whole().share(), run.after.canary.failed_share());
    say(&format!(
        "An operator saw: {} of the requests went to the canary; after {:.1} s {} of its answers \
         failed.\nChecks:",
        percent(share),
        arguments.time.mul_f64(ONSET).as_secs_f64(),
        percent(failed),
    ))?;
    let mut checks = verdict::checks(run, arguments.regress, counted);
    let onset = arguments.time.mul_f64(ONSET);
    checks.extend(verdict::decided(story, arguments.regress, onset, arguments.time));
    for check in &checks {
        say(&format!("  {}  {}", if check.passed { "ok    " } else { "FAILED" }, check.text))?;
    }
    if checks.iter().all(|check| check.passed) {
        Ok(())
    } else {
        Err(Failure::new(Exit::Failed, "not everything that should happen in the demo happened"))
    }
}

/// A state directory of the demo's own, gone when the demo is.
struct StateDir(PathBuf);

impl StateDir {
    fn make() -> Result<Self, Failure> {
        let name = format!("haldane-demo-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot make {}: {error}", path.display()))
        })?;
        Ok(Self(path))
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "the demo's state stays behind");
        }
    }
}
