//! The scenery of one run: upstreams and clients in this thread, the proxy as a process with a
//! directory and ports of its own. Dropping it takes everything away again.

use std::{
    cell::Cell,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, SystemTime},
};

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    admin::Admin,
    child::{Program, Proxy},
    client::{Client, Load},
    ports,
    upstream::{self, Upstream},
    users::Users,
    watch::{Look, Rollout, Watch},
};

/// Why a run did not come to its measurement, or what was wrong.
pub(crate) type Trouble = String;

/// How long a proxy may take to be ready.
const READY: Duration = Duration::from_secs(20);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// What a run needs.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// Requests per second; 0: none.
    pub(crate) rate: f64,
    /// Whether requests come from 5,000 users who stick to an arm.
    pub(crate) sticky: bool,
    /// The canaries, by name; `v2` is the first everywhere.
    pub(crate) canaries: &'static [&'static str],
    /// Pods behind the baseline.
    pub(crate) replicas: u32,
    /// The stages of the plan, in YAML.
    pub(crate) stages: &'static str,
    /// The block of the judge.
    pub(crate) block: &'static str,
    /// More keys of the plan, in YAML.
    pub(crate) plan: String,
    /// More keys of the route, in YAML.
    pub(crate) route: &'static str,
    /// The version of the first canary.
    pub(crate) version: &'static str,
    /// More services and routes, in YAML: `(services, routes)`.
    pub(crate) others: (&'static str, &'static str),
    /// Where the state goes; `None`: the run's own directory.
    pub(crate) state_dir: Option<PathBuf>,
}

/// A first stage that no run outlives.
pub(crate) const STAYS: &str = "[{ weight: 5%, at_least: 2h }, 100%]";

impl Default for Setting {
    fn default() -> Self {
        Self {
            rate: 500.0,
            sticky: false,
            canaries: &["v2"],
            replicas: 9,
            stages: STAYS,
            block: "1s",
            plan: String::new(),
            route: "",
            version: "2.0.0",
            others: ("", ""),
            state_dir: None,
        }
    }
}

/// A run's scenery.
#[derive(Debug)]
pub(crate) struct Scene {
    // In the order in which they are to be dropped.
    pub(crate) client: Option<Client>,
    pub(crate) watch: Watch,
    proxy: Option<Proxy>,
    pub(crate) admin: Admin,
    pub(crate) program: Program,
    pub(crate) load: Rc<upstream::Load>,
    pub(crate) baseline: Upstream,
    pub(crate) canaries: Vec<Upstream>,
    edge: SocketAddr,
    setting: Setting,
    began: (Instant, SystemTime),
    lateness: Rc<Cell<Duration>>,
    dir: TempDir,
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(client) = &self.client {
            self.lateness.set(client.tally().lateness_p99());
        }
    }
}

impl Scene {
    /// Sets everything up, and begins to send when the proxy is ready.
    pub(crate) async fn open(
        binary: &Path,
        setting: Setting,
        lateness: Rc<Cell<Duration>>,
    ) -> Result<Self, Trouble> {
        let made = |error: io::Error| format!("the scenery cannot be made: {error}");
        let dir = tempfile::Builder::new().prefix("haldane-bench").tempdir().map_err(made)?;
        let load = upstream::Load::steady();
        let baseline = Upstream::start("baseline", &load).map_err(made)?;
        let canaries: io::Result<Vec<_>> =
            setting.canaries.iter().map(|name| Upstream::start(name, &load)).collect();
        let admin = Admin(ports::free().map_err(made)?);
        let program = Program {
            binary: binary.to_owned(),
            config: dir.path().join("haldane.yaml"),
            log: dir.path().join("log"),
        };
        let mut scene = Self {
            client: None,
            watch: Watch::start(admin),
            proxy: None,
            admin,
            program,
            load,
            baseline,
            canaries: canaries.map_err(made)?,
            edge: ports::free().map_err(made)?,
            setting,
            began: (Instant::now(), SystemTime::now()),
            lateness,
            dir,
        };
        scene.write_config().map_err(made)?;
        scene.start_proxy().await?;
        let (rate, sticky) = (scene.setting.rate, scene.setting.sticky);
        if rate > 0.0 {
            let users = sticky.then(|| Users::new(5000, 1.1));
            scene.client = Some(Client::start(scene.edge, Load { rate, users }));
        }
        Ok(scene)
    }

    /// The first canary.
    pub(crate) fn canary(&self) -> &Upstream {
        &self.canaries[0]
    }

    /// Where clients connect to.
    pub(crate) fn edge(&self) -> SocketAddr {
        self.edge
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.setting.state_dir.clone().unwrap_or_else(|| self.dir.path().join("state"))
    }

