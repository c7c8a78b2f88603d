//! Runs each program as built, on a file, on PostgreSQL and on Redis, and looks at what it printed
//! and at what it left in the store.
#![cfg(unix)]

mod agent;
mod http;
mod jobs;
mod postgres;
mod redis;
mod service;
mod sessions;
mod support;
