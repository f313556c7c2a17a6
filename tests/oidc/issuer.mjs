// A real OpenID Connect issuer (oidc-provider) for tests. It says on a line of standard output where it is, and ends with standard input.
//
// Who logs in is said by `login_hint`, where a person would fill in a form: `NAME`, or `NAME:no` for one who presses "cancel".

import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { Provider } from "oidc-provider";

// Standard output is for the one line.
console.info = console.error;

const options = JSON.parse(process.argv[2] ?? "{}");
const redirect_uris = options.redirect_uris ?? [];

const people = {
  ada: { name: "Ada", email: "ada@example.com", email_verified: true },
  bob: { name: "Bob", email: "bob@example.com", email_verified: false },
  nemo: {},
};

const key = (kid, alg, type, parameters) => {
  const { privateKey } = generateKeyPairSync(type, parameters);
  return { ...privateKey.export({ format: "jwk" }), kid, alg, use: "sig" };
};

const client = (client_id, more) => ({ client_id, redirect_uris, response_types: ["code"], ...more });

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    jwks: {
      keys: [
        key("first", "ES256", "ec", { namedCurve: "P-256" }),
        key("second", "RS256", "rsa", { modulusLength: 2048 }),
      ],
    },
    cookies: { keys: ["of this run"] },
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"] },
    // By the standard the claims of scopes are told to those who ask for them; many issuers put them into the token as well.
    conformIdTokenClaims: options.claims_in_token !== true,
    features: { devInteractions: { enabled: false } },
    pkce: { required: () => true },
    clients: [
      client("secret+client/1", {
        client_secret: "s: e/c+r%e~t",
        token_endpoint_auth_method: "client_secret_basic",
        id_token_signed_response_alg: "ES256",
      }),
      client("form", {
        client_secret: "a-secret-of-the-form",
        token_endpoint_auth_method: "client_secret_post",
        id_token_signed_response_alg: "RS256",
      }),
      client("public", { token_endpoint_auth_method: "none", id_token_signed_response_alg: "RS256" }),
    ],
    clientAuthMethods: options.methods ?? ["client_secret_basic", "client_secret_post", "none"],
    findAccount: (_context, id) => ({ accountId: id, claims: () => ({ sub: id, ...people[id] }) }),
    interactions: { url: (_context, interaction) => `/interaction/${interaction.uid}` },
  });

  async function interact(request, response) {
    const { prompt, params, session } = await provider.interactionDetails(request, response);
    const [name, answer] = (params.login_hint ?? "").split(":");
    if (answer === "no") {
      return { error: "access_denied" };
    }
    if (prompt.name === "login") {
      return { login: { accountId: name } };
    }
    const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope(params.scope);
    return { consent: { grantId: await grant.save() } };
  }

  const callback = provider.callback();
  server.on("request", async (request, response) => {
    if (!request.url.startsWith("/interaction/")) {
      return callback(request, response);
    }
    const result = await interact(request, response);
    await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
  });
  console.log(JSON.stringify({ issuer }));
});

process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
