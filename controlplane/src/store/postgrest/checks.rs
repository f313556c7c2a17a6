//! What is looked at before the store is used: each thing that is wrong with a project has a name of its own, and says what to do.

use super::Postgrest;
use super::error::{Failure, Refusal};
use crate::store::StoreError;

/// Why a project cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing of it was asked yet.
    #[error("cannot make a client for PostgREST")]
    Client(#[source] reqwest::Error),
    /// Nobody answers.
    #[error("cannot reach PostgREST at {url}: check SUPABASE_URL (or SUPABASE_REST_URL), and that the project runs")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        source: StoreError,
    },
    /// The database behind it is away.
    #[error("PostgREST at {url} has no database: try again when the project runs")]
    NoDatabase {
        /// Where.
        url: String,
        /// Why.
        source: StoreError,
    },
    /// The key is none of this project's.
    #[error("the project at {url} does not take SUPABASE_SERVICE_ROLE_KEY: it is of another project, or was revoked")]
    KeyRefused {
        /// Where.
        url: String,
        /// Why.
        source: StoreError,
    },
    /// The key is of another kind.
    #[error(
        "SUPABASE_SERVICE_ROLE_KEY is no key of the service role: take the secret key (`sb_secret_...`, or the JWT named `service_role`), not the publishable one"
    )]
    KeyKind(#[source] StoreError),
    /// The schema is not exposed.
    #[error("the schema `agentapi` is not exposed: add it in Settings, API, Exposed schemas (PGRST_DB_SCHEMAS)")]
    NotExposed(#[source] StoreError),
    /// Migrations were never applied, or not this far.
    #[error("the database lacks migrations: apply them with `supabase db push` or `agentapi-controlplane migrate`")]
    NotMigrated(#[source] StoreError),
    /// Migrations were applied up to an older one.
    #[error(
        "the database has the schema of {found}, this program needs {needed}: apply the migrations with `supabase db push` or `agentapi-controlplane migrate`"
    )]
    Older {
        /// Its version.
        found: String,
        /// Ours.
        needed: String,
    },
    /// Something else.
    #[error("the project at {url} does not answer as it should")]
    Other {
        /// Where.
        url: String,
        /// Why.
        source: StoreError,
    },
}

/// What an error of the first question means.
enum Meaning {
    Unreachable,
    NoDatabase,
    KeyRefused,
    KeyKind,
    NotExposed,
    NotMigrated,
    Other,
}

fn meaning(source: &StoreError) -> Meaning {
    let StoreError::Unavailable(cause) = source else { return Meaning::Other };
    match cause.downcast_ref::<Failure>() {
        Some(Failure::Connect(_) | Failure::Lost(_) | Failure::Late) => Meaning::Unreachable,
        Some(Failure::Refused(Refusal { code, status, .. })) => match code.as_str() {
            "PGRST106" => Meaning::NotExposed,
            "PGRST202" | "PGRST204" | "PGRST205" | "42883" | "42P01" | "3F000" => Meaning::NotMigrated,
            "PGRST000" | "PGRST001" | "PGRST002" | "PGRST003" => Meaning::NoDatabase,
            "PGRST300" | "PGRST301" | "PGRST302" | "PGRST303" => Meaning::KeyRefused,
            "42501" => Meaning::KeyKind,
            // A gateway before PostgREST, which knows keys and no codes.
            "" if *status == 401 || *status == 403 => Meaning::KeyRefused,
            "" if *status >= 502 => Meaning::Unreachable,
            _ => Meaning::Other,
        },
        _ => Meaning::Other,
    }
}

impl Postgrest {
    /// Looks whether the project is there, takes the key, and has the schema that this program needs; registers the first proof.
    pub async fn check(&self) -> Result<(), OpenError> {
        let found = self.as_service().schema_version().await.map_err(|source| self.explain(source))?;
        // Of one length and digits alone, so that text order is their order.
        let needed = crate::migrate::newest();
        if found < needed {
            return Err(OpenError::Older { found, needed });
        }
        self.client.prove().await.map_err(|source| self.explain(source))
    }

    fn explain(&self, source: StoreError) -> OpenError {
        let url = self.client.url();
        match meaning(&source) {
            Meaning::Unreachable => OpenError::Unreachable { url, source },
            Meaning::NoDatabase => OpenError::NoDatabase { url, source },
            Meaning::KeyRefused => OpenError::KeyRefused { url, source },
            Meaning::KeyKind => OpenError::KeyKind(source),
            Meaning::NotExposed => OpenError::NotExposed(source),
            Meaning::NotMigrated => OpenError::NotMigrated(source),
            Meaning::Other => OpenError::Other { url, source },
        }
    }
}
