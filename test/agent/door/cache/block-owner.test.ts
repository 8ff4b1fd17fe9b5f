import { beforeEach, expect, test } from 'vitest';
import { CacheRig, idsPrompt, removedBlocks, textPrompt, uniqueText } from '../../../helpers/cache-rig.ts';

let rig: CacheRig;

beforeEach(() => {
  rig = new CacheRig();
  rig.events.begin(true);
});

test('tells by the vocabulary whose text a run is', () => {
  const [a, b] = [textPrompt(uniqueText(256)), textPrompt(uniqueText(256, 'b'))];
  rig.learn(a.text);
  rig.learn(b.text);
  rig.admit(a);
  rig.admit(b);
  rig.tellStored(b, 200);
  expect(rig.nodesOf(b).map(({ engine }) => engine.state)).toEqual(['held', 'held', 'held', 'held']);
  expect(rig.nodesOf(a).map(({ engine }) => engine.state)).toEqual(['unknown', 'unknown', 'unknown', 'unknown']);
  // One token in each block is exact now, and none was changed.
  expect(rig.nodesOf(b).map(({ tokens, exact }) => [tokens, exact])).toEqual([
    [16, true],
    [32, true],
    [48, true],
    [64, true],
  ]);
});

test('without a vocabulary, a run is the only request’s that it can be', () => {
  const a = textPrompt(uniqueText(256));
  const sequence = rig.admit(a);
  rig.tellStored(a, 100);
  expect(rig.nodesOf(a).every(({ engine }) => engine.state === 'held')).toBe(true);
  expect(sequence.unknownTokens).toBe(64);
});

test('without a vocabulary, a run that may be of several requests is nobody’s', () => {
  const [a, b] = [textPrompt(uniqueText(256)), textPrompt(uniqueText(256, 'b'))];
  rig.admit(a);
  rig.admit(b);
  rig.tellStored(a, 100);
  expect([...rig.nodesOf(a), ...rig.nodesOf(b)].every(({ engine }) => engine.state === 'unknown')).toBe(true);
});

test('a prompt of token ids is known by its tokens', () => {
  const ids = Array.from({ length: 64 }, (_, at) => at + 1);
  const [a, b] = [idsPrompt(ids), idsPrompt([...ids.slice(0, 20), ...ids.slice(0, 44)])];
  rig.admit(a);
  rig.admit(b);
  rig.tellStored(b, 100);
  // What both share is held for both.
  expect(rig.nodesOf(b).map(({ engine }) => engine.state)).toEqual(['held', 'held', 'held', 'held']);
  expect(rig.nodesOf(a).map(({ engine }) => engine.state)).toEqual(['held', 'unknown', 'unknown', 'unknown']);
});

test('chunks of a prompt follow one another, and late ones come after its end', () => {
  const a = textPrompt(uniqueText(256));
  rig.learn(a.text);
  const sequence = rig.admit(a);
  rig.tellStored(a, 100, 0, 2);
  rig.finish(sequence);
  rig.tellStored(a, 100, 2, 4);
  expect(rig.nodesOf(a).map(({ engine }) => engine.state)).toEqual(['held', 'held', 'held', 'held']);
});

test('blocks whose parent was never heard of are nobody’s', () => {
  const a = textPrompt(uniqueText(256));
  rig.learn(a.text);
  rig.admit(a);
  rig.tellStored(a, 100, 2, 4);
  expect(rig.nodesOf(a).every(({ engine }) => engine.state === 'unknown')).toBe(true);
  rig.events.apply([removedBlocks([102, 103, 999])]);
  expect(rig.depth(a)).toBe(4);
});

test.each([
  ['LoRA', { model: 'sql' }, { loraName: 'sql' }],
  ['cache salt', { cacheSalt: 'pepper' }, { extraKeys: [['pepper'], null, null, null] }],
])('%s: the same text of others is not meant', (_what, changes, event) => {
  const [plain, special] = [textPrompt(uniqueText(256)), textPrompt(uniqueText(256), changes)];
  rig.learn(plain.text);
  rig.admit(plain);
  rig.admit(special);
  rig.tellStored(special, 100, 0, 4, event);
  rig.tellStored(plain, 200, 0, 4, { extraKeys: [null, null, null, null] });
  rig.events.apply([removedBlocks([200, 201, 202, 203])]);
  expect(rig.nodesOf(special).map(({ engine }) => engine.state)).toEqual(['held', 'held', 'held', 'held']);
  expect(rig.nodesOf(plain).map(({ engine }) => engine.state)).toEqual(['gone', 'gone', 'gone', 'gone']);
});
