//! What an issuer says of itself: where to go, and how to say who we are.

use reqwest::{Client, Url};
use serde::Deserialize;

use super::{LoginError, OidcSettings};
use crate::identity::{fetch, project};

/// How a client with a secret shows that it has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Authenticates {
    /// `client_secret_post`.
    InForm,
    /// `client_secret_basic`.
    InHeader,
}

/// An issuer, as far as a login needs it.
#[derive(Debug)]
pub(super) struct Endpoints {
    pub(super) authorization: Url,
    pub(super) token: Url,
    pub(super) userinfo: Option<Url>,
    pub(super) keys: Url,
    pub(super) authenticates: Authenticates,
    /// Every answer names who gives it (RFC 9207).
    pub(super) says_issuer: bool,
}

/// Its document.
#[derive(Deserialize)]
struct Description {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    userinfo_endpoint: Option<String>,
    jwks_uri: String,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    code_challenge_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl Endpoints {
    pub(super) async fn of(client: &Client, settings: &OidcSettings) -> Result<Self, LoginError> {
        let text = format!("{}/.well-known/openid-configuration", settings.issuer.trim_end_matches('/'));
        let at = place(&text)?;
        let said: Description = fetch::json(client.get(at.clone()), &at).await.map_err(LoginError::Unavailable)?;
        if said.issuer != settings.issuer {
            return Err(LoginError::Description {
                reason: "it calls itself otherwise; name the issuer exactly as its description does",
            });
        }
        let has = |methods: &Option<Vec<String>>, name: &str| {
            methods.as_ref().map(|methods| methods.iter().any(|method| method == name))
        };
        if has(&said.code_challenge_methods_supported, "S256") == Some(false) {
            return Err(LoginError::Description { reason: "it does not take PKCE with S256" });
        }
        let methods = &said.token_endpoint_auth_methods_supported;
        let is_form_only =
            has(methods, "client_secret_basic") == Some(false) && has(methods, "client_secret_post") == Some(true);
        Ok(Self {
            authorization: place(&said.authorization_endpoint)?,
            token: place(&said.token_endpoint)?,
            userinfo: said.userinfo_endpoint.as_deref().map(place).transpose()?,
            keys: place(&said.jwks_uri)?,
            authenticates: if is_form_only { Authenticates::InForm } else { Authenticates::InHeader },
            says_issuer: said.authorization_response_iss_parameter_supported,
        })
    }
}

fn place(text: &str) -> Result<Url, LoginError> {
    project::safe_url(text).map_err(|reason| LoginError::Description { reason })
}
