// The ws package. By itself it opens its own sockets; with Node's global agent
// it takes proxy and trust from the environment. The WebSocket that Node has
// itself (undici) takes them from there at once.
import http from 'node:http';
import https from 'node:https';
import WS from 'ws';
import { scenario, words } from './report.mjs';

const agents = { 'wss:': https.globalAgent, 'ws:': http.globalAgent };

function open(url, options = {}) {
  return new Promise((resolve, reject) => {
    const ws = new WS(url, ['echo'], { agent: agents[new URL(url).protocol], perMessageDeflate: false, ...options });
    ws.once('open', () => resolve(ws));
    ws.once('error', reject);
    ws.once('unexpected-response', (_, r) => {
      let text = '';
      r.on('data', (piece) => (text += piece));
      r.on('end', () => reject(new Error(`${r.statusCode} ${r.headers['content-type']} ${text}`)));
    });
  });
}

const next = (ws) => new Promise((resolve, reject) => {
  ws.once('message', (data, binary) => resolve([data, binary]));
  ws.once('close', (code) => reject(new Error(`closed with ${code}`)));
});
const closed = (ws) => new Promise((resolve) => ws.once('close', (code, reason) => resolve([code, reason.toString()])));

async function echo(ws, message) {
  const answer = next(ws);
  ws.send(message);
  return answer;
}

const ws = await open('wss://socket.test/echo');
await scenario('protocol', () => ws.protocol);
await scenario('text', async () => {
  const [data, binary] = await echo(ws, 'grüß dich');
  return [data.toString(), binary];
});
await scenario('binary', async () => {
  const [data, binary] = await echo(ws, Buffer.from([0, 1, 254, 255]));
  return [[...data], binary];
});
await scenario('empty', async () => (await echo(ws, ''))[0].length);
await scenario('large frame', async () => {
  const sent = Buffer.alloc(5 << 20, 'abcdefg');
  return sent.equals((await echo(ws, sent))[0]);
});
await scenario('fragments', async () => {
  const answer = next(ws);
  ws.send('one ', { fin: false });
  ws.send('two ', { fin: false });
  ws.send('three', { fin: true });
  return (await answer)[0].toString();
});
await scenario('ping', () =>
  new Promise((resolve) => {
    ws.once('pong', (data) => resolve(data.toString()));
    ws.ping('are you there');
  }),
);
await scenario('closed by the server', async () => {
  const end = closed(ws);
  ws.send('close 4001 enough');
  return end;
});
await scenario('closed by the client', async () => {
  const ws = await open('wss://socket.test/echo');
  const end = closed(ws);
  ws.close(4002, 'bye');
  return end;
});
await scenario('torn by the client', async () => {
  const ws = await open('wss://socket.test/echo');
  const end = closed(ws);
  ws.terminate();
  return end;
});
await scenario('permessage-deflate', async () => {
  const ws = await open('wss://socket.test/deflate', { perMessageDeflate: { threshold: 0 } });
  const sent = 'again and again '.repeat(10_000);
  const [data] = await echo(ws, sent);
  const end = closed(ws);
  ws.close(1000);
  await end;
  return [ws.extensions.split(';')[0], data.toString() === sent];
});
await scenario('plain ws', async () => {
  const ws = await open('ws://socket.test/echo');
  const [data] = await echo(ws, 'in the clear');
  const end = closed(ws);
  ws.close(1000);
  await end;
  return data.toString();
});
await scenario("Node's own WebSocket", () =>
  new Promise((resolve, reject) => {
    const ws = new WebSocket('wss://socket.test/echo', ['echo']);
    let got;
    ws.onopen = () => ws.send('from undici');
    ws.onmessage = (e) => {
      got = e.data;
      ws.close(1000);
    };
    ws.onerror = (e) => reject(e.error ?? new Error('failed'));
    ws.onclose = () => resolve(got);
  }),
);
await scenario('denied, the rule has no websocket', () => open('wss://socket.test/plain'));
await scenario('denied path', () => open('wss://socket.test/secret'));
await scenario('denied host', () => open('wss://exfil.test/'));
await scenario('as ws prints it', () =>
  new Promise((resolve) => {
    const ws = new WS('wss://socket.test/secret', { agent: https.globalAgent });
    ws.once('error', (e) => resolve(words(e)));
  }),
);
