//! Which script stands for which careless version, hole or doubt of the protocol's model.

/// What the model found, and the script that plays it. A missing script is a failure.
pub(crate) const PROMISES: &[(&str, &str)] = &[
    // Careless versions, each of which breaks an invariant.
    ("lease counted from receipt", "a_lease_counts_from_when_the_keepalive_was_sent"),
    ("replica restarts under the same identity", "a_restarted_replica_is_another_one"),
    ("grant without minimum revision", "a_grant_waits_for_the_table"),
    ("ack before apply is visible", "an_ack_waits_until_readers_see_it"),
    ("no drift margin", "a_promise_outlasts_the_slowest_sidecar"),
    ("grants outlive the replica's lease", "a_grant_fits_into_the_replicas_lease"),
    ("lease persisted across restart", "a_lease_is_never_kept_across_a_restart"),
    ("nonces reused across restarts", "a_grant_to_the_run_before_is_no_lease"),
    ("clock that stops in suspend", "a_suspend_counts"),
    ("closed session removed", "a_closed_stream_still_counts_until_its_lease_is_over"),
    ("ack without the hold", "an_ack_waits_for_the_answer_hold"),
    ("known_rev raised inside a grant", "known_rev_never_moves_inside_a_grant"),
    ("one scalar instead of pairs", "a_silent_sidecar_that_renews_blocks_no_longer_than_a_promise"),
    ("confirming in an unsettled epoch", "nothing_is_confirmed_in_an_unsettled_epoch"),
    ("effective_rev from a stale read", "effective_rev_is_read_after_the_commit"),
    ("own answers without their hold", "a_replicas_own_answers_are_held_too"),
    ("reap without comparing renew_seq", "a_reap_needs_the_renewal_that_was_seen"),
    ("heads read before the lease", "the_lease_is_read_before_the_heads"),
    ("answer outlives the lease", "no_answer_outlives_its_lease"),
    ("no digest", "a_table_that_is_not_what_it_says_never_allows"),
    ("a leaving replica closes when acked", "a_leaving_replica_closes_when_its_promises_are_past"),
    ("leaving without the hold", "leaving_waits_for_the_answer_hold"),
    // Holes of an earlier wording.
    ("expired row counted without reaping", "an_expired_row_counts_until_it_is_closed"),
    ("rows survive a new epoch", "a_new_epoch_closes_every_row"),
    ("identity compared in the append only", "a_store_that_is_another_one_does_nothing"),
    ("confirm by number", "a_lost_revision_is_never_confirmed"),
    ("ack by number", "an_ack_counts_by_its_chain"),
    ("frame of another epoch", "a_frame_of_another_epoch_is_not_applied"),
    ("no hello check under a new epoch", "a_new_epoch_is_entered_from_its_own_chain"),
    ("nonces kept when a lease is dropped", "a_dropped_lease_takes_its_nonces_along"),
    ("relinquish that names no nonce", "a_relinquish_ends_only_what_it_names"),
    ("moving without the hold", "moving_waits_for_the_answer_hold"),
    ("own hold without drift", "own_answers_are_held_for_the_slowest_caller"),
    // Not violated alone: keep both.
    ("grant before the first renewal", "nothing_is_granted_before_the_first_renewal"),
    ("frame without its chain", "a_frame_of_another_chain_is_not_applied"),
    ("grant without its chain", "a_grant_for_another_chain_is_no_lease"),
    // Undecided by the model.
    ("session kept by the node's name", "a_session_belongs_to_one_run_of_a_sidecar"),
    // Found while writing the machines.
    ("row watched from the start of a read", "a_row_stands_still_from_the_end_of_the_read"),
    ("an ack for each revision of a burst", "a_burst_is_acked_as_one"),
    ("registration not atomic", "what_is_recorded_during_a_registration_drains"),
    ("reap by who could not read either", "a_blind_observer_reaps_nobody"),
    ("older copy loaded again by the same run", "a_reloaded_copy_is_not_older_than_what_was_acked"),
    ("grant kept when the clocks jump", "a_disrupted_clock_takes_every_grant_along"),
    ("hold counted before readers see the drop", "a_hold_begins_when_no_thread_uses_the_lease"),
];
