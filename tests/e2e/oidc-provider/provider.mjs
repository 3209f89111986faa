// A certified OpenID provider (npm: oidc-provider) for the end-to-end tests: its development forms take any password.
//
// Usage: node provider.mjs FILE, a file with {"port": 1, "client": {...}, "accounts": {"ann": {"groups": ["dba"]}}}
//
// Beside the provider there is /control, where a test changes accounts, keys and the clock.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import Provider from 'oidc-provider';

const options = JSON.parse(readFileSync(process.argv[2]));
const issuer = `http://127.0.0.1:${options.port}`;
const accounts = options.accounts;

const realNow = Date.now;
let skew = 0;
Date.now = () => realNow() + skew;

function newKey() {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'ES256' };
}

let rotateTokens = false;
let failUserinfo = false;
let requests = {};
// Requests for tokens that wait to be looked at, while they are held.
let held;
const cookieKey = randomUUID();
let handle;

function build(key) {
  const provider = new Provider(issuer, {
    clients: [{
      ...options.client,
      grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
      response_types: ['code'],
      id_token_signed_response_alg: 'ES256',
    }],
    jwks: { keys: [key] },
    enabledJWA: { idTokenSigningAlgValues: ['ES256'] },
    cookies: { keys: [cookieKey] },
    pkce: { required: () => true },
    rotateRefreshToken: () => rotateTokens,
    claims: {
      openid: ['sub'],
      profile: ['name', 'preferred_username', 'groups', 'department', '_claim_names'],
      email: ['email', 'email_verified'],
    },
    features: {
      deviceFlow: { enabled: true },
      revocation: { enabled: true },
      devInteractions: { enabled: true },
    },
    async findAccount(_ctx, id) {
      const known = accounts[id];
      if (!known) return undefined;
      return { accountId: id, claims: async () => ({ sub: id, ...accounts[id] }) };
    },
  });
  provider.on('server_error', (_ctx, error) => console.error('server_error', error));
  handle = provider.callback();
}

async function control(request, response) {
  let text = '';
  for await (const chunk of request) text += chunk;
  const order = text ? JSON.parse(text) : {};
  if (order.accounts) Object.assign(accounts, order.accounts);
  if (order.forget) for (const id of order.forget) delete accounts[id];
  if (order.skewSeconds !== undefined) skew = order.skewSeconds * 1000;
  if (order.rotateKey) build(newKey());
  if (order.rotateTokens !== undefined) rotateTokens = order.rotateTokens;
  if (order.failUserinfo !== undefined) failUserinfo = order.failUserinfo;
  if (order.holdTokens === true) held ??= [];
  if (order.holdTokens === false) {
    const waiting = held ?? [];
    held = undefined;
    // Who has gone has asked for nothing.
    for (const [asked, answer] of waiting) if (!asked.socket.destroyed) handle(asked, answer);
  }
  const counted = requests;
  if (order.resetRequests) requests = {};
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify({ requests: counted }));
}

build(newKey());
createServer((request, response) => {
  const path = request.url.split('?')[0];
  if (path === '/control') {
    control(request, response).catch((error) => { response.statusCode = 500; response.end(String(error)); });
    return;
  }
  requests[path] = (requests[path] ?? 0) + 1;
  if (failUserinfo && path === '/me') {
    response.statusCode = 503;
    response.end();
    return;
  }
  if (held && path === '/token') {
    held.push([request, response]);
    return;
  }
  handle(request, response);
}).listen(options.port, '127.0.0.1', () => console.log(`serves ${issuer}`));
