//! What a store promises, as a list of cases that both stores pass: `cargo test -p consent-authority --test store`.
//!
//! A line for each case and store, at the end `N passed, M failed`; a failed case says why above its line. Further
//! words on the command line pick the cases whose names contain one of them.

#![allow(clippy::expect_used, reason = "all of this program is a test")]

#[path = "../../../../tests/support/postgres.rs"]
mod postgres;

mod batch;
mod crashing;
mod leasing;
mod opening;
mod reading;
mod stand;
mod writing;

use postgres::Postgres;
use stand::{OnPostgres, OnSqlite, Stand};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

struct Case<S> {
    name: &'static str,
    run: fn(S) -> Pin<Box<dyn Future<Output = ()>>>,
}

macro_rules! cases {
    ($($module:ident::$name:ident,)*) => {
        vec![$(Case { name: stringify!($name), run: |stand| Box::pin($module::$name(stand)) },)*]
    };
}

fn common<S: Stand + 'static>() -> Vec<Case<S>> {
    cases![
        opening::a_ledger_is_born_empty_and_settled,
        opening::migrating_twice_changes_nothing,
        opening::a_store_without_schema_is_refused,
        opening::a_newer_schema_is_refused,
        opening::another_schema_is_refused,
        writing::concurrent_writers_make_dense_revisions,
        writing::recorded_at_never_falls,
        writing::a_batch_that_does_not_follow_is_refused,
        writing::a_batch_is_all_or_nothing,
        writing::a_released_lock_leaves_no_trace,
        writing::requests_are_remembered_with_and_without_a_change,
        writing::heads_come_with_their_place_subject_and_organization,
        writing::a_head_touched_twice_is_stored_once,
        writing::the_ledger_refuses_update_and_delete,
        writing::a_lock_that_is_never_released_gives_an_error_in_time,
        writing::what_is_read_under_the_lock_is_newer_than_the_wait,
        reading::the_feed_has_no_gap_while_writes_go_on,
        reading::pages_of_heads_are_complete_while_writes_go_on,
        reading::heads_of_one_snapshot_bring_policy_and_organization,
        reading::ledger_pages_do_without_subjects_and_evidence_that_are_gone,
        reading::the_newest_policy_document_is_found,
        reading::a_commit_wakes_who_waits,
        leasing::a_row_is_registered_renewed_and_closed,
        leasing::a_registration_waits_for_the_append_that_has_the_lock,
        leasing::a_drain_report_never_falls_and_leaves_renew_seq,
        leasing::a_row_is_reaped_only_as_seen,
        leasing::only_its_own_epoch_is_settled,
        leasing::the_table_gives_chains_of_its_own_snapshot,
        leasing::another_server_is_foreign_to_everything,
        leasing::one_of_two_minters_wins_and_closes_every_row,
        crashing::killed_after_the_lock_it_leaves_nothing,
        crashing::killed_at_any_step_of_a_commit_it_leaves_all_or_nothing,
        crashing::killed_right_after_the_commit_it_leaves_everything,
    ]
}

fn on_sqlite() -> Vec<Case<OnSqlite>> {
    let mut cases = common();
    cases.extend(cases![
        opening::a_second_process_is_refused_by_name_of_the_directory,
        opening::a_copied_file_is_another_server,
        opening::what_is_made_is_its_owners_alone,
    ]);
    cases
}

fn on_postgres() -> Vec<Case<OnPostgres>> {
    let mut cases = common();
    cases.extend(cases![
        opening::a_role_without_privileges_is_enough,
        opening::a_database_that_cannot_keep_every_id_is_refused,
        opening::a_migration_may_take_its_time,
        opening::a_databases_own_isolation_is_overruled,
        writing::a_batch_costs_what_it_asks_for_and_not_what_there_is,
        reading::a_commit_wakes_another_replica,
        leasing::a_server_that_is_replaced_under_the_lock_is_foreign_to_the_commit,
        crashing::a_stopped_holder_loses_the_lock,
        crashing::a_silent_connection_costs_no_place,
        crashing::a_server_that_forgets_or_follows_is_refused,
        crashing::killed_before_the_commit_is_asked_for_it_leaves_nothing,
        crashing::a_killed_server_keeps_every_acknowledged_batch,
        crashing::a_cancelled_wait_for_a_standby_is_no_success,
    ]);
    cases
}

fn main() -> ExitCode {
    if let Some(child) = crashing::Child::from_environment() {
        child.run();
    }
    let words = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let mut tally = Tally { words, passed: 0, failed: 0 };
    match Postgres::start() {
        Ok(server) => {
            tally.run("sqlite", &server, on_sqlite());
            tally.run("postgres", &server, on_postgres());
        }
        Err(error) => {
            println!("FAILED: {error}");
            tally.failed += 1;
        }
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Tally {
    words: Vec<String>,
    passed: u32,
    failed: u32,
}

impl Tally {
    fn run<S: Stand>(&mut self, store: &str, server: &Postgres, cases: Vec<Case<S>>) {
        for case in cases {
            if !self.words.is_empty() && !self.words.iter().any(|word| case.name.contains(word)) {
                continue;
            }
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let runtime = tokio::runtime::Runtime::new().expect("a runtime");
                // A case that hangs is a failed one; this is no bound that any of them is near to.
                let bounded = runtime.block_on(async {
                    tokio::time::timeout(Duration::from_secs(120), (case.run)(S::bare(server))).await
                });
                assert!(bounded.is_ok(), "it hangs");
            }));
            let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
            println!("{verdict:6} {store:8} {}", case.name);
            if outcome.is_ok() { self.passed += 1 } else { self.failed += 1 }
        }
    }
}
