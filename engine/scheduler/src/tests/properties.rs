//! For any cluster: a chosen node passes all filters, the same question has the same answer, a pod is refused only where no
//! node would take it, and a snapshot that was changed event by event answers like one that was built at once.

use proptest::prelude::*;

use super::*;

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

fn any_node(number: usize) -> impl Strategy<Value = Arc<Node>> {
    (0..4_u8, 1..5_u8, any::<bool>(), prop_oneof![Just(""), Just("NoSchedule"), Just("PreferNoSchedule")]).prop_map(
        move |(zone, cpu, cordoned, taint)| {
            let taints = if taint.is_empty() { json!([]) } else { json!([{ "key": "k", "effect": taint }]) };
            let mut more = json!({
                "spec": { "unschedulable": cordoned && zone == 3, "taints": taints },
                "status": { "allocatable": { "cpu": cpu.to_string(), "pods": "4" } },
            });
            if zone < 3 {
                more["metadata"] = json!({ "labels": { ZONE: format!("z{zone}") } });
            }
            node(&format!("n{number}"), more)
        },
    )
}

fn any_pod(number: usize) -> impl Strategy<Value = Arc<Wanted>> {
    let term = (prop_oneof![Just(ZONE), Just(HOST)], 0..3_u8).prop_map(|(topology, app)| {
        json!({ "topologyKey": topology, "labelSelector": { "matchLabels": { "app": format!("a{app}") } } })
    });
    let parts = (0..3_u8, 0..20_u32, 0..6_u8, term, any::<bool>(), -2..3_i32);
    parts.prop_map(move |(app, cpu, kind, term, tolerates, priority)| {
        let mut spec = json!({
            "containers": [{ "name": "c", "resources": { "requests": { "cpu": format!("{}m", cpu * 100) } } }],
            "priority": priority,
        });
        let required = json!({ "requiredDuringSchedulingIgnoredDuringExecution": [term] });
        let preferred =
            json!({ "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 10, "podAffinityTerm": term }] });
        match kind {
            0 => spec["affinity"] = json!({ "podAffinity": required }),
            1 => spec["affinity"] = json!({ "podAntiAffinity": required }),
            2 => spec["affinity"] = json!({ "podAntiAffinity": preferred }),
            3 => {
                spec["topologySpreadConstraints"] =
                    json!([over(term, &json!({ "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule" }))]);
            }
            4 => {
                spec["topologySpreadConstraints"] =
                    json!([over(term, &json!({ "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway" }))]);
            }
            _ => {}
        }
        if tolerates {
            spec["tolerations"] = json!([{ "operator": "Exists" }]);
        }
        pod(&format!("p{number}"), json!({ "metadata": { "labels": { "app": format!("a{app}") } }, "spec": spec }))
    })
}

fn cluster() -> impl Strategy<Value = (Vec<Arc<Node>>, Vec<Arc<Wanted>>)> {
    let nodes: Vec<_> = (0..6).map(any_node).collect();
    let pods: Vec<_> = (0..14).map(any_pod).collect();
    (nodes, pods)
}

proptest! {
    #[test]
    fn every_choice_passes_all_filters_and_is_repeatable((nodes, pods) in cluster()) {
        let mut cluster = Cluster::of(nodes.clone());
        let mut placed: Vec<(Arc<Wanted>, String)> = Vec::new();
        for pod in &pods {
            let open = cluster.open(pod);
            let chosen = cluster.choose(pod);
            prop_assert_eq!(&chosen, &cluster.choose(pod), "asked twice");
            let mut anew = Cluster::of(nodes.clone());
            for (pod, node) in &placed {
                anew.snapshot.place(pod, node);
            }
            prop_assert_eq!(&chosen, &anew.choose(pod), "built at once");
            match chosen {
                Ok(node) => {
                    prop_assert!(open.contains(&node), "{node} is not among {open:?}");
                    cluster.snapshot.place(pod, &node);
                    placed.push((pod.clone(), node));
                }
                Err(why) => prop_assert!(open.is_empty(), "{why} although {open:?}"),
            }
        }
    }

    #[test]
    fn who_had_others_leave_fits_without_them_and_not_with_one_more((nodes, pods) in cluster()) {
        let mut cluster = Cluster::of(nodes);
        for pod in &pods {
            if cluster.place(pod).is_ok() {
                continue;
            }
            let Ok(found) = crate::preempt(pod, &mut cluster.snapshot, &cluster.volumes, &[]) else { continue };
            prop_assert!(found.victims.iter().all(|victim| victim.priority() < pod.priority()));
            for victim in &found.victims {
                cluster.snapshot.remove(&victim.key());
            }
            prop_assert!(cluster.open(pod).contains(&found.node));
            for victim in &found.victims {
                cluster.snapshot.place(victim, &found.node);
                let last = found.victims.last().is_some_and(|last| Arc::ptr_eq(last, victim));
                prop_assert!(!last || !cluster.open(pod).contains(&found.node), "all together are in the way");
            }
        }
    }
}
