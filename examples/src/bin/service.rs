//! An HTTP service that keeps notes for many tenants. Each request names its tenant and how long it
//! may take; versions are ETags; a signal ends the service without losing a request.
//!
//! ```text
//! cargo run -p cubbyhole-examples --bin service -- redb:service.redb 127.0.0.1:8080
//!
//! curl -i -X PUT -H 'x-tenant: acme' --json '{"text":"buy milk"}' localhost:8080/notes/shopping
//! curl -i -H 'x-tenant: acme' -H 'x-timeout-ms: 250' localhost:8080/notes/shopping
//! ```
#![expect(
    clippy::print_stdout,
    clippy::disallowed_macros,
    reason = "its log; a service of yours has a logger"
)]

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use cubbyhole::{
    Backend, Condition, EntryStore, Error, ErrorKind, ExecutionContext, GetOptions, JsonCodec,
    Namespace, PutOptions, ScanOptions, Sweeper, TenantId, Typed, TypedExt, Version,
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

/// Whose notes. A service of yours takes the tenant from a token that it has verified.
const TENANT: &str = "x-tenant";
/// How long the caller waits for the answer.
const TIMEOUT: &str = "x-timeout-ms";
/// For callers that do not say, and the most that one may ask for.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests under way may go on after the signal to end.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct Service {
    notes: Typed<Note, JsonCodec, Arc<dyn Backend>>,
    /// The parent of the context of every request.
    requests: ExecutionContext,
}

/// What is stored.
#[derive(Serialize, Deserialize)]
struct Note {
    text: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().or_else(|| std::env::var("CUBBYHOLE_STORE").ok());
    let address = arguments.next().or_else(|| std::env::var("SERVICE_ADDRESS").ok());
    let url = url.unwrap_or_else(|| "redb:service.redb".to_owned());
    let address = address.unwrap_or_else(|| "127.0.0.1:8080".to_owned());

    let opening = ExecutionContext::new().with_timeout(Duration::from_secs(30));
    let store = cubbyhole::open(&opening, &url).await?;
    let listener = TcpListener::bind(&address).await?;
    // Before anybody knows that the service is there: a signal that comes early counts too.
    let signal = end_signals()?;
    println!("listening on http://{}", listener.local_addr()?);

    // Ends when the service is told to end: what runs beside the requests ends with it, and no new
    // request is taken.
    let running = ExecutionContext::new();
    let sweeper = Sweeper::new(store.clone()).with_interval(Duration::from_secs(60));
    let ctx = running.clone();
    let sweeper = tokio::spawn(async move {
        match sweeper.run(&ctx).await {
            Ok(swept) => println!("the sweeper removed {} expired notes", swept.removed),
            Err(error) => println!("the sweeper gave up: {error}"),
        }
    });

    let service = Service { notes: store.clone().typed(), requests: ExecutionContext::new() };
    let requests = service.requests.clone();
    let ctx = running.clone();
    let server = axum::serve(listener, router(service))
        .with_graceful_shutdown(async move { drop(ctx.ended().await) });
    let mut server = tokio::spawn(server.into_future());

    tokio::select! {
        // It ends by itself only if it fails.
        ended = &mut server => ended??,
        name = signal => {
            println!("{name}: ending");
            running.cancel();
            let grace = ExecutionContext::new().with_timeout(GRACE);
            if grace.race(&mut server).await.is_err() {
                println!("requests are still under way; they are cancelled");
                requests.cancel();
                server.abort();
            }
        }
    }
    running.cancel();
    sweeper.await?;
    // Waits for the calls under way, makes all durable, lets go of file and connections.
    store.close(&ExecutionContext::new().with_timeout(GRACE)).await?;
    println!("closed");
    Ok(())
}

fn router(service: Service) -> Router {
    Router::new()
        .route("/notes", get(list))
        .route("/notes/{key}", get(read).put(write).delete(remove))
        .layer(middleware::from_fn_with_state(service.clone(), with_context))
        .with_state(service)
}

