// The part of Supabase Auth that logs people in, as its own code answers: addresses and passwords, refresh tokens that are good once, and no
// more than so many tries. It says on a line of standard output where it is, and ends with standard input.
//
// `node auth.mjs OPTIONS`, in JSON: `secret` of the project's tokens, `people` with `id`, `email`, `password` and `confirmed`, and `tries`: so
// many wrong passwords for an address are answered as such.

import { createHmac, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';

/** Seconds that a token is good for. */
const LIFETIME_S = 3600;

const { secret, people, tries } = JSON.parse(process.argv[2] ?? '{}');
const logins = new Map();
const wrong = new Map();

const encoded = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

function signed(claims) {
  const text = `${encoded({ alg: 'HS256', typ: 'JWT' })}.${encoded(claims)}`;
  return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;
}

const described = ({ id, email, confirmed }) => ({ id, aud: 'authenticated', email, email_confirmed_at: confirmed ? '2026-01-02T03:04:05Z' : null });

const refused = (status, error_code) => [status, { code: status, error_code, msg: 'in words' }];

function tokens(issuer, session, person) {
  const iat = Math.floor(Date.now() / 1000);
  const refresh_token = randomUUID();
  logins.set(session, { person, refresh_token });
  const claims = { iss: issuer, aud: 'authenticated', sub: person.id, role: 'authenticated', iat, exp: iat + LIFETIME_S, session_id: session, email: person.email, is_anonymous: false };
  return [200, { access_token: signed(claims), token_type: 'bearer', expires_in: LIFETIME_S, refresh_token, user: described(person) }];
}

function byPassword(issuer, { email, password }) {
  const person = people.find((one) => one.email === email);
  if ((wrong.get(email) ?? 0) >= tries) return refused(429, 'over_request_rate_limit');
  if (person?.password !== password) {
    wrong.set(email, (wrong.get(email) ?? 0) + 1);
    return refused(400, 'invalid_credentials');
  }
  return person.confirmed ? tokens(issuer, randomUUID(), person) : refused(400, 'email_not_confirmed');
}

function renewed(issuer, { refresh_token }) {
  const [session, login] = [...logins].find(([, one]) => one.refresh_token === refresh_token) ?? [];
  return login ? tokens(issuer, session, login.person) : refused(400, 'refresh_token_not_found');
}

function loginOf(request) {
  const claims = /^Bearer [^.]+\.([^.]+)\./.exec(request.headers.authorization ?? '')?.[1];
  const session = claims && JSON.parse(Buffer.from(claims, 'base64url').toString()).session_id;
  return logins.has(session) ? session : null;
}

function answer(issuer, request, url, body) {
  const route = `${request.method} ${url.pathname}`;
  switch (route) {
    case 'GET /auth/v1/.well-known/jwks.json':
      return [200, { keys: [] }];
    case 'POST /auth/v1/token':
      return url.searchParams.get('grant_type') === 'password' ? byPassword(issuer, body) : renewed(issuer, body);
    case 'GET /auth/v1/user': {
      const session = loginOf(request);
      return session ? [200, described(logins.get(session).person)] : refused(403, 'session_not_found');
    }
    case 'POST /auth/v1/logout': {
      const session = loginOf(request);
      logins.delete(session);
      return session ? [204, null] : refused(403, 'session_not_found');
    }
    default:
      return refused(404, 'not_found');
  }
}

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString();
  const issuer = `http://127.0.0.1:${server.address().port}/auth/v1`;
  const [status, value] = answer(issuer, request, new URL(request.url, issuer), text === '' ? null : JSON.parse(text));
  response.writeHead(status, { 'content-type': 'application/json' }).end(value === null ? '' : JSON.stringify(value));
});
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ url: `http://127.0.0.1:${server.address().port}` })));
process.stdin.on('end', () => process.exit(0)).resume();
