// Node's own clients: fetch (undici) and the https module. Proxy and trust are
// from the environment alone (NODE_USE_ENV_PROXY, NODE_EXTRA_CA_CERTS).
import http from 'node:http';
import https from 'node:https';
import { body, bodySHA256, HTTPS, release, scenario } from './report.mjs';

const HTTP = 'http://models.test';

async function get(url) {
  const r = await fetch(url);
  if (!r.ok) throw new Error(`${r.status} ${await r.text()}`);
  return r.text();
}

async function upload(init) {
  const r = await fetch(`${HTTPS}/echo`, { method: 'POST', ...init });
  const got = await r.json();
  return [got.bytes, got.sha256 === bodySHA256, got.length];
}

async function* pieces(n = 64 << 10) {
  for (let i = 0; i < body.length; i += n) yield body.subarray(i, i + n);
}

async function stream() {
  const r = await fetch(`${HTTPS}/events/fetch`);
  const events = [];
  let text = '';
  for await (const piece of r.body.pipeThrough(new TextDecoderStream())) {
    text += piece;
    const whole = text.split('\n\n');
    text = whole.pop();
    for (const event of whole) {
      if (events.length === 0) await release('fetch');
      events.push(event.replace('data: ', ''));
    }
  }
  return events;
}

async function denied(init) {
  const r = await fetch(`${HTTPS}/secret`, init);
  const problem = await r.json();
  return [r.status, r.headers.get('content-type'), r.headers.get('x-aegrail-reason'), problem.reason, problem.detail];
}

// classic is the http and https modules, which proxy libraries and older SDKs use.
function classic(module, url) {
  return new Promise((resolve, reject) => {
    module.get(url, (r) => {
      let text = '';
      r.setEncoding('utf8');
      r.on('data', (piece) => (text += piece));
      r.on('end', () => resolve(text));
      r.on('error', reject);
    }).on('error', reject);
  });
}

await scenario('get', () => get(`${HTTPS}/hello`));
await scenario('keep-alive', async () => {
  for (let i = 0; i < 2; i++) await get(`${HTTPS}/hello`);
  return get(`${HTTPS}/hello`);
});
await scenario('plain http', () => get(`${HTTP}/hello`));
await scenario('gzip', async () => (await get(`${HTTPS}/gzip`)).length);
await scenario('204', async () => (await fetch(`${HTTPS}/empty`)).status);
await scenario('upload', () => upload({ body }));
await scenario('upload of unknown length', () => upload({ body: ReadableStream.from(pieces()), duplex: 'half' }));
await scenario('stream', stream);
await scenario('denied path', () => denied({}));
await scenario('denied upload', () => denied({ method: 'POST', body }));
await scenario('after a denial', () => get(`${HTTPS}/hello`));
await scenario('denied host', () => get('https://exfil.test/'));
await scenario('https module', () => classic(https, `${HTTPS}/hello`));
await scenario('http module', () => classic(http, `${HTTP}/hello`));
await scenario('https module, denied path', () => classic(https, `${HTTPS}/secret`));
await scenario('https module, denied host', () => classic(https, 'https://exfil.test/'));
