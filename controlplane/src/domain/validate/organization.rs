//! What requests about organisations may contain.

use agentapi_shared::api::{
    CUSTOM_AGENT, CreateApiKey, CreateHostEnrolment, CreateInvitation, EMAIL_CHARS_MAX, ENROLMENT_SECONDS_MAX,
    EXPIRY_SECONDS_MAX, EXPIRY_SECONDS_MIN, INVITATION_SECONDS_MAX, ORGANIZATION_NAME_CHARS_MAX, OrganizationSettings,
    POLICY_PROFILES_MAX, RETENTION_DAYS_MAX, SandboxPolicy, UpdateOrganization,
};
use time::{Duration, OffsetDateTime};

use super::{DomainError, Faults};
use crate::capability::Role;

/// A name of an organisation, a key or a host.
pub fn organization_name(field: &str, text: &str) -> Result<(), DomainError> {
    let mut faults = Faults::default();
    name(&mut faults, field, text);
    faults.finish()
}

/// A change of an organisation. `agents` are the names that are known.
pub fn update_organization(request: &UpdateOrganization, agents: &[&str]) -> Result<(), DomainError> {
    let mut faults = Faults::default();
    if let Some(text) = &request.name {
        name(&mut faults, "name", text);
    }
    if let Some(wanted) = &request.settings {
        settings(&mut faults, wanted, agents);
    }
    faults.finish()
}

/// A role, of those that are possible.
pub fn role(text: &str, possible: &[Role]) -> Result<Role, DomainError> {
    let mut faults = Faults::default();
    let found = read_role(&mut faults, text, possible);
    faults.finish()?;
    found.ok_or(DomainError::Forbidden)
}

/// An invitation; gives its role.
pub fn invitation(request: &CreateInvitation) -> Result<Role, DomainError> {
    /// Programs are nobody who accepts.
    const INVITED: [Role; 5] = [Role::Owner, Role::Admin, Role::Member, Role::Viewer, Role::Auditor];
    let mut faults = Faults::default();
    let found = read_role(&mut faults, &request.role, &INVITED);
    email(&mut faults, &request.email);
    lifetime(&mut faults, request.expires_in_seconds, INVITATION_SECONDS_MAX);
    faults.finish()?;
    found.ok_or(DomainError::Forbidden)
}

/// A mail address.
pub fn email_address(text: &str) -> Result<(), DomainError> {
    let mut faults = Faults::default();
    email(&mut faults, text);
    faults.finish()
}

/// An API key.
pub fn api_key(request: &CreateApiKey) -> Result<(), DomainError> {
    let mut faults = Faults::default();
    name(&mut faults, "name", &request.name);
    lifetime(&mut faults, request.expires_in_seconds, EXPIRY_SECONDS_MAX);
    faults.finish()
}

/// A token for a host.
pub fn enrolment(request: &CreateHostEnrolment) -> Result<(), DomainError> {
    let mut faults = Faults::default();
    name(&mut faults, "name", &request.name);
    lifetime(&mut faults, request.expires_in_seconds, ENROLMENT_SECONDS_MAX);
    faults.finish()
}

/// So much later; what was not checked is cut.
#[must_use]
pub fn later(at: OffsetDateTime, seconds: u64) -> OffsetDateTime {
    at + Duration::seconds(i64::try_from(seconds.min(EXPIRY_SECONDS_MAX)).unwrap_or(0))
}

fn name(faults: &mut Faults, field: &str, text: &str) {
    let chars = text.chars().count();
    faults.check(!(1..=ORGANIZATION_NAME_CHARS_MAX).contains(&chars), field, || {
        format!("1 to {ORGANIZATION_NAME_CHARS_MAX} characters")
    });
    faults.check(text.chars().any(char::is_control), field, || "no control characters".to_owned());
}

fn email(faults: &mut Faults, text: &str) {
    // Whether it exists shows when somebody proves that it is theirs.
    let parts = text.split_once('@').filter(|(local, domain)| !local.is_empty() && !domain.is_empty());
    let odd = text.chars().any(|c| c.is_control() || c.is_whitespace()) || text.matches('@').count() != 1;
    let fault = parts.is_none() || odd || text.chars().count() > EMAIL_CHARS_MAX;
    faults.check(fault, "email", || "expected a mail address such as ada@example.com".to_owned());
}

fn read_role(faults: &mut Faults, text: &str, possible: &[Role]) -> Option<Role> {
    let found = text.parse::<Role>().ok().filter(|role| possible.contains(role));
    faults.check(found.is_none(), "role", || {
        let words: Vec<&str> = possible.iter().map(|role| role.as_str()).collect();
        format!("expected one of {}", words.join(", "))
    });
    found
}

