//! When the machine is read, and what is told of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use serde_json::json;
use shipway_container::Usage;

use super::reading::{ContainerReading, Device, NodeReading, PodReading, Sample};
use super::*;
use crate::logs::Present;

const BEGIN: i64 = 1_700_000_000;

/// A machine on which a second of processor time passes at every reading.
fn reading(second: i64, number: u64) -> Reading {
    let at = Timestamp::from_second(BEGIN + second).expect("a time");
    let since = Timestamp::from_second(BEGIN).expect("a time");
    let usage = Usage { cpu: number * 1_000_000_000, memory: 3000, inactive_file: 1000, ..Usage::default() };
    let sample = Sample { at, usage };
    let pod = Present {
        uid: "u".into(),
        namespace: "shop".into(),
        name: "web".into(),
        start_time: since,
        containers: vec![("c".into(), 0, since)],
    };
    let containers = BTreeMap::from([("c".to_owned(), ContainerReading { run: 0, since, sample })]);
    let network = Some(Device { name: "eth0".into(), received: (1, 2), sent: (3, 4) });
    let pods = BTreeMap::from([("u".to_owned(), PodReading { pod, sample, containers, network: network.clone() })]);
    Reading { taken: Instant::now(), node: NodeReading { sample, since, memory: 10_000, network, disk: None }, pods }
}

fn counted() -> (Stats, Arc<AtomicU64>) {
    let (count, begin) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let number = count.clone();
    let stats = Stats::new(move || {
        let second = i64::try_from(begin.elapsed().as_secs()).expect("not long");
        reading(second, number.fetch_add(1, Ordering::Relaxed))
    });
    (stats, count)
}

#[tokio::test(start_paused = true)]
async fn the_first_who_asks_waits_a_moment_and_others_share_its_readings() {
    let (stats, count) = counted();
    let begin = Instant::now();
    let (one, other) = tokio::join!(stats.pair(), stats.pair());
    assert_eq!((begin.elapsed(), count.load(Ordering::Relaxed)), (GLANCE, 2));
    assert!(Arc::ptr_eq(&one.0, &other.0) && Arc::ptr_eq(&one.1, &other.1));
    assert!(Arc::ptr_eq(&stats.now().await, &one.1), "a fresh reading is good for everybody");
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_again_need_not_wait_and_the_window_grows_to_ten_seconds() {
    let (stats, count) = counted();
    stats.pair().await;
    let mut windows = Vec::new();
    for _ in 0..12 {
        tokio::time::advance(Duration::from_secs(3)).await;
        let begin = Instant::now();
        let (earlier, newer) = stats.pair().await;
        assert_eq!(begin.elapsed(), Duration::ZERO);
        windows.push((newer.taken - earlier.taken).as_secs());
    }
    assert!(windows[4..].iter().all(|window| (10..=18).contains(window)), "{windows:?}");
    assert!(stats.0.kept.lock().unwrap().len() <= MOST);
    let before = count.load(Ordering::Relaxed);
    tokio::time::advance(STALE * 2).await;
    assert_eq!(count.load(Ordering::Relaxed), before, "nobody asked, nothing was read");
    let (earlier, newer) = stats.pair().await;
    assert_eq!(newer.taken - earlier.taken, GLANCE, "readings of long ago say nothing about now");
}

#[test]
fn the_earlier_reading_is_a_window_old_if_there_is_one() {
    let chosen = |ages: &[u64]| chosen(&ages.iter().map(|age| Duration::from_millis(*age)).collect::<Vec<_>>());
    assert_eq!(chosen(&[]), None);
    assert_eq!(chosen(&[100]), None);
    assert_eq!(chosen(&[3000, 900]), Some(0));
    assert_eq!(chosen(&[40_000, 12_000, 11_000, 2000]), Some(2));
    assert_eq!(chosen(&[90_000, 5000]), Some(1));
    assert_eq!(chosen(&[90_000]), None);
}

#[test]
fn a_summary_says_what_a_kubelet_says() {
    let (earlier, newer) = (reading(10, 5), reading(20, 10));
    let document = summary_document("here", &earlier, &newer, Wanted::All);
    let cpu = json!({"time": "2023-11-14T22:13:40Z", "usageCoreNanoSeconds": 10_000_000_000_u64,
        "usageNanoCores": 500_000_000, "windowNanoSeconds": 10_000_000_000_u64});
    assert_eq!(document["node"]["cpu"], cpu);
    assert_eq!(document["node"]["memory"]["availableBytes"], 8000);
    assert_eq!(document["node"]["nodeName"], "here");
    let pod = &document["pods"][0];
    assert_eq!(pod["podRef"], json!({"name": "web", "namespace": "shop", "uid": "u"}));
    assert_eq!((&pod["cpu"], &pod["containers"][0]["cpu"]), (&cpu, &cpu));
    assert_eq!(pod["containers"][0]["memory"]["workingSetBytes"], 2000);
    assert_eq!(pod["network"]["txBytes"], 3);
    let short = summary_document("here", &earlier, &newer, Wanted::parse(Some("a=b&only_cpu_and_memory=true")));
    assert!(short["pods"][0]["network"].is_null() && short["pods"][0]["cpu"] == cpu);
}

#[test]
fn a_container_that_was_started_again_is_rated_since_then() {
    let (earlier, mut newer) = (reading(10, 5), reading(20, 10));
    let pod = newer.pods.get_mut("u").expect("it is there");
    let container = pod.containers.get_mut("c").expect("it is there");
    container.run = 1;
    container.since = Timestamp::from_second(BEGIN + 15).expect("a time");
    let rate = newer.pods["u"].container_rate("c", &earlier).expect("a rate");
    assert_eq!((rate.nanocores, rate.window), (2_000_000_000, 5_000_000_000));
}

#[test]
fn counters_are_told_in_the_text_form() {
    let text = resource_text(&reading(20, 10));
    for line in [
        "# TYPE container_cpu_usage_seconds_total counter",
        "container_cpu_usage_seconds_total{container=\"c\",namespace=\"shop\",pod=\"web\"} 10.000000000 1700000020000",
        "container_memory_working_set_bytes{container=\"c\",namespace=\"shop\",pod=\"web\"} 2000 1700000020000",
        "container_start_time_seconds{container=\"c\",namespace=\"shop\",pod=\"web\"} 1700000000.000000000 1700000020000",
        "node_cpu_usage_seconds_total 10.000000000 1700000020000",
        "pod_memory_working_set_bytes{namespace=\"shop\",pod=\"web\"} 2000 1700000020000",
        "scrape_error 0",
    ] {
        assert!(text.lines().any(|own| own == line), "{line}\n{text}");
    }
    assert!(!text.contains("node_start_time_seconds"));
}
