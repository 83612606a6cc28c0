//! What the public documentation promises of pods, seen with real containers: one engine, many checks at once, each named by
//! the sentence that it holds. A check that fails does not hide the others.

#![allow(clippy::needless_pass_by_value, reason = "what json! makes is handed over as it stands")]

mod environment;
mod images;
mod lifecycle;
mod names;
mod probes;
mod resize;
mod resources;
mod restarts;
mod security;
mod volumes;
mod world;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::StreamExt;
use futures::future::BoxFuture;
use shipway_tests::Image;

use world::World;

type Check = (&'static str, for<'a> fn(&'a World) -> BoxFuture<'a, Result<()>>);

/// How many pods' lives go on at once.
const AT_ONCE: usize = 10;
/// No check takes longer.
const PATIENCE: Duration = Duration::from_mins(1);

/// The checks of the modules, by name.
macro_rules! checks {
    ($($module:ident: $($name:ident)*;)*) => {
        const CHECKS: &[Check] = &[$($((
            concat!(stringify!($module), ": ", stringify!($name)),
            |world| Box::pin($module::$name(world)),
        ),)*)*];
    };
}

checks! {
    lifecycle:
        a_pod_that_ends_well_has_succeeded
        a_pod_that_fails_tells_its_exit_code
        a_missing_program_is_a_start_error
        init_containers_run_one_after_the_other
        a_failing_init_container_fails_a_pod_that_never_restarts
        a_sidecar_runs_beside_and_ends_after_the_others
        on_failure_a_container_is_run_until_it_ends_well
        a_container_may_have_a_restart_policy_of_its_own
        exit_codes_may_ask_for_another_run
        the_termination_message_is_read_from_its_file
        the_end_of_the_log_is_the_message_of_a_failure_that_asks_for_it
        a_pod_past_its_deadline_is_ended
        a_hook_runs_before_the_stop_signal
        a_hook_may_sleep
        a_hook_after_the_start_comes_before_running
        a_failing_hook_after_the_start_ends_the_container
        who_does_not_heed_the_signal_is_killed_after_the_grace_period
        the_stop_signal_may_be_chosen
        the_conditions_of_a_running_pod_hold;
    probes:
        a_page_answers_and_the_pod_is_ready
        a_page_that_is_missing_keeps_the_pod_unready
        a_named_port_is_connected_to
        a_grpc_server_is_asked_for_its_health
        a_startup_probe_holds_back_the_others
        a_liveness_probe_may_shorten_the_grace_period
        a_readiness_gate_keeps_the_pod_unready_until_it_opens;
    volumes:
        containers_share_an_empty_folder
        an_empty_folder_in_memory_has_its_size
        a_sub_path_is_made_and_mounted
        a_sub_path_may_be_an_expression
        a_link_in_a_volume_does_not_lead_out_of_it
        a_link_to_the_hosts_root_in_a_volume_shows_the_pods_own
        a_path_upwards_is_refused
        a_missing_folder_of_the_host_is_told
        a_file_of_the_host_is_made_and_of_its_type
        a_socket_that_is_none_is_refused
        a_changed_config_map_reaches_its_volume
        keys_are_chosen_and_have_modes
        a_secret_lies_in_memory
        one_volume_shows_objects_of_all_kinds
        labels_are_shown_as_they_change
        what_is_optional_may_be_missing
        what_is_mounted_to_be_read_cannot_be_written
        an_image_can_be_mounted_and_not_written
        the_group_of_the_volumes_owns_them
        an_empty_folder_beyond_its_limit_evicts_the_pod
        a_mount_that_would_reach_the_host_is_refused_in_words
        what_the_host_mounts_later_may_appear;
    environment:
        a_pod_is_told_of_itself
        a_container_is_told_of_its_resources
        all_keys_come_with_a_prefix
        variables_may_be_read_from_a_file
        a_missing_key_is_named_until_it_is_there
        a_service_is_told_unless_declined
        the_working_folder_and_arguments_are_those_asked_for;
    names:
        a_pod_has_its_own_host_name
        a_subdomain_makes_a_full_name
        the_full_name_may_be_the_host_name
        aliases_stand_in_the_hosts_file
        the_resolver_is_told_by_the_pod
        a_pod_on_the_hosts_network_has_its_name
        containers_may_share_their_processes
        a_pod_may_see_the_processes_of_the_host
        a_safe_kernel_parameter_is_set
        an_unsafe_kernel_parameter_fails_the_pod;
    security:
        user_groups_and_supplementary_groups_are_those_asked_for
        root_is_refused_where_it_must_not_be
        a_read_only_root_cannot_be_written
        capabilities_are_dropped_and_added
        no_new_privileges_are_gained_where_that_is_asked
        system_calls_are_filtered_by_default
        a_pod_may_ask_for_no_filter
        a_profile_of_the_node_is_in_force
        a_profile_that_is_missing_stops_the_container
        a_privileged_container_has_everything
        the_kernel_is_hidden_and_not_writable
        an_app_armor_profile_without_app_armor_fails_the_pod
        user_namespaces_are_refused_in_words
        devices_of_the_host_cannot_be_opened;
    resources:
        limits_are_those_of_the_control_group
        a_pod_has_a_class_by_its_requests
        no_container_has_endless_processes
        the_first_to_go_for_want_of_memory_follows_the_class
        a_pod_as_a_whole_may_be_limited;
    resize:
        a_container_is_given_more_without_another_run
        a_container_is_run_anew_where_its_policy_says_so
        what_the_node_has_not_is_said;
    images:
        an_image_that_must_be_here_is_not_asked_for
        a_name_that_is_none_is_said
        a_registry_that_does_not_answer_is_asked_again_later
        a_registry_is_shown_the_pods_credentials;
}

#[test]
fn pods_do_what_is_documented() -> Result<()> {
    if let Some(why) = Image::Busybox.unavailable() {
        println!("skipped: {why}");
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let world = runtime.block_on(World::new())?;
    let chosen = std::env::var("CHECK").unwrap_or_default();
    let wanted = CHECKS.iter().filter(|(name, _)| name.contains(&chosen));
    let mut failed = runtime.block_on(async {
        let verdicts = wanted.map(|(name, check)| {
            let world = &world;
            async move {
                let start = Instant::now();
                let verdict = tokio::time::timeout(PATIENCE, check(world)).await;
                let verdict = verdict.unwrap_or_else(|_| Err(anyhow::anyhow!("not within {PATIENCE:?}")));
                report(name, start, &verdict).then_some(*name)
            }
        });
        let failed = futures::stream::iter(verdicts).buffer_unordered(AT_ONCE).filter_map(|name| async move { name });
        failed.collect::<Vec<_>>().await
    });
    if chosen.is_empty() || restarts::NAME.contains(&chosen) {
        let start = Instant::now();
        let verdict = restarts::pods_outlive_their_engine(&world, &runtime);
        failed.extend(report(restarts::NAME, start, &verdict).then_some(restarts::NAME));
    }
    ensure!(failed.is_empty(), "{} failed: {failed:#?}", failed.len());
    Ok(())
}

/// Prints a verdict; whether it is a failure.
fn report(name: &str, start: Instant, verdict: &Result<()>) -> bool {
    let sentence = name.replace('_', " ");
    match verdict {
        Ok(()) => println!("{sentence} ... ok ({:.1?})", start.elapsed()),
        Err(error) => println!("{sentence} ... FAILED ({:.1?}): {error:#}", start.elapsed()),
    }
    verdict.is_err()
}
