//! Any bytes on any socket are read or refused.
#![no_main]

use agentapi_shared::frame::{Header, Keyframe};
use agentapi_shared::link::{HostMessage, PlaneMessage};
use agentapi_shared::shim::{ShimEvent, ShimRequest, ShimStart};
use agentapi_shared::viewer::{ClientMessage, ServerMessage};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok((header, payload)) = Header::parse(data) {
        assert_eq!(header.with_payload(payload), data);
    }
    if let Ok(keyframe) = Keyframe::parse(data) {
        assert_eq!(keyframe.to_payload(), data);
    }
    let _read = serde_json::from_slice::<ClientMessage>(data);
    let _read = serde_json::from_slice::<ServerMessage>(data);
    let _read = serde_json::from_slice::<HostMessage>(data);
    let _read = serde_json::from_slice::<PlaneMessage>(data);
    let _read = serde_json::from_slice::<ShimEvent>(data);
    let _read = serde_json::from_slice::<ShimRequest>(data);
    let _read = serde_json::from_slice::<ShimStart>(data);
});
