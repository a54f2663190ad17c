"""The contract of the journal port as checks that every store must pass.

A check opens a fresh `StoreUnderTest`, and asserts what a rule of `plait_server.ports.journal` promises; its
name and docstring quote the rule. With pytest:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_my_store_keeps_the_contract(check: Check, tmp_path: Path) -> None:
        await check(MyStoreUnderTest(tmp_path))

Prior art: trio's `testing.check_one_way_stream`.
"""

from collections.abc import Sequence
from typing import Final

from plait_server.testing.check_journal import (
    appends,
    deletions,
    lists,
    log_lines,
    reads,
    scopes,
    settings,
    snapshots,
)
from plait_server.testing.check_journal.store import Check, StoreUnderTest

__all__ = ["CHECKS", "Check", "StoreUnderTest"]

CHECKS: Final[Sequence[Check]] = (
    appends.check_events_are_kept_in_order,
    appends.check_appended_items_survive_a_crash,
    appends.check_appended_items_survive_closing,
    appends.check_an_append_holds_an_execution_once,
    appends.check_an_empty_append_is_nothing,
    appends.check_a_conflict_fails_its_item_alone,
    appends.check_an_item_may_be_audit_alone,
    appends.check_a_wrong_sequence_is_refused,
    appends.check_a_wrong_epoch_is_refused,
    appends.check_a_claim_fences_the_former_owner,
    appends.check_an_open_execution_is_written_by_its_owner_alone,
    appends.check_claims_are_of_open_executions_oldest_first,
    appends.check_a_taken_request_id_is_told,
    appends.check_a_taken_request_id_keeps_nothing_of_its_item,
    appends.check_a_refused_request_leaves_its_id_free,
    reads.check_events_are_opaque,
    reads.check_reading_keeps_its_bounds,
    reads.check_damage_is_found_and_contained,
    reads.check_contents_are_kept_once,
    reads.check_namespaces_are_apart,
    reads.check_an_execution_is_bound_to_its_key,
    reads.check_a_damaged_row_is_told_and_contained,
    reads.check_a_cancelled_append_is_whole_or_nothing,
    reads.check_lists_are_newest_first,
    reads.check_due_executions_are_listed_earliest_first,
    reads.check_the_key_is_the_store_s,
    reads.check_statistics_count_what_was_appended,
    lists.check_lists_are_filtered_and_ordered,
    lists.check_changes_of_listings,
    scopes.check_a_scope_has_the_events_that_were_told,
    scopes.check_reading_a_scope_keeps_its_bounds,
    scopes.check_scopes_are_bound_to_their_execution,
    scopes.check_a_refused_item_indexes_nothing,
    scopes.check_damage_is_found_in_scopes,
    settings.check_settings_are_kept,
    settings.check_settings_are_bounded,
    settings.check_a_setting_s_request_is_recorded,
    settings.check_actions_are_listed_newest_first,
    settings.check_a_refused_item_records_no_action,
    settings.check_the_audit_is_of_its_namespace,
    deletions.check_a_deleted_execution_is_gone,
    deletions.check_only_ended_and_corrupt_executions_are_deleted,
    deletions.check_a_deletion_goes_on_after_a_crash,
    deletions.check_contents_are_kept_while_they_are_used,
    deletions.check_expired_executions_are_deleted_earliest_first,
    deletions.check_a_deletion_s_request_is_recorded,
    deletions.check_request_records_outlive_what_they_made,
    deletions.check_old_actions_are_forgotten,
    deletions.check_tombstones_are_kept_for_a_time,
    snapshots.check_the_newest_complete_snapshot_is_found,
    snapshots.check_a_snapshot_is_of_an_event_of_the_journal,
    snapshots.check_other_snapshots_are_dropped,
    log_lines.check_lines_are_read_in_order,
    log_lines.check_the_oldest_lines_are_dropped,
)
"""Every check, in the order of the rules. Rule 4 is about faults that a store must be made to have: those
need tests of the store's own."""