/// Gives each request its context: the deadline that its header asks for, cancelled when the client
/// goes away.
async fn with_context(
    State(service): State<Service>,
    mut request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let timeout = match request.headers().get(TIMEOUT) {
        None => DEFAULT_TIMEOUT,
        Some(value) => {
            let millis = value.to_str().ok().and_then(|text| text.parse().ok());
            let message = || bad_request(format!("{TIMEOUT}: not a number of milliseconds"));
            Duration::from_millis(millis.ok_or_else(message)?)
        }
    };
    let ctx = service.requests.child().with_timeout(timeout.min(MAX_TIMEOUT));
    request.extensions_mut().insert(ctx.clone());
    let line = format!("{} {}", request.method(), request.uri().path());
    let mut guard = Unanswered { ctx, line, answered: false };
    let response = next.run(request).await;
    guard.answered = true;
    println!("{}: {}", guard.line, response.status().as_u16());
    Ok(response)
}

/// When the client goes away, the server drops the request's future and this with it. What works for
/// the request elsewhere, in a task of its own, ends by the context.
struct Unanswered {
    ctx: ExecutionContext,
    line: String,
    answered: bool,
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if !self.answered {
            self.ctx.cancel();
            println!("{}: the client went away", self.line);
        }
    }
}

/// The namespace of the tenant's notes. No handler has another way to one, so none can forget to
/// ask whose notes it works on.
struct TenantNotes(Namespace);

impl FromRequestParts<Service> for TenantNotes {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Service) -> Result<Self, Failure> {
        let header = parts.headers.get(TENANT);
        let header =
            header.ok_or_else(|| bad_request(format!("the header {TENANT} is missing")))?;
        let name = header.to_str();
        let name = name.map_err(|_| bad_request(format!("{TENANT}: not plain ASCII")))?;
        let tenant = TenantId::new(name)?;
        Ok(Self(Namespace::new(tenant).with_scope("notes")?))
    }
}

#[derive(Deserialize)]
struct Listing {
    prefix: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Listed {
    notes: Vec<ListedNote>,
    /// The `after` of the next page.
    next: Option<String>,
}

#[derive(Serialize)]
struct ListedNote {
    key: String,
    version: Version,
    text: Option<String>,
    /// Why there is no text. One note that cannot be read hides no other.
    error: Option<&'static str>,
}

async fn list(
    State(service): State<Service>,
    Extension(ctx): Extension<ExecutionContext>,
    TenantNotes(ns): TenantNotes,
    query: Result<Query<Listing>, QueryRejection>,
) -> Result<Json<Listed>, Failure> {
    let Query(listing) = query?;
    // A limit out of bounds is the store's to refuse: it is the caller's mistake there too.
    let mut options = ScanOptions::new().with_limit(listing.limit.unwrap_or(100));
    if let Some(prefix) = listing.prefix {
        options = options.with_prefix(prefix);
    }
    if let Some(after) = listing.after {
        options = options.with_after(after);
    }
    let page = service.notes.scan(&ctx, &ns, options).await?.map(|item| {
        let (text, error) = match item.value {
            Some(Ok(note)) => (Some(note.text), None),
            Some(Err(error)) => (None, Some(error.kind().as_str())),
            None => (None, None),
        };
        ListedNote { key: item.key, version: item.meta.version, text, error }
    });
    Ok(Json(Listed { notes: page.items, next: page.next }))
}

async fn read(
    State(service): State<Service>,
    Extension(ctx): Extension<ExecutionContext>,
    TenantNotes(ns): TenantNotes,
    Path(key): Path<String>,
) -> Result<Response, Failure> {
    match service.notes.get_entry(&ctx, &ns, &key, GetOptions::new()).await? {
        Some(entry) => Ok((etag(entry.meta.version), Json(entry.value)).into_response()),
        None => Err(not_found()),
    }
}

/// What a client sends.
#[derive(Deserialize)]
struct NewNote {
    text: String,
    ttl_seconds: Option<u64>,
}

async fn write(
    State(service): State<Service>,
    Extension(ctx): Extension<ExecutionContext>,
    TenantNotes(ns): TenantNotes,
    Path(key): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let condition = condition(request.headers())?;
    // A body that trickles in is under the deadline too.
    let Json(new) = ctx.race(Json::<NewNote>::from_request(request, &service)).await??;
    let mut options = PutOptions::new();
    if let Some(seconds) = new.ttl_seconds {
        options = options.with_ttl(Duration::from_secs(seconds));
    }
    let note = Note { text: new.text };
    let version = service.notes.put_entry(&ctx, &ns, &key, note, options, condition).await?;
    Ok((StatusCode::NO_CONTENT, etag(version)).into_response())
}

async fn remove(
    State(service): State<Service>,
    Extension(ctx): Extension<ExecutionContext>,
    TenantNotes(ns): TenantNotes,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Failure> {
    let condition = condition(&headers)?;
    match service.notes.delete_entry(&ctx, &ns, &key, condition).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(not_found()),
    }
}

fn etag(version: Version) -> [(axum::http::HeaderName, String); 1] {
    [(ETAG, format!("\"{version}\""))]
}

/// `If-Match: "VERSION"` and `If-None-Match: *`, as a condition of the write.
fn condition(headers: &HeaderMap) -> Result<Condition, Failure> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match (text(IF_MATCH), text(IF_NONE_MATCH)) {
        (None, None) => Ok(Condition::Always),
        (None, Some("*")) => Ok(Condition::IfAbsent),
        (Some(tag), None) => {
            let version = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let version = version.and_then(|text| text.parse().ok());
            let message = || bad_request("If-Match: give one ETag as this service sent it");
            Ok(Condition::IfVersion(version.ok_or_else(message)?))
        }
        _ => Err(bad_request("give If-Match with one ETag, or If-None-Match: *")),
    }
}

