//! Jobs of logins that have an issuer behind them.

use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{AsService, Function, LoginHolderRow, rows};
use crate::store::StoreError;
use crate::store::records::{NewLogin, RefreshTaken, Sealed};

/// What came of a taking.
#[derive(Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum TakenRow {
    Taken { key_id: String, ciphertext: String },
    Busy,
    Gone,
}

impl AsService<'_> {
    pub(in crate::store::postgrest) async fn begin_login(
        &self,
        login: &NewLogin,
    ) -> Result<Option<LoginHolderRow>, StoreError> {
        const BEGIN: Function = Function::once("job_begin_login");
        let arguments = json!({
            "p_user": login.user, "p_org": login.org, "p_cookie": login.cookie, "p_by": login.by,
            "p_at": rows::time(login.audit.at), "p_expires_at": rows::time(login.expires_at),
            "p_auth_session": login.auth_session, "p_refresh": login.refresh.as_ref().map(row_of), "p_newcomer": true,
        });
        self.call(BEGIN, arguments).await
    }

    pub(in crate::store::postgrest) async fn end_newcomer_login(&self, login: &str) -> Result<(), StoreError> {
        const END: Function = Function::same("job_end_newcomer_login");
        self.call(END, json!({ "p_hash": login })).await
    }

    pub(in crate::store::postgrest) async fn take_refresh(
        &self,
        login: &str,
        now: OffsetDateTime,
        until: OffsetDateTime,
    ) -> Result<RefreshTaken, StoreError> {
        const TAKE: Function = Function::once("job_take_refresh");
        let arguments = json!({ "p_login": login, "p_now": rows::time(now), "p_until": rows::time(until) });
        Ok(match self.call(TAKE, arguments).await? {
            TakenRow::Taken { key_id, ciphertext } => {
                let ciphertext = bytes_of(&ciphertext).ok_or(StoreError::NotFound)?;
                RefreshTaken::Taken(Sealed { key_id, ciphertext })
            }
            TakenRow::Busy => RefreshTaken::Busy,
            TakenRow::Gone => RefreshTaken::Gone,
        })
    }

    pub(in crate::store::postgrest) async fn put_refresh(
        &self,
        login: &str,
        until: OffsetDateTime,
        refresh: Option<&Sealed>,
    ) -> Result<(), StoreError> {
        // Twice is as good as once: the second finds the taking ended.
        const PUT: Function = Function::same("job_put_refresh");
        let arguments = json!({ "p_login": login, "p_until": rows::time(until), "p_refresh": refresh.map(row_of) });
        if self.call(PUT, arguments).await? { Ok(()) } else { Err(StoreError::Stale) }
    }
}

/// Bytes are hexadecimal text on the way.
fn row_of(sealed: &Sealed) -> Value {
    use std::fmt::Write as _;
    let text = sealed.ciphertext.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    });
    json!({ "key_id": sealed.key_id, "ciphertext": text })
}

fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks_exact(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
