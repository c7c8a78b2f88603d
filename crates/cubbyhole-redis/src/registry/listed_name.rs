//! Names in an index of tenants or namespaces.

use cubbyhole_core::{Error, Namespace, Result, TenantId};

/// A name in an index, and the token with which it is listed.
#[derive(Debug, Clone)]
pub(crate) struct ListedName {
    pub(crate) name: String,
    pub(crate) token: String,
}

impl ListedName {
    /// Returns the member of the index.
    pub(crate) fn member(&self) -> String {
        format!("{}\0{}", self.name, self.token)
    }

    pub(super) fn parse(member: &str) -> Result<Self> {
        let (name, token) = member.split_once('\0').ok_or_else(|| {
            Error::corrupt("a name in an index has no token: another program wrote it")
        })?;
        Ok(Self { name: name.to_owned(), token: token.to_owned() })
    }

    pub(crate) fn namespace(&self) -> Result<Namespace> {
        Namespace::parse(&self.name).map_err(|error| {
            Error::corrupt("a name in an index is not a namespace: another program wrote it")
                .with_source(error)
        })
    }

    pub(crate) fn tenant(&self) -> Result<TenantId> {
        Ok(self.namespace()?.tenant())
    }
}
