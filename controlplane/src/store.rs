//! The store: what must outlive the process, behind one trait for each kind of
//! record; [`Store`] is all of them.
//!
//! Each method is one atomic operation that takes in whose name it acts and, if it changes something, the audit entry; no transaction
//! leaves it. It holds no rules: a change is computed by `domain` from a record and applied only if the record is still at that revision.
//! An answered write survives a kill of the process.

#[cfg(test)]
mod contract;
pub mod postgrest;
pub mod records;
pub mod sqlite;

use agentapi_shared::api::{InvitedTo, Quotas};
use std::time::Duration;

use agentapi_shared::egress::EgressDecision;
use agentapi_shared::{ApiKeyId, HostId, InvitationId, OrgId, SessionId, UserId, ViewerId};
use futures_util::future::BoxFuture;
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::capability::Role;

use records::{
    ApiKeyRecord, AuditEntry, AuditFilter, AuditHead, AuditPage, BrowserSession, EgressFilter, Erased, Expiry,
    Founding, Holder, HostRecord, IdempotencyKey, Identity, InvitationRecord, LastOwner, LoginHolder, MadeByKey,
    MemberRecord, NewApiKey, NewEnrolment, NewInvitation, NewLogin, NewLoginCode, NewSession, NewViewer,
    OrganizationChange, OrganizationOverview, OrganizationRecord, PersonRecord, RefreshTaken, Replay, Rotation, Sealed,
    SessionChange, SessionFilter, SessionRecord, Sight, TenantContext, TokenHolder, UserHolder, Who,
};

/// The answer of a store method.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// In whose name a row is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// A tenant: rows of its organisation.
    Tenant(TenantContext),
    /// A host: sessions placed on it.
    Host(HostId),
    /// The control plane itself, in a job that has no caller.
    System,
}

/// Why the store did not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such row for this scope.
    #[error("no such row")]
    NotFound,
    /// The row is seen and may not be changed by this caller.
    #[error("this caller may not change the row")]
    Forbidden,
    /// The database takes the caller for nobody: their token is over, or they were disabled.
    #[error("the store does not know the caller")]
    Unauthenticated,
    /// There is no room for more; the word says of what.
    #[error("a quota is reached: {0}")]
    Quota(String),
    /// No token can be made for a caller who brought none, so the database cannot be asked in their name.
    #[error(
        "this control plane can make no token for callers who bring none (API keys, login links, other issuers): its operator has to set \
         SUPABASE_JWT_SECRET, or --public-url and have the project take this control plane as an issuer (third-party auth)"
    )]
    NoCallerToken,
    /// Another rule of the store, by its word.
    #[error("the store refuses it: {0}")]
    Refused(String),
    /// The record is no longer at the revision that the change was computed from.
    #[error("the record changed meanwhile")]
    Stale,
    /// The database cannot be reached or does not answer as it should.
    #[error("the store is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What came of a request to create a session.
#[derive(Debug, Clone, PartialEq)]
pub enum Created {
    /// It was made.
    New(Box<SessionRecord>),
    /// The idempotency key was seen before; nothing was made.
    Seen(Replay),
}

/// A number of a host's outbox, recorded as seen in the transaction of its effect.
pub type OutboxSeen = Option<(HostId, u64)>;

/// Sessions and their spawns.
pub trait SessionStore {
    /// Makes a session with its first spawn.
    fn create_session(
        &self,
        tenant: TenantContext,
        new: NewSession,
        key: Option<IdempotencyKey>,
        audit: AuditEntry,
    ) -> Answer<'_, Created>;
    /// One session.
    fn session(&self, scope: Scope, id: SessionId) -> Answer<'_, SessionRecord>;
    /// A page of sessions, newest first.
    fn sessions(&self, tenant: TenantContext, filter: SessionFilter) -> Answer<'_, Vec<SessionRecord>>;
    /// Every session that is not settled: of a host, or placed nowhere yet. Settled: its newest spawn is over and nothing more is wanted.
    fn unsettled(&self, host: Option<HostId>) -> Answer<'_, Vec<SessionRecord>>;
    /// Applies a change, if the record is still at `revision`.
    fn update_session(
        &self,
        scope: Scope,
        id: SessionId,
        revision: u64,
        change: SessionChange,
        audit: Option<AuditEntry>,
        seen: OutboxSeen,
    ) -> Answer<'_, SessionRecord>;
    /// Removes the record of a session. One that is gone already is removed.
    fn purge_session(&self, scope: Scope, id: SessionId, audit: AuditEntry) -> Answer<'_, ()>;
}

