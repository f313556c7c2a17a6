//! Migrations on real databases: as the non-superuser that owns a project, once, in order, whoever comes at the same time.

use agentapi_test_postgres::cluster::{Cluster, Release};

use super::*;

#[tokio::test]
async fn a_database_is_brought_up_to_date_once() -> anyhow::Result<()> {
    let cluster = Cluster::bare(Release::System).await?;
    let url = cluster.owner_url();
    // Two at once: one applies, the other finds it done.
    let (first, second) = tokio::join!(migrate(&url, None), migrate(&url, None));
    let (first, second) = (first?, second?);
    let all = migrations();
    assert_eq!(first.new.len() + second.new.len(), all.len());
    assert_eq!(if first.new.is_empty() { second.new } else { first.new }, all);
    assert_eq!(migrate(&url, None).await?, Applied { new: Vec::new(), before: all.len() });
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
    let untrusted = migrate(&url, None).await;
    assert!(matches!(&untrusted, Err(MigrateError::Connect(_))), "{untrusted:?}");
    let elsewhere = migrate(&url.replace("@localhost", "@127.0.0.1"), Some(&authority)).await;
    assert!(matches!(&elsewhere, Err(MigrateError::Connect(_))), "{elsewhere:?}");
    assert_eq!(migrate(&url, Some(&authority)).await?.new, migrations());
    let nothing = migrate(&url, Some(Path::new("/nowhere"))).await;
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
    assert!(matches!(migrate("nonsense", None).await, Err(MigrateError::Url(_))));
    let nobody = migrate("postgres://postgres@127.0.0.1:1/postgres", None).await;
    assert!(matches!(&nobody, Err(MigrateError::Connect(_))), "{nobody:?}");
}
