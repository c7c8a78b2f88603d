//! An axum application with the middleware of `tower-sessions`, on every backend.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Request, StatusCode, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use cubbyhole::{Backend, Namespace};
use cubbyhole_tower_sessions::CubbyholeStore;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use test_backends::{TestStore, on_backends, on_every_backend, until};
use tower::ServiceExt;
use tower_sessions::{Expiry, Session, SessionManagerLayer};

on_every_backend! {
    sign_in_gives_a_new_id_and_keeps_the_data,
    sign_out_everywhere_ends_every_session_of_the_user,
    saving_at_every_request_slides_the_expiry,
    session_expires,
    request_that_saves_after_the_sign_out_fails,
    unknown_and_malformed_cookies_are_no_session,
    planted_id_is_not_used_after_a_flush,
}

on_backends! { (postgres redis redis_cluster) replicas_share_sessions }

type Sessions = CubbyholeStore<Arc<dyn Backend>>;
type Failure = tower_sessions::session::Error;

/// One replica of the application.
struct App {
    router: Router,
    sessions: Sessions,
}

impl App {
    async fn on(backend: &TestStore, expiry: Expiry, always_save: bool) -> Self {
        let ns = Namespace::parse("acme:sessions").unwrap();
        let sessions = CubbyholeStore::new(backend.open().await, ns)
            .with_user_key("user")
            .with_timeout(std::time::Duration::from_secs(60));
        let layer = SessionManagerLayer::new(sessions.clone())
            .with_expiry(expiry)
            .with_always_save(always_save);
        let router = Router::new()
            .route("/cart/{item}", post(add_to_cart))
            .route("/sign-in/{user}", post(sign_in))
            .route("/sign-out", post(sign_out))
            .route("/flush-and-sign-in/{user}", post(flush_and_sign_in))
            .route("/password", post(change_password))
            .route("/slow/{item}", post(add_slowly))
            .route("/me", get(me))
            .layer(layer)
            .with_state(sessions.clone());
        Self { router, sessions }
    }

    /// Sends a request. Returns the status, the body, and the new cookie if the answer sets one.
    async fn send(&self, method: &str, path: &str, cookie: &str) -> Answer {
        let request = Request::builder().method(method).uri(path).header(header::COOKIE, cookie);
        let request = request.body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let cookie = response.headers().get(header::SET_COOKIE);
        let cookie = cookie.map(|value| value.to_str().unwrap().to_owned());
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Answer { status, body: serde_json::from_slice(&body).unwrap_or_default(), cookie }
    }

    async fn post(&self, path: &str, cookie: &str) -> Answer {
        self.send("POST", path, cookie).await
    }

    async fn me(&self, cookie: &str) -> Answer {
        self.send("GET", "/me", cookie).await
    }

    /// Signs in and returns the cookie.
    async fn sign_in(&self, user: &str, cookie: &str) -> String {
        let answer = self.post(&format!("/sign-in/{user}"), cookie).await;
        assert_eq!(answer.status, StatusCode::OK);
        answer.cookie().to_owned()
    }
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    body: Value,
    cookie: Option<String>,
}

impl Answer {
    /// `NAME=VALUE` of the cookie that the answer sets.
    fn cookie(&self) -> &str {
        self.cookie.as_deref().unwrap().split(';').next().unwrap()
    }
}

