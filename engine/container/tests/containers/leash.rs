//! Pods that must not run twice: nobody but the supervisor itself is needed to end them.

use std::path::PathBuf;
use std::time::Duration;

use shipway_container::{Layout, Moment, Pod, Runtime, SandboxSpec, lengthen};

use crate::world::{World, processes};

const SECOND: Duration = Duration::from_secs(1);

async fn leashed(world: &World) -> (Pod, PathBuf) {
    let leash = world.folder.path().join("leash");
    lengthen(&leash, Moment::now().after(SECOND)).unwrap();
    let sandbox = SandboxSpec { uid: "leashed".to_owned(), leash: Some(leash.clone()), ..SandboxSpec::default() };
    let pod = world.runtime.create(sandbox).await.unwrap();
    pod.start(world.script("main-0", "trap '' TERM; while :; do sleep 1; done")).await.unwrap();
    (pod, leash)
}

fn runs(layout: &Layout) -> bool {
    processes(&layout.cgroup).iter().any(|process| process.contains("trap"))
}

async fn ends(pod: &Pod, layout: &Layout) {
    let mut state = pod.state();
    tokio::time::timeout(3 * SECOND, state.wait_for(|state| state.lost)).await.expect("in time").expect("a state");
    assert!(!runs(layout), "its containers run on");
}

pub(crate) async fn a_leashed_pod_lives_as_long_as_its_leash_is_lengthened(world: &World) {
    let (pod, leash) = leashed(world).await;
    for _ in 0..6 {
        tokio::time::sleep(SECOND / 3).await;
        assert!(runs(&world.layout) && !pod.state().borrow().lost, "it was ended early");
        lengthen(&leash, Moment::now().after(SECOND)).unwrap();
    }
    ends(&pod, &world.layout).await;
    pod.destroy().await.unwrap();
}

pub(crate) async fn a_leashed_pod_ends_without_any_engine(world: &World) {
    let (pod, _) = leashed(world).await;
    // As when the engine's process is killed: nobody holds a connection, and nobody will lengthen the leash.
    drop(pod);
    tokio::time::sleep(SECOND + SECOND / 2).await;
    for _ in 0..20 {
        if !runs(&world.layout) {
            break;
        }
        tokio::time::sleep(SECOND / 10).await;
    }
    assert!(!runs(&world.layout), "its containers run on");
    // The next engine finds what is left, and that it is over.
    let found = Runtime::new(world.layout.clone()).unwrap().adopt().await.unwrap();
    assert!(found.len() == 1 && found[0].state().borrow().lost);
    found[0].destroy().await.unwrap();
}

pub(crate) async fn a_pod_whose_leash_was_never_written_does_not_run(world: &World) {
    let leash = Some(world.folder.path().join("none"));
    let sandbox = SandboxSpec { uid: "unleashed".to_owned(), leash, ..SandboxSpec::default() };
    if let Ok(pod) = world.runtime.create(sandbox).await {
        let started = pod.start(world.script("main-0", "trap '' TERM; sleep 60")).await;
        assert!(started.is_err(), "it runs without leave");
        pod.destroy().await.unwrap();
    }
    assert!(!runs(&world.layout));
}
