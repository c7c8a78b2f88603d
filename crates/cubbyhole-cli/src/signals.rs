//! Ctrl-C and SIGTERM: the first cancels the context, the second ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use cubbyhole::ExecutionContext;

use crate::error::EXIT_INTERRUPTED;
#[cfg(unix)]
use crate::error::EXIT_TERMINATED;

/// Whether Ctrl-C is meant for a program that this one waits for. Signals are the process's.
static LEFT: AtomicBool = AtomicBool::new(false);

/// Leaves Ctrl-C, which goes to every process of the terminal, to a program that this one waits
/// for, until the answer is dropped. SIGTERM is still this process's own.
pub(crate) fn leave_interrupts() -> LeftInterrupts {
    LEFT.store(true, Ordering::SeqCst);
    LeftInterrupts
}

pub(crate) struct LeftInterrupts;

impl Drop for LeftInterrupts {
    fn drop(&mut self) {
        LEFT.store(false, Ordering::SeqCst);
    }
}

/// Which signal was received, as the exit code that it stands for.
#[derive(Clone)]
pub(crate) struct Signals(Arc<AtomicU8>);

impl Signals {
    /// Listens from now on; cancels `ctx` at the first signal.
    pub(crate) fn listen(ctx: &ExecutionContext) -> io::Result<Self> {
        let received = Arc::new(AtomicU8::new(0));
        let mut source = Source::new()?;
        let signals = Self(Arc::clone(&received));
        let ctx = ctx.clone();
        tokio::spawn(async move {
            received.store(source.next_of_ours().await, Ordering::SeqCst);
            ctx.cancel();
            // The command is winding up; who asks twice does not want to wait for that.
            let code = source.next_of_ours().await;
            crate::output::clear_bar();
            std::process::exit(i32::from(code));
        });
        Ok(signals)
    }

    /// The exit code of the signal that was received, if one was.
    pub(crate) fn received(&self) -> Option<u8> {
        match self.0.load(Ordering::SeqCst) {
            0 => None,
            code => Some(code),
        }
    }
}

impl Source {
    async fn next_of_ours(&mut self) -> u8 {
        loop {
            let code = self.next().await;
            if code != EXIT_INTERRUPTED || !LEFT.load(Ordering::SeqCst) {
                return code;
            }
        }
    }
}

#[cfg(unix)]
struct Source {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Source {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => EXIT_INTERRUPTED,
            _ = self.terminate.recv() => EXIT_TERMINATED,
        }
    }
}

#[cfg(not(unix))]
struct Source;

#[cfg(not(unix))]
impl Source {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> u8 {
        if tokio::signal::ctrl_c().await.is_err() {
            // No signal can come: wait for ever.
            std::future::pending::<()>().await;
        }
        EXIT_INTERRUPTED
    }
}
