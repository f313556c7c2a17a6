//! What an issuer's token has to say for a login to be ours, and of whom it speaks.

use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;

use super::Person;
use crate::identity::verify::{Audience, TokenError, check_times};

/// Subjects are at most this long, by the standard.
const SUBJECT_BYTES_MAX: usize = 255;

/// A login, as we began it.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client: &'a str,
    pub(super) nonce: &'a str,
}

/// The claims of an ID token.
#[derive(Deserialize)]
pub(super) struct IdClaims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: i64,
    iat: i64,
    nbf: Option<i64>,
    azp: Option<String>,
    nonce: Option<String>,
    name: Option<String>,
    email: Option<String>,
    email_verified: Option<Value>,
}

/// What an issuer tells whoever shows the access token.
#[derive(Deserialize)]
pub(super) struct More {
    sub: String,
    name: Option<String>,
    email: Option<String>,
    email_verified: Option<Value>,
}

impl IdClaims {
    pub(super) fn person(self, expected: &Expected<'_>, now: OffsetDateTime) -> Result<Person, TokenError> {
        if self.iss != expected.issuer {
            return Err(TokenError::Issuer);
        }
        // Of several audiences one was given the token: it has to be us.
        let is_for_us = self.aud.has(expected.client)
            && self.azp.as_deref().map_or(!self.aud.is_several(), |party| party == expected.client);
        if !is_for_us {
            return Err(TokenError::Audience);
        }
        check_times(self.exp, [self.nbf, Some(self.iat)], now)?;
        if self.nonce.as_deref() != Some(expected.nonce) {
            return Err(TokenError::Nonce);
        }
        if self.sub.is_empty() || self.sub.len() > SUBJECT_BYTES_MAX {
            return Err(TokenError::Subject);
        }
        let email = present(self.email);
        Ok(Person {
            issuer: self.iss,
            subject: self.sub,
            name: present(self.name),
            email_verified: email.is_some() && is_true(self.email_verified.as_ref()),
            email,
        })
    }
}

impl More {
    /// Only if it is about the same person.
    pub(super) fn added_to(self, person: Person) -> Result<Person, TokenError> {
        if self.sub != person.subject {
            return Err(TokenError::Subject);
        }
        let email = present(self.email);
        let email_verified = email.is_some() && is_true(self.email_verified.as_ref());
        Ok(Person { name: person.name.or_else(|| present(self.name)), email, email_verified, ..person })
    }
}

fn present(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.trim().is_empty())
}

/// Some issuers write it as a word.
fn is_true(value: Option<&Value>) -> bool {
    matches!(value, Some(Value::Bool(true))) || value.and_then(Value::as_str) == Some("true")
}
