//! An HTTP service that stores notes for many tenants. Each request names its tenant and its
//! timeout, versions are ETags, and SIGTERM or Ctrl-C shuts the service down gracefully.
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
    reason = "stdout is the log of this example; a real service uses a logger"
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

/// The header with the tenant. A real service takes the tenant from a verified token.
const TENANT_HEADER: &str = "x-tenant";
/// The header with the time that the client waits for a response.
const TIMEOUT_HEADER: &str = "x-timeout-ms";
/// The timeout of requests without the header.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest timeout that a client can request.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);
/// The time that in-flight requests have to finish after a shutdown signal.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct Service {
    notes: Typed<Note, JsonCodec, Arc<dyn Backend>>,
    /// The parent of the context of every request.
    requests: ExecutionContext,
}

/// The stored value.
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
    // `cubbyhole::open`, with all layers if `CUBBYHOLE_KEY_FILE` is set.
    let store = cubbyhole_examples::open(&opening, &url).await?;
    let listener = TcpListener::bind(&address).await?;
    // Installed before the address is announced, so an early signal is not lost.
    let signal = shutdown_signal()?;
    println!("listening on http://{}", listener.local_addr()?);

    // Cancelled at shutdown. The sweeper stops and the server accepts no more requests.
    let running = ExecutionContext::new();
    let sweeper = Sweeper::new(store.clone()).with_interval(Duration::from_secs(60));
    let ctx = running.clone();
    let sweeper = tokio::spawn(async move {
        match sweeper.run(&ctx).await {
            Ok(swept) => println!("the sweeper removed {} expired notes", swept.removed),
            Err(error) => println!("the sweeper failed: {error}"),
        }
    });

    let service = Service { notes: store.clone().typed(), requests: ExecutionContext::new() };
    let requests = service.requests.clone();
    let ctx = running.clone();
    let server = axum::serve(listener, router(service))
        .with_graceful_shutdown(async move { drop(ctx.ended().await) });
    let mut server = tokio::spawn(server.into_future());

    tokio::select! {
        // Without a shutdown signal, the server ends only if it fails.
        result = &mut server => result??,
        name = signal => {
            println!("{name}: shutting down");
            running.cancel();
            let grace = ExecutionContext::new().with_timeout(GRACE);
            if grace.race(&mut server).await.is_err() {
                println!("cancelling the requests that are still in flight");
                requests.cancel();
                server.abort();
            }
        }
    }
    running.cancel();
    sweeper.await?;
    // Waits for pending calls, makes writes durable and releases files and connections.
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

/// Gives each request a context with the requested deadline. The context is cancelled if the client
/// disconnects.
async fn with_context(
    State(service): State<Service>,
    mut request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let timeout = match request.headers().get(TIMEOUT_HEADER) {
        None => DEFAULT_TIMEOUT,
        Some(value) => {
            let millis = value.to_str().ok().and_then(|text| text.parse().ok());
            let message = || bad_request(format!("{TIMEOUT_HEADER}: not a number of milliseconds"));
            Duration::from_millis(millis.ok_or_else(message)?)
        }
    };
    let ctx = service.requests.child().with_timeout(timeout.min(MAX_TIMEOUT));
    request.extensions_mut().insert(ctx.clone());
    let line = format!("{} {}", request.method(), request.uri().path());
    let mut guard = RequestGuard { ctx, line, answered: false };
    let response = next.run(request).await;
    guard.answered = true;
    println!("{}: {}", guard.line, response.status().as_u16());
    Ok(response)
}

/// Cancels the context of a request if the client disconnects. In that case, the server drops the
/// future of the request, and this guard with it. Tasks that the handler has spawned end with the
/// context.
struct RequestGuard {
    ctx: ExecutionContext,
    line: String,
    answered: bool,
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        if !self.answered {
            self.ctx.cancel();
            println!("{}: the client disconnected", self.line);
        }
    }
}

/// The namespace of the tenant's notes. Handlers get a namespace only from this extractor, so no
/// handler can forget the tenant.
struct TenantNotes(Namespace);

impl FromRequestParts<Service> for TenantNotes {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Service) -> Result<Self, Failure> {
        let header = parts.headers.get(TENANT_HEADER);
        let header =
            header.ok_or_else(|| bad_request(format!("the header {TENANT_HEADER} is missing")))?;
        let name = header.to_str();
        let name = name.map_err(|_| bad_request(format!("{TENANT_HEADER}: not plain ASCII")))?;
        let tenant = TenantId::new(name)?;
        Ok(Self(Namespace::new(tenant).with_scope("notes")?))
    }
}

