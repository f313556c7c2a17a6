//! An issuer as Supabase Auth is one, over real HTTP: it publishes keys, which a test changes, and counts who asks.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use agentapi_shared::runtime::{OnEnd, TaskGroup};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// What it answers to those who ask for keys.
#[derive(Clone)]
pub(in crate::identity) enum Mood {
    /// A status and a text.
    Says(u16, String),
    /// Nothing, until it is told to.
    Waits(Arc<Notify>, String),
    /// Half an answer, and the end of the connection.
    Gone,
}

#[derive(Default)]
struct Shared {
    mood: Mutex<Option<Mood>>,
    asked: AtomicUsize,
}

/// Serves until it is dropped.
pub(in crate::identity) struct Issuer {
    pub(in crate::identity) address: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskGroup,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.tasks.shutdown();
    }
}

impl Issuer {
    /// One that publishes these keys.
    pub(in crate::identity) async fn start(keys: &[&Value]) -> Self {
        Self::with(keys, |_| Router::new()).await
    }

    /// One that answers more than that; what is made for it is told where it is.
    pub(in crate::identity) async fn with(keys: &[&Value], more: impl FnOnce(SocketAddr) -> Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shared, tasks) = (Arc::new(Shared::default()), TaskGroup::new());
        let router = Router::new().route("/auth/v1/.well-known/jwks.json", get(keys_of)).with_state(shared.clone());
        let router = router.merge(more(address));
        let ended = tasks.cancelled();
        tasks.spawn("issuer", OnEnd::Continue, async move {
            tokio::select! {
                served = axum::serve(listener, router) => served.unwrap(),
                () = ended.cancelled() => {}
            }
        });
        let issuer = Self { address, shared, tasks };
        issuer.publish(keys);
        issuer
    }

    pub(in crate::identity) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(in crate::identity) fn publish(&self, keys: &[&Value]) {
        self.answer(Mood::Says(200, json!({ "keys": keys }).to_string()));
    }

    pub(in crate::identity) fn answer(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap() = Some(mood);
    }

    /// How often it was asked for its keys.
    pub(in crate::identity) fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }
}

async fn keys_of(State(shared): State<Arc<Shared>>) -> Response {
    shared.asked.fetch_add(1, Ordering::SeqCst);
    let mood = shared.mood.lock().unwrap().clone();
    let (status, text) = match mood {
        Some(Mood::Says(status, text)) => (status, text),
        Some(Mood::Waits(told, text)) => {
            told.notified().await;
            (200, text)
        }
        Some(Mood::Gone) => {
            let parts = [Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("gone"))];
            return Response::new(Body::from_stream(futures_util::stream::iter(parts)));
        }
        None => (404, String::new()),
    };
    Response::builder().status(status).body(Body::from(text)).unwrap()
}
