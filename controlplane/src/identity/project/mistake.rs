//! What can be wrong with the keys of a project, each with what to do.

use std::io;
use std::path::PathBuf;

/// Everything that is wrong, in one error.
#[derive(Debug, thiserror::Error)]
#[error("Supabase project: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct ProjectError(pub Vec<ProjectMistake>);

/// One thing that is wrong. None shows a key.
#[derive(Debug, thiserror::Error)]
pub enum ProjectMistake {
    /// A value and a file.
    #[error("{name} and {name}_FILE are both set; keep one of them")]
    Both {
        /// Of the variable.
        name: &'static str,
    },
    /// No such file, or not ours to read.
    #[error("{name}_FILE: cannot read {path}: {source}")]
    Read {
        /// Of the variable.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An empty file.
    #[error("{name}_FILE: {path} is empty")]
    Empty {
        /// Of the variable.
        name: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Too much for a key.
    #[error("{name}_FILE: {path} has more than {max} bytes; it should hold the value and nothing else")]
    TooLong {
        /// Of the variable.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// How much is read.
        max: u64,
    },
    /// No URL.
    #[error("{name} is not a URL such as https://abcdefghijklmnop.supabase.co: {reason}")]
    Url {
        /// Of the variable.
        name: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Keys of nothing.
    #[error("{name} is set, but neither SUPABASE_URL nor SUPABASE_REST_URL; set one of them, or unset {name}")]
    NoUrl {
        /// Of the variable.
        name: &'static str,
    },
    /// A key is missing.
    #[error("{name} is not set; it is in the project's settings, under API keys ({kind})")]
    Missing {
        /// Of the variable.
        name: &'static str,
        /// What it should hold.
        kind: &'static str,
    },
    /// PostgREST alone takes no opaque keys.
    #[error(
        "SUPABASE_REST_URL is a PostgREST without a gateway, which takes JWTs alone; set SUPABASE_JWT_SECRET to its \
         secret, or SUPABASE_SERVICE_ROLE_KEY to a JWT with the role service_role"
    )]
    NoJwt,
    /// Neither kind of key.
    #[error("{name} is no key of a Supabase project: expected sb_{kind}_... or a JWT, which begins with eyJ")]
    Unknown {
        /// Of the variable.
        name: &'static str,
        /// `publishable` or `secret`.
        kind: &'static str,
    },
    /// The secret key where everybody's belongs.
    #[error(
        "SUPABASE_ANON_KEY holds the {found} key of the project, which passes by row level security; put it into \
         SUPABASE_SERVICE_ROLE_KEY, and the {wanted} key here"
    )]
    ServiceAsAnon {
        /// What it is.
        found: &'static str,
        /// What belongs there.
        wanted: &'static str,
    },
    /// Everybody's key where the secret one belongs.
    #[error(
        "SUPABASE_SERVICE_ROLE_KEY holds the {found} key of the project, which may do nothing there; put the {wanted} \
         key here"
    )]
    AnonAsService {
        /// What it is.
        found: &'static str,
        /// What belongs there.
        wanted: &'static str,
    },
    /// A JWT of something else.
    #[error("{name} is a JWT with the role {role:?}; the project's API keys have the role {wanted}")]
    Role {
        /// Of the variable.
        name: &'static str,
        /// What it says.
        role: String,
        /// What it should say.
        wanted: &'static str,
    },
    /// It is over.
    #[error("{name} is over since {since}; make a new one in the project's settings, under API keys")]
    Over {
        /// Of the variable.
        name: &'static str,
        /// `exp`.
        since: time::OffsetDateTime,
    },
    /// It belongs elsewhere.
    #[error("{name} is a key of the project {found}, and SUPABASE_URL is the project {wanted}")]
    OtherProject {
        /// Of the variable.
        name: &'static str,
        /// `ref`.
        found: String,
        /// Of the URL.
        wanted: String,
    },
    /// A JWT and a secret that do not belong together.
    #[error("{name} is not signed with SUPABASE_JWT_SECRET; one of the two is of another project, or was replaced")]
    Signature {
        /// Of the variable.
        name: &'static str,
    },
    /// Guessable.
    #[error("SUPABASE_JWT_SECRET has fewer than {min} characters, which PostgREST refuses")]
    ShortSecret {
        /// The least.
        min: usize,
    },
}
