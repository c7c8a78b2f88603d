//! `service` over HTTP: tenants, versions, deadlines, disconnecting clients and shutdown.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use cubbyhole::ExecutionContext;
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::http::{PendingRequest, Response, TIMEOUT, send};
use crate::postgres;
use crate::support::{
    Place, TestResult, TestStore, block_on, on_each_store, on_each_store_with_layers, scan_all,
    value,
};

const ACME: &str = "x-tenant: acme";
const GLOBEX: &str = "x-tenant: globex";
const JSON: &str = "content-type: application/json";

/// The running service.
struct Service {
    child: Child,
    log: Receiver<String>,
    address: SocketAddr,
}

impl Service {
    fn start(test_store: &TestStore) -> TestResult<Self> {
        let mut child = test_store
            .command(env!("CARGO_BIN_EXE_service"))
            .args([&test_store.url(), "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("stdout is not a pipe")?;
        let (sender, log) = mpsc::channel();
        // Always drains stdout, so the service never blocks on its log.
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.for_each(|line| drop(sender.send(line)));
        });
        let mut service = Self { child, log, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let line = service.log.recv_timeout(TIMEOUT)?;
        service.address = line.strip_prefix("listening on http://").ok_or("no address")?.parse()?;
        Ok(service)
    }

    fn send(&self, request: &str, headers: &[&str], body: &str) -> TestResult<PendingRequest> {
        send(self.address, request, headers, body)
    }

    fn request(&self, request: &str, headers: &[&str], body: &str) -> TestResult<Response> {
        self.send(request, headers, body)?.response()
    }

    /// Sends a request that the service must reject with `status`. Returns the body, which contains
    /// the error.
    fn rejected(
        &self,
        status: u16,
        request: &str,
        headers: &[&str],
        body: &str,
    ) -> TestResult<Value> {
        let response = self.request(request, headers, body)?;
        assert_eq!(response.status, status, "{request} {headers:?}: {}", response.body);
        response.json()
    }

    /// Reads the log up to `line` and returns the lines before it.
    fn wait_for(&self, line: &str) -> TestResult<Vec<String>> {
        let mut before = Vec::new();
        loop {
            match self.log.recv_timeout(TIMEOUT) {
                Ok(read) if read == line => return Ok(before),
                Ok(read) => before.push(read),
                Err(error) => return Err(format!("no line `{line}`: {error}").into()),
            }
        }
    }

    fn terminate(&self) -> TestResult {
        let kill = format!("kill -TERM {}", self.child.id());
        Ok(Command::new("sh").args(["-c", &kill]).status()?.success().then_some(()).ok_or(kill)?)
    }

    /// Waits for the process to exit. It must not have cancelled a request.
    fn wait_for_exit(mut self) -> TestResult<ExitStatus> {
        let log = self.wait_for("closed")?;
        assert!(!log.iter().any(|line| line.contains("cancelling")), "{log:#?}");
        Ok(self.child.wait()?)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // The process has already exited, unless the test failed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn check(test_store: &TestStore) -> TestResult {
    let service = Service::start(test_store)?;
    tenants(&service)?;
    versions(&service)?;
    deadlines(&service)?;
    rejections(&service)?;
    pages(&service)?;
    let note = r#"{"text":"short","ttl_seconds":3600}"#;
    assert_eq!(service.request("PUT /notes/short", &[GLOBEX, JSON], note)?.status, 204);
    service.terminate()?;
    assert_eq!(service.wait_for_exit()?.code(), Some(0));

    test_store.with_store(async |ctx, store| {
        let texts = async |ns| {
            let items = scan_all(ctx, store, ns).await?;
            items.iter().map(|item| Ok((item.key.clone(), value(item)?.clone()))).collect()
        };
        let acme: TestResult<Vec<(String, Value)>> = texts("acme:notes").await;
        assert_eq!(acme?, [("shopping".to_owned(), json!({ "text": "milk, eggs" }))]);
        let globex = scan_all(ctx, store, "globex:notes").await?;
        let expires: Vec<_> =
            globex.iter().map(|item| (item.key.as_str(), item.meta.expires_at.is_some())).collect();
        // Only the layers set a TTL for a note without one.
        assert_eq!(expires, [("shopping", test_store.has_layers()), ("short", true)]);
        Ok(())
    })
}

on_each_store!(check);
on_each_store_with_layers!(check);

fn tenants(service: &Service) -> TestResult {
    let note = r#"{"text":"milk"}"#;
    assert_eq!(service.request("PUT /notes/shopping", &[ACME, JSON], note)?.status, 204);
    assert_eq!(service.request("GET /notes/shopping", &[ACME], "")?.json()?["text"], "milk");

    assert_eq!(service.rejected(404, "GET /notes/shopping", &[GLOBEX], "")?["kind"], "not_found");
    assert_eq!(service.request("GET /notes", &[GLOBEX], "")?.json()?["notes"], json!([]));
    service.rejected(404, "DELETE /notes/shopping", &[GLOBEX], "")?;
    let theirs = r#"{"text":"theirs"}"#;
    assert_eq!(service.request("PUT /notes/shopping", &[GLOBEX, JSON], theirs)?.status, 204);
    assert_eq!(service.request("GET /notes/shopping", &[ACME], "")?.json()?["text"], "milk");
    // The header is literal text: it names the tenant `acme:notes`, not a namespace of `acme`.
    service.rejected(404, "GET /notes/shopping", &["x-tenant: acme:notes"], "")?;

    let missing = service.rejected(400, "GET /notes", &[], "")?;
    assert_eq!(missing["message"], "the header x-tenant is missing");
    for invalid in ["x-tenant:", "x-tenant: M\u{fc}nchen"] {
        assert_eq!(
            service.rejected(400, "GET /notes", &[invalid], "")?["kind"],
            "invalid_argument"
        );
    }
    Ok(())
}

fn versions(service: &Service) -> TestResult {
    let read = service.request("GET /notes/shopping", &[ACME], "")?.etag()?;
    let if_match = format!("if-match: {read}");
    let note = r#"{"text":"milk, eggs"}"#;
    let written = service.request("PUT /notes/shopping", &[ACME, JSON, &if_match], note)?;
    assert_eq!(written.status, 204);
    assert_ne!(written.etag()?, read);
    let now = service.request("GET /notes/shopping", &[ACME], "")?;
    assert_eq!(now.etag()?, written.etag()?);

    let late = r#"{"text":"late"}"#;
    for (request, header) in [
        ("PUT /notes/shopping", if_match.as_str()),
        ("DELETE /notes/shopping", &if_match),
        ("PUT /notes/shopping", "if-none-match: *"),
        ("PUT /notes/absent", &if_match),
    ] {
        let rejected = service.rejected(412, request, &[ACME, JSON, header], late)?;
        assert_eq!(rejected["kind"], "conflict");
        assert_eq!(rejected["may_have_been_applied"], false);
    }
    for header in ["if-match: *", "if-match: \"1\"", "if-none-match: \"1\""] {
        service.rejected(400, "PUT /notes/shopping", &[ACME, JSON, header], late)?;
    }
    assert_eq!(service.request("GET /notes/shopping", &[ACME], "")?.etag()?, written.etag()?);

    let created = service.request("PUT /notes/new", &[ACME, JSON, "if-none-match: *"], late)?;
    let if_match = format!("if-match: {}", created.etag()?);
    assert_eq!(service.request("DELETE /notes/new", &[ACME, &if_match], "")?.status, 204);
    service.rejected(404, "DELETE /notes/new", &[ACME], "")?;
    Ok(())
}

/// Every backend rejects a request whose deadline has passed, before it does any work.
fn deadlines(service: &Service) -> TestResult {
    let before = service.request("GET /notes/shopping", &[ACME], "")?.etag()?;
    for request in ["GET /notes/shopping", "GET /notes", "DELETE /notes/shopping"] {
        let rejected = service.rejected(504, request, &[ACME, "x-timeout-ms: 0"], "")?;
        assert_eq!(rejected["kind"], "deadline_exceeded");
        assert_eq!(rejected["may_have_been_applied"], false);
    }
    let note = r#"{"text":"late"}"#;
    service.rejected(504, "PUT /notes/shopping", &[ACME, JSON, "x-timeout-ms: 0"], note)?;
    service.rejected(400, "GET /notes", &[ACME, "x-timeout-ms: soon"], "")?;
    // A body that never arrives.
    let headers = [ACME, JSON, "x-timeout-ms: 50", "content-length: 10"];
    service.rejected(504, "PUT /notes/shopping", &headers, "")?;
    assert_eq!(service.request("GET /notes/shopping", &[ACME], "")?.etag()?, before);
    Ok(())
}

fn rejections(service: &Service) -> TestResult {
    service.rejected(400, "PUT /notes/x", &[ACME, JSON], "{")?;
    service.rejected(422, "PUT /notes/x", &[ACME, JSON], "{}")?;
    service.rejected(415, "PUT /notes/x", &[ACME], r#"{"text":""}"#)?;
    let zero =
        service.rejected(400, "PUT /notes/x", &[ACME, JSON], r#"{"text":"","ttl_seconds":0}"#)?;
    assert_eq!(zero["kind"], "invalid_argument");
    service.rejected(400, "GET /notes?limit=0", &[ACME], "")?;
    service.rejected(400, "GET /notes?limit=many", &[ACME], "")?;
    service.rejected(400, "GET /notes/%00", &[ACME], "")?;
    service.rejected(400, &format!("GET /notes/{}", "k".repeat(1025)), &[ACME], "")?;
    Ok(())
}

fn pages(service: &Service) -> TestResult {
    const TENANT: &str = "x-tenant: initech";
    let keys = ["a", "b/1", "b/2", "ü"];
    for key in ["a", "b%2F1", "b%2F2", "%C3%BC"] {
        let note = r#"{"text":"x"}"#;
        assert_eq!(
            service.request(&format!("PUT /notes/{key}"), &[TENANT, JSON], note)?.status,
            204
        );
    }
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = service.request(&format!("GET /notes?limit=1{after}"), &[TENANT], "")?.json()?;
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
    let some = service.request("GET /notes?prefix=b/", &[TENANT], "")?.json()?;
    assert_eq!(some["notes"].as_array().map(Vec::len), Some(2));
    Ok(())
}

/// Requests that wait for a row lock. Only PostgreSQL is tested: its locks make a request wait.
mod waiting {
    use super::*;

    const NOTE: &str = r#"{"text":"new"}"#;

    /// Runs `check` while another transaction holds a lock on the note `k` of `acme`.
    fn while_locked(
        check: impl AsyncFnOnce(Service, &Client, &postgres::Schema) -> TestResult,
    ) -> TestResult {
        let test_store = TestStore::postgres()?;
        let Place::Postgres(schema) = &test_store.place else {
            return Err("not PostgreSQL".into());
        };
        let service = Service::start(&test_store)?;
        let old = r#"{"text":"old"}"#;
        assert_eq!(service.request("PUT /notes/k", &[ACME, JSON], old)?.status, 204);
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

    /// Waits until exactly `count` calls wait for the lock.
    async fn until_waiting(client: &Client, schema: &postgres::Schema, count: i64) -> TestResult {
        let ctx = ExecutionContext::new().with_timeout(Duration::from_secs(60));
        while schema.waiting(client).await? != count {
            ctx.sleep(Duration::from_millis(5)).await?;
        }
        Ok(())
    }

    #[test]
    fn deadline_ends_the_request() -> TestResult {
        while_locked(async |service, client, schema| {
            let headers = [ACME, JSON, "x-timeout-ms: 200"];
            let rejected = service.rejected(504, "PUT /notes/k", &headers, NOTE)?;
            assert_eq!(rejected["kind"], "deadline_exceeded");
            until_waiting(client, schema, 0).await?;
            client.batch_execute("COMMIT").await?;
            // Reads do not wait for the lock, and the service still works.
            assert_eq!(service.request("GET /notes/k", &[ACME], "")?.json()?["text"], "old");
            Ok(())
        })
    }

    #[test]
    fn client_disconnect_ends_the_request() -> TestResult {
        while_locked(async |service, client, schema| {
            let sent = service.send("PUT /notes/k", &[ACME, JSON], NOTE)?;
            until_waiting(client, schema, 1).await?;
            drop(sent);
            service.wait_for("PUT /notes/k: the client disconnected")?;
            // The PostgreSQL server has cancelled the statement too.
            until_waiting(client, schema, 0).await?;
            client.batch_execute("COMMIT").await?;
            assert_eq!(service.request("GET /notes/k", &[ACME], "")?.json()?["text"], "old");
            Ok(())
        })
    }

    #[test]
    fn shutdown_waits_for_the_request() -> TestResult {
        while_locked(async |service, client, schema| {
            let sent = service.send("PUT /notes/k", &[ACME, JSON], NOTE)?;
            until_waiting(client, schema, 1).await?;
            service.terminate()?;
            service.wait_for("SIGTERM: shutting down")?;
            client.batch_execute("COMMIT").await?;
            assert_eq!(sent.response()?.status, 204);
            assert_eq!(service.wait_for_exit()?.code(), Some(0));
            Ok(())
        })
    }
}
