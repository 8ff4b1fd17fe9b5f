import { expect, test } from 'vitest';
import { ChainSet } from '../../../../agent/entry/cache-index/chain-set.ts';
import { seededRng } from '../../../../shared/env.ts';
import { below } from '../../../helpers/random.ts';

/** Chained hashes of a text with one letter a block. */
function chainOf(text: string): Float64Array {
  let hash = 7;
  return Float64Array.from(text, (letter) => (hash = (hash * 31 + letter.charCodeAt(0)) % 4_503_599_627_370));
}

function agreed(one: Float64Array, other: Float64Array): number {
  let n = 0;
  while (n < one.length && n < other.length && one[n] === other[n]) n += 1;
  return n;
}

test('finds what a comparison with every chain finds, while chains come and go', () => {
  const rng = seededRng(5);
  const tree = new ChainSet();
  const held: Float64Array[] = [];
  const text = (): string => Array.from({ length: 1 + below(rng, 40) }, () => 'ab'[Number(rng() < 0.2)]).join('');
  for (let round = 0; round < 5000; round++) {
    if (held.length < 30 && rng() < 0.5) {
      const chain = chainOf(text());
      held.push(chain);
      tree.add(chain);
    } else if (held.length > 0) {
      const [gone] = held.splice(below(rng, held.length), 1);
      tree.delete(gone as Float64Array);
    }
    const prompt = chainOf(text());
    expect(tree.match(prompt)).toBe(Math.max(0, ...held.map((chain) => agreed(chain, prompt))));
    expect(tree.size).toBe(held.length);
  }
  for (const chain of held) tree.delete(chain);
  expect(tree.match(chainOf('aaa'))).toBe(0);
});

test('of two equal chains, one remains when the other is deleted', () => {
  const tree = new ChainSet();
  tree.add(chainOf('abc'));
  tree.add(chainOf('abc'));
  tree.delete(chainOf('abc'));
  expect(tree.match(chainOf('abcd'))).toBe(3);
  expect(tree.match(new Float64Array(0))).toBe(0);
});
