//! `touch`: changes the expiry of an entry.

use std::time::Duration;

use clap::{ArgGroup, Args};
use cubbyhole::{Condition, Expiry, Namespace, Version};
use serde::Serialize;

use super::common::not_found;
use crate::args::parse::{parse_duration, parse_key, parse_namespace, parse_version};
use crate::error::Failure;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  cubbyhole touch acme:sessions s-1 --ttl 30m
  cubbyhole touch acme:jobs lease --ttl 30s --if-version \"$version\"
  cubbyhole touch acme:sessions s-1 --persist";

/// Change or remove the TTL of an entry without rewriting its value
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group(ArgGroup::new("expiry").args(["ttl", "idle_ttl", "persist"]).required(true)))]
pub(crate) struct Touch {
    /// Namespace: a tenant and its segments, as in acme:agent-7
    #[arg(value_parser = parse_namespace)]
    namespace: Namespace,
    /// Key; write one that begins with `-` after `--`
    #[arg(value_parser = parse_key)]
    key: String,
    /// New time to live, from now on: 90s, 1h30m, 7d
    #[arg(long, value_name = "DURATION", value_parser = parse_ttl)]
    ttl: Option<Duration>,
    /// New time to live after the last write or refreshing read, as in `cubbyhole get --refresh`
    #[arg(long, value_name = "DURATION", value_parser = parse_ttl)]
    idle_ttl: Option<Duration>,
    /// Remove the TTL: the entry never expires
    #[arg(long)]
    persist: bool,
    /// Change only if the entry has this version, for a lease that another caller may have taken
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    if_version: Option<Version>,
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    if humantime::parse_duration(text).is_ok_and(|ttl| ttl.is_zero()) {
        return Err("a TTL must be greater than zero; use --persist for an entry that never \
                    expires, and `cubbyhole delete` to delete it"
            .to_owned());
    }
    parse_duration(text)
}

#[derive(Serialize)]
struct Touched {
    touched: bool,
}

impl Touch {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let expiry = match (self.ttl, self.idle_ttl) {
            (Some(ttl), _) => Expiry::After(ttl),
            (None, Some(ttl)) => Expiry::Idle(ttl),
            (None, None) => Expiry::Never,
        };
        expiry.check()?;
        let condition = self.if_version.map_or(Condition::Always, Condition::IfVersion);
        let store = session.open().await?;
        if !store.touch(&session.ctx, &self.namespace, &self.key, expiry, condition).await? {
            return Err(not_found(&self.namespace, &self.key));
        }
        if session.out.json() {
            session.out.object(&Touched { touched: true })?;
        }
        Ok(())
    }
}