    /// Changes the setting; the file follows, and the proxy when it is told to reload.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Setting)) -> Result<(), Trouble> {
        change(&mut self.setting);
        self.write_config().map_err(|error| format!("the configuration cannot be written: {error}"))
    }

    /// Loads the configuration again.
    pub(crate) async fn reload(&self) -> Result<(), Trouble> {
        match self.admin.post("/api/v1/reload", &serde_json::json!({})).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!(
                "the reload was refused with {}: {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            )),
            Err(error) => Err(format!("the reload was not answered: {error}")),
        }
    }

    /// Starts the proxy, and waits until it is ready.
    pub(crate) async fn start_proxy(&mut self) -> Result<(), Trouble> {
        self.spawn_proxy().await?;
        self.ready().await
    }

    /// Starts the proxy, and waits for nothing.
    pub(crate) async fn spawn_proxy(&mut self) -> Result<(), Trouble> {
        let started = self.program.start().await;
        self.proxy =
            Some(started.map_err(|error| format!("the proxy cannot be started: {error}"))?);
        Ok(())
    }

    /// Waits until the proxy is ready.
    pub(crate) async fn ready(&mut self) -> Result<(), Trouble> {
        let end = Instant::now() + READY;
        loop {
            if self.admin.get("/readyz").await.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            if !self.proxy.as_mut().is_some_and(Proxy::runs) || Instant::now() > end {
                return Err(format!("the proxy is not ready: {}", self.program.last_words()));
            }
            sleep(LOOK).await;
        }
    }

    /// `kill -9`.
    pub(crate) async fn kill_proxy(&mut self) -> Result<(), Trouble> {
        match self.proxy.take() {
            Some(proxy) => {
                proxy.kill().await.map_err(|error| format!("the proxy cannot be killed: {error}"))
            }
            None => Ok(()),
        }
    }

    /// SIGTERM.
    pub(crate) async fn end_proxy(&mut self) -> Result<(), Trouble> {
        match self.proxy.take() {
            Some(proxy) => {
                proxy.terminate().await.map_err(|error| format!("the proxy does not end: {error}"))
            }
            None => Ok(()),
        }
    }

    /// The latest look at the first canary's rollout.
    pub(crate) fn rollout(&self) -> Result<Rollout, Trouble> {
        let look = self.watch.last().ok_or("there is no status")?;
        look.of("v2").cloned().ok_or_else(|| "the status does not know the canary".to_owned())
    }

    /// Waits until a look gives something; the trouble says what was waited for.
    pub(crate) async fn until<T>(
        &self,
        what: &str,
        patience: Duration,
        mut check: impl FnMut(&Look) -> Option<T>,
    ) -> Result<T, Trouble> {
        let end = Instant::now() + patience;
        loop {
            let look = self.watch.last();
            if let Some(found) = look.as_ref().and_then(&mut check) {
                return Ok(found);
            }
            if Instant::now() > end {
                let stands = look.as_ref().and_then(|look| look.of("v2")).map_or_else(
                    || "no status".to_owned(),
                    |it| {
                        let weight = it.weight * 100.0;
                        format!("{} at {weight} %, {:.3} : 1, {}", it.phase, it.evidence, it.reason)
                    },
                );
                return Err(format!("never came: {what} ({stands})"));
            }
            sleep(LOOK).await;
        }
    }

    /// The moment of a time that the proxy wrote down.
    pub(crate) fn moment(&self, wall: SystemTime) -> Instant {
        let (instant, began) = self.began;
        instant + wall.duration_since(began).unwrap_or_default()
    }

    fn write_config(&self) -> io::Result<()> {
        // Written beside it and moved: never seen half-way.
        let new = self.dir.path().join("new.tmp");
        fs::write(&new, self.config())?;
        fs::rename(new, &self.program.config)
    }

    fn config(&self) -> String {
        let Setting { replicas, stages, block, plan, route, version, others, .. } = &self.setting;
        let (edge, admin, state) = (self.edge, self.admin.0, self.state_dir());
        let baseline = self.baseline.addr;
        let mut upstreams = String::new();
        let mut canaries = String::new();
        for (number, (name, upstream)) in
            self.setting.canaries.iter().zip(&self.canaries).enumerate()
        {
            let addr = upstream.addr;
            upstreams += &format!("  {name}: {{ endpoints: [\"{addr}\"], replicas: 1 }}\n");
            let version = if number == 0 { version } else { "1.0.0" };
            canaries += &format!("      {name}: {{ upstream: {name}, version: \"{version}\" }}\n");
        }
        let keys = if self.setting.sticky { "    assign_by: [{ cookie: uid }]\n" } else { "" };
        let (services, routes) = others;
        format!(
            "version: 1
listeners: [{{ name: edge, address: \"{edge}\" }}]
admin: {{ address: \"{admin}\" }}
state_dir: \"{}\"
upstreams:
  old: {{ endpoints: [\"{baseline}\"], replicas: {replicas} }}
{upstreams}services:
  shop:
    baseline: old
    canaries:
{canaries}{keys}    rollout: plan
{services}
routes:
  - {{ name: shop, match: {{ path_prefix: /shop }}, service: shop, timeout: 10s{route} }}
{routes}
rollouts:
  plan:
    stages: {stages}
    judge: {{ block: {block} }}
{plan}",
            state.display()
        )
    }
}
