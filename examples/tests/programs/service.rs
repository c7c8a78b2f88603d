//! `service`, spoken to over HTTP: tenants, versions, deadlines, clients that go away, its end.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use cubbyhole::ExecutionContext;
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::http::{Answer, PATIENCE, Sent, send};
use crate::postgres;
use crate::support::{Outcome, Place, all, block_on, on_each_place, value};

const ACME: &str = "x-tenant: acme";
const GLOBEX: &str = "x-tenant: globex";
const JSON: &str = "content-type: application/json";

/// The service, running.
struct Service {
    child: Child,
    log: Receiver<String>,
    address: SocketAddr,
}

impl Service {
    fn start(place: &Place) -> Outcome<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_service"))
            .args([&place.url(), "127.0.0.1:0"])
            .env_remove("CUBBYHOLE_STORE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no pipe")?;
        let (sender, log) = mpsc::channel();
        // Reads on whatever the test does, so that the service never waits for its log.
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.for_each(|line| drop(sender.send(line)));
        });
        let mut service = Self { child, log, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let line = service.log.recv_timeout(PATIENCE)?;
        service.address = line.strip_prefix("listening on http://").ok_or("no address")?.parse()?;
        Ok(service)
    }

    fn send(&self, request: &str, headers: &[&str], body: &str) -> Outcome<Sent> {
        send(self.address, request, headers, body)
    }

    fn ask(&self, request: &str, headers: &[&str], body: &str) -> Outcome<Answer> {
        self.send(request, headers, body)?.answer()
    }

    /// Asks for what must be refused; the answer's body, which says why.
    fn refused(&self, status: u16, request: &str, headers: &[&str], body: &str) -> Outcome<Value> {
        let answer = self.ask(request, headers, body)?;
        assert_eq!(answer.status, status, "{request} {headers:?}: {}", answer.body);
        answer.json()
    }

    /// Reads the log up to a line, and returns what stood before it.
    fn wait_for(&self, line: &str) -> Outcome<Vec<String>> {
        let mut before = Vec::new();
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(read) if read == line => return Ok(before),
                Ok(read) => before.push(read),
                Err(error) => return Err(format!("no line `{line}`: {error}").into()),
            }
        }
    }

    fn terminate(&self) -> Outcome {
        let kill = format!("kill -TERM {}", self.child.id());
        Ok(Command::new("sh").args(["-c", &kill]).status()?.success().then_some(()).ok_or(kill)?)
    }

    /// Waits for its end, which may cut off no request.
    fn ended(mut self) -> Outcome<ExitStatus> {
        let log = self.wait_for("closed")?;
        assert!(!log.iter().any(|line| line.contains("cancelled")), "{log:#?}");
        Ok(self.child.wait()?)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn check(place: &Place) -> Outcome {
    let service = Service::start(place)?;
    tenants(&service)?;
    versions(&service)?;
    deadlines(&service)?;
    refusals(&service)?;
    pages(&service)?;
    let note = r#"{"text":"short","ttl_seconds":3600}"#;
    assert_eq!(service.ask("PUT /notes/short", &[GLOBEX, JSON], note)?.status, 204);
    service.terminate()?;
    assert_eq!(service.ended()?.code(), Some(0));

    place.look(async |ctx, store| {
        let texts = async |ns| {
            let items = all(ctx, store, ns).await?;
            items.iter().map(|item| Ok((item.key.clone(), value(item)?.clone()))).collect()
        };
        let acme: Outcome<Vec<(String, Value)>> = texts("acme:notes").await;
        assert_eq!(acme?, [("shopping".to_owned(), json!({ "text": "milk, eggs" }))]);
        let globex = all(ctx, store, "globex:notes").await?;
        let expires: Vec<_> =
            globex.iter().map(|item| (item.key.as_str(), item.meta.expires_at.is_some())).collect();
        assert_eq!(expires, [("shopping", false), ("short", true)]);
        Ok(())
    })
}

on_each_place!(check);

fn tenants(service: &Service) -> Outcome {
    let note = r#"{"text":"milk"}"#;
    assert_eq!(service.ask("PUT /notes/shopping", &[ACME, JSON], note)?.status, 204);
    assert_eq!(service.ask("GET /notes/shopping", &[ACME], "")?.json()?["text"], "milk");

    assert_eq!(service.refused(404, "GET /notes/shopping", &[GLOBEX], "")?["kind"], "not_found");
    assert_eq!(service.ask("GET /notes", &[GLOBEX], "")?.json()?["notes"], json!([]));
    service.refused(404, "DELETE /notes/shopping", &[GLOBEX], "")?;
    let theirs = r#"{"text":"theirs"}"#;
    assert_eq!(service.ask("PUT /notes/shopping", &[GLOBEX, JSON], theirs)?.status, 204);
    assert_eq!(service.ask("GET /notes/shopping", &[ACME], "")?.json()?["text"], "milk");
    // Text like any other: the tenant of that name, and not a namespace of acme's.
    service.refused(404, "GET /notes/shopping", &["x-tenant: acme:notes"], "")?;

    let missing = service.refused(400, "GET /notes", &[], "")?;
    assert_eq!(missing["message"], "the header x-tenant is missing");
    for invalid in ["x-tenant:", "x-tenant: M\u{fc}nchen"] {
        assert_eq!(service.refused(400, "GET /notes", &[invalid], "")?["kind"], "invalid_argument");
    }
    Ok(())
}

fn versions(service: &Service) -> Outcome {
    let read = service.ask("GET /notes/shopping", &[ACME], "")?.etag()?;
    let if_match = format!("if-match: {read}");
    let note = r#"{"text":"milk, eggs"}"#;
    let written = service.ask("PUT /notes/shopping", &[ACME, JSON, &if_match], note)?;
    assert_eq!(written.status, 204);
    assert_ne!(written.etag()?, read);
    let now = service.ask("GET /notes/shopping", &[ACME], "")?;
    assert_eq!(now.etag()?, written.etag()?);

    let late = r#"{"text":"late"}"#;
    for (request, header) in [
        ("PUT /notes/shopping", if_match.as_str()),
        ("DELETE /notes/shopping", &if_match),
        ("PUT /notes/shopping", "if-none-match: *"),
        ("PUT /notes/absent", &if_match),
    ] {
        let refused = service.refused(412, request, &[ACME, JSON, header], late)?;
        assert_eq!(refused["kind"], "conflict");
        assert_eq!(refused["may_have_been_applied"], false);
    }
    for header in ["if-match: *", "if-match: \"1\"", "if-none-match: \"1\""] {
        service.refused(400, "PUT /notes/shopping", &[ACME, JSON, header], late)?;
    }
    assert_eq!(service.ask("GET /notes/shopping", &[ACME], "")?.etag()?, written.etag()?);

    let created = service.ask("PUT /notes/new", &[ACME, JSON, "if-none-match: *"], late)?;
    let if_match = format!("if-match: {}", created.etag()?);
    assert_eq!(service.ask("DELETE /notes/new", &[ACME, &if_match], "")?.status, 204);
    service.refused(404, "DELETE /notes/new", &[ACME], "")?;
    Ok(())
}

/// A deadline that has passed is refused before any work, on every backend alike.
fn deadlines(service: &Service) -> Outcome {
    let before = service.ask("GET /notes/shopping", &[ACME], "")?.etag()?;
    for request in ["GET /notes/shopping", "GET /notes", "DELETE /notes/shopping"] {
        let refused = service.refused(504, request, &[ACME, "x-timeout-ms: 0"], "")?;
        assert_eq!(refused["kind"], "deadline_exceeded");
        assert_eq!(refused["may_have_been_applied"], false);
    }
    let note = r#"{"text":"late"}"#;
    service.refused(504, "PUT /notes/shopping", &[ACME, JSON, "x-timeout-ms: 0"], note)?;
    service.refused(400, "GET /notes", &[ACME, "x-timeout-ms: soon"], "")?;
    // A body that does not come.
    let headers = [ACME, JSON, "x-timeout-ms: 50", "content-length: 10"];
    service.refused(504, "PUT /notes/shopping", &headers, "")?;
    assert_eq!(service.ask("GET /notes/shopping", &[ACME], "")?.etag()?, before);
    Ok(())
}

fn refusals(service: &Service) -> Outcome {
    service.refused(400, "PUT /notes/x", &[ACME, JSON], "{")?;
    service.refused(422, "PUT /notes/x", &[ACME, JSON], "{}")?;
    service.refused(415, "PUT /notes/x", &[ACME], r#"{"text":""}"#)?;
    let zero =
        service.refused(400, "PUT /notes/x", &[ACME, JSON], r#"{"text":"","ttl_seconds":0}"#)?;
    assert_eq!(zero["kind"], "invalid_argument");
    service.refused(400, "GET /notes?limit=0", &[ACME], "")?;
    service.refused(400, "GET /notes?limit=many", &[ACME], "")?;
    service.refused(400, "GET /notes/%00", &[ACME], "")?;
    service.refused(400, &format!("GET /notes/{}", "k".repeat(1025)), &[ACME], "")?;
    Ok(())
}

fn pages(service: &Service) -> Outcome {
    const TENANT: &str = "x-tenant: initech";
    let keys = ["a", "b/1", "b/2", "ü"];
    for key in ["a", "b%2F1", "b%2F2", "%C3%BC"] {
        let note = r#"{"text":"x"}"#;
        assert_eq!(service.ask(&format!("PUT /notes/{key}"), &[TENANT, JSON], note)?.status, 204);
    }
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = service.ask(&format!("GET /notes?limit=1{after}"), &[TENANT], "")?.json()?;
        for note in page["notes"].as_array().ok_or("no notes")? {
            assert_eq!(note["text"], "x");
            found.push(note["key"].as_str().ok_or("no key")?.to_owned());
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={}", next.replace('ü', "%C3%BC")),
            None => break,
        }
    }
    assert_eq!(found, keys);
    let some = service.ask("GET /notes?prefix=b/", &[TENANT], "")?.json()?;
    assert_eq!(some["notes"].as_array().map(Vec::len), Some(2));
    Ok(())
}

/// What happens to a request that has to wait. PostgreSQL can be made to let it: somebody has its
/// row locked.
mod waiting {
    use super::*;

    const NOTE: &str = r#"{"text":"new"}"#;

    /// Runs `check` while another transaction has the note `k` of acme locked.
    fn while_locked(
        check: impl AsyncFnOnce(Service, &Client, &postgres::Schema) -> Outcome,
    ) -> Outcome {
        let place = Place::postgres()?;
        let Place::Postgres(schema) = &place else { return Err("not PostgreSQL".into()) };
        let service = Service::start(&place)?;
        let old = r#"{"text":"old"}"#;
        assert_eq!(service.ask("PUT /notes/k", &[ACME, JSON], old)?.status, 204);
        block_on(async {
            let client = postgres::connect().await?;
            let lock = format!(
                "BEGIN; SELECT 1 FROM {}.entries WHERE namespace = 'acme:notes' FOR UPDATE",
                schema.names.name
            );
            client.batch_execute(&lock).await?;
            check(service, &client, schema).await
        })
    }

    /// Waits until so many calls wait for the lock.
    async fn until_waiting(client: &Client, schema: &postgres::Schema, count: i64) -> Outcome {
        let ctx = ExecutionContext::new().with_timeout(Duration::from_secs(60));
        while schema.waiting(client).await? != count {
            ctx.sleep(Duration::from_millis(5)).await?;
        }
        Ok(())
    }

    #[test]
    fn a_deadline_ends_it() -> Outcome {
        while_locked(async |service, client, schema| {
            let headers = [ACME, JSON, "x-timeout-ms: 200"];
            let refused = service.refused(504, "PUT /notes/k", &headers, NOTE)?;
            assert_eq!(refused["kind"], "deadline_exceeded");
            until_waiting(client, schema, 0).await?;
            client.batch_execute("COMMIT").await?;
            // Reads never wait, and the service works on.
            assert_eq!(service.ask("GET /notes/k", &[ACME], "")?.json()?["text"], "old");
            Ok(())
        })
    }

    #[test]
    fn a_client_that_goes_away_ends_it() -> Outcome {
        while_locked(async |service, client, schema| {
            let sent = service.send("PUT /notes/k", &[ACME, JSON], NOTE)?;
            until_waiting(client, schema, 1).await?;
            drop(sent);
            service.wait_for("PUT /notes/k: the client went away")?;
            // Nobody works for a client that is gone, the server neither.
            until_waiting(client, schema, 0).await?;
            client.batch_execute("COMMIT").await?;
            assert_eq!(service.ask("GET /notes/k", &[ACME], "")?.json()?["text"], "old");
            Ok(())
        })
    }

    #[test]
    fn the_end_of_the_service_does_not() -> Outcome {
        while_locked(async |service, client, schema| {
            let sent = service.send("PUT /notes/k", &[ACME, JSON], NOTE)?;
            until_waiting(client, schema, 1).await?;
            service.terminate()?;
            service.wait_for("SIGTERM: ending")?;
            client.batch_execute("COMMIT").await?;
            assert_eq!(sent.answer()?.status, 204);
            assert_eq!(service.ended()?.code(), Some(0));
            Ok(())
        })
    }
}
