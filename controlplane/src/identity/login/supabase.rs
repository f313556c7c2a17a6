//! Supabase Auth: who has a password, what keeps their login alive, and whether their address is theirs.

use std::sync::Arc;

use reqwest::header::AUTHORIZATION;
use reqwest::{Client, Method, RequestBuilder, Url};
use serde::Deserialize;
use serde_json::{Value, json};

use super::LoginError;
use crate::auth::Secret;
use crate::identity::fetch::{self, FetchError};
use crate::identity::project::{ProjectKeys, below};
use crate::identity::verify::{Caller, TokenError, Verifier};
use crate::store::records::CallerToken;

/// What it says when a login cannot be kept alive any more. Anything else may be better in a minute: nobody is logged out for it.
const OVER: [&str; 8] = [
    "refresh_token_not_found",
    "refresh_token_already_used",
    "session_not_found",
    "session_expired",
    "user_banned",
    "user_not_found",
    "invalid_grant",
    "validation_failed",
];

/// A login: who, and what keeps it alive.
#[derive(Debug)]
pub struct Grant {
    /// Who.
    pub caller: Caller,
    /// Good once. What keeps the login alive after that comes with the next grant.
    pub refresh: Secret,
}

/// The answer to a login.
#[derive(Deserialize)]
struct Tokens {
    access_token: String,
    refresh_token: String,
    user: Option<User>,
}

/// A user, as Supabase Auth itself knows them.
#[derive(Deserialize)]
struct User {
    id: String,
    email: Option<String>,
    email_confirmed_at: Option<String>,
}

/// The Supabase Auth of a project.
#[derive(Debug)]
pub struct SupabaseAuth {
    client: Client,
    keys: ProjectKeys,
    auth: Url,
    verifier: Arc<Verifier>,
}

impl SupabaseAuth {
    /// None: there is none, only a PostgREST.
    #[must_use]
    pub fn of(client: Client, keys: ProjectKeys, verifier: Arc<Verifier>) -> Option<Self> {
        let auth = keys.auth_url()?.clone();
        Some(Self { client, keys, auth, verifier })
    }

    /// Logs somebody in.
    pub async fn password(&self, email: &str, password: &Secret) -> Result<Grant, LoginError> {
        let body = json!({ "email": email, "password": password.expose() });
        let tokens = self.tokens("password", &body).await.map_err(|error| match refusal(&error) {
            Some((_, "invalid_credentials" | "invalid_grant" | "validation_failed")) => LoginError::Refused,
            Some((_, "email_not_confirmed")) => LoginError::Unconfirmed,
            Some((_, "user_banned")) => LoginError::Refused,
            Some((429, _)) => LoginError::TooMany,
            _ => LoginError::Unavailable(error),
        })?;
        self.grant(tokens).await
    }

    /// The next token of a login. What is given is used up, whether or not the answer arrives.
    pub async fn refresh(&self, refresh: &Secret) -> Result<Grant, LoginError> {
        let body = json!({ "refresh_token": refresh.expose() });
        let tokens = self.tokens("refresh_token", &body).await.map_err(|error| match refusal(&error) {
            Some((429, _)) => LoginError::TooMany,
            Some((_, code)) if OVER.contains(&code) => LoginError::Over,
            _ => LoginError::Unavailable(error),
        })?;
        self.grant(tokens).await
    }

    /// What is known of somebody who brought a token: the same, with whether the address is theirs. It also fails for a login that is over.
    pub async fn person(&self, caller: Caller) -> Result<Caller, LoginError> {
        let request = self.request(Method::GET, "user", Some(&caller.token));
        let user: User = fetch::json(request, &self.auth).await.map_err(|error| match refusal(&error) {
            Some((401 | 403 | 404, "session_not_found" | "user_not_found" | "user_banned" | "bad_jwt")) => {
                LoginError::Over
            }
            _ => LoginError::Unavailable(error),
        })?;
        knowing(caller, user)
    }

    /// Ends a login there, and with it everything that keeps it alive.
    pub async fn end(&self, token: &CallerToken) -> Result<(), LoginError> {
        let request = self.request(Method::POST, "logout", Some(token)).query(&[("scope", "local")]);
        match fetch::empty(request, &self.auth).await {
            Err(error) if !matches!(refusal(&error), Some((401 | 403 | 404, _))) => Err(LoginError::Unavailable(error)),
            // Who is not logged in there any more is logged out.
            _ => Ok(()),
        }
    }

    async fn tokens(&self, kind: &str, body: &Value) -> Result<Tokens, FetchError> {
        let request = self.request(Method::POST, "token", None).query(&[("grant_type", kind)]).json(body);
        fetch::json(request, &self.auth).await
    }

    async fn grant(&self, tokens: Tokens) -> Result<Grant, LoginError> {
        let caller = self.verifier.verify(&tokens.access_token).await?;
        let caller = match tokens.user {
            Some(user) => knowing(caller, user)?,
            None => caller,
        };
        Ok(Grant { caller, refresh: Secret::from_text(tokens.refresh_token) })
    }

    fn request(&self, method: Method, path: &str, token: Option<&CallerToken>) -> RequestBuilder {
        let mut headers = self.keys.anon_headers();
        if let Some(token) = token {
            headers.remove(AUTHORIZATION);
            headers.extend(self.keys.caller_headers(token));
        }
        self.client.request(method, below(&self.auth, path)).headers(headers)
    }
}

/// The status and the code of an answer that refuses.
fn refusal(error: &FetchError) -> Option<(u16, &str)> {
    match error {
        FetchError::Status { status, code, .. } => Some((*status, code.as_deref().unwrap_or_default())),
        _ => None,
    }
}

/// A caller with what Supabase Auth itself says of their address.
fn knowing(caller: Caller, user: User) -> Result<Caller, LoginError> {
    if user.id != caller.user.to_string() {
        return Err(TokenError::Subject.into());
    }
    let email = user.email.filter(|email| !email.is_empty());
    let email_verified = email.is_some() && user.email_confirmed_at.is_some();
    Ok(Caller { email, email_verified, ..caller })
}
