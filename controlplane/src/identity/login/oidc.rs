//! Login at an OpenID Connect issuer: authorization code with PKCE.
//!
//! What has to be known until the browser is back (state, nonce, verifier) is sealed in a cookie of that browser, so that any replica
//! can finish, and a link that somebody else began leads nowhere.

mod description;
mod id_token;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::{Client, RequestBuilder, Url};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime};
use tokio::sync::OnceCell;

use self::description::{Authenticates, Endpoints};
use self::id_token::{Expected, IdClaims};
use super::LoginError;
use crate::auth::Secret;
use crate::clock;
use crate::identity::fetch::{self, FetchError};
use crate::identity::seal::{Sealed, Sealer};
use crate::identity::verify::{Compact, RemoteKeys, TokenError};

/// A login that was begun is finished within this time: somebody may have to find their second factor.
pub const LIFETIME: Duration = Duration::minutes(10);
/// What is asked for.
const SCOPE: &str = "openid email profile";

/// An issuer, and what we are there.
#[derive(Debug, Clone)]
pub struct OidcSettings {
    /// Exactly as it calls itself.
    pub issuer: String,
    /// What we are called there.
    pub client_id: String,
    /// Our secret there; none: we are a public client, which PKCE is enough for.
    pub client_secret: Option<Secret>,
    /// Where browsers come back to, exactly as it is registered there.
    pub redirect_uri: String,
}

/// A login that was begun.
#[derive(Debug)]
pub struct Begun {
    /// Where the browser goes.
    pub url: String,
    /// What it keeps, in a cookie for the way back alone.
    pub cookie: Secret,
}

/// What the browser came back with.
#[derive(Debug, Default, Deserialize)]
pub struct Callback {
    /// If the login went well.
    pub code: Option<String>,
    /// Ours.
    pub state: Option<String>,
    /// Who sent it.
    pub iss: Option<String>,
    /// If it did not.
    pub error: Option<String>,
}

/// Who logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// By whose word.
    pub issuer: String,
    /// What they are called there, for ever.
    pub subject: String,
    /// For people.
    pub name: Option<String>,
    /// Their address.
    pub email: Option<String>,
    /// Whether the issuer says that it is theirs.
    pub email_verified: bool,
}

/// Until the browser is back.
#[derive(Serialize, Deserialize)]
struct Pending {
    state: String,
    nonce: String,
    verifier: String,
    until: i64,
}

/// An answer of the token endpoint.
#[derive(Deserialize)]
struct Tokens {
    id_token: String,
    access_token: Option<String>,
}

/// An issuer that was found.
#[derive(Debug)]
struct Found {
    endpoints: Endpoints,
    keys: RemoteKeys,
}

/// Logins at one issuer.
#[derive(Debug)]
pub struct Oidc {
    client: Client,
    settings: OidcSettings,
    /// Looked for at the first login, so that an issuer which is not there keeps nobody else from starting.
    found: OnceCell<Found>,
}

impl Oidc {
    /// Asks nobody yet.
    #[must_use]
    pub fn new(client: Client, settings: OidcSettings) -> Self {
        Self { client, settings, found: OnceCell::new() }
    }

