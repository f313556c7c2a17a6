//! What is wrong with a project is named at the start, and what to do about it.

use agentapi_test_postgres::cluster::{Cluster, Release};
use agentapi_test_postgres::jwt;
use anyhow::Result;
use serde_json::json;

use super::real::{Real, TestProject, store};
use crate::store::postgrest::OpenError;

async fn refusal(project: TestProject) -> OpenError {
    store(project).unwrap().check().await.expect_err("it is refused")
}

#[tokio::test]
async fn what_is_wrong_has_a_name() -> Result<()> {
    let real = Real::start().await?;
    let project = || TestProject::new(&real.cluster.url);
    real.store.check().await?;

    let nobody = TestProject::new("http://127.0.0.1:1")?;
    assert!(matches!(refusal(nobody).await, OpenError::Unreachable { .. }));
    let claims = json!({ "role": "authenticated", "aud": "authenticated", "exp": jwt::now() + 60 });
    let other_kind = TestProject { service: jwt::signed(&claims, jwt::SECRET), ..project()? };
    assert!(matches!(refusal(other_kind).await, OpenError::KeyKind(_)));
    let other_project = jwt::signed(&jwt::service_claims(), "the-secret-of-another-project-than-this-one");
    assert!(matches!(
        refusal(TestProject { service: other_project, ..project()? }).await,
        OpenError::KeyRefused { .. }
    ));

    real.cluster
        .sql("create or replace function agentapi.job_schema_version() returns text language sql as $$ select '20200101000000' $$")
        .await?;
    let error = refusal(project()?).await;
    assert!(matches!(&error, OpenError::Older { found, .. } if found == "20200101000000"), "{error:?}");
    assert!(error.to_string().contains("agentapi-controlplane migrate"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_project_without_our_schema_is_named() -> Result<()> {
    let mut cluster = Cluster::bare(Release::System).await?;
    cluster.serve("public").await?;
    assert!(matches!(refusal(TestProject::new(&cluster.url)?).await, OpenError::NotExposed(_)));
    // Exposed, and empty.
    cluster.sql("create schema agentapi; grant usage on schema agentapi to service_role;").await?;
    cluster.serve("agentapi").await?;
    assert!(matches!(refusal(TestProject::new(&cluster.url)?).await, OpenError::NotMigrated(_)));
    Ok(())
}