/// What egress gateways decided.
pub trait EgressStore {
    /// Stores a decision of a host's egress gateway about a session placed there; one that is known, or of a session that is gone, changes nothing.
    fn record_egress(&self, host: HostId, decision: EgressDecision, seen: OutboxSeen) -> Answer<'_, ()>;
    /// A page of a session's egress decisions, newest first.
    fn egress(&self, scope: Scope, session: SessionId, filter: EgressFilter) -> Answer<'_, Vec<EgressDecision>>;
}

/// Who looks at a terminal now, through any control plane. Each viewer is a lease, which whoever serves it renews: that of one which died is over by
/// itself. Its time is the store's own.
pub trait ViewerStore {
    /// Enters a viewer of a session that the caller sees. One too many is refused as `quota_viewers`. Gives whether the one that it replaces was
    /// there, which has to be the caller's own.
    fn attach_viewer(&self, tenant: TenantContext, new: NewViewer, audit: AuditEntry) -> Answer<'_, bool>;
    /// Ends one of the caller's. One that is gone is ended, and leaves its record all the same.
    fn detach_viewer(&self, tenant: TenantContext, viewer: ViewerId, audit: AuditEntry) -> Answer<'_, ()>;
    /// Renews leases, over or not, for so long from now; gives those that are there still. What is missing was replaced.
    fn renew_viewers(&self, viewers: Vec<ViewerId>, lease: Duration) -> Answer<'_, Vec<ViewerId>>;
}

/// Hosts.
pub trait HostStore {
    /// Every host that a tenant may use.
    fn hosts(&self, tenant: TenantContext) -> Answer<'_, Vec<HostRecord>>;
    /// One host.
    fn host(&self, id: HostId) -> Answer<'_, HostRecord>;
    /// What a host said of itself when it connected.
    fn host_connected(&self, host: HostRecord, audit: AuditEntry) -> Answer<'_, ()>;
    /// When a host was last heard of.
    fn host_seen(&self, id: HostId, at: OffsetDateTime) -> Answer<'_, ()>;
    /// The number up to which a host's outbox is stored.
    fn outbox_seen(&self, id: HostId) -> Answer<'_, u64>;
}

/// What people, programs and hosts prove themselves with.
pub trait CredentialStore {
    /// Makes a token good for its holder. Knowing it already changes nothing.
    fn register_token(&self, hash: String, holder: TokenHolder, at: OffsetDateTime) -> Answer<'_, ()>;
    /// Whose a token is.
    fn token(&self, hash: String) -> Answer<'_, Option<Holder>>;
    /// A member, as they are now; none if they are none. For those who look after live sockets, in nobody's name.
    fn member(&self, org: OrgId, user: UserId) -> Answer<'_, Option<UserHolder>>;
    /// Stores a code for one login; removes those that are over.
    fn create_login_code(&self, tenant: TenantContext, new: NewLoginCode, audit: AuditEntry) -> Answer<'_, ()>;
    /// Takes a code and makes a browser session of it; none if the code is unknown, used or over.
    fn redeem_login_code(
        &self,
        code_hash: String,
        cookie_hash: String,
        expires_at: OffsetDateTime,
        audit: AuditEntry,
    ) -> Answer<'_, Option<UserHolder>>;
    /// A browser session that is not over.
    fn browser_session(&self, hash: String, now: OffsetDateTime) -> Answer<'_, Option<BrowserSession>>;
    /// Records a login at an issuer that shows itself as a token, if it was never seen, by whichever process. True: this was the first sight.
    fn see_session(&self, sight: Sight) -> Answer<'_, bool>;
    /// Ends a browser session.
    fn end_browser_session(&self, tenant: TenantContext, hash: String, audit: AuditEntry) -> Answer<'_, ()>;
}

/// Logins of browsers with an issuer behind them. What keeps one alive there is good for one use, and using it twice ends the login: one replica
/// at a time takes it.
pub trait LoginStore: Send + Sync + std::fmt::Debug {
    /// Makes a login of somebody whom an issuer vouched for; none if they are not in the organisation that is named. Of somebody who is in none
    /// at all there is one such login, which becomes one of the first organisation that they come to.
    fn begin_login(&self, login: NewLogin) -> Answer<'_, Option<LoginHolder>>;
    /// Ends a login of somebody who is in no organisation.
    fn end_newcomer_login(&self, user: UserId, login: String, audit: AuditEntry) -> Answer<'_, ()>;
    /// Takes what keeps a login alive for one use, until then: whoever takes it and dies keeps nobody waiting longer.
    fn take_refresh(&self, login: String, now: OffsetDateTime, until: OffsetDateTime) -> Answer<'_, RefreshTaken>;
    /// Ends the taking that was until then, with what came of the use; none: it was not used. `Stale` if it is somebody else's by now.
    fn put_refresh(&self, login: String, until: OffsetDateTime, refresh: Option<Sealed>) -> Answer<'_, ()>;
}

