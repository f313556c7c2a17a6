//! `GET /api/v1/link`: where hosts connect.

use agentapi_shared::link::SUBPROTOCOL;
use agentapi_shared::runtime::OnEnd;
use axum::extract::{Request, State};
use axum::response::Response;

use super::upgrade::Upgrade;
use super::{Api, ApiError, principal};
use crate::fleet::serve;

/// Takes the link of a host.
pub(super) async fn connect(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let (mut parts, _) = request.into_parts();
    let host = principal::host(&parts.headers, &api).await?;
    let upgrade = Upgrade::check(&mut parts, SUBPROTOCOL)?;
    let (answer, pending) = upgrade.accept();
    let plane = api.plane.clone();
    api.plane.tasks.spawn("link", OnEnd::Continue, async move {
        let Some((stream, read)) = pending.connection().await else { return };
        serve::serve(plane, host, stream, read).await;
    });
    Ok(answer)
}
