//! Requests at PostgREST, as whoever holds a token can send them.

use anyhow::{Context as _, Result};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use agentapi_test_postgres::jwt;

/// The header by which the control plane proves that it sent a request.
const PROOF: &str = "x-agentapi-proof";

/// Who sends a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caller {
    /// For messages.
    pub(crate) name: &'static str,
    /// What they show; none: anon.
    pub(crate) token: Option<String>,
    /// Whether the control plane vouches for them.
    pub(crate) proof: Option<String>,
}

impl Caller {
    /// A person with a token that is good.
    pub(crate) fn person(name: &'static str, user: Uuid) -> Self {
        Self::claiming(name, &jwt::claims(user))
    }

    /// Somebody with a token of these claims.
    pub(crate) fn claiming(name: &'static str, claims: &Value) -> Self {
        Self { name, token: Some(jwt::signed(claims, jwt::SECRET)), proof: None }
    }

    /// A job of the control plane, without proof.
    pub(crate) fn service() -> Self {
        Self::claiming("service", &jwt::service_claims())
    }

    /// Nobody.
    pub(crate) fn anon() -> Self {
        Self { name: "anon", ..Self::default() }
    }

    /// The same, with a proof.
    pub(crate) fn proven(&self, secret: &str) -> Self {
        Self { proof: Some(secret.to_owned()), ..self.clone() }
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// HTTP.
    pub(crate) status: u16,
    /// JSON; null if there was none.
    pub(crate) body: Value,
}

impl Answer {
    /// Whether it was done.
    pub(crate) fn is_done(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The code of an error.
    pub(crate) fn code(&self) -> &str {
        self.body.get("code").and_then(Value::as_str).unwrap_or_default()
    }

    /// The word of an error that a function raised.
    pub(crate) fn word(&self) -> &str {
        self.body.get("message").and_then(Value::as_str).unwrap_or_default()
    }

    /// How many rows came.
    pub(crate) fn rows(&self) -> usize {
        self.body.as_array().map_or(0, Vec::len)
    }

    /// What it is, if it was done.
    pub(crate) fn done(self) -> Result<Value> {
        anyhow::ensure!(self.is_done(), "{self:?}");
        Ok(self.body)
    }
}

/// A client of one PostgREST.
#[derive(Debug, Clone)]
pub(crate) struct Rest {
    base: String,
    http: reqwest::Client,
}

impl Rest {
    /// Of the one at `base`.
    pub(crate) fn new(base: &str) -> Result<Self> {
        let http = reqwest::Client::builder().timeout(std::time::Duration::from_secs(60)).no_proxy().build()?;
        Ok(Self { base: base.to_owned(), http })
    }

    /// Sends a request.
    pub(crate) async fn send(
        &self,
        caller: &Caller,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer> {
        let mut request = self.http.request(method, format!("{}/{path}", self.base));
        request = request.header("prefer", "return=representation");
        if let Some(token) = &caller.token {
            request = request.bearer_auth(token);
        }
        if let Some(proof) = &caller.proof {
            request = request.header(PROOF, proof);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.with_context(|| path.to_owned())?;
        let status = answer.status().as_u16();
        let text = answer.text().await?;
        Ok(Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::Null) })
    }

    /// Reads rows.
    pub(crate) async fn get(&self, caller: &Caller, path: &str) -> Result<Answer> {
        self.send(caller, Method::GET, path, None).await
    }

    /// Calls a function.
    pub(crate) async fn call(&self, caller: &Caller, function: &str, arguments: &Value) -> Result<Answer> {
        self.send(caller, Method::POST, &format!("rpc/{function}"), Some(arguments)).await
    }
}

/// An audit record of `kind` and `actor`, as a function takes it.
pub(crate) fn audit(org: Uuid, kind: &str, actor: &str, action: &str) -> Value {
    let entry = json!({
        "id": Uuid::now_v7(), "org_id": org, "at": "2026-01-02T03:04:05.678901Z", "action": action, "channel": "api",
        "actor": { "kind": kind, "id": actor }, "detail": { "price": 1.5 }
    });
    // As no database would write it: what is stored must be what was sent, to the byte.
    let entry = entry.to_string().replace("1.5", "1.50");
    json!({ "entry": entry, "personal": { "name": "Somebody", "ip": "192.0.2.1" }, "job": actor })
}