async fn me(session: Session) -> Result<(StatusCode, Json<Value>), AppError> {
    let user: Option<String> = session.get("user").await?;
    let cart: Vec<String> = session.get("cart").await?.unwrap_or_default();
    let status = if user.is_some() { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
    Ok((status, Json(json!({ "user": user, "cart": cart }))))
}

async fn add_to_cart(session: Session, Path(item): Path<String>) -> Result<(), AppError> {
    let mut cart: Vec<String> = session.get("cart").await?.unwrap_or_default();
    cart.push(item);
    Ok(session.insert("cart", cart).await?)
}

async fn sign_in(session: Session, Path(user): Path<String>) -> Result<(), AppError> {
    session.cycle_id().await?;
    Ok(session.insert("user", user).await?)
}

async fn sign_out(session: Session) -> Result<(), AppError> {
    Ok(session.flush().await?)
}

/// Without `cycle_id`: `flush` keeps the id of the cookie in the record.
async fn flush_and_sign_in(session: Session, Path(user): Path<String>) -> Result<(), AppError> {
    session.flush().await?;
    Ok(session.insert("user", user).await?)
}

async fn change_password(
    State(sessions): State<Sessions>,
    session: Session,
) -> Result<Json<u64>, AppError> {
    let user: String = session.get("user").await?.ok_or(AppError)?;
    let ended = sessions.sign_out_everywhere(&user).await.map_err(|_| AppError)?;
    session.flush().await?;
    Ok(Json(ended))
}

/// Loads the session, then changes its user's password, as a request in between would, and saves.
async fn add_slowly(
    State(sessions): State<Sessions>,
    session: Session,
    Path(item): Path<String>,
) -> Result<(), AppError> {
    let user: String = session.get("user").await?.ok_or(AppError)?;
    sessions.sign_out_everywhere(&user).await.map_err(|_| AppError)?;
    add_to_cart(session, Path(item)).await
}

struct AppError;

impl From<Failure> for AppError {
    fn from(_: Failure) -> Self {
        Self
    }
}

impl axum::response::IntoResponse for AppError {
    fn into_response(self) -> axum::response::Response {
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

const HALF_AN_HOUR: Expiry = Expiry::OnInactivity(time::Duration::minutes(30));

async fn sign_in_gives_a_new_id_and_keeps_the_data(backend: &TestStore) {
    let app = App::on(backend, HALF_AN_HOUR, false).await;
    let anonymous = app.post("/cart/book", "").await.cookie().to_owned();
    assert_eq!(app.me(&anonymous).await.status, StatusCode::UNAUTHORIZED);

    let cookie = app.sign_in("7", &anonymous).await;
    assert_ne!(cookie, anonymous);
    let answer = app.me(&cookie).await;
    assert_eq!(
        (answer.status, answer.body),
        (StatusCode::OK, json!({"user": "7", "cart": ["book"]}))
    );
    let old = app.me(&anonymous).await;
    assert_eq!(old.body, json!({ "user": null, "cart": [] }), "the old id is invalid");

    app.post("/cart/lamp", &cookie).await;
    assert_eq!(app.me(&cookie).await.body["cart"], json!(["book", "lamp"]));
    app.post("/sign-out", &cookie).await;
    assert_eq!(app.me(&cookie).await.status, StatusCode::UNAUTHORIZED);
}

async fn sign_out_everywhere_ends_every_session_of_the_user(backend: &TestStore) {
    let app = App::on(backend, HALF_AN_HOUR, false).await;
    let mut of_seven = Vec::new();
    for _ in 0..3 {
        of_seven.push(app.sign_in("7", "").await);
    }
    let of_eight = app.sign_in("8", "").await;

    let answer = app.post("/password", &of_seven[0]).await;
    assert_eq!((answer.status, answer.body), (StatusCode::OK, json!(3)));
    for cookie in of_seven {
        assert_eq!(app.me(&cookie).await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(app.me(&of_eight).await.status, StatusCode::OK);
    let again = app.sign_in("7", "").await;
    assert_eq!(app.me(&again).await.status, StatusCode::OK);
}

async fn saving_at_every_request_slides_the_expiry(backend: &TestStore) {
    let app = App::on(backend, HALF_AN_HOUR, true).await;
    let cookie = app.sign_in("7", "").await;
    let expiry_date = async || app.sessions.sessions_of("7").await.unwrap()[0].expiry_date;
    let first = expiry_date().await;
    let answer = app.me(&cookie).await;
    assert!(expiry_date().await > first, "a request moves the expiry date");
    let set = answer.cookie.unwrap();
    assert!(set.contains("Max-Age=1800"), "the cookie lives as long: {set}");
}

async fn session_expires(backend: &TestStore) {
    let expiry = Expiry::OnInactivity(time::Duration::milliseconds(200));
    let app = App::on(backend, expiry, false).await;
    let cookie = app.sign_in("7", "").await;
    // The time until the request may be longer than the session lives, so only its end is certain.
    let has_ended = async || app.me(&cookie).await.status == StatusCode::UNAUTHORIZED;
    until("the session expires", has_ended).await;
    assert_eq!(app.sessions.sessions_of("7").await.unwrap(), []);
}

async fn request_that_saves_after_the_sign_out_fails(backend: &TestStore) {
    let app = App::on(backend, HALF_AN_HOUR, false).await;
    let cookie = app.sign_in("7", "").await;
    let answer = app.post("/slow/book", &cookie).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(app.me(&cookie).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(app.sessions.sessions_of("7").await.unwrap(), []);
}

async fn unknown_and_malformed_cookies_are_no_session(backend: &TestStore) {
    let app = App::on(backend, HALF_AN_HOUR, false).await;
    let unknown = format!("id={}", tower_sessions::session::Id::default());
    for cookie in [&unknown, "id=", "id=../../etc", "id=7", "other=1", "=;"] {
        assert_eq!(app.me(cookie).await.status, StatusCode::UNAUTHORIZED, "{cookie}");
        // The visitor receives a new id, which the server has chosen.
        let new = app.post("/cart/book", cookie).await;
        assert_eq!(new.status, StatusCode::OK, "{cookie}");
        assert_ne!(new.cookie(), cookie);
    }
}

/// Session fixation: an attacker plants a cookie and waits for the victim to sign in.
async fn planted_id_is_not_used_after_a_flush(backend: &TestStore) {
    let app = App::on(backend, HALF_AN_HOUR, false).await;
    let unknown = format!("id={}", tower_sessions::session::Id::default());
    let of_the_attacker = app.post("/cart/book", "").await.cookie().to_owned();
    for planted in [unknown, of_the_attacker] {
        let answer = app.post("/flush-and-sign-in/7", &planted).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_ne!(answer.cookie(), planted);
        assert_eq!(app.me(answer.cookie()).await.status, StatusCode::OK);
        assert_eq!(app.me(&planted).await.status, StatusCode::UNAUTHORIZED);
    }
}

/// Runs the sign-out through a second replica of the application, with its own connections.
async fn replicas_share_sessions(backend: &TestStore) {
    let first = App::on(backend, HALF_AN_HOUR, false).await;
    let second = App::on(backend, HALF_AN_HOUR, false).await;
    let (one, other) = (first.sign_in("7", "").await, second.sign_in("7", "").await);
    for (app, cookie) in [(&first, &other), (&second, &one)] {
        assert_eq!(app.me(cookie).await.status, StatusCode::OK);
        assert_eq!(app.post("/cart/book", cookie).await.status, StatusCode::OK);
    }
    assert_eq!(first.me(&one).await.body["cart"], json!(["book"]));
    assert_eq!(second.post("/password", &one).await.body, json!(2));
    for app in [&first, &second] {
        for cookie in [&one, &other] {
            assert_eq!(app.me(cookie).await.status, StatusCode::UNAUTHORIZED);
        }
    }
}
