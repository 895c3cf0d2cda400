//! Conversations with understudy. A file is a theme; a test's name is a sentence, and its transcript has the same name.

mod account_data;
mod acting;
mod authority;
mod book;
mod consent;
mod counts;
mod counts_policies;
mod custom_events;
mod device_lists;
mod dialects;
mod doctor;
mod encrypted;
mod ephemeral;
mod exhaustion;
mod http;
mod late;
mod masquerading;
mod mscs;
mod questions;
mod registrations;
mod restart;
mod starting_up;
mod third_party;
mod tidy;
mod to_device;
mod transactions;