/// The query parameters of a listing.
#[derive(Deserialize)]
struct ListQuery {
    prefix: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct NotePage {
    notes: Vec<NoteItem>,
    /// The value of `after` for the next page.
    next: Option<String>,
}

#[derive(Serialize)]
struct NoteItem {
    key: String,
    version: Version,
    text: Option<String>,
    /// The kind of error if the note cannot be read. The other notes are still listed.
    error: Option<&'static str>,
}

async fn list(
    State(service): State<Service>,
    Extension(ctx): Extension<ExecutionContext>,
    TenantNotes(ns): TenantNotes,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<NotePage>, Failure> {
    let Query(query) = query?;
    // The store rejects a limit out of range with `InvalidArgument`, which becomes status 400.
    let mut options = ScanOptions::new().with_limit(query.limit.unwrap_or(100));
    if let Some(prefix) = query.prefix {
        options = options.with_prefix(prefix);
    }
    if let Some(after) = query.after {
        options = options.with_after(after);
    }
    let page = service.notes.scan(&ctx, &ns, options).await?.map(|item| {
        let (text, error) = match item.value {
            Some(Ok(note)) => (Some(note.text), None),
            Some(Err(error)) => (None, Some(error.kind().as_str())),
            None => (None, None),
        };
        NoteItem { key: item.key, version: item.meta.version, text, error }
    });
    Ok(Json(NotePage { notes: page.items, next: page.next }))
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

/// The body of a write request.
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
    // The deadline also applies to a body that arrives slowly.
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

/// Converts `If-Match: "VERSION"` or `If-None-Match: *` to the condition of the write.
fn condition(headers: &HeaderMap) -> Result<Condition, Failure> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match (text(IF_MATCH), text(IF_NONE_MATCH)) {
        (None, None) => Ok(Condition::Always),
        (None, Some("*")) => Ok(Condition::IfAbsent),
        (Some(tag), None) => {
            let version = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let version = version.and_then(|text| text.parse().ok());
            let message = || bad_request("If-Match: give one ETag that this service sent");
            Ok(Condition::IfVersion(version.ok_or_else(message)?))
        }
        _ => Err(bad_request("give If-Match with one ETag, or If-None-Match: *")),
    }
}

/// An error response.
struct Failure {
    status: StatusCode,
    kind: &'static str,
    message: String,
    may_have_been_applied: bool,
}

fn bad_request(message: impl Into<String>) -> Failure {
    rejected(StatusCode::BAD_REQUEST, message)
}

fn not_found() -> Failure {
    Failure { kind: "not_found", ..rejected(StatusCode::NOT_FOUND, "no such note") }
}

/// Rejects an invalid request. Nothing was changed.
fn rejected(status: StatusCode, message: impl Into<String>) -> Failure {
    Failure {
        status,
        kind: ErrorKind::InvalidArgument.as_str(),
        message: message.into(),
        may_have_been_applied: false,
    }
}

/// The HTTP status for each kind of error.
fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::InvalidArgument => StatusCode::BAD_REQUEST,
        // Conditions come only from If-Match and If-None-Match.
        ErrorKind::Conflict => StatusCode::PRECONDITION_FAILED,
        ErrorKind::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        // A client that cancelled its request reads no response. A client that reads `Cancelled`
        // has reached a service that is shutting down.
        ErrorKind::Cancelled | ErrorKind::Unavailable | ErrorKind::ResourceExhausted => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        // The service's role, data or build is wrong. Kinds that are added later belong here too.
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = status(error.kind());
        let message = if status == StatusCode::INTERNAL_SERVER_ERROR {
            // Logged for the operator. Messages of the store contain no value and no password.
            println!("{}: {error}", error.kind());
            "internal error".to_owned()
        } else {
            error.message().to_owned()
        };
        let may_have_been_applied = error.may_have_been_applied();
        Self { status, kind: error.kind().as_str(), message, may_have_been_applied }
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        rejected(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        rejected(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            kind: &'static str,
            message: String,
            /// After a failed write: whether the client must read the note before it writes again.
            may_have_been_applied: bool,
        }
        let Self { status, kind, message, may_have_been_applied } = self;
        (status, Json(Body { kind, message, may_have_been_applied })).into_response()
    }
}

/// Waits for Ctrl-C or SIGTERM and returns its name.
#[cfg(unix)]
fn shutdown_signal() -> std::io::Result<impl Future<Output = &'static str>> {
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
fn shutdown_signal() -> std::io::Result<impl Future<Output = &'static str>> {
    Ok(async {
        match tokio::signal::ctrl_c().await {
            Ok(()) => "Ctrl-C",
            // Without a signal handler, the service runs until it is killed.
            Err(_) => std::future::pending().await,
        }
    })
}
