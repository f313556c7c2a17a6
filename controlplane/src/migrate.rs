//! `agentapi-controlplane migrate`: brings a database to the schema of this program, as `supabase db push` would.
//!
//! The migrations are in the program, and what was applied is in the table that the Supabase CLI keeps, so that either goes on where the other
//! was. Each migration is one transaction with its line in that table; one program at a time applies them. What others hold is waited for in bounded
//! turns.

mod locks;
pub mod tls;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rust_embed::Embed;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};

pub use locks::{Obstacle, Waiting};

use locks::{Patience, Undone, Watcher, named, patiently};

/// A database that is not there says so by then.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Whoever applies migrations at the same time is waited for that long: nobody else waits behind us for that.
const TURN_TIMEOUT: &str = "60s";
/// What everyone who applies migrations of ours locks; any number that nobody else has.
const LOCK: i64 = 0x6167_656e_7461_7069;
/// A URL is shorter. More is not read.
const URL_BYTES_MAX: u64 = 16 * 1024;
/// Where the URL is, if no file is named.
pub const URL_VARIABLE: &str = "AGENTAPI_CONTROLPLANE_DATABASE_URL";

#[derive(Embed)]
#[folder = "../migrations"]
struct Files;

/// One migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// 14 digits.
    pub version: String,
    /// Words.
    pub name: String,
    /// SQL.
    pub text: String,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Those that were new, in order.
    pub new: Vec<Migration>,
    /// How many were there before.
    pub before: usize,
}

