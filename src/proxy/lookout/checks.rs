//! Health checks: when an endpoint is asked, and after how many answers it is taken to be well or
//! not.

use std::{collections::HashMap, rc::Rc, sync::Arc, time::Duration};

use tokio::task::spawn_local;

use super::{Lookout, Watched};
use crate::{
    proxy::{
        check,
        upstream::{Health, Roster, Site},
    },
    routing::HealthCheck,
};

/// The checks of one upstream's endpoints.
#[derive(Debug, Default)]
pub(super) struct Checks(HashMap<Site, Check>);

#[derive(Debug)]
struct Check {
    due: Duration,
    underway: bool,
    streak: Streak,
}

/// Answers of one kind in a row, and what they have come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Streak {
    health: Health,
    good: bool,
    length: u32,
}

impl Checks {
    /// Forgets the endpoints that are not there any more.
    pub(super) fn retain(&mut self, roster: &Roster) {
        self.0.retain(|site, _| roster.seats.iter().any(|seat| seat.site == *site));
    }
}

impl Streak {
    const NONE: Self = Self { health: Health::Untested, good: false, length: 0 };

    /// What another answer makes of it. The first one decides alone.
    fn after(self, good: bool, check: &HealthCheck) -> Self {
        let length = if good == self.good { self.length.saturating_add(1) } else { 1 };
        let (enough, other) =
            if good { (check.healthy, Health::Well) } else { (check.unhealthy, Health::Unwell) };
        let decides = length >= enough || self.health == Health::Untested;
        Self { health: if decides { other } else { self.health }, good, length }
    }
}

impl Lookout {
    /// Asks the endpoints of an upstream that it is time to ask.
    pub(super) fn ask(self: &Rc<Self>, watched: &mut Watched, now: Duration) {
        if watched.spec.health.is_none() {
            return;
        }
        for seat in &watched.roster.seats {
            let fresh = Check { due: now, underway: false, streak: Streak::NONE };
            let check = watched.checks.0.entry(seat.site.clone()).or_insert(fresh);
            if check.due <= now && !check.underway {
                check.underway = true;
                let (lookout, site) = (Rc::clone(self), seat.site.clone());
                let upstream = Arc::clone(&watched.spec.name);
                spawn_local(async move { lookout.check(&upstream, site).await });
            }
        }
    }

    async fn check(self: Rc<Self>, upstream: &str, site: Site) {
        let view = self.worker.view();
        let pool = view.pools().find(|pool| *pool.spec().name == *upstream);
        let good = match pool.and_then(|pool| Some((pool, pool.spec().health.as_ref()?))) {
            Some((pool, health)) => check::is_well(&self.worker, pool, Some(&site), health).await,
            None => false,
        };
        self.checked(upstream, &site, good);
    }

    fn checked(&self, upstream: &str, site: &Site, good: bool) {
        let now = self.worker.clock.now();
        let mut seen = self.seen.borrow_mut();
        let Some(watched) = seen.upstreams.get_mut(upstream) else { return };
        let Some(health) = &watched.spec.health else { return };
        let Some(check) = watched.checks.0.get_mut(site) else { return };
        (check.underway, check.due) = (false, now + health.interval);
        let before = check.streak.health;
        check.streak = check.streak.after(good, health);
        let health = check.streak.health;
        if health == before {
            return;
        }
        match (before, health) {
            (_, Health::Unwell) => tracing::warn!(upstream, endpoint = %site, "it is not well"),
            (Health::Untested, _) => tracing::debug!(upstream, endpoint = %site, "it is well"),
            (_, _) => tracing::info!(upstream, endpoint = %site, "it is well again"),
        }
        let mut seats = watched.roster.seats.iter_mut();
        if let Some(seat) = seats.find(|seat| seat.site == *site) {
            seat.health = health;
        }
        self.publish(&seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::HealthQuestion;

    fn play(answers: &str) -> String {
        let second = Duration::from_secs(1);
        let check = HealthCheck {
            ask: HealthQuestion::Grpc("".into()),
            interval: second,
            timeout: second,
            healthy: 2,
            unhealthy: 3,
        };
        let mut streak = Streak::NONE;
        let word = |answer| {
            streak = streak.after(answer == '+', &check);
            match streak.health {
                Health::Well => 'w',
                Health::Unwell => 'u',
                Health::Untested => '?',
            }
        };
        answers.chars().map(word).collect()
    }

    #[test]
    fn the_first_answer_decides_and_later_ones_in_a_row() {
        assert_eq!(play("+--+---+-++"), "wwwwwwuuuuw");
        assert_eq!(play("-++"), "uuw");
    }
}
