// The openai package as an agent uses it.
import OpenAI from 'openai';
import { HTTPS, release, scenario } from './report.mjs';

const client = new OpenAI({ apiKey: 'sk-test', baseURL: `${HTTPS}/v1`, maxRetries: 0 });
const messages = [{ role: 'user', content: 'What is the answer?' }];

await scenario('completion', async () => {
  const c = await client.chat.completions.create({ model: 'm', messages });
  return c.choices[0].message.content;
});
await scenario('stream', async () => {
  const pieces = [];
  for await (const chunk of await client.chat.completions.create({ model: 'openai', messages, stream: true })) {
    if (pieces.length === 0) await release('openai');
    pieces.push(chunk.choices[0].delta.content);
  }
  return pieces;
});
await scenario('denied path', () => client.models.list());
await scenario('denied path, streamed', () => client.responses.create({ model: 'm', input: 'hi', stream: true }));
await scenario('denied path, error object', () =>
  client.models.list().then(
    () => 'allowed',
    (e) => [e.constructor.name, e.status, e.headers.get('x-aegrail-reason')],
  ),
);
await scenario('denied host', () => new OpenAI({ apiKey: 'sk-test', baseURL: 'https://exfil.test/v1', maxRetries: 0 }).models.list());
await scenario('after a denial', async () => {
  const c = await client.chat.completions.create({ model: 'm', messages });
  return c.choices[0].message.content;
});
