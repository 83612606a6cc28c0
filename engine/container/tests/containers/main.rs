//! Real pods on this machine: needs root. The test binary is the executable of its own supervisors and creators, so its
//! `main` begins like the real one; hence no standard harness. Arguments select tests by part of their name.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod confinement;
mod failures;
mod leash;
mod life;
mod oracle;
mod streams;
mod world;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use futures::FutureExt;
use futures::future::LocalBoxFuture;

use world::World;

type Test = (&'static str, fn(&World) -> LocalBoxFuture<'_, ()>);

/// The tests of a module, by name.
macro_rules! tests {
    ($($module:ident: $($name:ident)*;)*) => {
        const TESTS: &[Test] = &[$($((stringify!($name), |world| $module::$name(world).boxed_local()),)*)*];
    };
}

tests! {
    life:
        a_program_answers_its_exit_code
        a_killed_program_answers_137_and_one_that_heeds_term_its_own_code
        log_lines_of_both_streams_come_in_order_and_an_unfinished_one_is_a_part
        a_full_log_is_rotated
        a_new_engine_adopts_the_same_process_and_hears_its_end
        a_command_returns_its_code_and_output
        a_command_that_takes_too_long_is_killed
        containers_of_a_pod_share_network_names_memory_and_if_asked_processes
        a_container_can_be_removed_while_it_runs
        the_layers_under_containers_are_known_as_long_as_these_are_there
        two_instances_do_not_touch_each_other
        a_pod_on_the_hosts_network_sees_it
        an_image_may_have_five_hundred_layers;
    streams:
        a_command_reads_its_input_and_its_output_is_told_from_its_errors
        a_command_that_cannot_be_run_says_why_with_and_without_a_terminal
        a_command_on_a_terminal_sees_its_size_and_gets_what_is_typed
        a_command_without_its_client_is_ended
        a_command_that_leaves_others_behind_ends_all_the_same
        whoever_attaches_gets_the_output_from_then_on_and_may_feed_the_program
        input_that_is_wanted_once_ends_with_its_first_attachment
        a_container_with_a_terminal_is_attached_to_and_resized
        an_attachment_that_takes_nothing_holds_up_only_itself_once_it_is_gone
        a_container_may_look_into_the_processes_of_another;
    confinement:
        a_program_beyond_its_memory_limit_is_marked
        a_read_only_root_cannot_be_written
        mount_destinations_do_not_escape_the_root
        the_default_seccomp_profile_is_in_force_without_no_new_privileges
        a_profile_of_the_node_is_in_force_for_program_and_commands
        a_user_has_only_the_capabilities_given
        commands_are_confined_like_the_first_process
        only_the_usual_devices_work
        limits_are_visible_inside_and_outside_nothing_is
        a_privileged_container_starts
        limits_change_while_the_program_runs
        kernel_parameters_are_the_pods_own
        entries_of_an_image_lead_nowhere_outside;
    leash:
        a_leashed_pod_lives_as_long_as_its_leash_is_lengthened
        a_leashed_pod_ends_without_any_engine
        a_pod_whose_leash_was_never_written_does_not_run;
    oracle:
        a_program_sees_what_it_sees_under_runc;
    failures:
        a_missing_executable_is_one_clear_line
        what_cannot_be_created_is_said_and_leaves_nothing
        an_image_that_links_its_dev_folder_away_is_refused
        a_lost_supervisor_is_seen_and_its_containers_are_destroyed
        creators_killed_at_any_moment_leave_nothing
        a_pod_is_not_made_twice_and_destroyed_twice_without_harm
        limits_that_the_host_refuses_are_said;
}

fn main() -> ExitCode {
    if let Some(code) = shipway_container::entry() {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let chosen = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()));
    let tests: Vec<&Test> = TESTS.iter().filter(|(name, _)| chosen(name)).collect();
    if !rustix::process::geteuid().is_root() {
        eprintln!("{} tests skipped: they need root", tests.len());
        return ExitCode::SUCCESS;
    }
    let images = world::images();
    let failed: Vec<&str> = tests.iter().filter(|test| !passes(test, images.path())).map(|(name, _)| *name).collect();
    println!("\n{} passed, {} failed {failed:?}", tests.len() - failed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn passes((name, test): &Test, images: &std::path::Path) -> bool {
    let begun = std::time::Instant::now();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let passed = runtime.block_on(async {
        let world = World::new(images);
        let limited = tokio::time::timeout(std::time::Duration::from_mins(1), test(&world));
        let result = AssertUnwindSafe(limited).catch_unwind().await;
        // Even after a failure nothing may be left; what is left is a failure.
        let clean = AssertUnwindSafe(world.end()).catch_unwind().await;
        matches!(result, Ok(Ok(()))) && clean.is_ok()
    });
    println!("{} {name} ({} ms)", if passed { "ok    " } else { "FAILED" }, begun.elapsed().as_millis());
    passed
}