/// What has to be done in a database that others change too.
pub trait UpkeepStore {
    /// How often it has to be done; none: never.
    fn upkeep_every(&self) -> Option<Duration>;
    /// Shuts out users whom the issuer has deleted, and has their sessions stopped. Gives every session that still lives and was stopped because its
    /// user was shut out, by whomever: their hosts may not know yet.
    fn end_deleted_users(&self) -> Answer<'_, Vec<SessionId>>;
    /// Removes logins, codes, keys and enrolments that are over; gives how many.
    fn sweep(&self, now: OffsetDateTime) -> Answer<'_, u64>;
}

/// Organisations. What a method asks of the caller's role it looks up itself, in the same transaction.
pub trait OrganizationStore {
    /// Each organisation that the caller is in, with their role there, oldest first.
    fn organizations(&self, tenant: TenantContext) -> Answer<'_, Vec<(OrganizationRecord, Role)>>;
    /// Makes one with the caller as its owner, from whichever organisation they ask, if they have that right.
    fn create_organization(
        &self,
        tenant: TenantContext,
        org: OrgId,
        name: String,
        by: Founding,
        audit: AuditEntry,
    ) -> Answer<'_, ()>;
    /// Changes the tenant's own, if it is still at `revision`.
    fn update_organization(
        &self,
        tenant: TenantContext,
        revision: u64,
        change: OrganizationChange,
        audit: AuditEntry,
    ) -> Answer<'_, ()>;
    /// Sets what an organisation may have: the platform's to decide, not the tenant's.
    fn set_quotas(&self, org: OrgId, quotas: Quotas, audit: AuditEntry) -> Answer<'_, ()>;
    /// A verified login of somebody: makes their row at the first, keeps name and address up to date. Gives their id; none if they were shut out.
    fn log_in(&self, identity: Identity) -> Answer<'_, Option<UserId>>;
    /// Which sessions' time is over, and when to look again.
    fn expiry(&self, now: OffsetDateTime) -> Answer<'_, Expiry>;
}

/// Who is in an organisation.
pub trait MemberStore {
    /// Everybody in it.
    fn members(&self, tenant: TenantContext) -> Answer<'_, Vec<MemberRecord>>;
    /// Gives a member another role. Owners are made and unmade by owners alone, and one stays: `last_owner`.
    fn set_member_role(&self, tenant: TenantContext, user: UserId, role: Role, audit: AuditEntry) -> Answer<'_, ()>;
    /// Removes a member, with their keys, logins, codes and enrolments there, for good; anyone may leave but the last owner.
    fn remove_member(&self, tenant: TenantContext, user: UserId, audit: AuditEntry) -> Answer<'_, ()>;
    /// Every invitation, newest first.
    fn invitations(&self, tenant: TenantContext) -> Answer<'_, Vec<InvitationRecord>>;
    /// Invites the owner of an address.
    fn create_invitation(&self, tenant: TenantContext, new: NewInvitation, audit: AuditEntry) -> Answer<'_, ()>;
    /// Takes an invitation back that was not accepted.
    fn revoke_invitation(&self, tenant: TenantContext, id: InvitationId, audit: AuditEntry) -> Answer<'_, ()>;
    /// What the invitation with this token is to, whoever asks; none: there is none that could be accepted now.
    fn invited_to(&self, org: OrgId, token_hash: String) -> Answer<'_, Option<InvitedTo>>;
    /// Makes the caller a member of `org`, if the invitation is for their verified address. Unknown, over, used and meant for somebody else
    /// look the same; who is in it already is refused as `already_member`, whose address is not shown to be theirs as `address_not_confirmed`.
    /// Whatever they had there before stays over.
    fn accept_invitation(
        &self,
        tenant: TenantContext,
        org: OrgId,
        token_hash: String,
        audit: AuditEntry,
    ) -> Answer<'_, ()>;
}

/// Keys of programs.
pub trait ApiKeyStore {
    /// The caller's keys, newest first; everybody's for whoever manages keys.
    fn api_keys(&self, tenant: TenantContext) -> Answer<'_, Vec<ApiKeyRecord>>;
    /// Makes one that acts in the caller's name. A third live one of a name is refused as `api_key_rotation`.
    fn create_api_key(&self, tenant: TenantContext, new: NewApiKey, audit: AuditEntry) -> Answer<'_, ()>;
    /// Ends one: one's own, or any for whoever manages keys.
    fn revoke_api_key(&self, tenant: TenantContext, id: ApiKeyId, made: MadeByKey, audit: AuditEntry)
    -> Answer<'_, ()>;
}

