//! What programs inside have to know to find the gateway. Pure.

use agentapi_shared::egress::{ListenerRole, MODEL_PORT_BASE, PROXY_PORT};

/// Stands where a client wants a key. The gateway drops it and sends the real one.
const PLACEHOLDER_KEY: &str = "agentapi-gateway-adds-the-key";
/// What is inside is not asked of a proxy.
const NO_PROXY: &str = "localhost,127.0.0.1,::1";

/// Names of a provider's variables: base URL, what follows the address in it, key.
struct Client {
    provider: &'static str,
    base_url: &'static str,
    path: &'static str,
    key: &'static str,
}

/// Clients that are known. Each wants its own form of URL.
const CLIENTS: [Client; 6] = [
    Client { provider: "anthropic", base_url: "ANTHROPIC_BASE_URL", path: "", key: "ANTHROPIC_API_KEY" },
    Client { provider: "openai", base_url: "OPENAI_BASE_URL", path: "/v1", key: "OPENAI_API_KEY" },
    // The Gemini CLI, and Google's libraries.
    Client { provider: "google", base_url: "GOOGLE_GEMINI_BASE_URL", path: "", key: "GEMINI_API_KEY" },
    Client { provider: "openrouter", base_url: "OPENROUTER_BASE_URL", path: "/api/v1", key: "OPENROUTER_API_KEY" },
    Client { provider: "mistral", base_url: "MISTRAL_BASE_URL", path: "/v1", key: "MISTRAL_API_KEY" },
    Client { provider: "groq", base_url: "GROQ_BASE_URL", path: "", key: "GROQ_API_KEY" },
];

/// Ports inside, one per role and in their order: the proxy's is fixed, those of models count up.
pub(crate) fn ports(roles: &[ListenerRole]) -> Vec<u16> {
    let mut next = MODEL_PORT_BASE;
    let port = |role: &ListenerRole| match role {
        ListenerRole::Proxy => PROXY_PORT,
        ListenerRole::Model { .. } => {
            let port = next;
            next += 1;
            port
        }
    };
    roles.iter().map(port).collect()
}

/// The variables for these listeners, in `filtered` mode.
pub(crate) fn environment(roles: &[ListenerRole]) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    let mut set = |name: &str, value: &str| variables.push((name.to_owned(), value.to_owned()));
    for (role, port) in roles.iter().zip(ports(roles)) {
        let address = format!("http://127.0.0.1:{port}");
        match role {
            ListenerRole::Proxy => {
                for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
                    set(name, &address);
                }
                set("NO_PROXY", NO_PROXY);
                set("no_proxy", NO_PROXY);
                // Node's own fetch looks at them only if told to.
                set("NODE_USE_ENV_PROXY", "1");
            }
            ListenerRole::Model { name, .. } => match CLIENTS.iter().find(|client| client.provider == name) {
                Some(client) => {
                    set(client.base_url, &format!("{address}{}", client.path));
                    set(client.key, PLACEHOLDER_KEY);
                }
                None => {
                    let word: String = name
                        .chars()
                        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
                        .collect();
                    set(&format!("{word}_BASE_URL"), &address);
                    set(&format!("{word}_API_KEY"), PLACEHOLDER_KEY);
                }
            },
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentapi_shared::egress::SecretText;

    #[test]
    fn programs_find_their_listener_and_no_key() {
        let model = |name: &str| ListenerRole::Model {
            name: name.to_owned(),
            upstream: "https://api.example.com".to_owned(),
            header: "x-api-key".to_owned(),
            value: SecretText::new("the real key".to_owned()),
        };
        let roles = [ListenerRole::Proxy, model("anthropic"), model("openai"), model("my-model")];
        let found = environment(&roles);
        let of = |name: &str| found.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        for (name, expected) in [
            ("HTTPS_PROXY", "http://127.0.0.1:3128"),
            ("all_proxy", "http://127.0.0.1:3128"),
            ("NO_PROXY", "localhost,127.0.0.1,::1"),
            ("NODE_USE_ENV_PROXY", "1"),
            ("ANTHROPIC_BASE_URL", "http://127.0.0.1:3200"),
            ("ANTHROPIC_API_KEY", PLACEHOLDER_KEY),
            ("OPENAI_BASE_URL", "http://127.0.0.1:3201/v1"),
            ("MY_MODEL_BASE_URL", "http://127.0.0.1:3202"),
        ] {
            assert_eq!(of(name), Some(expected), "{name}");
        }
        assert!(!format!("{found:?}").contains("the real key"));
        assert!(environment(&[]).is_empty());
        assert_eq!(ports(&roles), [3128, 3200, 3201, 3202]);
    }
}
