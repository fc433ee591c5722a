// @grpc/grpc-js with proxy (https_proxy) and roots (GRPC_DEFAULT_SSL_ROOTS_FILE_PATH)
// from the environment alone.
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import { scenario } from './report.mjs';

const limit = 16 << 20;
const options = { 'grpc.max_receive_message_length': limit, 'grpc.max_send_message_length': limit };
const { TestService } = grpc.loadPackageDefinition(protoLoader.loadSync('test.proto', { keepCase: true })).grpc.testing;
const connect = (target) => new TestService(target, grpc.credentials.createSsl(), options);
const client = connect('grpc.test:443');
const deadline = () => ({ deadline: Date.now() + 30_000 });
const payload = (n, fill = 'x') => ({ body: Buffer.alloc(n, fill) });
const status = (e) => [grpc.status[e.code], e.details];

// call is a unary call as a promise of response, header and trailer.
function call(client, method, request, metadata = new grpc.Metadata()) {
  return new Promise((resolve, reject) => {
    const got = {};
    const c = client[method](request, metadata, deadline(), (e, response) => {
      if (e) reject(e);
      else got.response = response;
    });
    c.on('metadata', (m) => (got.header = m));
    c.on('status', (s) => {
      got.trailer = s.metadata;
      if (got.response) resolve(got);
      else setImmediate(() => got.response && resolve(got));
    });
  });
}

const failing = (promise) => promise.then(() => 'allowed', status);

// each collects what a stream sends, then its status.
function each(stream) {
  const got = [];
  return new Promise((resolve, reject) => {
    stream.on('data', (m) => got.push(m.payload.body.length));
    stream.on('error', reject);
    stream.on('end', () => resolve(got));
  });
}

await scenario('unary', async () => (await call(client, 'UnaryCall', { payload: payload(5, 'a') })).response.payload.body.toString());
await scenario('5 MiB message', async () => (await call(client, 'UnaryCall', { payload: payload(5 << 20) })).response.payload.body.length);
await scenario('metadata', async () => {
  const m = new grpc.Metadata();
  m.set('x-echo', 'one');
  m.set('x-echo-bin', Buffer.from([0, 255, 10]));
  const { header, trailer } = await call(client, 'UnaryCall', { payload: payload(1) }, m);
  return [header.get('x-echo')[0], [...trailer.get('x-echo-bin')[0]]];
});
await scenario('status of the server', () =>
  failing(call(client, 'UnaryCall', { response_status: { code: grpc.status.FAILED_PRECONDITION, message: 'nöt %now' } })),
);
await scenario('client stream', () =>
  new Promise((resolve, reject) => {
    const s = client.StreamingInputCall(deadline(), (e, r) => (e ? reject(e) : resolve(r.aggregated_payload_size)));
    for (let i = 0; i < 20; i++) s.write({ payload: payload(64 << 10) });
    s.end();
  }),
);
await scenario('server stream', () => each(client.StreamingOutputCall({ response_parameters: [{ size: 1 }, { size: 1 << 20 }, { size: 3 }] }, deadline())));
await scenario('ping-pong', () =>
  new Promise((resolve, reject) => {
    // The next message is sent only when the last has come back.
    const s = client.FullDuplexCall(deadline());
    const got = [];
    s.on('error', reject);
    s.on('end', () => resolve(got));
    s.on('data', (m) => {
      got.push(m.payload.body.length);
      if (got.length < 5) s.write({ payload: payload(10 ** got.length) });
      else s.end();
    });
    s.write({ payload: payload(1) });
  }),
);
await scenario('parallel', async () =>
  (await Promise.all(Array.from({ length: 20 }, (_, i) => call(client, 'UnaryCall', { payload: payload(i + 1) })))).map((r) => r.response.payload.body.length),
);
await scenario('denied method', () => failing(call(client, 'EmptyCall', {})));
await scenario('after a denial', async () => (await call(client, 'UnaryCall', { payload: payload(5, 'a') })).response.payload.body.toString());
client.close();
const exfil = connect('exfil.test:443');
await scenario('denied host', () => failing(call(exfil, 'EmptyCall', {})));
exfil.close();
