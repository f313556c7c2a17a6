//! The whole product on Postgres behind PostgREST, and both of them killed under load: callers are told when to come again, terminals go on, and
//! what was asked for is there once or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use agentapi_shared::SessionId;
use agentapi_shared::api::{Page, Session};
use agentapi_test_postgres::cluster::Cluster;
use agentapi_tests::product::Product;
use agentapi_tests::project::project;
use agentapi_tests::viewer::ViewerOptions;
use agentapi_tests::wait::{eventually, here};
use anyhow::{Context as _, Result, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Within what a caller is to know that the store is away.
const TOLD: Duration = Duration::from_secs(3);
/// After what the product answers once PostgREST is ready.
const BACK: Duration = Duration::from_secs(2);
/// Who creates sessions at once: each is a process with a jail of its own, so they are few.
const WORKERS: usize = 3;
/// Asks for a session under an Idempotency-Key; the answer, or none if there was no whole one.
async fn create(product: &Product, key: &str) -> Option<(StatusCode, Value)> {
    let body = json!({ "agent": "custom", "command": ["true"], "labels": { "key": key } });
    let request = product.request(Method::POST, "/sessions").header("idempotency-key", key).json(&body);
    let answer = request.send().await.ok()?;
    let (status, retry) = (answer.status(), answer.headers().get("retry-after").cloned());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let seconds: u32 = retry.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
        assert!(seconds >= 1, "told when to come again");
    }
    Some((status, answer.json().await.ok()?))
}

/// Creates sessions until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU32>,
    workers: JoinSet<BTreeMap<String, Option<StatusCode>>>,
}

impl Load {
    fn start(product: &Arc<Product>, name: &str) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let mut workers = JoinSet::new();
        for number in 0..WORKERS {
            let (product, stop, done, name) = (product.clone(), stop.clone(), done.clone(), name.to_owned());
            workers.spawn(async move {
                let mut asked = BTreeMap::new();
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("{name}-{number}-{}", asked.len());
                    let before = Instant::now();
                    let answer = create(&product, &key).await;
                    assert!(before.elapsed() < here(TOLD), "an answer after {:?}", before.elapsed());
                    if answer.as_ref().is_some_and(|(status, _)| *status == StatusCode::CREATED) {
                        done.fetch_add(1, Ordering::Relaxed);
                    } else {
                        // A refusal says when to come again; to come at once is load enough.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    asked.insert(key, answer.map(|(status, _)| status));
                }
                asked
            });
        }
        Self { workers, stop, done }
    }

    /// Waits until more sessions were made than so far.
    async fn goes_on(&self) {
        let before = self.done.load(Ordering::Relaxed);
        eventually("sessions are made", async || (self.done.load(Ordering::Relaxed) > before + 2).then_some(())).await;
    }

    async fn ended(mut self) -> Result<BTreeMap<String, Option<StatusCode>>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = BTreeMap::new();
        while let Some(asked) = self.workers.join_next().await {
            all.extend(asked?);
        }
        Ok(all)
    }
}

async fn of_key(product: &Product, key: &str) -> Result<Vec<SessionId>> {
    let page: Page<Session> = product.get(&format!("/sessions?label=key:{key}")).await?;
    Ok(page.data.into_iter().map(|session| session.id).collect())
}

