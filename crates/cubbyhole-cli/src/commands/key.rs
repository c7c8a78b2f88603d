//! `key`: makes, lists and rotates the keys of a key file, and destroys the keys of a tenant.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use cubbyhole::layers::KeyFile;
use cubbyhole::{NamespacePrefix, TenantId};
use serde::Serialize;

use crate::error::Failure;
use crate::output::{count, escape, shown_path};
use crate::session::{Session, confirm};

const EXAMPLES: &str = "\
The layer `encryption` of a profile encrypts values. Each tenant has a data key of its own, and the
current key of a key file encrypts the data keys. The file is secret: only its owner can read it.

  [profiles.prod.layers]
  encryption = { key_file = \"prod.keys\" }

To replace the current key, rotate it and reencrypt the store. Keep the old key in the file until no
backup needs it.

Example:
  cubbyhole key generate prod.keys
  cubbyhole key rotate prod.keys && cubbyhole reencrypt --all --profile prod";

const GENERATE_EXAMPLES: &str = "\
An existing file is never overwritten. Without the file, the values are lost: keep a copy apart from
the store.

Example:
  cubbyhole key generate prod.keys";

const LIST_EXAMPLES: &str = "\
The keys themselves are not shown.

Example:
  cubbyhole key list prod.keys";

const ROTATE_EXAMPLES: &str = "\
The new key encrypts the data keys of new tenants. Those of other tenants follow with `cubbyhole
reencrypt`, which also rewrites the values. Older keys stay in the file and still decrypt. Running
processes read the file again when they need the new key.

Example:
  cubbyhole key rotate prod.keys";

const SHRED_EXAMPLES: &str = "\
Every value of the tenant becomes unreadable, also in backups that have no copy of its keys. The
profile decides where the keys are: in the same store, whose backups hold them too, or in the store
that `tenant_keys` names. A file is compacted, so that no copy of the keys stays in it. Other
processes can use the keys for up to a minute. Keys of entries and namespaces stay; `cubbyhole erase
TENANT` removes the entries. A shredded tenant cannot be written again. There is no way back.

Example:
  cubbyhole key shred acme --yes --profile prod";

/// Make, list and rotate encryption keys, and destroy those of a tenant
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Key {
    #[command(subcommand)]
    action: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    Generate(Generate),
    List(List),
    Rotate(Rotate),
    Shred(Shred),
}

/// Make a key file with one random key, readable by its owner only
#[derive(Debug, Args)]
#[command(after_help = GENERATE_EXAMPLES)]
struct Generate {
    /// The file to create
    file: PathBuf,
}

/// List the ids of the keys in a key file
#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
struct List {
    /// The key file
    file: PathBuf,
}

/// Add a random key to a key file and make it the current one
#[derive(Debug, Args)]
#[command(after_help = ROTATE_EXAMPLES)]
struct Rotate {
    /// The key file
    file: PathBuf,
}

/// Destroy the keys of a tenant and make its values unreadable
#[derive(Debug, Args)]
#[command(after_help = SHRED_EXAMPLES)]
struct Shred {
    /// The tenant
    #[arg(value_parser = parse_tenant)]
    tenant: TenantId,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
}

#[derive(Serialize)]
struct KeyLine<'a> {
    id: &'a str,
    current: bool,
}

#[derive(Serialize)]
struct ShreddedLine<'a> {
    /// The redacted URL.
    store: &'a str,
    tenant: &'a str,
    data_keys: usize,
    already: bool,
}

impl Key {
    /// Whether the action uses a store, and then writes to it.
    pub(crate) fn needs_store(&self) -> bool {
        matches!(self.action, KeyCommand::Shred(_))
    }

    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        match self.action {
            KeyCommand::Generate(Generate { file }) => {
                let made = KeyFile::create(&file)?;
                let ring = made.ring();
                show(session, ring.current_id(), true)?;
                let shown = shown_path(&file);
                session.out.note(&format!("wrote {shown}; keep a copy apart from the store"));
                Ok(())
            }
            KeyCommand::List(List { file }) => {
                let ring = KeyFile::open(&file)?.ring();
                for id in ring.key_ids() {
                    show(session, id, id == ring.current_id())?;
                }
                Ok(())
            }
            KeyCommand::Rotate(Rotate { file }) => {
                let id = KeyFile::rotate(&file)?;
                show(session, &id, true)?;
                session
                    .out
                    .note("the older keys stay in the file; now run `cubbyhole reencrypt --all`");
                Ok(())
            }
            KeyCommand::Shred(shred) => shred.run(session).await,
        }
    }
}

impl Shred {
    async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let store = session.open_encrypted().await?;
        session.store.check_in_scope(&NamespacePrefix::from(self.tenant.clone()))?;
        let tenant = escape(self.tenant.as_rendered());
        if !self.yes {
            confirm(session, "destroy", &format!("the keys of the tenant {tenant}"), "in").await?;
        }
        let shredded = store.shred(&session.ctx, &self.tenant).await?;
        session.compact_key_file().await.map_err(|error| Failure::Partway {
            done:
                "the keys were destroyed; repeat the command to remove their copies from the file"
                    .to_owned(),
            error,
        })?;
        if session.out.json() {
            return session.out.object(&ShreddedLine {
                store: &session.store.shown(),
                tenant: self.tenant.as_str(),
                data_keys: shredded.data_keys,
                already: shredded.already,
            });
        }
        session.out.note(&match shredded.already {
            true => format!("the tenant {tenant} was already shredded"),
            false => format!(
                "shredded the tenant {tenant}: {} destroyed; other processes can use cached keys for \
                 up to a minute",
                count(shredded.data_keys as u64, "data key was", "data keys were")
            ),
        });
        Ok(())
    }
}

fn show(session: &mut Session, id: &str, current: bool) -> Result<(), Failure> {
    if session.out.json() {
        return session.out.object(&KeyLine { id, current });
    }
    session.out.line(&if current { format!("{id}  current") } else { id.to_owned() })
}

fn parse_tenant(text: &str) -> Result<TenantId, String> {
    let prefix = NamespacePrefix::parse(text).map_err(|error| error.message().to_owned())?;
    if prefix.as_namespace().segments().next().is_some() {
        return Err("name a tenant without segments; each tenant has its own keys".to_owned());
    }
    Ok(prefix.tenant())
}
