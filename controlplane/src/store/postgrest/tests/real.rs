//! A project of one test: its database, its PostgREST, and the store on it.

use std::sync::Arc;
use std::time::Duration;

use agentapi_shared::{HostId, OrgId, UserId};
use agentapi_test_postgres::cluster::{Cluster, Release};
use agentapi_test_postgres::jwt;
use anyhow::Result;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use crate::capability::Role;
use crate::store::postgrest::tokens::SharedSecret;
use crate::store::postgrest::{Postgrest, Project};
use crate::store::records::{CallerToken, DEFAULT_ORG, LOCAL_ADMIN, LOCAL_HOST, TenantContext};

/// What a request may take on a machine that runs many tests at once.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Where a test's PostgREST is, and who asks it as the control plane.
#[derive(Debug)]
pub(super) struct TestProject {
    pub(super) rest: Url,
    /// The claims of the key of the service role, or of what is taken for it.
    pub(super) service: String,
}

impl TestProject {
    pub(super) fn new(url: &str) -> Result<Self> {
        Ok(Self { rest: url.parse()?, service: jwt::signed(&jwt::service_claims(), jwt::SECRET) })
    }
}

fn bearer(token: &str) -> HeaderMap {
    let value = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
    [(AUTHORIZATION, value)].into_iter().collect()
}

impl Project for TestProject {
    fn rest_url(&self) -> &Url {
        &self.rest
    }

    fn issuer(&self) -> Option<String> {
        Some("test".to_owned())
    }

    fn service_headers(&self) -> HeaderMap {
        bearer(&self.service)
    }

    fn caller_headers(&self, token: &CallerToken) -> HeaderMap {
        bearer(token.expose())
    }
}

/// The store of a project, with callers whose tokens are signed with its secret.
pub(super) fn store(project: TestProject) -> Result<Postgrest> {
    Ok(Postgrest::new(Arc::new(project), Arc::new(SharedSecret::new(jwt::SECRET)))?)
}

/// See the module.
#[derive(Debug)]
pub(super) struct Real {
    pub(super) cluster: Cluster,
    pub(super) store: Postgrest,
}

impl Real {
    /// With the local host, and nobody.
    pub(super) async fn start() -> Result<Self> {
        let cluster = Cluster::start(Release::System).await?;
        let store = store(TestProject::new(&cluster.url)?)?.patient(PATIENCE);
        store.check().await?;
        store.create_host(LOCAL_HOST, "local").await?;
        Ok(Self { cluster, store })
    }

    /// The owner of the organisation that the embedded store has from the start.
    pub(super) async fn owner(&self) -> Result<TenantContext> {
        self.person(DEFAULT_ORG, LOCAL_ADMIN, Role::Owner).await
    }

    /// A member of another one.
    pub(super) async fn member(&self) -> Result<TenantContext> {
        self.person(OrgId::generate(), UserId::generate(), Role::Member).await
    }

    /// Somebody in an organisation.
    pub(super) async fn person(&self, org: OrgId, user: UserId, role: Role) -> Result<TenantContext> {
        let person = TenantContext { org, user, role, token: None };
        self.insert(std::slice::from_ref(&person), &[]).await?;
        Ok(person)
    }

    /// People, their organisations and hosts, by hand: how they come is tested elsewhere.
    pub(super) async fn insert(&self, people: &[TenantContext], hosts: &[(HostId, OrgId)]) -> Result<()> {
        let mut sql = String::new();
        for TenantContext { org, user, role, .. } in people {
            let role = role.as_str();
            sql.push_str(&format!(
                "insert into agentapi.users (id, issuer, subject, name) values ('{user}', 'test', '{user}', 'somebody');
                 insert into agentapi.organizations (id, created_by, name) values ('{org}', '{user}', 'some') on conflict do nothing;
                 insert into agentapi.memberships (org_id, user_id, role, created_by) values ('{org}', '{user}', '{role}', '{user}');"
            ));
        }
        for (host, org) in hosts {
            sql.push_str(&format!("insert into agentapi.hosts (id, org_id) values ('{host}', '{org}');"));
        }
        self.cluster.sql(&sql).await.map(drop)
    }
}
