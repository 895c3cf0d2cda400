//! The tables, as diesel sees them. A test compares them with the tables that the migrations create.

diesel::table! {
    counter (id) {
        id -> BigInt,
        position -> BigInt,
    }
}

diesel::table! {
    server (key) {
        key -> Text,
        value -> Text,
    }
}

diesel::table! {
    cursors (name) {
        name -> Text,
        position -> BigInt,
    }
}

diesel::table! {
    users (user_id) {
        user_id -> Text,
        password_hash -> Nullable<Text>,
        appservice_id -> Nullable<Text>,
        created_at -> BigInt,
        deactivated -> Bool,
        display_name -> Nullable<Text>,
        avatar_url -> Nullable<Text>,
        profile -> Text,
    }
}

diesel::table! {
    erased_users (user_id) {
        user_id -> Text,
        position -> BigInt,
    }
}

diesel::table! {
    devices (user_id, device_id) {
        user_id -> Text,
        device_id -> Text,
        display_name -> Nullable<Text>,
        appservice_id -> Nullable<Text>,
        own_login -> Bool,
        born -> BigInt,
        last_seen_ts -> Nullable<BigInt>,
        last_seen_ip -> Nullable<Text>,
    }
}

diesel::table! {
    access_tokens (token_hash) {
        token_hash -> Text,
        user_id -> Text,
        device_id -> Text,
        created_at -> BigInt,
    }
}

diesel::table! {
    account_data (user_id, room_id, kind) {
        user_id -> Text,
        room_id -> Text,
        kind -> Text,
        content -> Text,
        position -> BigInt,
    }
}

diesel::table! {
    filters (user_id, filter_id) {
        user_id -> Text,
        filter_id -> Text,
        filter -> Text,
    }
}

diesel::table! {
    client_transactions (sender, scope, txn_id) {
        sender -> Text,
        scope -> Text,
        txn_id -> Text,
        response -> Text,
        created_at -> BigInt,
    }
}

diesel::table! {
    device_keys (user_id, device_id) {
        user_id -> Text,
        device_id -> Text,
        json -> Text,
    }
}

diesel::table! {
    one_time_keys (user_id, device_id, algorithm, position) {
        user_id -> Text,
        device_id -> Text,
        algorithm -> Text,
        position -> BigInt,
        key_id -> Text,
        json -> Text,
    }
}

diesel::table! {
    claimed_keys (user_id, device_id, hash) {
        user_id -> Text,
        device_id -> Text,
        hash -> BigInt,
        position -> BigInt,
    }
}

diesel::table! {
    fallback_keys (user_id, device_id, algorithm) {
        user_id -> Text,
        device_id -> Text,
        algorithm -> Text,
        key_id -> Text,
        json -> Text,
        used -> Bool,
    }
}

diesel::table! {
    cross_signing_keys (user_id, usage) {
        user_id -> Text,
        usage -> Text,
        public_key -> Text,
        json -> Text,
    }
}

diesel::table! {
    key_signatures (target_user, signer_user, target_key, signer_key) {
        target_user -> Text,
        signer_user -> Text,
        target_key -> Text,
        signer_key -> Text,
        signature -> Text,
    }
}

diesel::table! {
    backup_versions (user_id, version) {
        user_id -> Text,
        version -> BigInt,
        algorithm -> Text,
        auth_data -> Text,
        etag -> BigInt,
        sessions -> BigInt,
        deleted -> Bool,
        bytes -> BigInt,
    }
}

diesel::table! {
    backup_sessions (user_id, version, room_id, session_id) {
        user_id -> Text,
        version -> BigInt,
        room_id -> Text,
        session_id -> Text,
        first_message_index -> BigInt,
        forwarded_count -> BigInt,
        is_verified -> Bool,
        json -> Text,
    }
}

diesel::table! {
    rooms (room_id) {
        room_id -> Text,
        version -> Text,
        creator -> Text,
        tip -> Text,
        depth -> BigInt,
        joined -> BigInt,
        invited -> BigInt,
        is_public -> Bool,
    }
}

diesel::table! {
    events (position) {
        position -> BigInt,
        event_id -> Text,
        room_id -> Text,
        kind -> Text,
        state_key -> Nullable<Text>,
        sender -> Text,
        origin_server_ts -> BigInt,
        pdu -> Text,
        replaces -> Nullable<Text>,
        redacted_by -> Nullable<Text>,
        device_id -> Nullable<Text>,
        txn_id -> Nullable<Text>,
    }
}

