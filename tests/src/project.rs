//! A Supabase project with somebody in it, and what a control plane is told of it.

use agentapi_test_postgres::cluster::Cluster;
use agentapi_test_postgres::jwt;
use anyhow::Result;

use crate::product::Project;

/// The owner's API key.
const TOKEN: &str = "aa_an-owner-who-exists-for-one-test";
/// Its organisation.
pub const ORG: &str = "01a00000-0000-7000-8000-000000000001";
/// The owner.
pub const USER: &str = "01a00000-0000-7000-8000-000000000002";
const KEY: &str = "01a00000-0000-7000-8000-000000000003";

/// A project, and an owner who was made in it by hand.
pub async fn project(cluster: &Cluster) -> Result<Project> {
    let hash = jwt::sha256_hex(TOKEN);
    cluster
        .sql(&format!(
            "insert into agentapi.users (id, issuer, subject, name) values ('{USER}', 'test', '{USER}', 'owner');
             insert into agentapi.organizations (id, created_by, name) values ('{ORG}', '{USER}', 'ours');
             insert into agentapi.memberships (org_id, user_id, role, created_by) values ('{ORG}', '{USER}', 'owner', '{USER}');
             insert into agentapi.api_keys (id, org_id, user_id, created_by, name, prefix, hash)
             values ('{KEY}', '{ORG}', '{USER}', '{USER}', 'test', 'aa_', decode('{hash}', 'hex'));"
        ))
        .await?;
    Ok(Project { environment: environment(cluster), token: TOKEN.to_owned() })
}

/// What a control plane is told of a project.
#[must_use]
pub fn environment(cluster: &Cluster) -> Vec<(&'static str, String)> {
    vec![
        ("SUPABASE_REST_URL", cluster.url.clone()),
        ("SUPABASE_SERVICE_ROLE_KEY", jwt::signed(&jwt::service_claims(), jwt::SECRET)),
        ("SUPABASE_JWT_SECRET", jwt::SECRET.to_owned()),
        // The load of a test is one caller's.
        ("AGENTAPI_CONTROLPLANE_KEY_REQUESTS_PER_MINUTE", "1000000".to_owned()),
        ("AGENTAPI_CONTROLPLANE_USER_REQUESTS_PER_MINUTE", "1000000".to_owned()),
        ("AGENTAPI_CONTROLPLANE_ORGANIZATION_REQUESTS_PER_MINUTE", "1000000".to_owned()),
    ]
}
