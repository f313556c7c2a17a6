//! Logging in with somebody else's word: the project's, or an issuer's. Who it is of becomes a user, at the first time. Whoever is in no
//! organisation is logged in as well, and can do nothing but come into one.

use agentapi_shared::audit::PLATFORM;
use agentapi_shared::{OrgId, UserId};
use serde_json::json;
use time::Duration;

use super::audit;
use super::policy::{Credential, Newcomer};
use crate::auth::Secret;
use crate::capability::Role;
use crate::clock;
use crate::identities::Identities;
use crate::identity::login::{Callback, LoginError, Oidc};
use crate::identity::verify::{Caller, TokenError};
use crate::plane::Plane;
use crate::store::StoreError;
use crate::store::records::{AuditEntry, CallerToken, Identity, LoginHolder, NewLogin, TenantContext, UserHolder};

/// A browser stays logged in for this long; one with an issuer behind it for no longer than that says.
const LIFETIME: Duration = Duration::days(30);
/// An issuer that cannot be asked again whether somebody is still theirs vouches for less.
const LIFETIME_UNASKED: Duration = Duration::hours(12);

/// Why somebody is not let in.
#[derive(Debug, thiserror::Error)]
pub enum LogInError {
    /// Not configured.
    #[error("this control plane does not take such logins")]
    Off,
    /// The issuer, or what it said.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// Shut out here.
    #[error("this user was shut out")]
    ShutOut,
    /// In no organisation.
    #[error("you are in no organisation here: accept an invitation, or found one where signing up is open")]
    NoOrganization,
    /// Their address is not shown to be theirs.
    #[error("whoever logs you in does not say that your mail address is yours: confirm it there, and log in again")]
    Unconfirmed,
    /// The invitation is not for them, used, or over.
    #[error("this invitation is not for your address, or not good any more; your address has to be confirmed")]
    Invitation,
    /// The store.
    #[error("the store did not do it")]
    Store(#[from] StoreError),
}

impl From<TokenError> for LogInError {
    fn from(error: TokenError) -> Self {
        Self::Login(error.into())
    }
}

/// An invitation that somebody logs in with.
#[derive(Debug, Clone)]
pub struct Invited {
    /// Where to.
    pub org: OrgId,
    /// From the link.
    pub token: Secret,
}

/// A browser that is logged in.
#[derive(Debug)]
pub struct LoggedIn {
    /// What it shows from now on.
    pub cookie: Secret,
    /// For how long.
    pub lifetime: Duration,
}

/// By address and password, at the project's Supabase Auth.
pub async fn by_password(
    plane: &Plane,
    identities: &Identities,
    email: &str,
    password: &Secret,
    invited: Option<Invited>,
) -> Result<LoggedIn, LogInError> {
    let (Some(auth), Some(refresher)) = (&identities.supabase, &identities.refresher) else {
        return Err(LogInError::Off);
    };
    let grant = auth.password(email, password).await?;
    let cookie = Secret::generate("");
    let refresh = refresher.sealed(&cookie.hash(), &grant.refresh)?;
    let identity = of_project(identities, &grant.caller);
    let login = new_login(grant.caller.user, &cookie, LIFETIME, "password");
    let login = NewLogin { auth_session: grant.caller.session.clone(), refresh: Some(refresh), ..login };
    begin(plane, identity, login, Some(grant.caller.token), invited).await?;
    Ok(LoggedIn { cookie, lifetime: LIFETIME })
}

/// Logins at another issuer, if there are any and they lead anywhere.
pub fn issuer_logins(identities: &Identities) -> Result<&Oidc, LogInError> {
    let oidc = identities.oidc.as_ref().ok_or(LogInError::Off)?;
    identities.require_tokens()?;
    Ok(oidc)
}

/// By what a browser brought back from the issuer.
pub async fn by_issuer(
    plane: &Plane,
    identities: &Identities,
    kept: &Secret,
    callback: &Callback,
) -> Result<LoggedIn, LogInError> {
    let oidc = issuer_logins(identities)?;
    let person = oidc.finish(&identities.sealer, kept, callback).await?;
    let cookie = Secret::generate("");
    let login = new_login(UserId::generate(), &cookie, LIFETIME_UNASKED, &person.issuer);
    let identity = Identity {
        user: login.user,
        issuer: person.issuer,
        subject: person.subject,
        name: person.name,
        email: person.email,
        email_verified: person.email_verified,
    };
    begin(plane, identity, login, None, None).await?;
    Ok(LoggedIn { cookie, lifetime: LIFETIME_UNASKED })
}

/// Who brought a token of the project.
pub async fn verified(identities: &Identities, token: &Secret) -> Result<Caller, LogInError> {
    let verifier = identities.verifier.as_ref().ok_or(LogInError::Off)?;
    Ok(verifier.verify(token.expose()).await?)
}

/// The member whom a token is of, in the organisation they came to first; none if they are in none.
pub async fn by_token(plane: &Plane, caller: &Caller) -> Result<Option<UserHolder>, LogInError> {
    // Of whatever organisation: which they are in is what is asked.
    let (org, token) = (PLATFORM, Some(caller.token.clone()));
    let tenant = TenantContext { org, user: caller.user, role: Role::Viewer, token };
    let found = plane.store.organizations(tenant).await?.into_iter().next();
    Ok(found.map(|(organization, role)| UserHolder {
        user: caller.user,
        org: organization.id,
        name: caller.email.clone().unwrap_or_default(),
        organization: organization.name,
        role,
        key: None,
        token: Some(caller.token.clone()),
    }))
}

/// Meets somebody with a token who is in no organisation: makes the user at the first time. Whether their address is theirs, a token does not
/// say; it is asked.
pub async fn meet(
    plane: &Plane,
    identities: &Identities,
    caller: &Caller,
    hash: String,
) -> Result<Newcomer, LogInError> {
    let known = match &identities.supabase {
        Some(auth) => auth.person(caller.clone()).await?,
        None => caller.clone(),
    };
    let user = plane.store.log_in(of_project(identities, &known)).await?.ok_or(LogInError::ShutOut)?;
    Ok(Newcomer {
        user,
        name: known.email.unwrap_or_default(),
        token: Some(known.token),
        credential: Credential::Issuer { hash, expires_at: known.expires_at },
    })
}

/// Somebody as the project knows them: their id there is their id here.
fn of_project(identities: &Identities, caller: &Caller) -> Identity {
    Identity {
        user: caller.user,
        issuer: identities.issuer.clone().unwrap_or_default(),
        subject: caller.user.to_string(),
        name: None,
        email: caller.email.clone(),
        email_verified: caller.email_verified,
    }
}

fn new_login(user: UserId, cookie: &Secret, lifetime: Duration, by: &str) -> NewLogin {
    NewLogin {
        user,
        org: None,
        cookie: cookie.hash(),
        expires_at: clock::now() + lifetime,
        by: by.to_owned(),
        auth_session: None,
        refresh: None,
        audit: audit::of_account("web", "login"),
    }
}

/// Makes the user at the first time, accepts the invitation if there is one, and makes the login. `token`: what the database is asked with, if the
/// project made it.
async fn begin(
    plane: &Plane,
    identity: Identity,
    login: NewLogin,
    token: Option<CallerToken>,
    invited: Option<Invited>,
) -> Result<LoginHolder, LogInError> {
    let user = plane.store.log_in(identity).await?.ok_or(LogInError::ShutOut)?;
    let Some(invited) = invited else {
        return plane.store.begin_login(NewLogin { user, ..login }).await?.ok_or(LogInError::ShutOut);
    };
    // In the name of somebody who is in no organisation yet.
    let tenant = TenantContext { org: invited.org, user, role: Role::Viewer, token };
    let detail = json!({ "organization": invited.org });
    let entry = AuditEntry { detail, ..audit::of_account("web", "invitation.accept") };
    match plane.store.accept_invitation(tenant, invited.org, invited.token.hash(), entry).await {
        Err(StoreError::Refused(word)) if word == "address_not_confirmed" => return Err(LogInError::Unconfirmed),
        // Whoever follows the link again is a member already, and it is used up.
        Ok(()) | Err(StoreError::NotFound | StoreError::Forbidden | StoreError::Refused(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let login = NewLogin { user, org: Some(invited.org), ..login };
    plane.store.begin_login(login).await?.ok_or(LogInError::Invitation)
}