/// What a client is told in place of an answer.
struct Failure {
    status: StatusCode,
    kind: &'static str,
    message: String,
    may_have_been_applied: bool,
}

fn bad_request(message: impl Into<String>) -> Failure {
    refused(StatusCode::BAD_REQUEST, message)
}

fn not_found() -> Failure {
    Failure { kind: "not_found", ..refused(StatusCode::NOT_FOUND, "there is no such note") }
}

/// The request itself is wrong; nothing was done.
fn refused(status: StatusCode, message: impl Into<String>) -> Failure {
    Failure {
        status,
        kind: ErrorKind::InvalidArgument.as_str(),
        message: message.into(),
        may_have_been_applied: false,
    }
}

/// What each kind of error is in HTTP.
fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::InvalidArgument => StatusCode::BAD_REQUEST,
        // Conditions come from If-Match and If-None-Match alone.
        ErrorKind::Conflict => StatusCode::PRECONDITION_FAILED,
        ErrorKind::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        // A client that cancelled reads no answer; one that does meets a service that is ending.
        ErrorKind::Cancelled | ErrorKind::Unavailable | ErrorKind::ResourceExhausted => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        // The service's own fault and not the client's: its role, its data, its build. Kinds that
        // come later are too until somebody decides.
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = status(error.kind());
        let message = if status == StatusCode::INTERNAL_SERVER_ERROR {
            // For whoever operates the service. No message of the store holds a value or a password.
            println!("{}: {error}", error.kind());
            "the service failed".to_owned()
        } else {
            error.message().to_owned()
        };
        let may_have_been_applied = error.may_have_been_applied();
        Self { status, kind: error.kind().as_str(), message, may_have_been_applied }
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        refused(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        refused(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            kind: &'static str,
            message: String,
            /// After a write: whether the client must look before it writes again.
            may_have_been_applied: bool,
        }
        let Self { status, kind, message, may_have_been_applied } = self;
        (status, Json(Body { kind, message, may_have_been_applied })).into_response()
    }
}

/// Waits for Ctrl-C or SIGTERM, and says which came.
#[cfg(unix)]
fn end_signals() -> std::io::Result<impl Future<Output = &'static str>> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "Ctrl-C",
            _ = terminate.recv() => "SIGTERM",
        }
    })
}

/// Waits for Ctrl-C.
#[cfg(not(unix))]
fn end_signals() -> std::io::Result<impl Future<Output = &'static str>> {
    Ok(async {
        match tokio::signal::ctrl_c().await {
            Ok(()) => "Ctrl-C",
            // It cannot be received: the service runs until it is killed.
            Err(_) => std::future::pending().await,
        }
    })
}