/// How a machine becomes a host of an organisation, how its credential is changed, and how it ends.
pub trait EnrolmentStore {
    /// Stores a token that one machine may become a host with.
    fn create_host_enrolment(&self, tenant: TenantContext, new: NewEnrolment, audit: AuditEntry) -> Answer<'_, ()>;
    /// Takes a token and makes a host of it, with its credential. Gives its organisation; none if the token is unknown, used or over.
    fn redeem_host_enrolment(
        &self,
        token_hash: String,
        host: HostId,
        credential_hash: String,
        at: OffsetDateTime,
    ) -> Answer<'_, Option<OrgId>>;
    /// Gives a host a new credential. The one that it shows is confirmed by that, and stays good until the new one is: the answer may be lost on
    /// its way. Two at most wait to be confirmed.
    fn rotate_host_credential(&self, host: HostId, rotation: Rotation, audit: AuditEntry) -> Answer<'_, ()>;
    /// A host uses this credential: at the first time it becomes good without an end, and those end that were made before it, at
    /// `others_end_at`.
    fn confirm_host_credential(&self, credential_hash: String, others_end_at: OffsetDateTime) -> Answer<'_, ()>;
    /// Ends a host of the organisation: its credentials are good no longer.
    fn revoke_host(&self, tenant: TenantContext, host: HostId, audit: AuditEntry) -> Answer<'_, ()>;
}

/// What the platform's operator does and sees: whose the organisations are, who is let in, and the platform's own trail.
pub trait OperatorStore {
    /// Every organisation, oldest first.
    fn overview(&self) -> Answer<'_, Vec<OrganizationOverview>>;
    /// Whoever is meant.
    fn people(&self, who: Who) -> Answer<'_, Vec<PersonRecord>>;
    /// Shuts somebody out: their logins end, their keys are good for nothing, their sessions are stopped and recorded. Gives how many are.
    fn disable_user(&self, user: UserId, last_owner: LastOwner, audit: AuditEntry) -> Answer<'_, u64>;
    /// Lets somebody in again; whoever was erased is refused as `erased`.
    fn enable_user(&self, user: UserId, audit: AuditEntry) -> Answer<'_, ()>;
    /// Shuts somebody out for good and removes what is personal of them. The audit trail's hashes stay as they are.
    fn erase_person(&self, user: UserId, last_owner: LastOwner, audit: AuditEntry) -> Answer<'_, Erased>;
    /// A page of the platform's trail, which no tenant reads.
    fn platform_records(&self, filter: AuditFilter) -> Answer<'_, AuditPage>;
}

/// Requests that must have one effect.
pub trait IdempotencyStore {
    /// Takes an idempotency key, or tells what became of it.
    fn begin_idempotent(&self, tenant: TenantContext, key: IdempotencyKey, at: OffsetDateTime) -> Answer<'_, Replay>;
    /// Stores the answer of a request.
    fn finish_idempotent(
        &self,
        tenant: TenantContext,
        key: IdempotencyKey,
        status: u16,
        body: String,
    ) -> Answer<'_, ()>;
    /// Frees a key whose request had no effect.
    fn release_idempotent(&self, tenant: TenantContext, key: IdempotencyKey) -> Answer<'_, ()>;
}

/// Records that a store chains at least in one call, if so many have no place yet.
pub const SEALED_MIN: u64 = 100;

/// The audit trail.
pub trait AuditStore {
    /// Stores an audit entry that goes with no change here.
    fn audit(&self, scope: Scope, entry: AuditEntry, seen: OutboxSeen) -> Answer<'_, ()>;
    /// Grows with each record that this process wrote, once it is there to be sealed.
    fn audit_written(&self) -> watch::Receiver<u64>;
    /// Chains records that have no place yet, some `max` of them at most; gives how many. Less than [`SEALED_MIN`]: no more are there, or another
    /// process is at it.
    fn seal_audit(&self, max: u32) -> Answer<'_, u64>;
    /// Where every chain ends.
    fn audit_heads(&self) -> Answer<'_, Vec<AuditHead>>;
    /// A page of an organisation's trail.
    fn audit_records(&self, tenant: TenantContext, filter: AuditFilter) -> Answer<'_, AuditPage>;
}

/// See the module.
pub trait Store:
    SessionStore
    + EgressStore
    + ViewerStore
    + HostStore
    + CredentialStore
    + LoginStore
    + OrganizationStore
    + MemberStore
    + ApiKeyStore
    + EnrolmentStore
    + OperatorStore
    + IdempotencyStore
    + AuditStore
    + UpkeepStore
    + Send
    + Sync
    + std::fmt::Debug
{
    /// Whether the store answers.
    fn ping(&self) -> Answer<'_, ()>;
}
