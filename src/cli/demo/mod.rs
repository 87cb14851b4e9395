//! `haldane demo`: proxy, two upstreams and clients in one process, nothing to configure; and the
//! upstream and the clients alone, for a demo over several containers.

mod behaviour;
mod load;
mod play;
mod story;
mod table;
mod tally;
mod upstream;
mod verdict;

use std::{io::Write, net::SocketAddr, time::Duration};

use behaviour::Regress;
use clap::{Args, Subcommand};
use http::HeaderValue;
use load::Load;
use tokio::{
    net::TcpListener,
    sync::mpsc,
    time::{Instant, interval_at},
};

use super::{
    arguments::duration,
    exit::{Exit, Failure},
};

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    whole: Whole,
}

#[derive(Args, Debug)]
struct Whole {
    /// What happens to the canary at 40 % of the time
    #[arg(long, default_value = "latency")]
    regress: Regress,
    /// How long it runs
    #[arg(long = "for", default_value = "60s", value_name = "DURATION", value_parser = duration)]
    time: Duration,
    /// Requests per second
    #[arg(long, default_value_t = 400.0, value_parser = rate)]
    rate: f64,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// One upstream alone
    Upstream(Upstream),
    /// The clients alone
    Load(Clients),
}

#[derive(Args, Debug)]
struct Upstream {
    /// Where it listens
    #[arg(long, default_value = "127.0.0.1:9001", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Which arm it says it is; `baseline`, or anything else for a canary
    #[arg(long, default_value = "baseline")]
    arm: HeaderValue,
    /// What happens to it
    #[arg(long, default_value = "none")]
    regress: Regress,
    /// When that begins
    #[arg(long, default_value = "60s", value_name = "DURATION", value_parser = duration)]
    after: Duration,
}

#[derive(Args, Debug)]
struct Clients {
    /// The proxy, as HOST:PORT
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "HOST:PORT")]
    target: String,
    /// Requests per second
    #[arg(long, default_value_t = 200.0, value_parser = rate)]
    rate: f64,
    /// How long they run; for ever where left out
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    time: Option<Duration>,
}

/// A rate that the clients can keep.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.1..=50_000.0).contains(&rate) => Ok(rate),
        Ok(_) | Err(_) => Err("expected requests per second from 0.1 to 50000".to_owned()),
    }
}

/// Runs the demo or a part of it.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.part {
        Some(Part::Upstream(upstream)) => super::wait_for(serve(upstream)),
        Some(Part::Load(clients)) => super::wait_for(send(clients)),
        None => super::wait_for(play::play(&arguments.whole)),
    }
}

async fn serve(arguments: &Upstream) -> Result<(), Failure> {
    let listener = TcpListener::bind(arguments.listen).await?;
    eprintln!("{:?} answers on {}", arguments.arm, listener.local_addr()?);
    let upstream = upstream::Upstream {
        arm: arguments.arm.clone(),
        regress: arguments.regress,
        onset: Instant::now() + arguments.after,
    };
    tokio::select! {
        () = upstream.serve(listener) => Ok(()),
        () = stopped() => Ok(()),
    }
}

async fn send(arguments: &Clients) -> Result<(), Failure> {
    let unknown =
        |why: String| Failure::new(Exit::Usage, format!("--target {}: {why}", arguments.target));
    let target = tokio::net::lookup_host(&arguments.target)
        .await
        .map_err(|error| unknown(error.to_string()))?
        .next()
        .ok_or_else(|| unknown("there is no such host".to_owned()))?;
    let host =
        HeaderValue::try_from(&arguments.target).map_err(|error| unknown(error.to_string()))?;
    let started = Instant::now();
    let until = arguments.time.map(|time| started + time);
    let (sender, mut samples) = mpsc::channel(SAMPLES);
    tokio::spawn(load::run(Load { target, host, rate: arguments.rate, until }, sender));
    say(&table::head())?;
    let mut window = tally::Window::new();
    let mut seconds = interval_at(started + SECOND, SECOND);
    let mut stopped = std::pin::pin!(stopped());
    loop {
        tokio::select! {
            sample = samples.recv() => match sample {
                Some(sample) => window.record(&sample),
                None => return Ok(()),
            },
            now = seconds.tick() => {
                let (second, window) = window.turn();
                say(&table::line((now - started).as_secs(), None, &second, &window))?;
            }
            () = &mut stopped => return Ok(()),
        }
    }
}

/// Samples that wait to be counted at most.
const SAMPLES: usize = 65_536;
const SECOND: Duration = Duration::from_secs(1);

/// Says it on standard output, where somebody may have stopped reading.
fn say(text: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

/// Somebody asks us to stop.
async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = tokio::signal::ctrl_c() => (),
            _ = terminate.recv() => (),
        },
        Err(error) => {
            tracing::warn!(%error, "SIGTERM will not end this");
            if let Err(error) = tokio::signal::ctrl_c().await {
                tracing::warn!(%error, "neither will Ctrl-C");
                std::future::pending::<()>().await;
            }
        }
    }
}
