//! The database's reading of an organisation's sandbox policy, beside the control plane's.

use agentapi_shared::api::{SandboxPolicy, SandboxRequest};
use serde_json::json;

use super::real::Real;

#[tokio::test]
async fn a_policy_that_is_not_what_it_should_be_allows_nothing_in_either_place() -> anyhow::Result<()> {
    let real = Real::start().await?;
    let policies = [
        (json!({}), true),
        (json!({ "network": "off", "limits": { "pids": 64 } }), true),
        (json!({ "network": "off", "netwrok": "off" }), false),
        (json!({ "network": "open" }), false),
        (json!({ "network": 1 }), false),
        (json!({ "mounts": 1 }), false),
        (json!({ "mounts": "rw" }), false),
        (json!({ "limits": { "pids": "64" } }), false),
        (json!({ "limits": { "pids": true } }), false),
        (json!({ "limits": [] }), false),
        (json!({ "profiles": {} }), false),
        (json!({ "profiles": "dev" }), false),
        (json!([]), false),
        (json!(7), false),
    ];
    let plain = SandboxRequest::default();
    for (policy, expected) in policies {
        let allowed = SandboxPolicy::from_stored(policy.clone()).fault(&plain).is_none();
        let sql = format!("select agentapi_private.sandbox_allowed('{policy}', '{}')", serde_json::to_string(&plain)?);
        let found = real.cluster.sql_as("supabase_admin", &sql).await?;
        assert_eq!((allowed, found.trim()), (expected, if expected { "t" } else { "f" }), "{policy}");
    }
    Ok(())
}
