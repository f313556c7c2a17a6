//! What the platform's operator sees of organisations and people. No tenant's data.

use agentapi_shared::api::Quotas;
use agentapi_shared::{OrgId, UserId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::capability::Role;

/// An organisation: whose it is, what it may have and what it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrganizationOverview {
    /// Its id.
    pub id: OrgId,
    /// For people.
    pub name: String,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Who owns it.
    pub owners: Vec<Owner>,
    /// How much it may have.
    pub quotas: Quotas,
    /// How many are in it.
    pub members: u64,
    /// Hosts of its own.
    pub hosts: u64,
    /// Sessions that live.
    pub sessions_running: u64,
    /// Sessions made since 00:00 UTC.
    pub sessions_today: u64,
}

/// Somebody who owns an organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Who.
    pub id: UserId,
    /// Their name.
    pub name: Option<String>,
    /// Their mail address.
    pub email: Option<String>,
    /// Whether they were shut out.
    pub disabled: bool,
}

/// Which person is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// The one with this id.
    User(UserId),
    /// Whoever has this address; of several issuers there may be several.
    Email(String),
}

/// Somebody, whom an issuer vouches for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonRecord {
    /// Their id.
    pub id: UserId,
    /// Who vouches for them.
    pub issuer: String,
    /// Their name.
    pub name: Option<String>,
    /// Their mail address.
    pub email: Option<String>,
    /// Whether they were shut out.
    pub disabled: bool,
    /// Whether nothing personal of them is left.
    pub erased: bool,
    /// Where they are a member.
    pub organizations: Vec<PersonIn>,
}

/// A membership of somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonIn {
    /// Where.
    pub id: OrgId,
    /// For people.
    pub name: String,
    /// As what.
    pub role: Role,
    /// Whether nobody else owns it who is not shut out.
    pub alone: bool,
}

/// What is to happen if somebody goes who alone owns an organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastOwner {
    /// It is refused, as `last_owner`.
    Stays,
    /// The organisation is left without one.
    Goes,
}

/// What an erasure came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// Audit records that had something personal beside them.
    pub records: u64,
    /// Sessions that are stopped.
    pub sessions: u64,
}
