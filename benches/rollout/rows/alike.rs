//! Identical arms: nothing is rolled back, and the plan is proved in time.

use std::time::Duration;

use tokio::time::Instant;

use super::{Findings, Found, Run};
use crate::scene::{Setting, Trouble};

/// 1.5 times the blocks of 1 s in which the stages can be proved: 150 at 5 %, 30 at 25 %, 15 at
/// 50 %.
pub(super) const LIMIT: f64 = 1.5 * (150.0 + 30.0 + 15.0);

const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Standard deviation of the common log-load.
const NOISE: f64 = 0.2;

const STAGES: &str = "[{ weight: 5%, at_least: 10s }, { weight: 25%, at_least: 10s }, \
                      { weight: 50%, at_least: 10s }, 100%]";

pub(super) async fn promoted(run: Run) -> Result<Findings, Trouble> {
    let scene = run.open(Setting { stages: STAGES, ..Setting::default() }).await?;
    scene.load.wander(NOISE);
    let began = Instant::now();
    let ended = scene
        .until("promotion", PATIENCE, |look| {
            let rollout = look.of("v2")?;
            ["promoted", "rolled_back"].contains(&rollout.phase.as_str()).then(|| rollout.clone())
        })
        .await;
    let took = began.elapsed().as_secs_f64();
    Ok(match ended {
        Ok(rollout) if rollout.phase == "promoted" => {
            Findings::of([Ok(Found::Holds), Ok(Found::After(took))])
        }
        Ok(rollout) => {
            let trouble = format!("rolled back after {took:.0} s: {}", rollout.reason);
            Findings::of([Err(trouble.clone()), Err(trouble)])
        }
        Err(trouble) => Findings::of([Ok(Found::Holds), Err(trouble)]),
    })
}