diesel::table! {
    relations (position) {
        position -> BigInt,
        parent -> Text,
        rel_type -> Text,
        kind -> Text,
        sender -> Text,
        key -> Text,
    }
}

diesel::table! {
    threads (room_id, root) {
        room_id -> Text,
        root -> Text,
        latest -> BigInt,
        replies -> BigInt,
    }
}

diesel::table! {
    room_state (room_id, kind, state_key) {
        room_id -> Text,
        kind -> Text,
        state_key -> Text,
        event_id -> Text,
        position -> BigInt,
    }
}

diesel::table! {
    memberships (room_id, user_id) {
        room_id -> Text,
        user_id -> Text,
        membership -> Text,
        position -> BigInt,
        event_id -> Text,
        sender -> Text,
        display_name -> Nullable<Text>,
        avatar_url -> Nullable<Text>,
        left_at -> BigInt,
        forgotten_at -> BigInt,
    }
}

diesel::table! {
    aliases (alias) {
        alias -> Text,
        room_id -> Text,
        creator -> Text,
    }
}

diesel::table! {
    receipts (room_id, user_id, kind, thread_id) {
        room_id -> Text,
        user_id -> Text,
        kind -> Text,
        thread_id -> Text,
        event_id -> Text,
        ts -> BigInt,
        position -> BigInt,
    }
}

diesel::table! {
    inbox (position) {
        position -> BigInt,
        user_id -> Text,
        device_id -> Text,
        sender -> Text,
        kind -> Text,
        content -> Text,
        shared -> Nullable<BigInt>,
        decided_by -> Text,
        acknowledged -> Bool,
    }
}

diesel::table! {
    shared_contents (id) {
        id -> BigInt,
        content -> Text,
    }
}

diesel::table! {
    device_list_log (position) {
        position -> BigInt,
        kind -> Text,
        user_id -> Text,
        room_id -> Text,
        appservice_id -> Text,
        covers -> BigInt,
        about -> Text,
    }
}

diesel::table! {
    appservice_rooms (appservice_id, room_id) {
        appservice_id -> Text,
        room_id -> Text,
        joined -> BigInt,
    }
}

diesel::table! {
    tracked (appservice_id, user_id) {
        appservice_id -> Text,
        user_id -> Text,
    }
}

diesel::table! {
    appservices (appservice_id) {
        appservice_id -> Text,
        registration -> Text,
        file -> Text,
        present -> Bool,
        last_txn -> BigInt,
        in_force -> Text,
        acknowledged -> BigInt,
    }
}

diesel::table! {
    owed (position, appservice_id, kind, key) {
        position -> BigInt,
        appservice_id -> Text,
        kind -> Text,
        key -> Text,
        item -> Text,
        why -> Text,
        txn -> Nullable<BigInt>,
    }
}

diesel::table! {
    frozen_transactions (appservice_id) {
        appservice_id -> Text,
        txn_id -> BigInt,
        cut -> BigInt,
        body -> Text,
        frozen_at -> BigInt,
    }
}

diesel::table! {
    set_aside (appservice_id, position) {
        appservice_id -> Text,
        position -> BigInt,
        kind -> Text,
        why -> Text,
        at -> BigInt,
    }
}

diesel::table! {
    back_fills (appservice_id) {
        appservice_id -> Text,
        up_to -> BigInt,
        away -> Bool,
        stage -> Text,
        position -> BigInt,
        room_id -> Text,
        user_id -> Text,
        account_data_after -> Nullable<BigInt>,
    }
}

diesel::table! {
    scratch (msc, key) {
        msc -> BigInt,
        key -> Text,
        value -> Text,
        position -> BigInt,
        due -> Nullable<BigInt>,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    counter,
    server,
    cursors,
    users,
    erased_users,
    devices,
    access_tokens,
    account_data,
    filters,
    client_transactions,
    device_keys,
    one_time_keys,
    claimed_keys,
    fallback_keys,
    cross_signing_keys,
    key_signatures,
    backup_versions,
    backup_sessions,
    rooms,
    events,
    relations,
    threads,
    room_state,
    memberships,
    aliases,
    receipts,
    inbox,
    shared_contents,
    device_list_log,
    appservice_rooms,
    tracked,
    owed,
    appservices,
    frozen_transactions,
    set_aside,
    back_fills,
    scratch
);
