//! What an organisation allows of sandboxes: both stores refuse the same requests, and write the policy down with each spawn.

use agentapi_shared::api::{
    Limits, MountPolicy, MountRequest, NetworkMode, OrganizationSettings, SandboxPolicy, SandboxRequest,
};

use super::organizations::word;
use super::{NOW, Subject, entry};
use crate::store::Scope;
use crate::store::records::{SessionChange, SpawnRecord};

/// Policies and requests that say something of each part, and nothing.
fn variants() -> (Vec<SandboxPolicy>, Vec<SandboxRequest>) {
    let pids = |pids| Limits { pids: Some(pids), ..Limits::default() };
    let both = Limits { memory_bytes: Some(1 << 30), ..pids(64) };
    let profiles = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    let mounts = |writable| vec![MountRequest { source: "/srv".to_owned(), target: None, writable }];
    let (policy, request) = (SandboxPolicy::default(), SandboxRequest::default());
    let mut policies = vec![policy.clone()];
    policies.extend(
        [&["dev"][..], &["strict", "dev"], &["none"]]
            .map(|names| SandboxPolicy { profiles: profiles(names), ..policy.clone() }),
    );
    policies.extend(NetworkMode::ALL.map(|most| SandboxPolicy { network: Some(most), ..policy.clone() }));
    policies.extend(
        [MountPolicy::None, MountPolicy::ReadOnly, MountPolicy::Writable]
            .map(|most| SandboxPolicy { mounts: Some(most), ..policy.clone() }),
    );
    policies.extend([pids(63), pids(64), both].map(|limits| SandboxPolicy { limits, ..policy.clone() }));
    let mut requests = vec![request.clone()];
    requests.extend(["dev", "strict"].map(|name| SandboxRequest { profile: Some(name.to_owned()), ..request.clone() }));
    requests.extend(NetworkMode::ALL.map(|network| SandboxRequest { network: Some(network), ..request.clone() }));
    requests.extend([false, true].map(|writable| SandboxRequest { mounts: mounts(writable), ..request.clone() }));
    requests.extend([pids(64), both].map(|limits| SandboxRequest { limits, ..request.clone() }));
    (policies, requests)
}

pub(super) async fn check(subject: &Subject) {
    each_store_refuses_what_the_policy_does_not_allow(subject).await;
    a_spawn_has_the_policy_of_its_day(subject).await;
}

async fn allow(subject: &Subject, tenant: &crate::store::records::TenantContext, policy: SandboxPolicy) {
    subject.settings(tenant, OrganizationSettings { sandbox: Some(policy), ..OrganizationSettings::default() }).await;
}

async fn each_store_refuses_what_the_policy_does_not_allow(subject: &Subject) {
    let tenant = subject.organization().await;
    let (policies, requests) = variants();
    let mut refused = 0;
    for policy in policies {
        allow(subject, &tenant, policy.clone()).await;
        for request in &requests {
            let made = subject.make_with(&tenant, request.clone()).await;
            if policy.fault(request).is_some() {
                assert_eq!(word(made), "sandbox_not_allowed", "{policy:?} {request:?}");
                refused += 1;
            } else {
                assert_eq!(made.unwrap().spawns[0].sandbox_policy, policy, "{request:?}");
            }
        }
    }
    assert_eq!(refused, 19);
}

async fn a_spawn_has_the_policy_of_its_day(subject: &Subject) {
    let (store, tenant) = (&subject.store, subject.organization().await);
    let request = SandboxRequest { network: Some(NetworkMode::Filtered), ..SandboxRequest::default() };
    let record = subject.make_with(&tenant, request).await.unwrap();
    assert!(record.spawns[0].sandbox_policy.is_empty());
    let policy = SandboxPolicy { network: Some(NetworkMode::Off), ..SandboxPolicy::default() };
    allow(subject, &tenant, policy.clone()).await;
    let record = subject.end(&record, NOW).await;
    assert!(record.spawns[0].sandbox_policy.is_empty(), "what runs keeps what it began with");
    let next = SpawnRecord { number: 2, ..record.spawns[0].clone() };
    let change = SessionChange { new_spawn: Some(next), ..SessionChange::default() };
    let again =
        async |scope, audit| store.update_session(scope, record.id, record.revision, change.clone(), audit, None).await;
    assert_eq!(word(again(Scope::Tenant(tenant.clone()), Some(entry())).await), "sandbox_not_allowed");
    // What goes on by itself is the host's to refuse: it is told the policy.
    let record = again(Scope::System, None).await.unwrap();
    assert_eq!(record.spawns[1].sandbox_policy, policy);
}