fn lifetime(faults: &mut Faults, seconds: Option<u64>, max: u64) {
    let fault = seconds.is_some_and(|seconds| !(EXPIRY_SECONDS_MIN..=max).contains(&seconds));
    faults.check(fault, "expires_in_seconds", || format!("{EXPIRY_SECONDS_MIN} to {max}"));
}

fn settings(faults: &mut Faults, wanted: &OrganizationSettings, agents: &[&str]) {
    for (field, seconds) in [
        ("settings.session_idle_seconds_max", wanted.session_idle_seconds_max),
        ("settings.session_age_seconds_max", wanted.session_age_seconds_max),
    ] {
        let fault = seconds.is_some_and(|seconds| !(EXPIRY_SECONDS_MIN..=EXPIRY_SECONDS_MAX).contains(&seconds));
        faults.check(fault, field, || format!("{EXPIRY_SECONDS_MIN} to {EXPIRY_SECONDS_MAX}"));
    }
    let fault = wanted.session_retention_days.is_some_and(|days| !(1..=RETENTION_DAYS_MAX).contains(&days));
    faults.check(fault, "settings.session_retention_days", || format!("1 to {RETENTION_DAYS_MAX}"));
    if let Some(policy) = &wanted.sandbox {
        sandbox(faults, policy);
    }
    for (index, agent) in wanted.agents.iter().flatten().enumerate() {
        let known = agent == CUSTOM_AGENT || agents.contains(&agent.as_str());
        faults.check(!known, &format!("settings.agents[{index}]"), || {
            format!("unknown agent; known are {CUSTOM_AGENT} and {}", agents.join(", "))
        });
    }
}

/// What of sandboxes is allowed. Which profiles there are, each host says for itself.
fn sandbox(faults: &mut Faults, wanted: &SandboxPolicy) {
    if let Some(profiles) = &wanted.profiles {
        let fault = profiles.is_empty() || profiles.len() > POLICY_PROFILES_MAX;
        faults.check(fault, "settings.sandbox.profiles", || {
            format!("1 to {POLICY_PROFILES_MAX} names; leave it out to allow each")
        });
        for (index, profile) in profiles.iter().enumerate() {
            super::profile(faults, &format!("settings.sandbox.profiles[{index}]"), profile);
        }
    }
    super::limits(faults, "settings.sandbox.limits", &wanted.limits);
}

#[cfg(test)]
mod tests {
    use agentapi_shared::api::Limits;

    use super::*;

    fn fields(result: Result<impl Sized, DomainError>) -> Vec<String> {
        match result {
            Err(DomainError::Invalid(errors)) => errors.into_iter().map(|error| error.field).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn every_fault_is_named_and_what_is_sound_passes() {
        let invite = |email: &str, role: &str, seconds| {
            let request =
                CreateInvitation { email: email.to_owned(), role: role.to_owned(), expires_in_seconds: seconds };
            fields(invitation(&request))
        };
        assert!(invite("ada@example.com", "admin", Some(60)).is_empty());
        assert_eq!(invite("ada", "root", Some(59)), ["role", "email", "expires_in_seconds"]);
        for odd in ["@example.com", "ada@", "a@b@c", "a b@c", "a\n@b", ""] {
            assert_eq!(invite(odd, "member", None), ["email"], "{odd:?}");
        }
        assert_eq!(invite("ada@example.com", "service_account", None), ["role"]);
        let settings = OrganizationSettings {
            session_idle_seconds_max: Some(1),
            session_age_seconds_max: Some(u64::MAX),
            session_retention_days: Some(0),
            agents: Some(vec!["custom".to_owned(), "gpt".to_owned()]),
            sandbox: Some(SandboxPolicy {
                profiles: Some(vec![]),
                limits: Limits { pids: Some(1), ..Limits::default() },
                ..SandboxPolicy::default()
            }),
        };
        let request = UpdateOrganization { name: Some(String::new()), settings: Some(settings), revision: None };
        let expected = [
            "name",
            "settings.session_idle_seconds_max",
            "settings.session_age_seconds_max",
            "settings.session_retention_days",
            "settings.sandbox.profiles",
            "settings.sandbox.limits.pids",
            "settings.agents[1]",
        ];
        assert_eq!(fields(update_organization(&request, &["claude"])), expected);
        let sound = OrganizationSettings { agents: Some(vec!["claude".to_owned()]), ..OrganizationSettings::default() };
        let request = UpdateOrganization { settings: Some(sound), ..UpdateOrganization::default() };
        assert!(update_organization(&request, &["claude"]).is_ok());
        assert_eq!(fields(organization_name("name", "a\u{7}b")), ["name"]);
        assert!(organization_name("name", "Ada & Co").is_ok());
    }
}
