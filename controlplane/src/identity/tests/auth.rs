//! The part of Supabase Auth that logs people in, as its own code answers: passwords, refresh tokens that are good once, and a login that ends
//! when one is used twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Notify;
use uuid::Uuid;

use super::signer::Signer;
use crate::auth::Secret;
use crate::clock;

pub(in crate::identity) const PASSWORD: &str = "correct horse battery staple";

/// One who is logged in.
#[derive(Clone)]
struct Login {
    user: usize,
    /// Good now.
    refresh: String,
    used: Vec<String>,
}

#[derive(Default)]
struct Books {
    users: Vec<(Uuid, &'static str, bool)>,
    logins: BTreeMap<String, Login>,
    refreshed: usize,
    /// How often one was used that had been used: whoever keeps one has lost it, or uses it twice.
    reused: usize,
    /// What it answers instead.
    broken: Option<(u16, Value)>,
    /// It answers when told to.
    waits: Option<Arc<Notify>>,
    lifetime_s: i64,
}

/// See the file.
pub(in crate::identity) struct Auth {
    issuer: String,
    signer: Signer,
    books: Mutex<Books>,
}

type Auths = State<Arc<Auth>>;

impl Auth {
    pub(in crate::identity) fn new(issuer: String, signer: Signer) -> Arc<Self> {
        let books = Books {
            users: vec![(Uuid::now_v7(), "ada@example.com", true), (Uuid::now_v7(), "bob@example.com", false)],
            lifetime_s: 3600,
            ..Books::default()
        };
        Arc::new(Self { issuer, signer, books: Mutex::new(books) })
    }

    pub(in crate::identity) fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/auth/v1/token", post(token))
            .route("/auth/v1/user", get(user))
            .route("/auth/v1/logout", post(logout))
            .with_state(self)
    }

    pub(in crate::identity) fn user(&self) -> Uuid {
        self.books.lock().unwrap().users[0].0
    }

    /// Logs the first user in: the header that a program sends.
    pub(in crate::identity) fn bearer(&self) -> String {
        let mut books = self.books.lock().unwrap();
        let (session, login) =
            (Uuid::now_v7().to_string(), Login { user: 0, refresh: String::new(), used: Vec::new() });
        let (id, email, _) = books.users[0];
        books.logins.insert(session.clone(), login);
        let now = clock::now().unix_timestamp();
        let claims = json!({
            "iss": self.issuer, "aud": "authenticated", "sub": id, "role": "authenticated", "exp": now + books.lifetime_s,
            "iat": now, "session_id": session, "email": email, "is_anonymous": false, "jti": Uuid::now_v7(),
        });
        format!("Bearer {}", self.signer.token(&claims))
    }

    /// Tokens from now on are good for this long.
    pub(in crate::identity) fn live_for(&self, seconds: i64) {
        self.books.lock().unwrap().lifetime_s = seconds;
    }

    pub(in crate::identity) fn break_with(&self, answer: Option<(u16, Value)>) {
        self.books.lock().unwrap().broken = answer;
    }

    pub(in crate::identity) fn wait_for(&self, told: Option<Arc<Notify>>) {
        self.books.lock().unwrap().waits = told;
    }

    /// An admin ends every login.
    pub(in crate::identity) fn end_all(&self) {
        self.books.lock().unwrap().logins.clear();
    }

    /// How many are logged in.
    pub(in crate::identity) fn logins(&self) -> usize {
        self.books.lock().unwrap().logins.len()
    }

    /// Refreshes, and uses of something that had been used.
    pub(in crate::identity) fn counts(&self) -> (usize, usize) {
        let books = self.books.lock().unwrap();
        (books.refreshed, books.reused)
    }

