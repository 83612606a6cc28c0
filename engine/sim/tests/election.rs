//! Leadership by a lease: whatever happens to contenders, the server or the clocks, never do two of them lead at once.
#![allow(clippy::unwrap_used)]

#[path = "election/control.rs"]
mod control;
#[path = "election/office.rs"]
mod office;

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use office::{Office, Way};
use shipway_sim::{Cluster, Part};

const LEASE: &str = "kube-system/office";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn record(cluster: &Cluster) -> LeaseSpec {
    cluster.get::<Lease>(LEASE).await.unwrap().spec.unwrap()
}

/// Waits until somebody leads; who.
async fn leader(cluster: &Cluster, office: &Office, within: Duration) -> usize {
    let deadline = cluster.elapsed() + within;
    loop {
        // Whoever was just told to go does so first.
        cluster.run_for(Duration::from_millis(50)).await;
        if let Some(leader) = office.leader() {
            return leader;
        }
        assert!(cluster.elapsed() < deadline, "nobody leads within {within:?}");
    }
}

fn elect(test: impl AsyncFnOnce(&Cluster, &mut Office) + Send) {
    Cluster::builder().run(async |cluster| {
        let mut office = Office::default();
        office.enter(&cluster, 0);
        office.enter(&cluster, 1);
        test(&cluster, &mut office).await;
        assert_eq!(office.most(), 1, "how many led at once");
    });
}

#[test]
fn one_of_two_leads_and_its_record_is_as_client_go_writes_it() {
    elect(async |cluster, office| {
        let first = leader(cluster, office, seconds(1)).await;
        cluster.run_for(seconds(60)).await;
        assert_eq!((office.leader(), office.terms()), (Some(first), 1));
        let spec = record(cluster).await;
        assert_eq!(spec.holder_identity, Some(office::name(first)));
        assert_eq!((spec.lease_duration_seconds, spec.lease_transitions), (Some(15), Some(0)));
        let (acquired, renewed) = (spec.acquire_time.unwrap().0, spec.renew_time.unwrap().0);
        assert!(renewed.duration_since(acquired).as_secs() >= 55, "{acquired} {renewed}");
    });
}

#[test]
fn who_was_killed_is_followed_when_the_lease_has_run_out() {
    elect(async |cluster, office| {
        let first = leader(cluster, office, seconds(1)).await;
        cluster.run_for(seconds(31)).await;
        office.kill(first);
        cluster.run_for(seconds(12)).await;
        assert_eq!(office.leader(), None, "the lease is heeded to its end");
        assert_eq!(leader(cluster, office, seconds(4)).await, 1 - first);
        assert_eq!(record(cluster).await.lease_transitions, Some(1));
    });
}

#[test]
fn who_stops_cleanly_gives_the_lease_back() {
    elect(async |cluster, office| {
        let first = leader(cluster, office, seconds(1)).await;
        cluster.run_for(seconds(5)).await;
        office.stop(first);
        assert_eq!(leader(cluster, office, seconds(1)).await, 1 - first);
        office.stop(1 - first);
        cluster.run_for(seconds(1)).await;
        let spec = record(cluster).await;
        assert_eq!((spec.holder_identity, spec.lease_duration_seconds), (None, Some(1)));
    });
}

#[test]
fn who_is_cut_off_stops_before_the_other_begins() {
    for way in [Way::Refused, Way::Silent, Way::Deaf, Way::Late(seconds(9))] {
        elect(async |cluster, office| {
            let first = leader(cluster, office, seconds(1)).await;
            cluster.run_for(seconds(31)).await;
            office.set(first, way);
            cluster.run_for(Duration::from_millis(10_500)).await;
            assert_eq!(office.leader(), None, "{way:?}");
            // A renewal may have arrived whose answer did not.
            assert_eq!(leader(cluster, office, seconds(18)).await, 1 - first, "{way:?}");
            office.set(first, Way::Open);
            cluster.run_for(seconds(60)).await;
            assert_eq!(office.leader(), Some(1 - first), "{way:?}");
        });
    }
}

#[test]
fn wall_clocks_decide_nothing() {
    elect(async |cluster, office| {
        let first = leader(cluster, office, seconds(1)).await;
        for jump in [3600, -7200, 86_400, -86_400] {
            cluster.run_for(seconds(7)).await;
            cluster.jump(jump);
        }
        cluster.run_for(seconds(60)).await;
        assert_eq!((office.leader(), office.terms()), (Some(first), 1));
        office.kill(first);
        cluster.jump(-3600);
        assert_eq!(leader(cluster, office, seconds(17)).await, 1 - first);
    });
}

#[test]
fn a_server_that_is_away_for_long_ends_a_term_and_for_a_moment_does_not() {
    elect(async |cluster, office| {
        let first = leader(cluster, office, seconds(1)).await;
        cluster.run_for(seconds(5)).await;
        cluster.restart(Part::ApiServer).await;
        cluster.run_for(seconds(30)).await;
        assert_eq!((office.leader(), office.terms()), (Some(first), 1));
        cluster.stop_part(Part::ApiServer).await;
        cluster.run_for(seconds(11)).await;
        assert_eq!(office.leader(), None);
        cluster.run_for(seconds(60)).await;
        cluster.start_part(Part::ApiServer).await;
        leader(cluster, office, seconds(20)).await;
    });
}

#[test]
fn a_record_that_somebody_deletes_makes_no_second_leader() {
    elect(async |cluster, office| {
        let first = leader(cluster, office, seconds(1)).await;
        for _ in 0..5 {
            cluster.run_for(Duration::from_millis(3700)).await;
            cluster.delete::<Lease>(LEASE).await;
        }
        cluster.run_for(seconds(30)).await;
        assert_eq!((office.leader(), office.terms()), (Some(first), 1));
    });
}

#[test]
fn nothing_that_chance_thinks_of_makes_two_leaders() {
    for seed in 1..=6 {
        Cluster::builder().seed(seed).run(async |cluster| {
            let mut office = Office::default();
            (0..2).for_each(|place| office.enter(&cluster, place));
            for _ in 0..60 {
                cluster.run_for(Duration::from_millis(fastrand::u64(100..20_000))).await;
                let place = fastrand::usize(0..2);
                match fastrand::u32(0..8) {
                    0 => office.kill(place),
                    1 => office.stop(place),
                    2 => cluster.jump(fastrand::i64(-3600..3600)),
                    3 => cluster.restart(Part::ApiServer).await,
                    4 => office.set(place, [Way::Refused, Way::Silent, Way::Deaf][fastrand::usize(0..3)]),
                    5 => office.set(place, Way::Late(Duration::from_millis(fastrand::u64(100..30_000)))),
                    _ => office.set(place, Way::Open),
                }
                (0..2).for_each(|place| office.enter(&cluster, place));
            }
            (0..2).for_each(|place| office.set(place, Way::Open));
            leader(&cluster, &office, seconds(60)).await;
            assert_eq!(office.most(), 1, "seed {seed}");
            assert!(office.terms() > 3, "seed {seed}: {} terms", office.terms());
        });
    }
}
