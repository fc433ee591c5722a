// The @anthropic-ai/sdk package as an agent uses it.
import Anthropic from '@anthropic-ai/sdk';
import { HTTPS, release, scenario } from './report.mjs';

const client = new Anthropic({ apiKey: 'sk-test', baseURL: HTTPS, maxRetries: 0 });
const request = { max_tokens: 100, messages: [{ role: 'user', content: 'What is the answer?' }] };

await scenario('message', async () => (await client.messages.create({ model: 'm', ...request })).content[0].text);
await scenario('stream', async () => {
  const pieces = [];
  for await (const event of await client.messages.create({ model: 'anthropic', ...request, stream: true })) {
    if (event.type !== 'content_block_delta') continue;
    if (pieces.length === 0) await release('anthropic');
    pieces.push(event.delta.text);
  }
  return pieces;
});
await scenario('stream helper', async () => {
  const stream = client.messages.stream({ model: 'helper', ...request });
  stream.once('text', () => release('helper'));
  return (await stream.finalMessage()).content[0].text;
});
await scenario('denied path', () => client.models.list());
await scenario('denied path, error object', () =>
  client.models.list().then(
    () => 'allowed',
    (e) => [e.constructor.name, e.status, e.headers.get('x-aegrail-reason')],
  ),
);
await scenario('denied host', () =>
  new Anthropic({ apiKey: 'sk-test', baseURL: 'https://exfil.test', maxRetries: 0 }).messages.create({ model: 'm', ...request }),
);
await scenario('after a denial', async () => (await client.messages.create({ model: 'm', ...request })).content[0].text);
