//! The scenarios that are part of the program: all of `tests/scenarios`.

use std::path::Path;

use workbench::Scenario;

macro_rules! texts {
    ($($name:literal,)*) => {
        /// Their names and texts.
        pub const SCENARIOS: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../tests/scenarios/", $name, ".yaml")))),*];
    };
}

texts! {
    "a_bot_talks_in_an_encrypted_room",
    "a_bridge_pings_itself",
    "a_bridge_that_observes_no_longer_is_sent_no_copies",
    "a_bridge_that_was_away_gets_what_waits",
    "a_claim_that_empties_a_device_is_reported_at_once",
    "a_claimed_key_is_handed_out_once",
    "a_connection_that_is_cut_is_no_answer",
    "a_deleted_device_takes_its_messages_with_it",
    "a_device_is_signed_by_its_user",
    "a_failing_bridge_is_sent_the_same_bytes_until_it_answers",
    "a_ghost_and_a_person_talk",
    "a_ghost_reads_an_encrypted_room_after_an_outage",
    "a_held_transaction_keeps_later_ones_back",
    "a_killed_server_loses_no_message",
    "a_leave_is_said_in_the_transaction_that_carries_it",
    "a_leave_of_the_last_encrypted_room_is_sent_as_left",
    "a_left_survives_an_outage_and_a_restart",
    "a_member_that_left_gets_no_new_room_key",
    "a_message_reaches_the_bridge_of_a_ghost",
    "a_message_stays_until_the_next_since",
    "a_message_survives_one_failure_of_its_bridge",
    "a_message_to_a_user_that_its_service_creates",
    "a_repeated_transaction_id_is_the_same_message",
    "a_request_that_is_no_message_is_refused",
    "a_restart_sends_nothing_twice",
    "a_room_is_created_when_its_alias_is_looked_up",
    "a_room_that_does_not_concern_a_service",
    "a_service_acts_as_its_user_on_a_device",
    "a_service_added_late_gets_what_waits",
    "a_service_chooses_the_time_of_an_event",
    "a_service_creates_and_deletes_devices",
    "a_service_with_a_pattern_for_rooms",
    "a_service_without_the_flags_is_sent_no_messages",
    "a_sync_that_waits_is_answered_by_a_message",
    "a_user_that_no_service_creates_is_not_found",
    "a_wildcard_reaches_every_device_of_the_user",
    "an_encrypted_message_of_any_type_reaches_its_device",
    "an_invite_of_a_user_that_its_service_creates",
    "an_invited_user_is_tracked_until_the_invite_is_withdrawn",
    "an_observed_message_reaches_the_person_too",
    "an_unknown_token_is_refused",
    "custom_events_reach_the_bridge_as_they_are",
    "ephemeral_data_is_not_kept_for_a_service_that_is_down",
    "kick_and_ban_are_leaves",
    "leaving_the_last_shared_room",
    "new_and_lost_devices_are_changes",
    "no_transaction_gets_the_id_of_an_earlier_one",
    "one_failing_service_delays_no_other",
    "people_talk_in_an_encrypted_room",
    "the_last_member_of_the_service_leaves_everybody_behind",
    "the_recipient_of_a_message_is_counted_with_it",
    "two_people_leave_at_once",
    "two_services_get_a_copy_each",
    "typing_and_receipts_reach_the_bridge",
}

/// The scenarios, parsed.
pub(crate) fn built_in() -> Result<Vec<Scenario>, String> {
    let parse = |(name, text): &(&str, &str)| {
        Scenario::parse(Path::new(&format!("tests/scenarios/{name}.yaml")), text)
    };
    SCENARIOS.iter().map(parse).collect()
}
