//! What programs inside have to know to find the gateway. Pure.

use agentapi_shared::egress::{MODEL_PORT_BASE, PROXY_PORT};

use crate::sandbox::Listener;

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

/// The proxy, whose port is fixed, and behind it a listener for each of these providers.
pub(crate) fn listeners<'a>(models: impl Iterator<Item = &'a String>) -> Vec<Listener> {
    let models = models.zip(MODEL_PORT_BASE..).map(|(name, port)| Listener { port, model: Some(name.clone()) });
    std::iter::once(Listener { port: PROXY_PORT, model: None }).chain(models).collect()
}

/// The variables for these listeners, in `filtered` mode.
pub(crate) fn environment(listeners: &[Listener]) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    let mut set = |name: &str, value: &str| variables.push((name.to_owned(), value.to_owned()));
    for Listener { port, model } in listeners {
        let address = format!("http://127.0.0.1:{port}");
        match model {
            None => {
                for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
                    set(name, &address);
                }
                set("NO_PROXY", NO_PROXY);
                set("no_proxy", NO_PROXY);
                // Node's own fetch looks at them only if told to.
                set("NODE_USE_ENV_PROXY", "1");
            }
            Some(name) => match CLIENTS.iter().find(|client| client.provider == name) {
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

    #[test]
    fn programs_find_their_listener() {
        let models = ["anthropic", "openai", "my-model"].map(str::to_owned);
        let all = listeners(models.iter());
        let found = environment(&all);
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
        assert!(environment(&[]).is_empty());
        assert_eq!(all.iter().map(|listener| listener.port).collect::<Vec<_>>(), [3128, 3200, 3201, 3202]);
    }
}
