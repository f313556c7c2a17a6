//! Organisations, who is in them, and what they prove themselves with.

use std::time::Duration;

use agentapi_shared::api::{KeyScope, OrganizationSettings, Quotas};
use agentapi_shared::{ApiKeyId, InvitationId, OrgId, SessionId, UserId, ViewerId};
use time::OffsetDateTime;

use crate::capability::Role;

/// An organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrganizationRecord {
    /// Its id.
    pub id: OrgId,
    /// For people.
    pub name: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// What it wants of sessions.
    pub settings: OrganizationSettings,
    /// How much it may have.
    pub quotas: Quotas,
    /// Grows with each change of name or settings.
    pub revision: u64,
}

/// A change of an organisation that was computed from it at a revision; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrganizationChange {
    /// New name.
    pub name: Option<String>,
    /// New settings, all of them.
    pub settings: Option<OrganizationSettings>,
}

/// By what right somebody makes an organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Founding {
    /// They own one already.
    Owner(FoundingTerms),
    /// Whoever is in none may sign up, with an address that was shown to be theirs.
    SignUp(FoundingTerms),
    /// The platform's operator wants it.
    Operator,
}

/// Under which terms people make organisations by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FoundingTerms {
    /// How many one person may be the founder of, those included that an operator made for them; none: no limit.
    pub founded_max: Option<u32>,
    /// What a new one may have.
    pub quotas: Quotas,
}

impl Founding {
    /// The word of it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner(_) => "owner",
            Self::SignUp(_) => "sign_up",
            Self::Operator => "operator",
        }
    }

    /// Its terms: an operator's has none.
    #[must_use]
    pub fn terms(self) -> FoundingTerms {
        match self {
            Self::Owner(terms) | Self::SignUp(terms) => terms,
            Self::Operator => FoundingTerms::default(),
        }
    }
}

/// What becomes of what was made with an API key that is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MadeByKey {
    /// It ends too: keys that were made with it and with those, logins, codes and enrolments.
    Ends,
    /// It goes on: another key takes the place of this one.
    Stays,
}

/// A person or a program, as whoever vouches for them knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The id that they get if they are new.
    pub user: UserId,
    /// Who vouches: the issuer of a token, or `local`.
    pub issuer: String,
    /// Who they are there.
    pub subject: String,
    /// For people.
    pub name: Option<String>,
    /// Their mail address.
    pub email: Option<String>,
    /// Whether it was shown to be theirs.
    pub email_verified: bool,
}

/// Somebody in an organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRecord {
    /// Who.
    pub user: UserId,
    /// Their name.
    pub name: Option<String>,
    /// Their mail address.
    pub email: Option<String>,
    /// Their role.
    pub role: Role,
    /// Whether they were shut out.
    pub disabled: bool,
    /// Since when they are in.
    pub created_at: OffsetDateTime,
}

/// An invitation to be made, already validated. Of its token there is a hash only.
#[derive(Debug, Clone)]
pub struct NewInvitation {
    /// Its id.
    pub id: InvitationId,
    /// For whom.
    pub email: String,
    /// As what.
    pub role: Role,
    /// Of its token.
    pub token_hash: String,
    /// Until when.
    pub expires_at: OffsetDateTime,
}

/// An invitation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvitationRecord {
    /// Its id.
    pub id: InvitationId,
    /// For whom.
    pub email: String,
    /// As what.
    pub role: Role,
    /// Who invited.
    pub created_by: UserId,
    /// When.
    pub created_at: OffsetDateTime,
    /// Until when it is good.
    pub expires_at: OffsetDateTime,
    /// When it was taken back.
    pub revoked_at: Option<OffsetDateTime>,
    /// When it was accepted.
    pub accepted_at: Option<OffsetDateTime>,
}

/// An API key to be made. Of the key there is a hash only.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// For people.
    pub name: String,
    /// How the key begins.
    pub prefix: String,
    /// Of the key.
    pub hash: String,
    /// What it is for; empty: all that its user may.
    pub scopes: Vec<KeyScope>,
    /// Until when.
    pub expires_at: Option<OffsetDateTime>,
    /// The API key that it is made with, and ends with.
    pub made_by: Option<ApiKeyId>,
}

/// An API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyRecord {
    /// Its id.
    pub id: ApiKeyId,
    /// In whose name it acts.
    pub user: UserId,
    /// For people.
    pub name: String,
    /// How the key begins.
    pub prefix: String,
    /// What it is for; empty: all that its user may.
    pub scopes: Vec<KeyScope>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// Until when.
    pub expires_at: Option<OffsetDateTime>,
    /// When it was revoked.
    pub revoked_at: Option<OffsetDateTime>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<OffsetDateTime>,
    /// The API key that it was made with, and ends with.
    pub made_by: Option<ApiKeyId>,
}

/// What is known of the key that a request came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFacts {
    /// Which.
    pub id: ApiKeyId,
    /// What it is for; empty: all that its user may.
    pub scopes: Vec<KeyScope>,
    /// Until when.
    pub expires_at: Option<OffsetDateTime>,
}

/// A token to be made that one machine may become a host with.
#[derive(Debug, Clone)]
pub struct NewEnrolment {
    /// Of the token.
    pub hash: String,
    /// The host's name.
    pub name: String,
    /// Until when.
    pub expires_at: OffsetDateTime,
    /// The API key that it is made with, and ends with.
    pub made_by: Option<ApiKeyId>,
}

/// A host's credential to be made in place of another one.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// Of the credential that the host asks with: it has this one.
    pub shown: String,
    /// Of the new credential.
    pub new: String,
    /// If the host was not seen with the one that it shows before: when those end that were made before that.
    pub others_end_at: OffsetDateTime,
}

/// A viewer that attaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewViewer {
    /// Its id.
    pub id: ViewerId,
    /// What it looks at.
    pub session: SessionId,
    /// For how long it is there without a renewal.
    pub lease: Duration,
    /// The one whose place it takes.
    pub replaces: Option<ViewerId>,
}

/// Why a session's time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// Nobody had anything to do with it for too long.
    Idle,
    /// Its spawn is too old.
    Age,
    /// It ended too long ago.
    Retention,
}

/// Sessions whose time is over by the settings of their organisations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expiry {
    /// Which, and why.
    pub due: Vec<(SessionId, Overdue)>,
    /// When the next one may be; none: as long as no setting changes, never.
    pub next: Option<OffsetDateTime>,
}
