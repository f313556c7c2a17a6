//! The table of capabilities: one file for the control plane, one table for the database, and they are the same.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};

use agentapi_test_postgres::cluster::{Cluster, Release, migrations, root};

/// Each capability with the roles that have it.
pub(crate) type Capabilities = BTreeMap<String, BTreeSet<String>>;

/// The file.
pub(crate) fn told() -> Result<Capabilities> {
    Ok(toml::from_str(&std::fs::read_to_string(root().join("shared/policy/capabilities.toml"))?)?)
}

#[tokio::test]
async fn the_database_grants_what_the_file_says() -> Result<()> {
    let file = told()?;
    let told: BTreeSet<String> = file
        .iter()
        .flat_map(|(capability, roles)| roles.iter().map(move |role| format!("{capability} {role}")))
        .collect();
    ensure!(told.len() > 50, "the file is read: {told:?}");
    let cluster = Cluster::bare(Release::System).await?;
    cluster.files("postgres", &migrations()?).await?;
    let found = cluster.sql("select capability || ' ' || role from agentapi_private.capabilities").await?;
    let found: BTreeSet<String> = found.lines().map(str::to_owned).collect();
    assert_eq!(found, told);
    // A capability that a policy or a function asks for and nobody has would refuse everyone, silently.
    let asked = cluster
        .sql(
            "select distinct m[1] from (
               select prosrc as text from pg_proc where pronamespace in ('agentapi'::regnamespace, 'agentapi_private'::regnamespace)
               union all select coalesce(pg_get_expr(polqual, polrelid), '') || coalesce(pg_get_expr(polwithcheck, polrelid), '') from pg_policy
             ) as sources, regexp_matches(text, '(?:orgs_with\\(|require\\(p_org, )''([a-z_.]+)''', 'g') as m",
        )
        .await?;
    let asked: BTreeSet<&str> = asked.lines().collect();
    ensure!(asked.len() > 15, "what is asked is found: {asked:?}");
    let asked: Vec<&str> = asked.into_iter().filter(|asked| !file.contains_key(*asked)).collect();
    assert!(asked.is_empty(), "capabilities that nobody has: {asked:?}");
    Ok(())
}
