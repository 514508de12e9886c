//! The rows of the contract (the design's section 2), with what proves them.

use super::{Promise, Row};

macro_rules! rows {
    ($($name:literal { $($what:literal: $($proof:literal),+;)+ })+) => {
        /// Every row, in the design's order.
        pub const ROWS: &[Row] = &[$(Row {
            name: $name,
            promises: &[$(Promise { what: $what, proofs: &[$($proof),+] }),+],
        }),+];
    };
}

rows! {
    "rings" {
        "the SQ is an array of indices into the entries, or the entries themselves (NO_SQARRAY); each entry is taken once, in order":
            "core/tests/engine::row_rings_nops_go_round_many_times",
            "core/tests/engine::row_rings_an_array_may_name_entries_in_any_order",
            "core/tests/loom/rings::sq_ring",
            "core/tests/loom/rings::sq_ring_array";
        "a full queue says so, and keeps what is in it":
            "core/tests/engine::row_rings_a_full_queue_says_so_and_keeps_what_is_in_it",
            "core/tests/loom/sqpoll::sqpoll_sq_room";
        "an index out of bounds counts in `dropped` and harms nothing":
            "core/tests/engine::row_rings_a_bad_index_counts_as_dropped_and_harms_nothing",
            "core/src/ring/lane::a_bad_index_is_passed_over_and_counted",
            "core/tests/loom/rings::sq_indices";
        "CQEs come once each, in the order in which they were posted":
            "core/tests/loom/rings::cq_ring",
            "core/tests/engine::completions_keep_the_order_they_came_in";
        "padded or in Linux's own layout, in any memory: owned, static, given, shared":
            "core/src/ring/mod::uapi_layout_is_linux_io_rings",
            "core/src/ring/mod::padded_words_do_not_share_a_line",
            "core/src/ring/mod::parts_do_not_overlap",
            "core/tests/memory::a_ring_lives_in_a_static",
            "core/tests/memory::rings_may_lie_apart_in_either_layout",
            "core/tests/memory::memory_too_small_or_askew_is_refused";
        "structures, numbers and flags are byte for byte Linux's":
            "core/tests/uapi_linux/main::constants_are_the_kernels",
            "core/tests/uapi_linux/main::structures_are_the_kernels",
            "core/tests/uapi_linux/main::entries_are_the_kernels",
            "core/tests/uapi_linux/main::error_numbers_are_the_kernels",
            "core/tests/uapi_linux/main::no_constant_is_left_out_of_the_comparison";
        "who shares the memory can lie, and harms only itself":
            "core/tests/review::row_rings_a_head_that_lies_leaves_the_sq_full",
            "core/tests/review::row_rings_naming_an_entry_is_a_promise_about_its_memory",
            "core/tests/review::a_flag_that_lies_about_overflow_does_not_keep_a_server_busy";
    }
    "enter" {
        "counts are the kernel's; under SQPOLL it is `to_submit`":
            "core/tests/engine::row_enter_counts_are_of_what_was_there",
            "verification/src/kernel/generate::enter";
        "a batch stops behind an SQE that fails, unless SUBMIT_ALL":
            "core/tests/engine::row_enter_a_batch_stops_after_a_failing_sqe_unless_submit_all",
            "hal-linux/tests/files::a_failed_preparation_ends_a_batch_and_a_failed_read_does_not";
        "a wait ends by completions, by its deadline or by a signal (`-EINTR`)":
            "core/tests/engine::row_enter_waits_end_by_completion_and_by_deadline",
            "core/tests/review::row_enter_a_wait_that_finds_fewer_than_wanted_ends_well",
            "core/tests/clocks::row_enter_waits_go_by_the_clock_that_is_registered",
            "core/tests/clocks::row_enter_a_wait_runs_on_in_suspend",
            "hal-linux/tests/clock::row_enter_waits_go_by_each_clock",
            "verification/src/calls/clock::arguments",
            "core/tests/review::row_enter_a_wait_under_sqpoll_that_finds_fewer_than_wanted_ends_well",
            "hal-linux/tests/modes::waits_end_with_the_time_or_a_signal",
            "hal-linux/src/host::a_signal_interrupts_both_ways_of_sleeping",
            "core/tests/loom/inline::inline_wait",
            "core/tests/loom/inline::inline_two";
        "a least time (`min_wait_usec`), points in time (ABS_TIMER), and timeouts that end a wait":
            "core/tests/waits::row_enter_ends_at_its_deadline_or_its_least_time",
            "core/tests/waits::row_enter_is_content_with_less_at_its_least_time",
            "core/tests/waits::row_enter_takes_the_next_completion_after_its_least_time",
            "core/tests/waits::a_timeout_ends_every_wait",
            "examples/tests/waits::a_wait_ends_at_its_least_time_if_anything_has_come",
            "examples/tests/waits::as_many_as_were_asked_for_end_a_wait_at_once",
            "examples/tests/waits::a_time_can_be_a_point_in_time",
            "examples/tests/waits::a_timeout_that_ends_ends_a_wait",
            "examples/tests/waits::arguments_are_looked_at_by_who_waits",
            "verification/src/kernel/pair/draw::wait",
            "verification/src/kernel/pair/draw::wait_alone";
        "flags that mean nothing are refused":
            "hal-linux/tests/modes::enter_checks_its_flags",
            "hal-linux/tests/modes::choices_that_do_not_go_together";
    }
    "ops" {
        "NOP, READ, WRITE, READV, WRITEV, READ_FIXED, WRITE_FIXED and FSYNC do what they do in Linux, results and bytes":
            "hal-linux/tests/files::read_at_the_end_and_beyond",
            "hal-linux/tests/files::write_read_back_and_sync",
            "hal-linux/tests/files::the_current_position_moves",
            "hal-linux/tests/files::vectors_short_and_long",
            "hal-linux/tests/files::direct_io_with_aligned_buffers",
            "hal-linux/tests/files::errors_keep_their_meaning",
            "hal-linux/tests/files::a_transfer_half_in_bad_memory_answers_the_good_half",
            "examples/tests/chains::memory_that_cannot_be_comes_before_a_registered_file_that_is_not_there",
            "verification/src/kernel/draw::transfer",
            "verification/src/kernel/draw::fsync",
            "verification/src/kernel/draw::nop";
        "OPENAT, CLOSE, STATX, FADVISE, FALLOCATE and SYNC_FILE_RANGE, too":
            "hal-linux/tests/whole::row_ops_files_are_opened_and_closed",
            "hal-linux/tests/whole::row_ops_paths_are_read_when_they_are_submitted",
            "hal-linux/tests/whole::row_ops_attributes",
            "hal-linux/tests/whole::row_ops_ranges",
            "hal-linux/tests/closing::row_ops_nothing_of_a_ring_is_closed_by_a_ring",
            "verification/src/kernel/draw/whole::open_at",
            "verification/src/kernel/draw/whole::close",
            "verification/src/kernel/draw/whole::attributes",
            "verification/src/kernel/draw/whole::advice",
            "verification/src/kernel/draw/whole::allocation",
            "verification/src/kernel/draw/whole::sync_range";
        "what is not built is `-EINVAL`, and PROBE says so":
            "core/tests/engine::row_ops_what_is_not_built_is_einval",
            "hal-linux/tests/modes::the_probe_tells_what_is_built",
            "core/tests/engine::features_are_those_whose_promise_is_kept",
            "core/tests/nvme/chains::row_probe_says_what_a_ring_on_a_device_carries_out",
            "hal-baremetal/tests/virtio/chains::row_probe_says_what_a_ring_on_a_disk_carries_out";
        "fields that mean nothing must be zero":
            "core/tests/engine::row_ops_fields_that_must_be_zero_are_looked_at",
            "core/tests/places::row_ops_with_fields_that_mean_nothing_are_refused",
            "verification/src/kernel/draw::spoil";
    }
    "request pool" {
        "fixed, taken in batches, one by one when a batch cannot be had whole":
            "core/src/request::the_reserve_is_apart_from_the_pool",
            "core/tests/fixed::row_request_pool_a_run_ends_with_the_last_record";
        "a backend without room loses nothing":
            "core/tests/engine::row_request_pool_no_room_in_the_backend_loses_nothing";
        "nothing is allocated after set-up":
            "hal-linux/tests/no_alloc::nothing_is_allocated_after_set_up",
            "core/tests/memory::the_footprint_is_the_sum_of_its_items";
    }
    "fallback" {
        "with an empty pool the reserved slot is used; `-EBUSY` only while reaping leads to progress":
            "core/tests/engine::row_fallback_reaping_always_leads_to_progress",
            "core/tests/held::row_fallback_requests_that_only_wait_make_room_when_they_end",
            "core/tests/loom/inline::fallback";
        "what may wait for ever never takes it; what ends at submission always may":
            "core/tests/engine::row_fallback_is_not_taken_by_what_may_wait_for_ever",
            "core/tests/polls::row_fallback_a_wait_never_takes_the_reserve_and_a_removal_may",
            "hal-linux/tests/polls::row_fallback_a_wait_does_not_take_the_reserve",
            "hal-linux/tests/streams::the_reserved_request_never_waits",
            "hal-linux/tests/streams::the_reserved_request_never_waits_for_held_ones";
        "a polling thread that starves sleeps, and goes on":
            "core/tests/driven::row_sqpoll_a_starved_engine_sleeps_and_goes_on",
            "core/tests/loom/sqpoll::sqpoll_starved";
        "a chain is taken whole, and refused if it is larger than the pool":
            "core/tests/held::a_chain_is_taken_whole_or_not_at_all";
    }
    "references" {
        "submission and completion have one each; a request is free when both are gone":
            "core/tests/review::row_references_every_result_ends_its_request",
            "core/tests/review::row_references_a_notice_may_cross_a_polled_end",
            "core/tests/loom/inline::slot_life",
            "core/tests/loom/inline::slot_life_fixed",
            "core/tests/loom/inline::crossing",
            "core/tests/loom/lane::return_list",
            "core/tests/loom/lane::notices";
        "a token completes once; stale ones are counted":
            "core/tests/engine::row_references_a_token_completes_once",
            "core/tests/loom/lane::stale_tokens",
            "core/tests/fixed::what_a_device_invents_or_repeats_is_counted_and_nothing_else";
    }
    "file lifetime" {
        "closing a number or using it anew redirects nothing":
            "hal-linux/tests/streams::closing_or_reusing_the_number_redirects_nothing",
            "hal-linux/tests/streams::a_closed_number_may_be_reused_by_the_next_request",
            "hal-linux/tests/polls::row_poll_closing_the_number_ends_nothing";
        "one reference a batch a file, let go of with the completion":
            "hal-linux/tests/process::many_writes_of_one_batch_share_one_duplicate",
            "hal-linux/src/file/held::one_duplicate_a_batch_until_the_last_user",
            "hal-linux/tests/streams::the_other_end_sees_the_file_closed_with_the_completion";
        "a registered file is held until its last request has ended":
            "core/tests/engine::row_registered_files_update_with_requests_in_flight",
            "core/src/files::a_removed_resource_lives_until_its_last_request";
    }
    "CQ full" {
        "nothing is lost: what has completed keeps its slot and its order until there is room; CQ_OVERFLOW shows it":
            "core/tests/engine::row_cq_full_loses_nothing_and_keeps_order",
            "core/tests/engine::row_cq_full_holds_slots_until_there_is_room",
            "core/tests/fixed::row_cq_full_what_a_poll_finds_waits_in_order",
            "core/tests/review::row_cq_full_nothing_passes_a_waiting_cqe_while_the_application_reaps",
            "hal-linux/tests/modes::a_cq_that_overflows_loses_nothing",
            "hal-linux/tests/modes::dropping_a_ring_whose_cq_overflows",
            "core/tests/loom/sqpoll::sqpoll_cq_room",
            "core/tests/loom/served::served_room";
        "a multishot ends where its CQE has no room":
            "core/tests/polls::row_cq_full_a_multishot_ends_when_its_cqe_cannot_be_posted",
            "hal-linux/tests/polls::row_poll_a_multishot_ends_where_its_completion_has_no_room",
            "core/tests/loom/polls::poll_room";
        "tags of registered files and buffers have storage of their own: each is posted once, after the last use":
            "core/tests/tags::row_cq_full_a_tag_is_posted_after_the_last_use",
            "core/tests/tags::row_cq_full_tags_wait_for_room_in_their_order_and_none_is_lost",
            "core/tests/tags::row_cq_full_tags_are_posted_in_every_mode",
            "core/tests/tags::row_cq_full_each_tag_comes_once",
            "core/src/files::a_tag_goes_with_its_resource",
            "verification/src/calls/tags::last_use",
            "verification/src/calls/tags::full",
            "verification/src/calls/tags::in_order",
            "verification/src/kernel/pair/draw::table";
    }
    "SQPOLL" {
        "no call is needed while it polls; idle, it sleeps and shows NEED_WAKEUP; SQ_WAKEUP wakes it":
            "core/tests/driven::row_sqpoll_needs_no_enter_while_it_polls",
            "core/tests/driven::row_sqpoll_sleeps_when_idle_and_is_woken",
            "hal-linux/tests/modes::a_polled_ring_needs_no_call_while_awake",
            "core/tests/loom/sqpoll::sqpoll_submit",
            "core/tests/loom/sqpoll::sqpoll_unordered";
        "asleep, it hears completions, calls, interrupts and room":
            "core/tests/driven::row_sqpoll_a_sleeping_engine_hears_completions_calls_and_room",
            "core/tests/loom/sqpoll::sqpoll_return",
            "core/tests/loom/sqpoll::sqpoll_mail",
            "core/tests/loom/sqpoll::sqpoll_interrupt",
            "core/tests/loom/sqpoll::sqpoll_cq_room";
        "SQ_WAIT waits for room in the SQ":
            "hal-linux/tests/modes::a_polled_ring_waits_for_sq_room",
            "core/tests/loom/sqpoll::sqpoll_sq_room";
        "an SQE that must wait is not tried again and again; what a batch finds is posted":
            "core/tests/review::row_sqpoll_an_sqe_that_must_wait_is_not_tried_again_and_again",
            "core/tests/review::row_sqpoll_a_cqe_found_by_a_batch_that_takes_nothing_is_posted";
        "it stops cleanly with work in flight":
            "core/tests/driven::row_sqpoll_stops_cleanly_with_work_in_flight",
            "core/tests/review::row_sqpoll_an_ended_engine_asks_to_be_woken_so_that_the_end_is_learnt",
            "core/tests/loom/sqpoll::sqpoll_stop",
            "core/tests/loom/sqpoll::sqpoll_stop_waiting";
        "policy *seed*: unregistered files answer `-EBADF`":
            "core/tests/driven::row_sqpoll_policy_seed_takes_registered_files_only",
            "hal-linux/tests/modes::the_seed_policy_asks_more_of_a_polled_ring";
        "policy *seed*: an unprivileged caller is answered `-EPERM`":
            "hal-linux/tests/modes::row_sqpoll_policy_seed_asks_for_a_privilege",
            "hal-linux/tests/privilege::row_sqpoll_asks_for_privileges_under_policy_seed";
    }
    "IOPOLL" {
        "completions are found by polling only":
            "core/tests/fixed::row_cq_full_what_a_poll_finds_waits_in_order",
            "core/tests/review::row_cq_full_nothing_passes_a_waiting_cqe_while_the_application_reaps",
            "core/tests/nvme/data::what_is_written_is_what_is_read",
            "core/tests/loom/served::served_polled",
            "core/tests/iopoll::row_iopoll_needs_a_backend_that_polls";
        "what cannot be polled for is refused, as in Linux; a device's flush can":
            "core/tests/iopoll::row_iopoll_takes_only_what_can_be_polled_for",
            "core/tests/iopoll::row_iopoll_what_is_refused_breaks_its_chain",
            "core/tests/nvme/rules::row_iopoll_a_flush_is_polled_for",
            "verification/src/calls/iopoll::compare";
    }
    "registered files" {
        "a table, sparse or not; a failed registration leaves everything as it was, twice is `-EBUSY`":
            "core/tests/engine::row_registered_files_failure_leaves_everything_as_it_was",
            "hal-linux/tests/files::registered_files_and_buffers";
        "updates with requests in flight; teardown frees once":
            "core/tests/engine::row_registered_files_update_with_requests_in_flight",
            "core/tests/fixed::row_registered_files_and_buffers_go_with_their_last_request",
            "core/src/files::a_table_closed_under_its_requests_goes_with_them";
        "FILES_UPDATE, and opening and closing by place, in order with other requests":
            "core/tests/places::row_registered_files_are_updated_in_order_with_other_requests",
            "core/tests/places::row_registered_files_find_empty_places_as_the_kernel",
            "core/tests/places::row_registered_files_are_opened_into_their_place",
            "core/tests/places::row_registered_files_are_closed_by_their_place",
            "hal-linux/tests/whole::row_registered_files_are_opened_by_name",
            "verification/src/kernel/draw/whole::files_update",
            "verification/src/kernel/held/files/draw::draw";
    }
    "registered buffers" {
        "any sub-range is legal, nothing outside it":
            "core/tests/engine::row_registered_buffers_any_sub_range_and_nothing_outside",
            "verification/src/kernel/draw::outside";
        "mapped once; neighbours take one mapping; a bad one fails alone":
            "core/tests/neighbours::row_registered_buffers_neighbours_take_one_mapping",
            "core/tests/neighbours::row_registered_buffers_a_bad_neighbour_fails_alone",
            "hal-linux/src/vfio/tests/memory::sixty_four_thousand_buffers_of_one_memory_take_one_mapping";
        "limits with a clear error":
            "verification/src/rungs/guest/plan::vfio-meets-memory-limit";
    }
    "async punt" {
        "what would block is tried first, then handed to a worker, unless NOWAIT":
            "hal-linux/tests/process::nowait_never_waits",
            "hal-linux/tests/files::writes_that_wait_for_workers_keep_their_order",
            "hal-linux/tests/streams::nowait_is_answered";
        "a pollable file arms a poll and never occupies a worker":
            "hal-linux/tests/process::a_waiting_read_occupies_no_worker",
            "hal-linux/tests/streams::a_read_waits_for_the_pipe_without_a_worker",
            "hal-linux/tests/streams::two_requests_may_wait_for_one_file";
        "a short result is continued; a stream's is final":
            "hal-linux/src/file/job::a_continued_transfer_goes_on_where_it_ended",
            "hal-linux/tests/streams::a_short_result_of_a_stream_is_final";
        "what a request points to is read when it is submitted":
            "hal-linux/tests/files::vectors_may_go_once_submitted",
            "hal-linux/tests/whole::row_ops_paths_are_read_when_they_are_submitted";
    }
    "workers" {
        "two classes, made on demand up to limits that can be read and set; idle ones leave":
            "core/src/worker/tests::grows_on_demand_up_to_the_limit_per_class",
            "core/src/worker/tests::limits_are_read_and_set",
            "core/src/worker/tests::workers_beyond_a_lowered_limit_leave",
            "core/src/worker/tests::an_idle_worker_leaves_from_the_middle_of_the_stack",
            "hal-linux/tests/process::workers_grow_to_their_limit_and_no_class_means_no_work",
            "hal-linux/tests/process::limits_of_workers_are_read_and_set",
            "hal-linux/tests/process::idle_workers_leave",
            "hal-linux/tests/limits::limits_of_workers_are_the_kernels",
            "core/tests/loom/workers::workers_run",
            "core/tests/loom/workers::workers_wake",
            "core/tests/loom/workers::workers_leave",
            "core/tests/loom/workers::workers_limit";
        "a creation that fails for a passing reason is tried again without blocking the submitter":
            "core/src/worker/tests::a_first_worker_that_fails_in_passing_is_tried_again",
            "hal-linux/src/file/workers/tests::growth_that_fails_in_passing_is_tried_again",
            "hal-linux/src/file/workers/tests::a_first_worker_that_fails_in_passing_is_made_later",
            "hal-linux/src/file/workers/tests::an_application_that_only_looks_gets_its_worker",
            "core/tests/loom/workers::workers_retry",
            "core/tests/loom/workers::workers_owed";
        "growth that fails is not fatal":
            "core/src/worker/tests::growth_that_fails_is_not_fatal",
            "hal-linux/src/file/workers/tests::growth_that_fails_for_good_is_not_fatal";
        "if the first of a class cannot be made, its queued work ends with `-ECANCELED`":
            "core/src/worker/tests::a_first_worker_that_fails_for_good_cancels_its_class_only",
            "core/src/worker/tests::a_worker_that_is_owed_is_forgotten_with_its_class",
            "hal-linux/tests/nproc::threads_that_the_kernel_refuses",
            "hal-linux/tests/shortage::a_shortage_of_threads_passes_or_cancels",
            "core/tests/loom/workers::workers_fail",
            "core/tests/loom/workers::workers_given_up";
        "a shutdown races with creation safely":
            "core/src/worker/tests::stop_cancels_the_queue_and_lets_running_work_finish",
            "core/src/worker/tests::stop_wakes_the_idle",
            "core/tests/loom/workers::workers_stop",
            "core/tests/loom/workers::workers_stop_making";
    }
    "sequential merge" {
        "sequential buffered requests of a file follow each other in one worker, within a bound":
            "hal-linux/tests/merge::a_batch_of_sequential_writes_is_handed_over_once",
            "hal-linux/tests/merge::reads_of_what_is_not_there_follow_each_other",
            "hal-linux/tests/merge::runs_are_bounded_and_change_nothing",
            "hal-linux/src/file/order/tests::a_run_is_bounded";
        "what is not sequential is not merged":
            "hal-linux/tests/merge::what_is_not_sequential_is_not_merged",
            "hal-linux/tests/merge::without_merging_each_is_handed_over";
    }
    "poll" {
        "POLL_ADD, one shot: ready now, ready later, woken in vain, by any pollable file":
            "core/tests/polls::row_poll_ready_now_ready_later_woken_in_vain",
            "hal-linux/tests/polls::row_poll_what_is_ready_completes_at_once",
            "hal-linux/tests/polls::row_poll_waits_for_pipe_eventfd_and_socket",
            "hal-linux/tests/polls::row_poll_files_that_wake_nobody",
            "hal-linux/tests/polls::row_poll_registered_files_and_flags",
            "hal-linux/tests/polls::row_poll_probe_shows_it",
            "verification/src/kernel/polls/draw::op";
        "multishot":
            "core/tests/polls::row_poll_multishot",
            "hal-linux/tests/polls::row_poll_multishot_goes_on_until_it_is_removed";
        "POLL_REMOVE and updates":
            "core/tests/polls::row_poll_a_removal_and_what_it_answers",
            "core/tests/polls::row_poll_the_newest_of_those_that_match",
            "core/tests/polls::row_poll_updates",
            "hal-linux/tests/polls::row_poll_a_removal_ends_the_newest",
            "hal-linux/tests/polls::row_poll_an_update_changes_events_and_user_data";
        "waking, removing and closing race: each ends exactly once":
            "hal-linux/tests/polls::row_poll_each_ends_once_whatever_comes_first",
            "hal-linux/tests/polls::row_poll_a_ring_ends_with_waits_and_leaves_nothing",
            "core/tests/polls::row_poll_a_ring_ends_with_waits",
            "core/tests/loom/polls::poll_wakes",
            "core/tests/loom/polls::poll_remove",
            "core/tests/loom/polls::poll_shutdown";
        "on bare metal, events of devices and of the program":
            "core/tests/signals::row_poll_events_hold_until_they_are_lowered",
            "core/tests/signals::row_poll_several_waits_removals_updates",
            "core/tests/signals::row_poll_other_threads_raise",
            "core/tests/loom/signals::signal_arm",
            "core/tests/loom/signals::signal_again",
            "core/tests/loom/signals::signal_remove";
        "what cannot be meant is refused":
            "core/tests/polls::row_poll_what_cannot_be_meant_is_refused";
    }
    "provided buffers" {
        "PROVIDE_BUFFERS and REMOVE_BUFFERS fill and empty groups":
            "examples/tests/provided::groups_are_filled_and_emptied",
            "core/src/provided::entries_come_back_however_buffers_go",
            "verification/src/kernel/held/generate::provide",
            "verification/src/kernel/held/generate::withdraw";
        "BUFFER_SELECT takes one; its id is in the CQE; `-ENOBUFS` without one":
            "examples/tests/provided::reads_pick_their_buffers",
            "core/src/provided::a_list_is_picked_from_the_front_and_taken_back_there",
            "core/tests/picks::row_provided_buffers_a_read_that_ends_at_once_tells_of_its_own",
            "core/tests/picks::row_provided_buffers_a_readv_is_found_by_its_own_opcode",
            "core/tests/picks::row_provided_buffers_a_read_under_way_has_its_own",
            "core/tests/nvme/chains::row_provided_buffers_are_read_into_through_bounce_memory",
            "hal-baremetal/tests/virtio/chains::row_provided_buffers_are_read_into_through_bounce_memory",
            "verification/src/kernel/held/generate::select";
        "rings of buffers":
            "examples/tests/provided::a_ring_of_buffers",
            "core/src/provided::a_ring_is_read_up_to_its_tail",
            "verification/src/calls/parts::whole",
            "verification/src/kernel/held/generate::select";
        "rings whose buffers are used up by parts: storage uses what was asked for, what waits for readiness as much as was moved; F_BUF_MORE while there is more":
            "core/src/provided::a_buffer_is_used_up_by_parts",
            "core/tests/parts::row_provided_buffers_by_parts_reads_follow_each_other_in_a_buffer",
            "core/tests/parts::row_provided_buffers_by_parts_storage_uses_what_it_was_asked_for",
            "core/tests/parts::row_provided_buffers_by_parts_a_stream_uses_what_it_moved",
            "core/tests/parts::row_provided_buffers_by_parts_what_is_asynchronous_uses_what_it_asked_for",
            "core/tests/parts::row_provided_buffers_by_parts_who_waits_has_none",
            "core/tests/parts::row_provided_buffers_by_parts_one_that_goes_on_elsewhere_keeps_what_it_asked_for",
            "core/tests/parts::row_provided_buffers_by_parts_without_a_file_or_room_nothing_is_used",
            "core/tests/parts::row_provided_buffers_by_parts_a_ring_that_ends_takes_nothing_back",
            "hal-linux/tests/parts::row_provided_buffers_by_parts_are_filled_without_gaps_by_a_pipe",
            "hal-linux/tests/parts::row_provided_buffers_by_parts_of_a_file_are_each_reads_own",
            "hal-linux/tests/parts::row_provided_buffers_by_parts_who_waits_for_a_pipe_has_none_of_it",
            "verification/src/calls/parts::arguments",
            "verification/src/calls/parts::storage",
            "verification/src/calls/parts::devices",
            "verification/src/calls/parts::streams",
            "verification/src/calls/parts::waiting",
            "verification/src/calls/parts::cancelled",
            "verification/src/calls/parts::errors",
            "verification/src/calls/parts::nothing_left",
            "verification/src/calls/parts::asynchronous",
            "verification/src/calls/parts::chains",
            "verification/src/calls/parts::end";
        "nothing leaks when a request waits, fails or is cancelled":
            "core/tests/picks::row_provided_buffers_go_back_without_room_and_without_a_file",
            "core/tests/picks::row_provided_buffers_in_the_reserve_and_in_a_full_cq",
            "core/tests/parts::row_provided_buffers_one_of_a_list_stays_with_who_waits_when_its_group_becomes_a_ring",
            "core/tests/parts::row_provided_buffers_who_waits_has_its_file_and_a_late_failure_gives_nothing_back",
            "examples/tests/provided::who_waits_keeps_a_buffer_of_a_list",
            "examples/tests/provided::who_waits_has_no_buffer_of_a_ring";
    }
    "links, drain, timeouts, cancel" {
        "chains: one after another, broken by errors and short transfers if soft, ended by their submission":
            "core/tests/held::a_chain_starts_one_after_the_other",
            "core/tests/held::short_reads_and_errors_break_a_soft_chain_only",
            "core/tests/held::a_chain_ends_with_its_submission",
            "core/tests/held::a_refused_entry_cancels_its_whole_chain",
            "core/tests/held::what_only_tells_of_its_error_does_not_break_its_chain",
            "core/tests/held::a_long_chain_is_no_recursion",
            "core/tests/nvme/chains::row_links_vectors_follow_each_other_on_a_device",
            "core/tests/nvme/chains::row_links_a_short_vectored_read_breaks_its_chain",
            "hal-baremetal/tests/virtio/chains::row_links_vectors_follow_each_other_on_a_disk",
            "hal-baremetal/tests/virtio/chains::row_links_a_short_vectored_read_of_a_disk_breaks_its_chain",
            "examples/tests/chains::chains_of_files_are_as_the_kernels",
            "examples/tests/chains::a_registered_file_that_is_to_close_on_exec_ends_its_chain_before_it_begins",
            "verification/src/kernel/held/generate::round",
            "verification/src/kernel/held/generate::link",
            "verification/src/kernel/held/files/draw::draw";
        "CQE_SKIP_SUCCESS":
            "core/tests/held::what_skips_its_cqe_speaks_when_it_fails_and_silences_its_chain",
            "core/tests/nvme/chains::row_links_vectors_wait_behind_a_drain_and_skip_their_cqe",
            "examples/tests/chains::chains_of_files_are_as_the_kernels",
            "verification/src/kernel/held/generate::skip";
        "drain":
            "core/tests/held::a_drain_waits_for_all_before_and_holds_all_after",
            "core/tests/held::a_drain_within_a_chain_drains_the_chain_and_what_follows",
            "core/tests/held::a_drain_that_is_refused_holds_what_follows",
            "core/tests/held::what_is_refused_for_its_buffer_has_skipped_nothing",
            "core/tests/nvme/chains::row_links_vectors_wait_behind_a_drain_and_skip_their_cqe",
            "examples/tests/chains::chains_of_files_with_drains_are_as_the_kernels",
            "verification/src/kernel/held/generate::drain";
        "timeouts by time and by count, multishot, removed and updated":
            "core/tests/held::timeouts_end_by_time_or_by_count",
            "core/tests/held::a_timeout_is_removed_and_updated",
            "core/tests/held::a_multishot_timeout_fires_as_often_as_it_should",
            "core/src/held::the_first_is_on_top_whatever_comes_and_goes",
            "core/tests/nvme/chains::row_timeouts_end_the_sleep_of_a_ring_on_a_device",
            "hal-baremetal/tests/virtio/chains::row_timeouts_end_the_sleep_of_a_ring_on_a_disk",
            "verification/src/kernel/held/generate/ends::timeout",
            "verification/src/kernel/held/generate/ends::timeout_remove";
        "by the wall clock and the one that runs on in suspend; a clock that is set is noticed":
            "core/tests/clocks::a_point_in_time_of_another_clock_comes",
            "core/tests/clocks::a_clock_that_is_set_forward_is_noticed",
            "core/tests/clocks::a_clock_that_is_set_back_ends_nothing_too_early",
            "core/tests/clocks::a_span_runs_on_in_suspend_by_one_clock_only",
            "core/tests/clocks::guards_have_clocks_too",
            "core/tests/clocks::a_clock_that_there_is_not_is_refused",
            "examples/tests/clocks::spans_and_points_in_time_end",
            "examples/tests/clocks::one_clock_and_no_repeated_point_in_time",
            "examples/tests/clocks::guards_end_by_each_clock",
            "examples/tests/clocks::an_update_keeps_the_clock",
            "verification/src/kernel/pair/draw::clock";
        "LINK_TIMEOUT":
            "core/tests/held::a_guard_ends_with_what_it_guards_or_tries_to_end_it",
            "core/tests/held::a_guard_ends_with_the_batch_that_ends_its_request",
            "core/tests/nvme/chains::row_link_timeout_ends_what_waits_and_lets_go_on_what_the_device_has",
            "hal-baremetal/tests/virtio/chains::row_link_timeout_ends_what_waits_and_lets_go_on_what_the_disk_has",
            "verification/src/kernel/held/generate/ends::link_timeout";
        "ASYNC_CANCEL by user_data, file, operation, any, all; 0, `-ENOENT`, `-EALREADY`":
            "core/tests/held::cancellation_finds_what_it_is_told_to",
            "hal-linux/tests/queued::what_is_queued_in_a_batch_can_be_cancelled_by_it",
            "hal-linux/tests/queued::cancelled_or_carried_out_whoever_is_faster",
            "core/tests/nvme/chains::row_cancel_what_the_device_has_not_seen_ends_and_the_rest_goes_on",
            "core/tests/nvme/chains::row_cancel_what_ends_by_it_wakes_its_ring",
            "core/tests/nvme/chains::row_cancel_what_waits_for_a_controller_under_reset_ends_at_once",
            "hal-baremetal/tests/virtio/chains::row_cancel_what_the_disk_has_not_seen_ends_and_the_rest_goes_on",
            "verification/src/kernel/held/generate/ends::cancel";
        "a call that cancels (`IORING_REGISTER_SYNC_CANCEL`) waits for what is under way":
            "core/tests/calls::a_call_ends_what_has_not_begun",
            "core/tests/calls::a_call_that_cancels_looks_at_its_arguments",
            "core/tests/calls::an_inline_call_drives_the_engine_until_what_is_under_way_has_ended",
            "core/tests/calls::a_call_from_outside_waits_without_the_engine",
            "hal-linux/tests/calls::a_cancellation_waits_for_what_a_worker_is_at",
            "hal-linux/tests/calls::a_cancellation_ends_who_waits_for_a_file",
            "verification/src/calls/mod::row_register_calls_answer_as_the_kernels",
            "verification/src/kernel/pair/draw::cancel";
        "a ring that ends, ends all of it; without memory for it, it is refused":
            "core/tests/held::shutting_down_ends_all_that_waits",
            "core/tests/nvme/chains::row_links_a_ring_that_ends_starts_nothing_that_waits",
            "core/tests/held::without_memory_for_them_they_are_refused";
    }
    "register calls" {
        "eventfds: for all completions or for late ones, can be silenced; no completion goes without a signal":
            "core/tests/calls::an_eventfd_is_registered_once",
            "core/tests/calls::every_cqe_is_followed_by_a_signal",
            "core/tests/calls::a_late_cqe_is_signalled_though_it_came_home_while_sqes_were_taken",
            "hal-linux/tests/calls::an_event_loop_lives_on_a_registered_eventfd",
            "hal-linux/tests/calls::a_full_counter_blocks_nobody",
            "verification/src/kernel/pair/draw::act";
        "a ring that starts disabled takes calls only; restrictions hold from the moment it is enabled":
            "core/tests/calls::a_disabled_ring_takes_calls_only",
            "core/tests/calls::a_polling_thread_waits_for_its_ring_to_be_enabled",
            "core/tests/calls::restrictions_hold_from_the_moment_the_ring_is_enabled",
            "verification/src/calls/mod::row_register_calls_answer_as_the_kernels",
            "verification/src/kernel/pair/draw::enabling";
        "by number and with Linux's structures, or typed; arguments are checked as there":
            "verification/src/calls/mod::row_register_calls_answer_as_the_kernels",
            "core/src/register/numbers::counts_and_addresses_are_checked_as_in_the_kernel",
            "core/src/register/numbers::a_probe_has_as_many_rows_as_there_is_room_for",
            "core/src/register/mod::the_table_of_numbers_has_every_call";
    }
    "messages" {
        "MSG_RING has another ring of the process post a CQE, with flags if asked for, however both are driven":
            "core/tests/messages::row_messages_are_completions_of_the_other_ring",
            "examples/tests/messages::row_messages_come_in_the_order_in_which_they_were_sent",
            "examples/tests/messages::row_messages_of_many_rings_come_once_each",
            "examples/tests/messages::row_messages_to_oneself_come_first",
            "core/tests/messages::row_messages_to_oneself_come_before_the_answer",
            "core/tests/messages::row_messages_that_fail_break_a_chain",
            "verification/src/calls/mod::row_register_calls_answer_as_the_kernels",
            "verification/src/kernel/pair/draw::message";
        "what was accepted is posted, once, in order, before and after whatever waits for room; what finds no place is `-EOVERFLOW`":
            "core/tests/messages::row_messages_that_find_no_room_wait_in_their_order",
            "core/tests/messages::row_messages_that_wait_hold_nothing_up",
            "core/src/messages::there_are_as_many_letters_as_were_asked_for",
            "hal-linux/tests/messages::row_messages_have_their_places_from_the_builder",
            "core/tests/loom/messages::message_lane",
            "core/tests/loom/messages::message_room";
        "they wake who sleeps, end waits, count for timeouts, ring eventfds":
            "core/tests/messages::row_messages_of_threads_end_an_inline_wait",
            "core/tests/messages::row_messages_of_threads_wake_a_polled_ring",
            "core/tests/messages::row_messages_of_threads_wake_a_served_ring",
            "core/tests/messages::row_messages_count_for_timeouts_and_ring_the_eventfd",
            "hal-linux/tests/messages::row_messages_ring_the_bell_of_who_is_elsewhere",
            "examples/tests/messages::row_messages_end_a_wait",
            "core/tests/loom/messages::message_inline",
            "core/tests/loom/messages::message_wakes";
        "fields and targets are looked at as in Linux; a place that knows no rings refuses, and PROBE says so":
            "core/tests/messages::row_messages_have_fields_that_must_be_zero",
            "core/tests/messages::row_messages_are_told_of_by_the_probe",
            "hal-linux/tests/messages::a_rings_descriptor_is_nobodys_to_close_register_or_fill",
            "verification/src/calls/mod::row_register_calls_answer_as_the_kernels";
        "a ring that is disabled, ends or has gone takes none, and nothing reaches into one that has":
            "core/tests/messages::row_messages_need_an_enabled_ring_that_lasts",
            "core/src/messages::after_the_end_nothing_is_accepted",
            "core/tests/loom/messages::message_end",
            "core/tests/loom/messages::message_stop",
            "hal-linux/tests/messages::row_messages_find_no_ring_that_has_gone",
            "hal-linux/tests/messages::row_messages_to_rings_that_come_and_go",
            "hal-linux/tests/messages::row_messages_of_a_forked_child_do_not_reach_its_parents_rings";
        "files go from table to table: the sender is told the place, and who knows of it finds the file there; each is closed once":
            "verification/src/calls/mod::row_register_calls_answer_as_the_kernels",
            "core/tests/sent_files::row_messages_files_are_there_as_soon_as_their_sender_knows",
            "core/tests/sent_files::row_messages_files_are_closed_by_whoever_replaces_them",
            "core/tests/sent_files::row_messages_files_stay_with_their_requests",
            "core/tests/sent_files::row_messages_files_are_there_for_calls",
            "core/tests/sent_files::row_messages_files_that_cannot_be_told_of_do_not_go",
            "core/tests/sent_files::row_messages_files_come_by_the_inbox_alone",
            "core/tests/sent_files::row_messages_files_that_cannot_be_adopted_leave_an_empty_place",
            "core/src/sent::whoever_takes_a_number_out_has_it",
            "hal-linux/tests/sent_files::row_messages_files_are_used_by_who_sent_them",
            "core/tests/loom/messages::file_polled",
            "core/tests/loom/messages::file_served",
            "core/tests/loom/messages::file_inline",
            "core/tests/loom/messages::file_told",
            "core/tests/loom/messages::file_table_ends";
    }
    "byte order" {
        "results are the same on big-endian (the rung runs s390x)":
            "core/src/sqe::poll_masks_swap_halfwords_on_big_endian_only",
            "core/src/engine/poll::a_mask_as_a_backend_gets_it";
        "an address beyond a pointer is `-EFAULT`":
            "core/tests/engine::row_byte_order_addresses_beyond_a_pointer_are_efault";
    }
}
