//! The commands. Each file has the options of one command and its `run`.

mod common;
pub(crate) mod compact;
pub(crate) mod complete_words;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod copy;
pub(crate) mod delete;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod edit;
pub(crate) mod erase;
pub(crate) mod evict;
pub(crate) mod export;
pub(crate) mod get;
pub(crate) mod import;
pub(crate) mod key;
pub(crate) mod list;
pub(crate) mod man;
pub(crate) mod migrate;
pub(crate) mod namespaces;
pub(crate) mod put;
pub(crate) mod reencrypt;
mod removal;
pub(crate) mod take;
pub(crate) mod tenants;
pub(crate) mod touch;
pub(crate) mod usage;
