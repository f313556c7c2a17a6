//! Why something is not done: the word in the record, and the sentence for whoever sits inside.

use agentapi_shared::egress::EgressVerdict;

use crate::guard::Forbidden;
use crate::socks::Reply;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No rule covers the name.
    NoRule,
    /// A rule covers the name, and not the port.
    Port,
    /// A rule denies it.
    Denied(String),
    /// Rules go by name.
    IpLiteral,
    /// Not a name.
    MalformedHost,
    /// The name leads inside.
    Address(Forbidden),
    /// The TLS hello names another server.
    SniMismatch,
    /// It names none.
    NoSni,
    /// It hides another name.
    EncryptedHello,
    /// It is no sound hello.
    MalformedHello,
    /// Something else than TLS on its port.
    NotTls,
    /// Too many at once.
    ConnectionsMax,
    /// Too many in a minute.
    ConnectionsPerMinute,
    /// The session has used up what it may send and receive.
    BytesMax,
    /// A request that is not spoken here; which.
    Request(&'static str),
    /// The name could not be resolved.
    Unresolved,
    /// Nobody answers there.
    Unreachable,
}

impl Refusal {
    /// The word for records.
    pub(crate) fn word(&self) -> String {
        let word = match self {
            Self::Denied(pattern) => return format!("deny {pattern}"),
            Self::NoRule => "no_rule",
            Self::Port => "port",
            Self::IpLiteral => "ip_literal",
            Self::MalformedHost => "malformed_host",
            Self::Address(Forbidden::Metadata) => "metadata_address",
            Self::Address(Forbidden::Private) => "private_address",
            Self::Address(Forbidden::OwnHost) => "own_address",
            Self::SniMismatch => "sni_mismatch",
            Self::NoSni => "no_sni",
            Self::EncryptedHello => "encrypted_client_hello",
            Self::MalformedHello => "malformed_client_hello",
            Self::NotTls => "not_tls",
            Self::ConnectionsMax => "connections_max",
            Self::ConnectionsPerMinute => "connections_per_minute",
            Self::BytesMax => "bytes_max",
            Self::Request(_) => "malformed_request",
            Self::Unresolved => "unresolved",
            Self::Unreachable => "unreachable",
        };
        word.to_owned()
    }

    /// A refusal, or a failure of what was allowed.
    pub(crate) fn verdict(&self) -> EgressVerdict {
        match self {
            Self::Unresolved | Self::Unreachable => EgressVerdict::Failed,
            _ => EgressVerdict::Denied,
        }
    }

    /// Whether `observe` lets it pass: what rules say, and never where an address leads or how much is used.
    pub(crate) fn is_of_rules(&self) -> bool {
        matches!(
            self,
            Self::NoRule
                | Self::Port
                | Self::Denied(_)
                | Self::IpLiteral
                | Self::SniMismatch
                | Self::NoSni
                | Self::EncryptedHello
                | Self::MalformedHello
                | Self::NotTls
        )
    }

    /// What people inside read, on one line.
    pub(crate) fn sentence(&self, host: &str, port: u16) -> String {
        let what = match self {
            Self::NoRule => "no rule of this session allows this host. Ask the operator to allow it, if you need it",
            Self::Port => "this host is allowed on other ports only. Ask the operator to allow this port",
            Self::Denied(_) => "a rule of this session denies this host. Only the operator can change that",
            Self::IpLiteral => "rules go by name, and this is an address. Use the host's name",
            Self::MalformedHost => {
                "this is no host name. Names of other scripts are written as xn--..., addresses in their usual form"
            }
            Self::Address(Forbidden::Metadata) => {
                "this name leads to a cloud's metadata service, which no session may reach"
            }
            Self::Address(_) => {
                "this name leads to a private address. Ask the operator to allow that address, if it is meant to be reached"
            }
            Self::SniMismatch => "the TLS hello names another server than the one asked for",
            Self::NoSni => "the TLS hello names no server. Use the host's name, not its address",
            Self::EncryptedHello => "the TLS hello hides its server's name (ECH). Switch that off in the client",
            Self::MalformedHello => "what was sent is no sound TLS hello",
            Self::NotTls => "only TLS is let through on port 443",
            Self::ConnectionsMax => "this session has as many connections open as it may. Close some",
            Self::ConnectionsPerMinute => "this session opens too many connections. Wait a minute",
            Self::BytesMax => "this session has sent and received as much as it may. Ask the operator for more",
            Self::Request(what) => what,
            Self::Unresolved => "the name cannot be resolved",
            Self::Unreachable => "nobody answers there",
        };
        if let Self::Request(_) = self {
            return format!("agentapi: the request is refused ({}): {what}.\n", self.word());
        }
        format!("agentapi: {host} port {port} is not reached ({}): {what}.\n", self.word())
    }

    /// The HTTP status.
    pub(crate) fn status(&self) -> http::StatusCode {
        match self {
            Self::Request(_) | Self::MalformedHost => http::StatusCode::BAD_REQUEST,
            Self::ConnectionsMax | Self::ConnectionsPerMinute => http::StatusCode::TOO_MANY_REQUESTS,
            Self::Unresolved | Self::Unreachable => http::StatusCode::BAD_GATEWAY,
            _ => http::StatusCode::FORBIDDEN,
        }
    }

    /// The reply in SOCKS.
    pub(crate) fn reply(&self) -> Reply {
        match self {
            Self::Request(_) => Reply::GeneralFailure,
            Self::Unresolved | Self::Unreachable => Reply::HostUnreachable,
            _ => Reply::NotAllowed,
        }
    }
}
