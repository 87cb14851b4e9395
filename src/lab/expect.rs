//! Holds what a scenario came to against what it expects. Shares of healthy canaries are held to by
//! their exact 97.5 % lower bound: a row fails only where chance cannot be the reason.

use std::time::Duration;

use super::{
    scenario::Expect,
    summary::{Share, Spread, Summary},
};

/// Share of the runs that must be rolled back where detection is held to its bound.
const NEARLY_ALL: f64 = 0.99;

/// What was expected and did not come out, each in a sentence; empty if all did.
#[must_use]
pub fn unmet(expect: &Expect, summary: &Summary) -> Vec<String> {
    let haldane = &summary.haldane;
    let mut unmet = Unmet(Vec::new());
    unmet.at_most("rolled back", haldane.rolled_back, expect.rollbacks_at_most);
    if let Some(cautioned) = haldane.cautioned {
        unmet.at_most("cautioned", cautioned, expect.cautions_at_most);
    }
    unmet.at_most("promoted", haldane.promoted, expect.promotions_at_most);
    if expect.must_fail {
        let shows = !unmet.0.is_empty();
        return if shows { Vec::new() } else { vec!["the flaw did not show".to_owned()] };
    }
    unmet.at_least("rolled back", haldane.rolled_back, expect.rollbacks_at_least);
    unmet.at_least("promoted", haldane.promoted, expect.promotions_at_least);
    let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs_f64());
    for (what, spread, most) in [
        ("seconds to rollback", haldane.seconds_from_onset, expect.rollback_within),
        ("seconds to caution", summary.caution_from_onset, expect.caution_within),
        ("seconds to the breaker", summary.opened_from_onset, expect.opened_within),
    ] {
        unmet.mean_within(what, spread, seconds(most));
    }
    if expect.bound && summary.floor_canary_requests.is_some() {
        unmet.at_least("rolled back", haldane.rolled_back, Some(NEARLY_ALL));
        let floor = summary.floor_canary_requests;
        unmet.mean_within("canary requests", haldane.canary_requests, floor);
    }
    unmet.0
}

struct Unmet(Vec<String>);

impl Unmet {
    fn at_most(&mut self, what: &str, share: Share, most: Option<f64>) {
        let low = share.interval().0;
        if let Some(most) = most.filter(|most| low > *most) {
            let most = percent(most);
            let low = percent(low);
            self.0.push(format!("{what} in at least {low} of the runs, expected {most} at most"));
        }
    }

    fn at_least(&mut self, what: &str, share: Share, least: Option<f64>) {
        let estimate = share.estimate();
        if let Some(least) = least.filter(|least| estimate < *least) {
            let [estimate, least] = [estimate, least].map(percent);
            self.0.push(format!("{what} in {estimate} of the runs, expected {least} at least"));
        }
    }

    fn mean_within(&mut self, what: &str, spread: Option<Spread>, most: Option<f64>) {
        let mean = spread.map(|spread| spread.mean);
        if let Some(most) = most
            && mean.is_none_or(|mean| mean > most)
        {
            let mean = mean.map_or("none".to_owned(), |mean| format!("{mean:.1}"));
            self.0.push(format!("{what}: {mean} on average, expected {most:.1} at most"));
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.3} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{record::Record, rivals::Stopped, scenario::Scenario};

    /// Ten runs, four of them rolled back after 10 to 13 s.
    fn unmet(expect: Expect) -> usize {
        let mut records = vec![Record::default(); 10];
        for (place, record) in records.iter_mut().enumerate().take(4) {
            let at = 10.0 + place as f64;
            record.rolled_back = Some(Stopped { at, canary_requests: 250, excess_bad: 3.0 });
        }
        super::unmet(&expect, &Summary::new(&Scenario::default(), &records)).len()
    }

    #[test]
    fn a_share_fails_only_beyond_chance() {
        // The exact lower bound of 4 in 10 is 12.2 %.
        let at_most = |share| Expect { rollbacks_at_most: Some(share), ..Expect::default() };
        assert_eq!(unmet(at_most(0.001)), 1);
        assert_eq!(unmet(at_most(0.13)), 0);
        assert_eq!(unmet(Expect { must_fail: true, ..at_most(0.001) }), 0);
        assert_eq!(unmet(Expect { must_fail: true, ..at_most(0.13) }), 1);
    }

    #[test]
    fn means_are_held_to_their_limit() {
        let within = |seconds| {
            let rollback_within = Some(Duration::from_secs(seconds));
            unmet(Expect { rollback_within, ..Expect::default() })
        };
        assert_eq!((within(11), within(12)), (1, 0));
        let caution_within = Some(Duration::from_secs(100));
        assert_eq!(unmet(Expect { caution_within, ..Expect::default() }), 1, "there was none");
    }
}
