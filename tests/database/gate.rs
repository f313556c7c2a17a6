//! The gate: what must be true of the schema whatever a migration adds, and for each rule a migration that breaks it.
//!
//! Each file of `gate/` is a query that names what is wrong, and after it the migrations that it must catch. They run as `postgres` in a
//! transaction that is taken back.

use anyhow::{Context as _, Result, ensure};

use agentapi_test_postgres::cluster::{Cluster, Release, here, migrations};

/// What stands between a query and each migration that it catches.
const CAUGHT: &str = "-- caught:\n";

/// What the script prints between two results.
const NEXT: &str = "----";

struct Rule {
    name: String,
    query: String,
    caught: Vec<String>,
}

fn rule(path: &std::path::Path) -> Result<Rule> {
    let text = std::fs::read_to_string(path)?;
    let mut parts = text.split(CAUGHT).map(str::to_owned);
    let name = path.file_stem().and_then(|name| name.to_str()).context("a name")?.to_owned();
    let query = parts.next().context("a query")?;
    let caught: Vec<String> = parts.collect();
    ensure!(!caught.is_empty(), "{name} says nothing that it catches");
    Ok(Rule { name, query, caught })
}

/// The rules about our schemas.
fn rules() -> Result<Vec<Rule>> {
    let files = std::fs::read_dir(here("gate"))?;
    let rules: Vec<Rule> = files.map(|file| rule(&file?.path())).collect::<Result<_>>()?;
    ensure!(rules.len() > 15, "the rules are found");
    Ok(rules)
}

/// What is wrong with the schema, and with the rule: a migration that breaks it and is not seen.
async fn violations_of(rule: &Rule, cluster: &Cluster) -> Result<Vec<String>> {
    let Rule { name, query, caught } = rule;
    let tries = caught.iter().map(|caught| format!("\\echo {NEXT}\nsavepoint s;\n{caught}\n{query}\nrollback to s;\n"));
    let script = std::iter::once(query.clone()).chain(tries).collect::<String>();
    let output = cluster.sql(&script).await?;
    let mut found = output.split(NEXT).map(str::trim);
    let mut violations: Vec<String> =
        found.next().unwrap_or_default().lines().map(|line| format!("{name}: {line}")).collect();
    let results: Vec<&str> = found.collect();
    ensure!(results.len() == caught.len(), "{output}");
    let missed = caught.iter().zip(results).filter(|(_, found)| found.is_empty());
    violations.extend(missed.map(|(caught, _)| format!("{name} does not catch: {caught}")));
    Ok(violations)
}

async fn the_gate_is_closed(release: Release) -> Result<()> {
    let cluster = Cluster::bare(release).await?;
    let outside = rule(&here("outside.sql"))?;
    let before = cluster.sql(&outside.query).await?;
    ensure!(before.contains("relation: auth.users"), "the project is seen:\n{before}");
    cluster.files("postgres", &migrations()?).await?;
    assert_eq!(cluster.sql(&outside.query).await?, before, "nothing outside of our schemas is touched");
    for caught in &outside.caught {
        let found = cluster.sql(&format!("{caught}\n{}\nrollback;", outside.query)).await?;
        assert_ne!(found, before, "not seen outside of our schemas: {caught}");
    }
    let mut violations = Vec::new();
    for rule in rules()? {
        violations.extend(violations_of(&rule, &cluster).await.with_context(|| rule.name.clone())?);
    }
    assert!(violations.is_empty(), "{release:?}:\n{}", violations.join("\n"));
    Ok(())
}

/// What a project may have set for everything that is made in it.
const OPEN_BY_DEFAULT: &str = "
    alter default privileges grant all on schemas to anon, authenticated, service_role;
    alter default privileges grant all on tables to anon, authenticated, service_role;
    alter default privileges grant all on sequences to anon, authenticated, service_role;
    alter default privileges grant all on functions to anon, authenticated, service_role;";

#[tokio::test]
async fn the_schema_keeps_its_rules_whatever_is_granted_by_default() -> Result<()> {
    let cluster = Cluster::bare(Release::System).await?;
    cluster.sql(OPEN_BY_DEFAULT).await?;
    cluster.files("postgres", &migrations()?).await?;
    let mut violations = Vec::new();
    for rule in rules()? {
        let found = cluster.sql(&rule.query).await.with_context(|| rule.name.clone())?;
        violations.extend(found.lines().map(|line| format!("{}: {line}", rule.name)));
    }
    let sequences = "select c.relname from pg_class c where case c.relkind when 'S' then has_sequence_privilege('anon', c.oid, 'usage, select, update') end";
    violations.extend(cluster.sql(sequences).await?.lines().map(|line| format!("anon uses the sequence {line}")));
    assert!(violations.is_empty(), "{}", violations.join("\n"));
    Ok(())
}

#[tokio::test]
async fn the_schema_keeps_its_rules_on_the_systems() -> Result<()> {
    the_gate_is_closed(Release::System).await
}

#[tokio::test]
async fn the_schema_keeps_its_rules_on_17() -> Result<()> {
    the_gate_is_closed(Release::V17).await
}

#[test]
fn migrations_have_names_that_the_cli_takes() -> Result<()> {
    let mut versions = std::collections::BTreeSet::new();
    for path in migrations()? {
        let name = path.file_name().and_then(|name| name.to_str()).context("a name")?;
        let (version, rest) = name.split_at_checked(14).context("a version of 14 digits")?;
        assert!(version.bytes().all(|byte| byte.is_ascii_digit()), "{name}");
        let word = rest.strip_prefix('_').and_then(|rest| rest.strip_suffix(".sql")).unwrap_or_default();
        assert!(!word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        assert!(versions.insert(version.to_owned()), "{name}: the version is taken");
        let lines = std::fs::read_to_string(&path)?.lines().count();
        assert!(lines <= 350, "{name} has {lines} lines");
    }
    Ok(())
}
