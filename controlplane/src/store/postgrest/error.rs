//! What can go wrong between here and the database, and what the store makes of it. Decided by the code of an error, never by its status or its
//! words: statuses changed between releases of PostgREST, and words name rows of others.

use serde::Deserialize;

use super::tokens::NoToken;
use crate::store::StoreError;

/// In whose name a request was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Party {
    /// With a token of their own.
    Caller,
    /// A caller for whom we made the token.
    SpokenFor,
    Service,
}

/// Why there is no answer, or none that helps.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("no connection to PostgREST")]
    Connect(#[source] reqwest::Error),
    #[error("the connection to PostgREST broke before the answer was whole")]
    Lost(#[source] reqwest::Error),
    #[error("no answer from PostgREST in time")]
    Late,
    #[error("an answer of PostgREST is larger than {0} bytes")]
    TooLarge(usize),
    #[error("an answer of PostgREST makes no sense")]
    Malformed(#[source] serde_json::Error),
    #[error("a request could not be written")]
    Unwritable(#[source] serde_json::Error),
    #[error("there is no token for the caller")]
    NoToken(#[source] NoToken),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// An error that PostgREST answered with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("PostgREST answered {status} {code}: {message}{}", advice(code))]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
}

#[derive(Deserialize)]
struct Body {
    code: Option<String>,
    message: Option<String>,
}

impl Refusal {
    /// Reads the answer of PostgREST, or of a gateway before it.
    pub(super) fn read(status: u16, body: &[u8]) -> Self {
        let read = serde_json::from_slice::<Body>(body).unwrap_or(Body { code: None, message: None });
        Self { status, code: read.code.unwrap_or_default(), message: read.message.unwrap_or_default() }
    }

    /// Whether our own proof was not taken: it is another one's turn, or the database lost it.
    pub(super) fn is_of_proof(&self) -> bool {
        self.code == "PT403" && self.message == "proof"
    }
}

/// What a person can do about it, where that is known.
fn advice(code: &str) -> &'static str {
    match code {
        "PGRST106" => " (expose the schema `agentapi`: Settings, API, Exposed schemas)",
        "PGRST202" | "PGRST204" | "PGRST205" | "42P01" | "42883" | "42703" => {
            " (apply the migrations: `supabase db push` or `agentapi-controlplane migrate`)"
        }
        "PGRST301" | "PGRST302" | "PGRST303" => " (the token or key is not of this project, or is over)",
        _ => "",
    }
}

/// What happens when a request is made again that may have been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// The same: a read, or a write that finds itself done, by the id that it brings.
    Same,
    /// Something else: it is made again only if it was certainly not done.
    Other,
}

impl Failure {
    /// Whether a request may be made again.
    pub(super) fn may_go_again(&self, again: Again) -> bool {
        match self {
            // Nothing was sent.
            Self::Connect(_) => true,
            Self::Lost(_) => again == Again::Same,
            Self::Refused(refusal) => match refusal.code.as_str() {
                // PostgREST had no connection, or does not know the schema yet.
                "PGRST000" | "PGRST002" => true,
                // It lost the connection in between; or two transactions waited for each other, and this one was given up.
                "PGRST001" | "57P01" | "57P03" => again == Again::Same,
                "40P01" | "55P03" => true,
                // A gateway without PostgREST behind it.
                "" => refusal.status == 503 && again == Again::Same,
                _ => false,
            },
            _ => false,
        }
    }

    /// As callers of the store know it.
    pub(super) fn into_store_error(self, party: Party) -> StoreError {
        let refusal = match &self {
            Self::NoToken(NoToken::Never) => return StoreError::NoCallerToken,
            Self::Refused(refusal) => refusal,
            _ => return StoreError::Unavailable(Box::new(self)),
        };
        let word = refusal.message.clone();
        match (refusal.code.as_str(), party) {
            ("PT404" | "PGRST116", _) => StoreError::NotFound,
            ("PT409", _) if word == "stale" => StoreError::Stale,
            ("PT409", _) => StoreError::Refused(word),
            ("PT429", _) => StoreError::Quota(word),
            // Words of ours alone: what else the database says may name rows of others.
            ("23505", Party::Caller | Party::SpokenFor) => StoreError::Refused("exists".to_owned()),
            ("PT401", Party::Caller | Party::SpokenFor) => StoreError::Unauthenticated,
            ("PGRST301" | "PGRST302" | "PGRST303", Party::Caller) => StoreError::Unauthenticated,
            // The project does not take us as an issuer, or has another secret: no fault of the caller.
            ("PGRST301" | "PGRST302" | "PGRST303", Party::SpokenFor) => StoreError::NoCallerToken,
            ("PT403", Party::Caller | Party::SpokenFor) if word == "address_not_confirmed" => StoreError::Refused(word),
            ("PT403" | "42501", Party::Caller | Party::SpokenFor) if !refusal.is_of_proof() => StoreError::Forbidden,
            _ => StoreError::Unavailable(Box::new(self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: &str, message: &str) -> Failure {
        let body = format!(r#"{{"code":"{code}","message":"{message}","details":null,"hint":null}}"#);
        Refusal::read(status, body.as_bytes()).into()
    }

    #[test]
    fn codes_decide_and_not_statuses() {
        let of = |code, message, party| refused(400, code, message).into_store_error(party);
        use StoreError as E;
        for party in [Party::Caller, Party::SpokenFor, Party::Service] {
            assert!(matches!(of("PT404", "not_found", party), E::NotFound));
            assert!(matches!(of("PT409", "stale", party), E::Stale));
            assert!(matches!(of("PT409", "last_owner", party), E::Refused(word) if word == "last_owner"));
            assert!(matches!(of("PT429", "quota_sessions", party), E::Quota(word) if word == "quota_sessions"));
            assert!(matches!(of("PT403", "proof", party), E::Unavailable(_)));
            assert!(matches!(of("PGRST202", "no function", party), E::Unavailable(_)));
        }
        assert!(matches!(of("PT403", "forbidden", Party::Caller), E::Forbidden));
        assert!(matches!(of("42501", "permission denied", Party::Caller), E::Forbidden));
        let unshown = of("PT403", "address_not_confirmed", Party::Caller);
        assert!(matches!(unshown, E::Refused(word) if word == "address_not_confirmed"));
        let mute = Failure::NoToken(NoToken::Never).into_store_error(Party::Caller);
        assert!(matches!(mute, E::NoCallerToken));
        assert!(matches!(of("42501", "permission denied", Party::Service), E::Unavailable(_)));
        assert!(matches!(of("PGRST301", "JWSError", Party::Caller), E::Unauthenticated));
        // A key that the project does not take is no caller's fault, nor is a token of ours.
        assert!(matches!(of("PGRST301", "JWSError", Party::SpokenFor), E::NoCallerToken));
        assert!(matches!(of("PT401", "no_caller", Party::SpokenFor), E::Unauthenticated));
        assert!(matches!(of("PGRST301", "JWSError", Party::Service), E::Unavailable(_)));
        let other = of("23505", "Key (slug)=(secret) already exists", Party::Caller);
        assert!(matches!(other, E::Refused(word) if word == "exists"));
    }

    #[test]
    fn what_may_have_been_done_is_not_done_again() {
        for (code, same, other) in [
            ("PGRST000", true, true),
            ("PGRST001", true, false),
            ("PGRST002", true, true),
            ("PGRST003", false, false),
            ("40P01", true, true),
            ("57014", false, false),
            ("PT409", false, false),
        ] {
            let failure = refused(503, code, "");
            assert_eq!(
                (failure.may_go_again(Again::Same), failure.may_go_again(Again::Other)),
                (same, other),
                "{code}"
            );
        }
        let gateway: Failure = Refusal::read(503, b"<html>").into();
        assert!(gateway.may_go_again(Again::Same) && !gateway.may_go_again(Again::Other));
        assert!(!Failure::Late.may_go_again(Again::Same));
    }
}
