//! `demo`: a short tour. Each step runs a command and shows its real output.

use std::pin::Pin;
use std::time::Duration;

use clap::Args;
use cubbyhole::{ErrorKind, ExecutionContext, NamespacePrefix};

use crate::error::{EXIT_CONFLICT, EXIT_NOT_FOUND, Failure};
use crate::output::{Capture, Output, Tone, count, escape, shell_quoted};
use crate::session::{STORE_VARIABLE, Session};

const EXAMPLES: &str = "\
The demo writes only to the tenants demo-acme and demo-globex. It can be repeated, and keeps its
data for you to explore.

Examples:
  cubbyhole demo
  cubbyhole demo --store redb:/tmp/tour.redb";

const ACME: &str = "demo-acme";
const GLOBEX: &str = "demo-globex";
const TTL_WAIT: Duration = Duration::from_millis(1200);

/// Parses and runs one command line, without the name of the tool, in a session.
pub(crate) type RunLine =
    for<'a> fn(
        &'a [&'a str],
        &'a mut Session,
    ) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>>;

/// Take a tour in seven steps, on a real store
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Demo {}

impl Demo {
    /// `run_line` runs the commands of the tour.
    pub(crate) async fn run(self, session: &mut Session, run_line: RunLine) -> Result<(), Failure> {
        if session.out.json() {
            return Err(Failure::Usage(
                "the demo has no JSON output; run it without --json".to_owned(),
            ));
        }
        if session.store.url.starts_with("memory:") {
            return Err(Failure::Usage(
                "the demo needs a store that is kept after a command, such as redb:demo.redb"
                    .to_owned(),
            ));
        }
        let mut tour = Tour { session, run_line, step: 0 };
        tour.prepare().await?;
        tour.conversation().await?;
        tour.isolation().await?;
        tour.expiry().await?;
        tour.conflict().await?;
        tour.listing().await?;
        tour.sweep().await?;
        tour.erasure().await?;
        tour.what_next()
    }
}

struct Tour<'a> {
    session: &'a mut Session,
    run_line: RunLine,
    step: u32,
}

