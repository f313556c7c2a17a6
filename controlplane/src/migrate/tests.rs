//! Migrations on real databases: as the non-superuser that owns a project, once, in order, whoever comes at the same time.

use agentapi_test_postgres::cluster::{Cluster, Release};

use super::*;

/// Nobody else holds anything.
fn alone(waiting: &Waiting) {
    panic!("{waiting}");
}

#[tokio::test]
async fn a_database_is_brought_up_to_date_once() -> anyhow::Result<()> {
    let cluster = Cluster::bare(Release::System).await?;
    let url = cluster.owner_url();
    // Two at once: one applies, the other finds it done.
    let (first, second) = tokio::join!(migrate(&url, None, alone), migrate(&url, None, alone));
    let (first, second) = (first?, second?);
    let all = migrations();
    assert_eq!(first.new.len() + second.new.len(), all.len());
    assert_eq!(if first.new.is_empty() { second.new } else { first.new }, all);
    assert_eq!(migrate(&url, None, alone).await?, Applied { new: Vec::new(), before: all.len() });
    let history = cluster
        .sql("select version || ' ' || name || ' ' || cardinality(statements) from supabase_migrations.schema_migrations order by 1")
        .await?;
    let expected: Vec<String> = all.iter().map(|known| format!("{} {} 1", known.version, known.name)).collect();
    assert_eq!(history.lines().collect::<Vec<_>>(), expected);
    // What the schema says of itself is what the program asks for at its start, and the newest there is.
    assert_eq!(cluster.sql("select agentapi.job_schema_version()").await?, newest());
    Ok(())
}

#[tokio::test]
async fn one_that_fails_leaves_nothing_of_itself_and_the_ones_before() -> anyhow::Result<()> {
    let cluster = Cluster::bare(Release::System).await?;
    let all = migrations();
    let broken = Migration { text: "create table public.half (id int); select 1 / 0;".to_owned(), ..all[0].clone() };
    let config: Config = cluster.owner_url().parse()?;
    let mut client = connect(&config, None).await?;
    history(&client).await?;
    assert!(apply(&mut client, &broken).await.is_err());
    assert_eq!(cluster.sql("select to_regclass('public.half') is null").await?, "t");
    assert_eq!(cluster.sql("select count(*) from supabase_migrations.schema_migrations").await?, "0");
    Ok(())
}

#[tokio::test]
async fn a_database_is_reached_over_tls_and_only_by_its_own_name() -> anyhow::Result<()> {
    let cluster = Cluster::secure().await?;
    let (url, authority) = cluster.secure_url();
    let untrusted = migrate(&url, None, alone).await;
    assert!(matches!(&untrusted, Err(MigrateError::Connect(_))), "{untrusted:?}");
    let elsewhere = migrate(&url.replace("@localhost", "@127.0.0.1"), Some(&authority), alone).await;
    assert!(matches!(&elsewhere, Err(MigrateError::Connect(_))), "{elsewhere:?}");
    assert_eq!(migrate(&url, Some(&authority), alone).await?.new, migrations());
    let nothing = migrate(&url, Some(Path::new("/nowhere")), alone).await;
    assert!(matches!(&nothing, Err(MigrateError::Tls(tls::TlsError::Authority { .. }))), "{nothing:?}");
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_with_a_url_is_named() {
    assert!(matches!(database_url(None, None), Err(MigrateError::NoUrl)));
    assert!(matches!(database_url(Some("/nowhere"), None), Err(MigrateError::Read { .. })));
    assert_eq!(database_url(None, Some("postgres://x".to_owned())).ok().as_deref(), Some("postgres://x"));
    assert!(matches!(database_url(Some("postgres://me:secret@db/x"), None), Err(MigrateError::Password)));
    assert!(database_url(Some("postgresql://me@db/x"), None).is_ok());
    assert!(matches!(migrate("nonsense", None, alone).await, Err(MigrateError::Url(_))));
    let nobody = migrate("postgres://postgres@127.0.0.1:1/postgres", None, alone).await;
    assert!(matches!(&nobody, Err(MigrateError::Connect(_))), "{nobody:?}");
}

/// Somebody who holds a lock until they are told to let go.
async fn holder(cluster: &Cluster, statement: &str) -> anyhow::Result<Client> {
    let mut config: Config = cluster.owner_url().parse()?;
    config.application_name("a long report");
    let client = connect(&config, None).await?;
    client.batch_execute(&format!("begin; {statement}")).await?;
    Ok(client)
}

fn changes(table: &str) -> Migration {
    let text = format!("create table public.first (id int); alter table {table} add column more int");
    Migration { version: "20260101000000".to_owned(), name: "changes".to_owned(), text }
}

#[tokio::test]
async fn a_lock_that_is_not_let_go_is_named_and_nothing_is_done() -> anyhow::Result<()> {
    let cluster = Cluster::bare(Release::System).await?;
    cluster.sql("create table public.busy (id int)").await?;
    let holder = holder(&cluster, "select from public.busy").await?;
    let patience =
        Patience { lock_timeout: 2 * Duration::from_millis(600), attempts: 2, pause: Duration::from_millis(1) };
    let mut told = Vec::new();
    let mut database = Database::open(&cluster.owner_url(), None, patience).await?;
    let done = database.migrate(&[changes("public.busy")], |waiting| told.push(waiting.to_string())).await;
    let failure = done.unwrap_err();
    let pid: i32 = holder.query_one("select pg_backend_pid()", &[]).await?.get(0);
    for needed in [
        "the migration 20260101000000_changes",
        "2 attempts",
        "AccessExclusiveLock on busy",
        &format!("process {pid} (postgres, a long report"),
    ] {
        assert!(failure.to_string().contains(needed), "{needed}: {failure}");
    }
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("attempt 1 of 2") && told[0].contains(&format!("process {pid}")), "{told:?}");
    // Others are not held up any more.
    cluster.sql("set lock_timeout = '1s'; insert into public.busy values (1)").await?;
    assert_eq!(cluster.sql("select to_regclass('public.first') is null").await?, "t");
    Ok(())
}

#[tokio::test]
async fn a_lock_that_is_let_go_is_waited_for() -> anyhow::Result<()> {
    let cluster = Cluster::bare(Release::System).await?;
    let url = cluster.owner_url();
    migrate(&url, None, alone).await?;
    let table = "supabase_migrations.schema_migrations";
    let holder = holder(&cluster, &format!("lock table {table} in access exclusive mode")).await?;
    let (tell, mut told) = tokio::sync::mpsc::channel(30);
    let migrated = migrate(&url, None, move |waiting| tell.try_send(waiting.to_string()).unwrap());
    let let_go = async {
        let waiting = told.recv().await.unwrap();
        assert!(waiting.contains("attempt 1 of 30") && waiting.contains(table), "{waiting}");
        holder.batch_execute("commit").await
    };
    let (migrated, let_go) = tokio::join!(migrated, let_go);
    let_go?;
    assert_eq!(migrated?, Applied { new: Vec::new(), before: migrations().len() });
    Ok(())
}
