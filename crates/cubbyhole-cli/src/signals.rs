//! Ctrl-C, SIGTERM and SIGHUP: the first cancels the context. The second Ctrl-C or SIGTERM ends the
//! process immediately. A signal that was ignored when the process started stays ignored, as `nohup` and
//! shells expect.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use cubbyhole::ExecutionContext;

#[cfg(unix)]
use crate::error::EXIT_TERMINATED;
use crate::error::{EXIT_HUNG_UP, EXIT_INTERRUPTED};

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
            let mut code = source.next_of_ours().await;
            received.store(code, Ordering::SeqCst);
            ctx.cancel();
            // Whoever asks twice does not want to wait for the cleanup. SIGHUP is not counted: a shell
            // and the kernel both send it when a terminal is closed, and systemd sends it together
            // with SIGTERM.
            let mut requests = u8::from(code != EXIT_HUNG_UP);
            while requests < 2 {
                code = source.next_of_ours().await;
                requests += u8::from(code != EXIT_HUNG_UP);
            }
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
use tokio::signal::unix::{Signal, SignalKind, signal};

/// `None` for a signal that is ignored.
#[cfg(unix)]
struct Source {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hang_up: Option<Signal>,
}

#[cfg(unix)]
impl Source {
    fn new() -> io::Result<Self> {
        let ignored = Ignored::at_start();
        let listen = |kind: SignalKind| match ignored.holds(kind) {
            true => Ok(None),
            false => signal(kind).map(Some),
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> u8 {
        tokio::select! {
            () = received(&mut self.interrupt) => EXIT_INTERRUPTED,
            () = received(&mut self.terminate) => EXIT_TERMINATED,
            () = received(&mut self.hang_up) => EXIT_HUNG_UP,
        }
    }
}

#[cfg(unix)]
async fn received(signal: &mut Option<Signal>) {
    if let Some(signal) = signal
        && signal.recv().await.is_some()
    {
        return;
    }
    // Ignored, or no more can come.
    std::future::pending::<()>().await;
}

/// The signals that the process was started to ignore.
#[cfg(unix)]
struct Ignored {
    /// A bit for each, from the lowest.
    mask: u64,
}

#[cfg(unix)]
impl Ignored {
    /// Only Linux shows them to safe code. Elsewhere the process does not listen for SIGHUP, which
    /// `nohup` ignores: the signal keeps its default effect, or none.
    fn at_start() -> Self {
        let status = match cfg!(any(target_os = "linux", target_os = "android")) {
            true => std::fs::read_to_string("/proc/self/status").unwrap_or_default(),
            false => String::new(),
        };
        let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        Self { mask: mask.unwrap_or_else(|| Self::bit(SignalKind::hangup())) }
    }

    fn holds(&self, kind: SignalKind) -> bool {
        self.mask & Self::bit(kind) != 0
    }

    fn bit(kind: SignalKind) -> u64 {
        u32::try_from(kind.as_raw_value() - 1).map_or(0, |shift| 1 << shift)
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
