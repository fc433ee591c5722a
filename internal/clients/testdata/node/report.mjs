// What the Node clients share: a line of JSON for each scenario.
import { createHash } from 'node:crypto';

export const HTTPS = 'https://models.test';

export const body = Buffer.alloc(5 << 20, Buffer.from(Array.from({ length: 256 }, (_, i) => i)));
export const bodySHA256 = createHash('sha256').update(body).digest('hex');

// scenario prints [name, what came of it]; an error as its own words, with
// those of its causes, which is what Node prints of one that nobody caught.
export async function scenario(name, run) {
  let came;
  try {
    came = await run();
  } catch (e) {
    came = words(e);
  }
  console.log(JSON.stringify([name, came ?? null]));
}

export function words(e) {
  const parts = [];
  for (let at = e; at; at = at.cause) parts.push(`${at.name}: ${at.message}`);
  return parts.join(' / ');
}

// release lets a held-back stream of models.test go on.
export async function release(name) {
  const r = await fetch(`${HTTPS}/release/${name}`, { method: 'POST' });
  if (!r.ok) throw new Error(`release: ${r.status}`);
}