    fn tokens(&self, books: &mut Books, session: String, mut login: Login) -> Response {
        let (id, email, confirmed) = books.users[login.user];
        let now = clock::now().unix_timestamp();
        let claims = json!({
            "iss": self.issuer, "aud": "authenticated", "sub": id, "role": "authenticated", "exp": now + books.lifetime_s,
            "iat": now, "session_id": session, "email": email, "is_anonymous": false, "jti": Uuid::now_v7(),
        });
        login.refresh = Secret::generate("").expose().to_owned();
        let answer = json!({
            "access_token": self.signer.token(&claims), "token_type": "bearer", "expires_in": books.lifetime_s,
            "refresh_token": login.refresh, "user": described(id, email, confirmed),
        });
        books.logins.insert(session, login);
        Json(answer).into_response()
    }
}

fn described(id: Uuid, email: &str, confirmed: bool) -> Value {
    json!({ "id": id, "aud": "authenticated", "email": email, "email_confirmed_at": confirmed.then_some("2026-01-02T03:04:05Z") })
}

fn refused(status: u16, code: &str) -> Response {
    let status_code = StatusCode::from_u16(status).unwrap();
    (status_code, Json(json!({ "code": status, "error_code": code, "msg": "in words" }))).into_response()
}

async fn token(
    State(auth): Auths,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Json<Value>,
) -> Response {
    let waits = auth.books.lock().unwrap().waits.clone();
    if let Some(told) = waits {
        auth.books.lock().unwrap().refreshed += 1;
        told.notified().await;
        auth.books.lock().unwrap().refreshed -= 1;
    }
    let mut books = auth.books.lock().unwrap();
    if let Some((status, answer)) = &books.broken {
        return (StatusCode::from_u16(*status).unwrap(), Json(answer.clone())).into_response();
    }
    // The gateway before it wants the project's key, and no opaque one as a bearer.
    if !headers.contains_key("apikey") || headers.contains_key("authorization") {
        return (StatusCode::UNAUTHORIZED, Json(json!({ "message": "Invalid API key" }))).into_response();
    }
    match query.get("grant_type").map(String::as_str) {
        Some("password") => {
            let user = books.users.iter().position(|(_, email, _)| body["email"] == *email);
            match user.filter(|_| body["password"] == PASSWORD) {
                None => refused(400, "invalid_credentials"),
                Some(user) if !books.users[user].2 => refused(400, "email_not_confirmed"),
                Some(user) => {
                    let login = Login { user, refresh: String::new(), used: Vec::new() };
                    auth.tokens(&mut books, Uuid::now_v7().to_string(), login)
                }
            }
        }
        Some("refresh_token") => {
            let given = body["refresh_token"].as_str().unwrap_or_default().to_owned();
            let found = books.logins.iter().find(|(_, login)| login.refresh == given || login.used.contains(&given));
            let Some((session, mut login)) = found.map(|(session, login)| (session.clone(), login.clone())) else {
                return refused(400, "refresh_token_not_found");
            };
            if login.refresh != given {
                books.reused += 1;
                books.logins.remove(&session);
                return refused(400, "refresh_token_already_used");
            }
            books.refreshed += 1;
            login.used.push(given);
            auth.tokens(&mut books, session, login)
        }
        _ => refused(400, "validation_failed"),
    }
}

/// The login that a token is of, if it goes on.
fn login_of(books: &Books, headers: &HeaderMap) -> Option<(String, usize)> {
    use base64::Engine as _;
    let bearer = headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")?;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(bearer.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let session = claims["session_id"].as_str()?.to_owned();
    let user = books.logins.get(&session)?.user;
    Some((session, user))
}

async fn user(State(auth): Auths, headers: HeaderMap) -> Response {
    let books = auth.books.lock().unwrap();
    match login_of(&books, &headers) {
        Some((_, user)) => {
            let (id, email, confirmed) = books.users[user];
            Json(described(id, email, confirmed)).into_response()
        }
        None => refused(403, "session_not_found"),
    }
}

async fn logout(State(auth): Auths, headers: HeaderMap) -> Response {
    let mut books = auth.books.lock().unwrap();
    match login_of(&books, &headers) {
        Some((session, _)) => {
            books.logins.remove(&session);
            StatusCode::NO_CONTENT.into_response()
        }
        None => refused(403, "session_not_found"),
    }
}
