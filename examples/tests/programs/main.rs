//! Runs each built program on a file, on PostgreSQL and on Redis, and checks its output and the
//! contents of the store.
#![cfg(unix)]

mod agent;
mod http;
mod jobs;
mod postgres;
mod redis;
mod service;
mod sessions;
mod support;
mod tenants;