impl Tour<'_> {
    /// Writes the heading and erases the data of an earlier tour.
    async fn prepare(&mut self) -> Result<(), Failure> {
        let store = &self.session.store;
        // The URL of a server may contain a password.
        let shown = store.file().map_or("the store you named", |_| store.url.as_str());
        let heading = format!("A tour of Cubbyhole, on {shown}");
        let heading = self.paint(Tone::Heading, &escape(&heading));
        self.text(&heading)?;
        let mut removed = 0;
        let store = self.session.open_or_create().await?;
        for tenant in [ACME, GLOBEX] {
            let prefix = NamespacePrefix::parse(tenant)?;
            loop {
                let step = store.erase(&self.session.ctx, &prefix, 1000).await?;
                removed += step.removed;
                if step.done {
                    break;
                }
            }
        }
        drop(store);
        self.session.close().await?;
        if removed > 0 {
            let entries = count(removed, "entry", "entries");
            self.text(&format!("Removed {entries} of an earlier tour."))?;
        }
        Ok(())
    }

    async fn conversation(&mut self) -> Result<(), Failure> {
        self.step("An agent of one tenant stores its conversation")?;
        let chat = "demo-acme:agent-7:chat";
        self.run(&["put", chat, "turn-1", "Where is my parcel?"], 0).await?;
        self.run(&["put", chat, "turn-2", "It left Lyon this morning."], 0).await?;
        self.run(&["put", chat, "turn-3", "Thank you!"], 0).await?;
        self.run(&["list", chat, "--values"], 0).await
    }

    async fn isolation(&mut self) -> Result<(), Failure> {
        self.step("Another tenant uses the same names; each tenant sees only its own data")?;
        let chat = "demo-globex:agent-7:chat";
        self.run(&["put", chat, "turn-1", "Which plan am I on?"], 0).await?;
        self.run(&["list", chat, "--values"], 0).await
    }

    async fn expiry(&mut self) -> Result<(), Failure> {
        self.step("An entry with a TTL expires")?;
        let get = ["get", "demo-acme:agent-7", "typing"];
        self.run(&["put", "demo-acme:agent-7", "typing", "yes", "--ttl", "1s"], 0).await?;
        // On a very slow disk, the entry expires before it is read.
        self.run_expecting(&get, &[0, EXIT_NOT_FOUND]).await?;
        self.session.ctx.sleep(TTL_WAIT).await?;
        self.wait_until_gone(&get).await?;
        let passed = self.paint(Tone::Aside, "   (a little more than a second later)");
        self.text(&passed)?;
        self.run(&get, EXIT_NOT_FOUND).await
    }

    async fn conflict(&mut self) -> Result<(), Failure> {
        self.step("Two workers claim one job; the second is refused")?;
        let (jobs, job) = ("demo-acme:jobs", "nightly-report");
        self.run(&["put", jobs, job, "worker-1", "--if-absent"], 0).await?;
        self.run(&["put", jobs, job, "worker-2", "--if-absent"], EXIT_CONFLICT).await?;
        self.run(&["get", jobs, job], 0).await
    }

    async fn listing(&mut self) -> Result<(), Failure> {
        self.step("What does a tenant store? (entries, bytes, namespace)")?;
        self.run(&["namespaces", ACME, "--long"], 0).await?;
        self.run(&["usage", ACME], 0).await
    }

    async fn sweep(&mut self) -> Result<(), Failure> {
        self.step("A sweep frees the space of expired entries")?;
        self.run(&["evict"], 0).await
    }

    async fn erasure(&mut self) -> Result<(), Failure> {
        self.step("A tenant leaves: all of its data is erased, and nothing else")?;
        self.run(&["erase", GLOBEX, "--yes"], 0).await?;
        self.run(&["namespaces", GLOBEX], 0).await?;
        self.run(&["namespaces", ACME], 0).await
    }

    fn what_next(&mut self) -> Result<(), Failure> {
        let heading = self.paint(Tone::Heading, "Explore the store");
        self.text(&format!("\n{heading}"))?;
        for (command, what) in [
            ("cubbyhole get demo-acme:agent-7:chat turn-2 --entry", "version and times"),
            ("cubbyhole export demo-acme", "all entries of a tenant, as JSON Lines"),
            ("cubbyhole doctor", "the health of the store"),
            ("cubbyhole --help", "all commands"),
        ] {
            let padded = self.paint(Tone::Command, &format!("{command:<52}"));
            let what = self.paint(Tone::Aside, what);
            self.text(&format!("   {padded} {what}"))?;
        }
        if let Some(note) = self.how_to_call() {
            let note = self.paint(Tone::Aside, &note);
            self.text(&format!("\n{note}"))?;
        }
        Ok(())
    }

    /// Returns the shell commands that are needed before the commands above work as shown.
    fn how_to_call(&self) -> Option<String> {
        let executable = std::env::current_exe().ok()?;
        let on_path = std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|folder| {
                folder.join("cubbyhole").canonicalize().ok() == Some(executable.clone())
            })
        });
        let mut lines = Vec::new();
        if !on_path {
            let shown = shell_quoted(&executable.display().to_string());
            lines.push(format!("   alias cubbyhole={shown}"));
        }
        let store = &self.session.store;
        let named = std::env::var(STORE_VARIABLE).is_ok_and(|url| url == store.url);
        if store.origin.is_option() && !named && store.file().is_some() {
            lines.push(format!("   export {STORE_VARIABLE}={}", shell_quoted(&store.url)));
        }
        (!lines.is_empty()).then(|| format!("Run this first:\n{}", lines.join("\n")))
    }

    async fn wait_until_gone(&mut self, get: &[&str]) -> Result<(), Failure> {
        let patience = self.session.ctx.child().with_timeout(Duration::from_secs(10));
        loop {
            let (mut inner, _capture) = self.inner();
            match (self.run_line)(get, &mut inner).await {
                Err(Failure::NotFound(_)) => return Ok(()),
                outcome => outcome?,
            }
            patience.sleep(Duration::from_millis(50)).await?;
        }
    }

    async fn run(&mut self, arguments: &[&str], expected: u8) -> Result<(), Failure> {
        self.run_expecting(arguments, &[expected]).await
    }

    /// Shows a command, runs it, and shows its output and its exit code.
    async fn run_expecting(&mut self, arguments: &[&str], expected: &[u8]) -> Result<(), Failure> {
        let shown: Vec<String> = arguments.iter().map(|argument| shell_quoted(argument)).collect();
        let command = self.paint(Tone::Command, &format!("cubbyhole {}", shown.join(" ")));
        self.text(&format!("   $ {command}"))?;
        let (mut inner, capture) = self.inner();
        let outcome = (self.run_line)(arguments, &mut inner).await;
        let code = outcome.as_ref().err().map_or(0, |failure| failure.exit_code(None));
        if !expected.contains(&code) {
            return outcome.and_then(|()| Err(unexpected_outcome(arguments)));
        }
        inner.out.conclude(outcome, None);
        let written = capture.take();
        for line in written.lines() {
            self.text(&format!("     {line}"))?;
        }
        if code != 0 {
            let code = self.paint(Tone::Warning, &format!("     exit code {code}"));
            self.text(&code)?;
        } else if written.is_empty() && arguments.first() != Some(&"put") {
            let nothing = self.paint(Tone::Aside, "     (nothing)");
            self.text(&nothing)?;
        }
        Ok(())
    }

    /// Creates a session for one command, with the same store.
    fn inner(&self) -> (Session, Capture) {
        let (out, capture) = Output::captured();
        let ctx: ExecutionContext = self.session.ctx.child();
        (Session::new(ctx, self.session.store.clone(), out), capture)
    }

    fn step(&mut self, title: &str) -> Result<(), Failure> {
        self.step += 1;
        let title = self.paint(Tone::Heading, &format!("{}  {title}", self.step));
        self.text(&format!("\n{title}"))
    }

    fn paint(&self, tone: Tone, text: &str) -> String {
        self.session.out.paint(text, tone)
    }

    /// Writes lines unescaped and flushes them. Output of commands is already escaped.
    fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.session.out.raw(text.as_bytes())?;
        self.session.out.raw(b"\n")?;
        self.session.out.flush()
    }
}

fn unexpected_outcome(arguments: &[&str]) -> Failure {
    let message =
        format!("`{}` ended with an unexpected exit code; please report this", arguments.join(" "));
    cubbyhole::Error::new(ErrorKind::Internal, message).into()
}
