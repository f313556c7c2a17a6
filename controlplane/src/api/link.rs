//! `GET /api/v1/link`: where hosts connect.

use agentapi_shared::link::SUBPROTOCOL;
use agentapi_shared::runtime::OnEnd;
use axum::extract::{Request, State};
use axum::response::Response;

use super::upgrade::Upgrade;
use super::{Api, ApiError, principal};
use crate::domain::enrolments;
use crate::fleet::serve;
use crate::sockets::{Owner, Proof, Who};

/// Takes the link of a host.
pub(super) async fn connect(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let (mut parts, _) = request.into_parts();
    let (host, hash) = principal::host(&parts, &api).await?;
    // Before it is let in: a link that is there is with the host's newest credential, and no other is of use for long.
    enrolments::confirm(&api.plane, hash.clone()).await?;
    let upgrade = Upgrade::check(&mut parts, SUBPROTOCOL)?;
    let (answer, pending) = upgrade.accept();
    let plane = api.plane.clone();
    let socket = plane.sockets.enter(Owner { proof: Proof::Token(hash), who: Who::Host(host) }, None);
    api.plane.tasks.spawn("link", OnEnd::Continue, async move {
        let Some((stream, read)) = pending.connection().await else { return };
        let served = serve::serve(plane.clone(), host, stream, read);
        tokio::pin!(served);
        tokio::select! {
            () = &mut served => return,
            _lapse = socket.lapsed() => plane.fleet.close(host),
        }
        // It says goodbye and tells everyone who waits for it.
        served.await;
    });
    Ok(answer)
}
