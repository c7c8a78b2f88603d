//! Handles Ctrl-C, SIGTERM and SIGHUP. The first signal cancels the context. The second Ctrl-C or
//! SIGTERM ends the process immediately. A signal that was ignored when the process started stays
//! ignored, as `nohup` and shells expect.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use cubbyhole::ExecutionContext;

#[cfg(unix)]
use crate::error::EXIT_TERMINATED;
use crate::error::{EXIT_HUNG_UP, EXIT_INTERRUPTED};

/// Whether Ctrl-C is left to a child program. A static, because signals belong to the process.
static LEFT: AtomicBool = AtomicBool::new(false);

/// Ignores Ctrl-C until the returned guard is dropped. The terminal sends it to every process, and
/// it is meant for the child program that this one waits for. SIGTERM is still handled.
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

/// The received signal, as its exit code.
#[derive(Clone)]
pub(crate) struct Signals(Arc<AtomicU8>);

impl Signals {
    /// Starts listening, and cancels `ctx` at the first signal.
    pub(crate) fn listen(ctx: &ExecutionContext) -> io::Result<Self> {
        let received = Arc::new(AtomicU8::new(0));
        let mut source = Source::new()?;
        let signals = Self(Arc::clone(&received));
        let ctx = ctx.clone();
        tokio::spawn(async move {
            let mut code = source.next_of_ours().await;
            received.store(code, Ordering::SeqCst);
            ctx.cancel();
            // A second signal skips the cleanup. SIGHUP is not counted: a shell and the kernel both
            // send it when a terminal is closed, and systemd sends it together with SIGTERM.
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

    /// Returns the exit code of the received signal.
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

/// The signal streams; `None` for an ignored signal.
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
    // The signal is ignored, or its stream has ended.
    std::future::pending::<()>().await;
}

/// The signals that were ignored when the process started.
#[cfg(unix)]
struct Ignored {
    /// One bit for each signal, the lowest first.
    mask: u64,
}

#[cfg(unix)]
impl Ignored {
    /// Reads the mask from `/proc`. Other systems than Linux do not show it to safe code: there the
    /// process does not listen for SIGHUP, and the signal keeps the effect that it had at the
    /// start.
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
            // No signal can arrive: wait indefinitely.
            std::future::pending::<()>().await;
        }
        EXIT_INTERRUPTED
    }
}
