//! What a command works with: the context, the store that was chosen, and the output.

use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{Backend, Error, ErrorKind, ExecutionContext, OpenOptions};

use crate::error::Failure;
use crate::output::Output;

/// Closing must get its chance also after Ctrl-C or the deadline, but not for ever.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The store's URL, and whether nobody named it.
#[derive(Debug, Clone)]
pub(crate) struct StoreChoice {
    pub(crate) url: String,
    pub(crate) by_default: bool,
}

pub(crate) struct Session {
    pub(crate) ctx: ExecutionContext,
    pub(crate) store: StoreChoice,
    pub(crate) out: Output,
    opened: Option<Arc<dyn Backend>>,
}

impl Session {
    pub(crate) fn new(ctx: ExecutionContext, store: StoreChoice, out: Output) -> Self {
        Self { ctx, store, out, opened: None }
    }

    /// Opens the store, which must be there. [`close`](Self::close) closes it.
    pub(crate) async fn open(&mut self) -> Result<Arc<dyn Backend>, Failure> {
        self.open_with(&OpenOptions::new().create(false)).await
    }

    /// Opens the store and creates an embedded file that is not there yet.
    pub(crate) async fn open_or_create(&mut self) -> Result<Arc<dyn Backend>, Failure> {
        self.open_with(&OpenOptions::new()).await
    }

    async fn open_with(&mut self, options: &OpenOptions) -> Result<Arc<dyn Backend>, Failure> {
        let store = options.open(&self.ctx, &self.store.url).await;
        let store = store.map_err(|error| self.explain(error))?;
        self.opened = Some(Arc::clone(&store));
        Ok(store)
    }

    /// Adds how to name another store to an error about one that nobody named.
    pub(crate) fn explain(&self, error: Error) -> Failure {
        if self.store.by_default && error.kind() == ErrorKind::Unavailable {
            let message = format!("{error}; name the store with --store URL or CUBBYHOLE_STORE");
            return Error::unavailable(message).into();
        }
        error.into()
    }

    /// Closes the store, if one was opened.
    pub(crate) async fn close(&mut self) -> Result<(), Failure> {
        let Some(store) = self.opened.take() else { return Ok(()) };
        // Not the command's own context: it may have ended, and this is what tidies up.
        let ctx = ExecutionContext::new().with_timeout(CLOSE_TIMEOUT);
        Ok(store.close(&ctx).await?)
    }
}
