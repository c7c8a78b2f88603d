//! `reencrypt`: rewrites values with the current keys.

use std::collections::HashSet;
use std::sync::Arc;

use clap::Args;
use cubbyhole::layers::Encrypted;
use cubbyhole::{Backend, EntryStore, ErrorKind, NamespacePrefix, TenantId};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::args::scope::{Scope, ScopeArguments};
use crate::error::Failure;
use crate::output::{count, escape, progress};
use crate::session::Session;

const EXAMPLES: &str = "\
Encrypts the data keys of each tenant with the current key of the key file, and gives the tenant a
new data key if an older key encrypted its current one. Then rewrites each value that is encrypted
with an older data key. With `plaintext = \"accept\"` in the profile it also encrypts plain values, to
turn encryption on for an existing store.

Entries keep their version, their expiry and the time of their creation. The store can be used at the
same time. Repeat an interrupted run: it skips what is done.

Examples:
  cubbyhole reencrypt acme --profile prod
  cubbyhole reencrypt --all --profile prod";

/// The entries that one step reads. The context is checked between steps.
const STEP: usize = 200;
/// The tenants of a page.
const PAGE_TENANTS: usize = 1000;
/// The unreadable entries that are shown.
const MOST_SHOWN: usize = 10;

/// Encrypt values again with the current keys
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Reencrypt {
    #[command(flatten)]
    scope: ScopeArguments,
}

/// The result, and the progress so far.
#[derive(Debug, Default, Serialize)]
struct Counts {
    tenants: u64,
    /// Tenants that were shredded and are skipped.
    shredded: u64,
    /// Tenants that got a new data key.
    new_data_keys: u64,
    entries: u64,
    rewritten: u64,
    /// Entries that another caller wrote or removed during the run.
    changed: u64,
    unreadable: u64,
    /// Tenants whose data keys cannot be read.
    failed_tenants: u64,
}

impl Reencrypt {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let store = session.open_encrypted().await?;
        let scope = session.store.narrow(self.scope.into_scope())?;
        let bar = progress::bar(None, &session.out, true);
        let mut counts = Counts::default();
        let ended = walk(&store, &scope, session, &bar, &mut counts).await;
        bar.finish_and_clear();
        if let Err(failure) = ended {
            return Err(match failure {
                Failure::Store(error) => {
                    // The error of the context is more precise than that of an interrupted read.
                    let error = session.ctx.check().err().unwrap_or(error);
                    let done = format!(
                        "at least {} rewritten; repeat the command to continue",
                        count(counts.rewritten, "entry", "entries")
                    );
                    Failure::Partway { done, error }
                }
                other => other,
            });
        }
        if session.out.json() {
            session.out.object(&counts)?;
        } else {
            session.out.note(&counts.describe(&scope));
        }
        let left: Vec<String> =
            [(counts.failed_tenants, "tenant", "tenants"), (counts.unreadable, "entry", "entries")]
                .into_iter()
                .filter(|(number, ..)| *number > 0)
                .map(|(number, one, many)| count(number, one, many))
                .collect();
        if left.is_empty() {
            return Ok(());
        }
        let left = left.join(" and ");
        Err(Failure::Incomplete(format!("{left} cannot be decrypted and stayed as they were")))
    }
}

async fn walk(
    store: &Encrypted<Arc<dyn Backend>>,
    scope: &Scope,
    session: &mut Session,
    bar: &ProgressBar,
    counts: &mut Counts,
) -> Result<(), Failure> {
    if let Some(prefix) = scope.prefix() {
        return walk_tenant(store, &prefix.tenant(), prefix, session, bar, counts).await;
    }
    // Tenants with keys come first. Those without live entries keep their keys, and are not listed as
    // tenants of the store.
    let mut walked = HashSet::new();
    let mut after = None;
    loop {
        let page = store.scan_keyed_tenants(&session.ctx, after.as_ref(), PAGE_TENANTS).await?;
        for tenant in page.items {
            let prefix = NamespacePrefix::from(tenant.clone());
            walk_tenant(store, &tenant, &prefix, session, bar, counts).await?;
            walked.insert(tenant);
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    loop {
        let page = store.scan_tenants(&session.ctx, after.as_ref(), PAGE_TENANTS).await?;
        for tenant in page.items.iter().filter(|tenant| !walked.contains(tenant)) {
            let prefix = NamespacePrefix::from(tenant.clone());
            walk_tenant(store, tenant, &prefix, session, bar, counts).await?;
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

async fn walk_tenant(
    store: &Encrypted<Arc<dyn Backend>>,
    tenant: &TenantId,
    prefix: &NamespacePrefix,
    session: &mut Session,
    bar: &ProgressBar,
    counts: &mut Counts,
) -> Result<(), Failure> {
    let rekeyed = match store.rekey(&session.ctx, tenant).await {
        // A wrapping key is missing, or the record is damaged. The other tenants do not depend on it.
        Err(error) if error.is_permanent() || error.kind() == ErrorKind::Corrupt => {
            counts.failed_tenants += 1;
            let text = format!("{}: {}", escape(tenant.as_rendered()), error.message());
            bar.suspend(|| session.out.note(&text));
            return Ok(());
        }
        rekeyed => rekeyed?,
    };
    if rekeyed.shredded {
        counts.shredded += 1;
        return Ok(());
    }
    counts.tenants += 1;
    counts.new_data_keys += u64::from(rekeyed.new_data_key);
    let mut after = None;
    loop {
        let step = store.reencrypt_step(&session.ctx, prefix, after, STEP).await?;
        counts.entries += step.checked;
        counts.rewritten += step.rewritten;
        counts.changed += step.changed;
        for entry in &step.unreadable {
            counts.unreadable += 1;
            if counts.unreadable <= MOST_SHOWN as u64 {
                let (ns, key) = (escape(entry.namespace.as_str()), escape(&entry.key));
                let text = format!("{ns} {key}: {}", entry.error.message());
                bar.suspend(|| session.out.note(&text));
            }
        }
        progress::advance(bar, counts.entries);
        after = step.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

impl Counts {
    fn describe(&self, scope: &Scope) -> String {
        let mut text = format!(
            "{} of {} {scope}: {} rewritten",
            count(self.entries, "entry", "entries"),
            count(self.tenants, "tenant", "tenants"),
            self.rewritten
        );
        for (number, what) in
            [(self.changed, "changed by others during the run"), (self.unreadable, "unreadable")]
        {
            if number > 0 {
                text.push_str(&format!(", {number} {what}"));
            }
        }
        if self.new_data_keys > 0 {
            text.push_str(&format!(
                "; {}",
                count(self.new_data_keys, "new data key", "new data keys")
            ));
        }
        if self.shredded > 0 {
            text.push_str(&format!(
                "; {} skipped",
                count(self.shredded, "shredded tenant", "shredded tenants")
            ));
        }
        text
    }
}
