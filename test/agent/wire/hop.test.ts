import { expect, test } from 'vitest';
import { openHop, signHop } from '../../../agent/wire/hop.ts';
import { seededRng } from '../../../shared/env.ts';
import { below } from '../../helpers/random.ts';

const TOKEN = 'fleet-token-of-the-tests';
const HOP = { instance: 'gpu-1:8000', entry: 'agent-a', epoch: 1_700_000_000_123, seq: 42, watched: true };

test.each([true, false])('what was signed is read back, watched %s', (watched) => {
  expect(openHop(signHop({ ...HOP, watched }, TOKEN), TOKEN)).toEqual({ ...HOP, watched });
});

test('a hop of another fleet, or none at all, is refused', () => {
  const header = signHop(HOP, TOKEN);
  expect(openHop(header, `${TOKEN}x`)).toBeUndefined();
  for (const text of [
    '',
    ',',
    ',,,,',
    'gpu-1:8000,agent-a,1,2',
    'x'.repeat(10_000),
    `${header},`,
    ` ${header}`,
    `${header}, ${header}`,
  ])
    expect(openHop(text, TOKEN)).toBeUndefined();
});

test('no truncation and no single changed character passes', () => {
  const header = signHop(HOP, TOKEN);
  for (let end = 0; end < header.length; end++) expect(openHop(header.slice(0, end), TOKEN)).toBeUndefined();
  const rng = seededRng(1);
  for (let at = 0; at < header.length; at++) {
    const changed = String.fromCharCode(33 + below(rng, 90));
    if (changed === header[at]) continue;
    expect(openHop(header.slice(0, at) + changed + header.slice(at + 1), TOKEN)).toBeUndefined();
  }
});

test.each([Number.NaN, -1, 1.5, Infinity, 1e300, 2 ** 53])(
  'a hop of the fleet that numbers its requests by %s is none',
  (odd) => {
    expect(openHop(signHop({ ...HOP, seq: odd }, TOKEN), TOKEN)).toBeUndefined();
    expect(openHop(signHop({ ...HOP, epoch: odd }, TOKEN), TOKEN)).toBeUndefined();
  },
);
