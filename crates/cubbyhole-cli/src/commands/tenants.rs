//! `tenants`: lists the tenants.

use clap::Args;
use serde::Serialize;

use super::common::PAGE_NAMES;
use crate::error::Failure;
use crate::session::Session;

const EXAMPLES: &str = "\
Names are escaped as in a namespace: `:` as `\\:` and `\\` as `\\\\`.

Example:
  cubbyhole tenants";

/// List the tenants that have at least one live entry
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Tenants {
    /// Write raw names, each followed by NUL
    #[arg(short = '0', long = "null", conflicts_with = "json")]
    null: bool,
}

#[derive(Serialize)]
struct TenantLine<'a> {
    tenant: &'a str,
}

impl Tenants {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        session.store.check_unscoped()?;
        let store = session.open_read_only().await?;
        let mut after = None;
        loop {
            let page = store.scan_tenants(&session.ctx, after.as_ref(), PAGE_NAMES).await?;
            for tenant in &page.items {
                if session.out.json() {
                    session.out.object(&TenantLine { tenant: tenant.as_str() })?;
                } else if self.null {
                    session.out.raw(tenant.as_rendered().as_bytes())?;
                    session.out.raw(b"\0")?;
                } else {
                    session.out.line(tenant.as_rendered())?;
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}