    /// What the issuer calls itself.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.settings.issuer
    }

    /// Begins a login.
    pub async fn begin(&self, sealer: &Sealer) -> Result<Begun, LoginError> {
        let found = self.found().await?;
        let [state, nonce, verifier] = [(); 3].map(|()| Secret::generate("").expose().to_owned());
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
        let mut url = found.endpoints.authorization.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("redirect_uri", &self.settings.redirect_uri)
            .append_pair("scope", SCOPE)
            .append_pair("state", &state)
            .append_pair("nonce", &nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        let until = (clock::now() + LIFETIME).unix_timestamp();
        let pending = serde_json::to_string(&Pending { state, nonce, verifier, until }).unwrap_or_default();
        let sealed = sealer.seal(&Secret::from_text(pending), &self.sealed_of())?;
        Ok(Begun { url: url.into(), cookie: Secret::from_text(sealed.to_text()) })
    }

    /// Finishes a login: what the browser kept and what it came back with, both or neither.
    pub async fn finish(&self, sealer: &Sealer, cookie: &Secret, callback: &Callback) -> Result<Person, LoginError> {
        let pending = self.pending(sealer, cookie, callback, clock::now())?;
        let found = self.found().await?;
        match &callback.iss {
            // Whoever answers for another issuer would be asked for the code of this one.
            Some(iss) if *iss != self.settings.issuer => return Err(LoginError::NotBegun),
            None if found.endpoints.says_issuer => return Err(LoginError::NotBegun),
            _ => {}
        }
        let Some(code) = &callback.code else {
            let said = callback.error.as_deref().filter(|code| fetch::is_code(code));
            return Err(LoginError::Issuer { code: said.unwrap_or("no_code").to_owned() });
        };
        let tokens = self.tokens(&found.endpoints, code, &pending.verifier).await?;
        let compact = Compact::of(&tokens.id_token)?;
        let payload = found.keys.payload(&compact).await?;
        let claims: IdClaims = serde_json::from_slice(&payload).map_err(|_| TokenError::Malformed)?;
        let expected =
            Expected { issuer: &self.settings.issuer, client: &self.settings.client_id, nonce: &pending.nonce };
        let person = claims.person(&expected, clock::now())?;
        match (&person.email, &found.endpoints.userinfo, &tokens.access_token) {
            (None, Some(at), Some(token)) => self.asked(person, at, token).await,
            _ => Ok(person),
        }
    }

    /// What was begun in this browser, if it was.
    fn pending(
        &self,
        sealer: &Sealer,
        cookie: &Secret,
        callback: &Callback,
        now: OffsetDateTime,
    ) -> Result<Pending, LoginError> {
        let sealed = Sealed::from_text(cookie.expose()).ok_or(LoginError::NotBegun)?;
        let text = sealer.open(&sealed, &self.sealed_of()).map_err(|_| LoginError::NotBegun)?;
        let pending: Pending = serde_json::from_str(text.expose()).map_err(|_| LoginError::NotBegun)?;
        let state = callback.state.as_deref().unwrap_or_default();
        let is_same = verify_slices_are_equal(state.as_bytes(), pending.state.as_bytes()).is_ok();
        if !is_same || pending.until <= now.unix_timestamp() {
            return Err(LoginError::NotBegun);
        }
        Ok(pending)
    }

    fn sealed_of(&self) -> String {
        format!("oidc|{}|{}", self.settings.issuer, self.settings.client_id)
    }

    async fn found(&self) -> Result<&Found, LoginError> {
        let find = async || {
            let endpoints = Endpoints::of(&self.client, &self.settings).await?;
            let keys = RemoteKeys::new(self.client.clone(), endpoints.keys.clone());
            keys.start().await.map_err(|error| LoginError::Token(TokenError::Unavailable(error.into())))?;
            Ok(Found { endpoints, keys })
        };
        self.found.get_or_try_init(find).await
    }

    /// Exchanges a code. It is good once, and only together with what this browser kept.
    async fn tokens(&self, endpoints: &Endpoints, code: &str, verifier: &str) -> Result<Tokens, LoginError> {
        let client_id = self.settings.client_id.as_str();
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.settings.redirect_uri),
            ("client_id", client_id),
            ("code_verifier", verifier),
        ];
        let mut request = self.client.post(endpoints.token.clone());
        match (&self.settings.client_secret, endpoints.authenticates) {
            (Some(secret), Authenticates::InForm) => form.push(("client_secret", secret.expose())),
            (Some(secret), Authenticates::InHeader) => request = with_basic(request, client_id, secret.expose()),
            (None, _) => {}
        }
        fetch::json(request.form(&form), &endpoints.token).await.map_err(|error| match error {
            FetchError::Status { status: 400..=499, code: Some(code), .. } => LoginError::Issuer { code },
            error => LoginError::Unavailable(error),
        })
    }

    /// Adds what the issuer tells only who asks.
    async fn asked(&self, person: Person, at: &Url, token: &str) -> Result<Person, LoginError> {
        let request = self.client.get(at.clone()).bearer_auth(token);
        let more: id_token::More = fetch::json(request, at).await.map_err(LoginError::Unavailable)?;
        Ok(more.added_to(person)?)
    }
}

/// Name and secret are encoded before they are put together (RFC 6749, 2.3.1), which plain basic authentication does not do.
fn with_basic(request: RequestBuilder, name: &str, secret: &str) -> RequestBuilder {
    use std::fmt::Write as _;
    let encoded = |text: &str| {
        text.bytes().fold(String::new(), |mut encoded, byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                encoded.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                let _infallible = write!(encoded, "%{byte:02X}");
            }
            encoded
        })
    };
    let credentials = STANDARD.encode(format!("{}:{}", encoded(name), encoded(secret)));
    request.header(reqwest::header::AUTHORIZATION, format!("Basic {credentials}"))
}

#[cfg(test)]
mod tests;