/// Why the schema is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// No URL.
    #[error("no database: name a file with its URL by --database-url, or set {URL_VARIABLE}")]
    NoUrl,
    /// Other users read command lines.
    #[error(
        "the URL has a password, and a command line is read by others: put it into a file and name that, or set {URL_VARIABLE}"
    )]
    Password,
    /// The file.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a URL.
    #[error("not the URL of a database: expected postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
    Url(#[source] tokio_postgres::Error),
    /// TLS.
    #[error("cannot prepare TLS")]
    Tls(#[from] tls::TlsError),
    /// Nobody answers, or not to us.
    #[error("cannot connect to the database: check its URL, and the password in it")]
    Connect(#[source] tokio_postgres::Error),
    /// Somebody else is at it.
    #[error("another program applies migrations: try again when it is done")]
    Locked(#[source] tokio_postgres::Error),
    /// The table of what was applied.
    #[error("cannot use the table of applied migrations, supabase_migrations.schema_migrations")]
    History(#[source] tokio_postgres::Error),
    /// Others hold what is needed, again and again.
    #[error(
        "{what} cannot be done, {attempts} attempts were in vain, and the migrations before it stay applied: it needs {}; end what holds that (select \
         pg_terminate_backend(PROCESS)), or come again when it is done",
        named(obstacle.as_ref())
    )]
    Blocked {
        /// What was to be done.
        what: String,
        /// How often it was tried.
        attempts: u32,
        /// What was in the way, if that was seen.
        obstacle: Option<Obstacle>,
        /// The last refusal.
        source: tokio_postgres::Error,
    },
    /// A migration.
    #[error("cannot apply the migration {version}_{name}; the ones before it stay applied")]
    Apply {
        /// Which.
        version: String,
        /// Its name.
        name: String,
        /// Why.
        source: tokio_postgres::Error,
    },
}

/// The migrations of this program, oldest first.
#[must_use]
pub fn migrations() -> Vec<Migration> {
    let mut names: Vec<_> = Files::iter().collect();
    names.sort_unstable();
    let read = |file: std::borrow::Cow<'static, str>| {
        let text = String::from_utf8(Files::get(&file)?.data.into_owned()).ok()?;
        let (version, name) = file.strip_suffix(".sql")?.split_once('_')?;
        Some(Migration { version: version.to_owned(), name: name.to_owned(), text })
    };
    names.into_iter().filter_map(read).collect()
}

/// The version that a database has once all of them are applied.
#[must_use]
pub fn newest() -> String {
    migrations().pop().map(|migration| migration.version).unwrap_or_default()
}

/// The URL of a database: the first line of a file, or a variable. As an argument only without a password, since other users read those.
pub fn database_url(argument: Option<&str>, variable: Option<String>) -> Result<String, MigrateError> {
    let Some(argument) = argument else {
        return variable.filter(|url| !url.trim().is_empty()).ok_or(MigrateError::NoUrl);
    };
    if argument.starts_with("postgres://") || argument.starts_with("postgresql://") {
        let config: Config = argument.parse().map_err(MigrateError::Url)?;
        return if config.get_password().is_none() { Ok(argument.to_owned()) } else { Err(MigrateError::Password) };
    }
    let path = Path::new(argument);
    let read = || {
        use std::io::Read as _;
        let mut text = String::new();
        std::fs::File::open(path)?.take(URL_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|source| MigrateError::Read { path: path.to_owned(), source })?;
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned).ok_or(MigrateError::NoUrl)
}

/// Applies what is missing, and `tell`s whenever it has to wait for others.
/// `authority`: a file with certificates that are trusted beside those of this system.
pub async fn migrate(url: &str, authority: Option<&Path>, tell: impl FnMut(&Waiting)) -> Result<Applied, MigrateError> {
    let mut database = Database::open(url, authority, Patience::DEFAULT).await?;
    database.migrate(&migrations(), tell).await
}

/// A database that nobody else migrates now.
struct Database {
    client: Client,
    watcher: Watcher,
    patience: Patience,
}

impl Database {
    async fn open(url: &str, authority: Option<&Path>, patience: Patience) -> Result<Self, MigrateError> {
        let mut config: Config = url.trim().parse().map_err(MigrateError::Url)?;
        config.connect_timeout(CONNECT_TIMEOUT).application_name("agentapi-controlplane migrate");
        let client = connect(&config, authority).await?;
        lock(&client, patience).await?;
        let watcher = Watcher::of(&client, connect(&config, authority).await?).await.map_err(MigrateError::Connect)?;
        Ok(Self { client, watcher, patience })
    }

    async fn migrate(&mut self, all: &[Migration], mut tell: impl FnMut(&Waiting)) -> Result<Applied, MigrateError> {
        let Self { client, watcher, patience } = self;
        let what = "reading what was applied";
        let known = patiently(*patience, watcher, what, &mut tell, async || history(client).await).await;
        let known = known.map_err(|undone| self.undone(undone, what, MigrateError::History))?;
        let mut new = Vec::new();
        for migration in all.iter().filter(|migration| !known.contains(&migration.version)) {
            let Migration { version, name, .. } = migration.clone();
            let what = format!("the migration {version}_{name}");
            let Self { client, watcher, patience } = self;
            let done = patiently(*patience, watcher, &what, &mut tell, async || apply(client, migration).await).await;
            let failed = |source| MigrateError::Apply { version, name, source };
            done.map_err(|undone| self.undone(undone, &what, failed))?;
            new.push(migration.clone());
        }
        Ok(Applied { new, before: known.len() })
    }

    fn undone(
        &self,
        undone: Undone,
        what: &str,
        failed: impl FnOnce(tokio_postgres::Error) -> MigrateError,
    ) -> MigrateError {
        match undone {
            Undone::Blocked { obstacle, source } => {
                let (what, attempts) = (what.to_owned(), self.patience.attempts);
                MigrateError::Blocked { what, attempts, obstacle, source }
            }
            Undone::Failed(source) => failed(source),
        }
    }
}

async fn connect(config: &Config, authority: Option<&Path>) -> Result<Client, MigrateError> {
    // A connection without TLS is one to this machine, or was asked for.
    if config.get_ssl_mode() == SslMode::Disable {
        let (client, connection) = config.connect(NoTls).await.map_err(MigrateError::Connect)?;
        drive(connection);
        return Ok(client);
    }
    let (client, connection) = config.connect(tls::Tls::new(authority)?).await.map_err(MigrateError::Connect)?;
    drive(connection);
    Ok(client)
}

/// Moves the bytes of a connection. It ends with its client, and what breaks it is told to whoever waits for an answer.
fn drive(connection: impl Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static) {
    use agentapi_shared::runtime::{OnEnd, TaskGroup};
    TaskGroup::new().spawn("database connection", OnEnd::Continue, async move {
        let _told_elsewhere = connection.await;
    });
}

/// Until the connection ends. Whatever it waits for from then on, it waits for a turn long.
async fn lock(client: &Client, patience: Patience) -> Result<(), MigrateError> {
    let turn = format!("set lock_timeout = '{}ms'", patience.lock_timeout.as_millis());
    let locked = async {
        client.batch_execute(&format!("set lock_timeout = '{TURN_TIMEOUT}'")).await?;
        client.execute("select pg_advisory_lock($1)", &[&LOCK]).await?;
        client.batch_execute(&turn).await
    };
    locked.await.map_err(MigrateError::Locked)
}

/// Versions that were applied. The table is made as the Supabase CLI makes it.
async fn history(client: &Client) -> Result<Vec<String>, tokio_postgres::Error> {
    let known = async {
        client
            .batch_execute(
                "set client_min_messages = warning;
                 create schema if not exists supabase_migrations;
                 create table if not exists supabase_migrations.schema_migrations (version text not null primary key);
                 alter table supabase_migrations.schema_migrations add column if not exists statements text[];
                 alter table supabase_migrations.schema_migrations add column if not exists name text;",
            )
            .await?;
        let rows = client.query("select version from supabase_migrations.schema_migrations order by 1", &[]).await?;
        rows.iter().map(|row| row.try_get::<_, String>(0)).collect::<Result<Vec<_>, _>>()
    };
    known.await
}

async fn apply(client: &mut Client, migration: &Migration) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(&migration.text).await?;
    transaction
        .execute(
            "insert into supabase_migrations.schema_migrations (version, name, statements) values ($1, $2, $3)",
            &[&migration.version, &migration.name, &vec![migration.text.as_str()]],
        )
        .await?;
    transaction.commit().await
}

#[cfg(test)]
mod tests;