/// What was asked for during the outage is there once, or not at all; and its key says which.
async fn once_or_not_at_all(product: &Product, asked: BTreeMap<String, Option<StatusCode>>) -> Result<()> {
    let refused = asked.values().filter(|status| **status == Some(StatusCode::SERVICE_UNAVAILABLE)).count();
    let made = asked.values().filter(|status| **status == Some(StatusCode::CREATED)).count();
    ensure!(refused > 0 && made > 0, "the outage came in between: {asked:?}");
    for (key, status) in &asked {
        let before = of_key(product, key).await?;
        ensure!(before.len() <= 1, "{key} was done {} times", before.len());
        ensure!(*status != Some(StatusCode::CREATED) || before.len() == 1, "{key} was answered and is not there");
        if *status == Some(StatusCode::CREATED) {
            continue;
        }
        let (again, body) = create(product, key).await.context("an answer")?;
        let after = of_key(product, key).await?;
        match again {
            // It had not been done, and is now; or it had, and this is its answer.
            StatusCode::CREATED => ensure!(after.len() == 1, "{key}: {after:?}"),
            // Taken by the request whose answer was lost, which was done as a whole.
            StatusCode::CONFLICT => {
                ensure!(
                    body["code"] == "idempotency_in_flight" && after == before && after.len() == 1,
                    "{key}: {body}"
                );
            }
            other => anyhow::bail!("{key}: {other} {body}"),
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn terminals_outlive_the_store_and_nothing_is_done_twice() -> Result<()> {
    let mut cluster = Cluster::own().await?;
    let product = Arc::new(Product::start_in(project(&cluster).await?).await?);
    let session = product.create(&["sh", "-c", "echo hello; exec cat"]).await?;
    let mut viewer = product.view(session.id, ViewerOptions::default()).await?;
    product.shows(session.id, "hello").await;
    for outage in ["postgrest", "postgres"] {
        let load = Load::start(&product, outage);
        load.goes_on().await;
        if outage == "postgrest" {
            cluster.kill_postgrest().await?
        } else {
            cluster.kill_postgres()?
        }
        eventually("callers are told", async || {
            let before = Instant::now();
            let answer = product.request(Method::GET, "/sessions").send().await.ok()?;
            assert!(before.elapsed() < here(TOLD), "told after {:?}", before.elapsed());
            (answer.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(())
        })
        .await;
        let refused = product.view(session.id, ViewerOptions::default()).await.err().context("it was opened")?;
        ensure!(refused.to_string().contains("503"), "{refused:#}");
        viewer.input(format!("typed without {outage}\r").as_bytes()).await?;
        viewer.output_until(&format!("typed without {outage}")).await?;
        if outage == "postgrest" {
            cluster.serve("agentapi").await?
        } else {
            cluster.run_postgres()?
        }
        cluster.ready().await?;
        let ready = Instant::now();
        eventually("callers are served", async || product.sessions().await.ok()).await;
        assert!(ready.elapsed() < here(BACK), "back {:?} after PostgREST was ready", ready.elapsed());
        load.goes_on().await;
        once_or_not_at_all(&product, load.ended().await?).await?;
    }
    its_place_is_kept(&cluster).await?;
    let (status, body) = product.raw(Method::DELETE, &format!("/sessions/{}", session.id), &json!({})).await?;
    ensure!(status.is_success(), "{status} {body}");
    product.ended(session.id).await;
    recorded(&cluster, session.id).await
}

/// The lease of the one viewer is good again, had the outage been longer than it is.
async fn its_place_is_kept(cluster: &Cluster) -> Result<()> {
    cluster.sql("update agentapi.viewers set leased_until = now() - interval '1 hour'").await?;
    eventually("the lease is renewed", async || {
        let live = "select count(*) from agentapi.viewers where leased_until > now()";
        cluster.sql(live).await.ok().filter(|live| live == "1")
    })
    .await;
    Ok(())
}

/// Every session has its record, and the one that was stopped has all of its own.
async fn recorded(cluster: &Cluster, stopped: SessionId) -> Result<()> {
    let missing = "select count(*) from agentapi.user_sessions as s where not exists (
        select from agentapi.audit_logs as a where a.session_id = s.id and a.action = 'session.create')";
    assert_eq!(cluster.sql(missing).await?, "0", "sessions without a record");
    let actions = format!("select action from agentapi.audit_logs where session_id = '{stopped}' order by created_at");
    eventually("the end is recorded", async || {
        let found = cluster.sql(&actions).await.ok()?;
        ["session.create", "session.placed", "session.stop", "spawn.ended"]
            .iter()
            .all(|action| found.lines().any(|line| line == *action))
            .then_some(())
    })
    .await;
    Ok(())
}
