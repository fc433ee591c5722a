// @grpc/grpc-js with calls that do not come to their end.
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import { scenario } from './report.mjs';

const { TestService } = grpc.loadPackageDefinition(protoLoader.loadSync('test.proto', { keepCase: true })).grpc.testing;
const client = new TestService('grpc.test:443', grpc.credentials.createSsl());
const message = { payload: { body: Buffer.from('x') } };
const cut = 10;

// cuts makes calls that begin with a message each way and then end as end says.
async function cuts(deadline, end) {
  const codes = [];
  for (let i = 0; i < cut; i++) {
    codes.push(
      await new Promise((resolve) => {
        const s = client.FullDuplexCall({ deadline: Date.now() + deadline });
        s.on('data', () => end(s));
        s.on('error', (e) => resolve(grpc.status[e.code]));
        s.write(message);
      }),
    );
  }
  return [...new Set(codes)];
}

const unary = () =>
  new Promise((resolve, reject) => client.UnaryCall(message, (e, r) => (e ? reject(e) : resolve(r.payload.body.toString()))));

await scenario('before them', unary);
await scenario('deadline', () => cuts(200, () => {}));
await scenario('cancel', () => cuts(30_000, (s) => s.cancel()));
await scenario('after them', unary);
client.close();
