import { beforeEach, describe, expect, test } from 'vitest';
import type { CachePrompt } from '../../../../agent/request/prompt.ts';
import { CacheRig, idsPrompt, removedBlocks, storedRun, textPrompt, tokenIds } from '../../../helpers/cache-rig.ts';

let rig: CacheRig;

beforeEach(() => {
  rig = new CacheRig();
  rig.events.begin(true);
});

/** Text like no other, of `bytes` bytes; a token of it is four. */
function text(bytes: number, name = 'a'): string {
  let out = '';
  for (let n = 0; out.length < bytes; n++) out += `${name}${(n * 7919) % 9973} `;
  return out.slice(0, bytes);
}

/** Tells that a prompt's blocks from `first` to before `end` are stored; their hashes are `base` and their place. */
function tellStored(prompt: CachePrompt, base: number, first = 0, end = Math.floor(tokenIds(prompt.text).length / 16), changes: Parameters<typeof storedRun>[3] = {}, parent = first > 0 ? base + first - 1 : undefined): void {
  const hashes = Array.from({ length: end - first }, (_, at) => base + first + at);
  rig.events.apply([storedRun(hashes, parent, tokenIds(prompt.text).slice(first * 16, end * 16), changes)]);
}

describe('attribution', () => {
  test('tells by the vocabulary whose text a run is', () => {
    const [a, b] = [textPrompt(text(256)), textPrompt(text(256, 'b'))];
    rig.learn(a.text);
    rig.learn(b.text);
    rig.admit(a);
    rig.admit(b);
    tellStored(b, 200);
    expect(rig.nodesOf(b).map(({ engine }) => engine.state)).toEqual(['held', 'held', 'held', 'held']);
    expect(rig.nodesOf(a).map(({ engine }) => engine.state)).toEqual(['unknown', 'unknown', 'unknown', 'unknown']);
    // One token in each block is exact now, and none was changed.
    expect(rig.nodesOf(b).map(({ tokens, exact }) => [tokens, exact])).toEqual([[16, true], [32, true], [48, true], [64, true]]);
  });

  test('without a vocabulary, a run is the only request’s that it can be', () => {
    const a = textPrompt(text(256));
    const sequence = rig.admit(a);
    tellStored(a, 100);
    expect(rig.nodesOf(a).every(({ engine }) => engine.state === 'held')).toBe(true);
    expect(sequence.unknownTokens).toBe(64);
  });

  test('without a vocabulary, a run that may be of several requests is nobody’s', () => {
    const [a, b] = [textPrompt(text(256)), textPrompt(text(256, 'b'))];
    rig.admit(a);
    rig.admit(b);
    tellStored(a, 100);
    expect([...rig.nodesOf(a), ...rig.nodesOf(b)].every(({ engine }) => engine.state === 'unknown')).toBe(true);
  });

  test('a prompt of token ids is known by its tokens', () => {
    const ids = Array.from({ length: 64 }, (_, at) => at + 1);
    const [a, b] = [idsPrompt(ids), idsPrompt([...ids.slice(0, 20), ...ids.slice(0, 44)])];
    rig.admit(a);
    rig.admit(b);
    tellStored(b, 100);
    // What both share is held for both.
    expect(rig.nodesOf(b).map(({ engine }) => engine.state)).toEqual(['held', 'held', 'held', 'held']);
    expect(rig.nodesOf(a).map(({ engine }) => engine.state)).toEqual(['held', 'unknown', 'unknown', 'unknown']);
  });

  test('chunks of a prompt follow one another, and late ones come after its end', () => {
    const a = textPrompt(text(256));
    rig.learn(a.text);
    const sequence = rig.admit(a);
    tellStored(a, 100, 0, 2);
    rig.finish(sequence);
    tellStored(a, 100, 2, 4);
    expect(rig.nodesOf(a).map(({ engine }) => engine.state)).toEqual(['held', 'held', 'held', 'held']);
  });

  test('blocks whose parent was never heard of are nobody’s', () => {
    const a = textPrompt(text(256));
    rig.learn(a.text);
    rig.admit(a);
    tellStored(a, 100, 2, 4);
    expect(rig.nodesOf(a).every(({ engine }) => engine.state === 'unknown')).toBe(true);
    rig.events.apply([removedBlocks([102, 103, 999])]);
    expect(rig.depth(a)).toBe(4);
  });

  test.each([
    ['LoRA', { model: 'sql' }, { loraName: 'sql' }],
    ['cache salt', { cacheSalt: 'pepper' }, { extraKeys: [['pepper'], null, null, null] }],
  ])('%s: the same text of others is not meant', (_what, changes, event) => {
    const [plain, special] = [textPrompt(text(256)), textPrompt(text(256), changes)];
    rig.learn(plain.text);
    rig.admit(plain);
    rig.admit(special);
    tellStored(special, 100, 0, 4, event);
    tellStored(plain, 200, 0, 4, { extraKeys: [null, null, null, null] });
    rig.events.apply([removedBlocks([200, 201, 202, 203])]);
    expect(rig.nodesOf(special).map(({ engine }) => engine.state)).toEqual(['held', 'held', 'held', 'held']);
    expect(rig.nodesOf(plain).map(({ engine }) => engine.state)).toEqual(['gone', 'gone', 'gone', 'gone']);
  });
});

describe('what is held', () => {
  test('copies are counted: the last one decides', () => {
    const a = textPrompt(text(256));
    rig.learn(a.text);
    rig.admit(a);
    tellStored(a, 100);
    tellStored(a, 100);
    rig.events.apply([removedBlocks([103])]);
    expect(rig.depth(a)).toBe(4);
    rig.events.apply([removedBlocks([103])]);
    expect(rig.depth(a)).toBe(3);
    // Once more is once too often, and does not count.
    rig.events.apply([removedBlocks([103])]);
    tellStored(a, 100, 3, 4);
    expect(rig.depth(a)).toBe(4);
  });

  test('an engine block that ends in the byte blocks of two prompts is gone for both', () => {
    const common = text(200);
    const [a, b] = [textPrompt(common + text(120, 'x')), textPrompt(common + text(120, 'y'))];
    for (const { text: bytes } of [a, b]) rig.learn(bytes);
    // Half a token a byte block more than there is: the shared engine block 2 ends behind the place where they part.
    for (const prompt of [a, b]) {
      rig.admit({ ...prompt, tokensPerBlock: 16 });
      tellStored(prompt, 100, 0, 3);
    }
    const [third, other] = [rig.nodesOf(a)[2]!, rig.nodesOf(b)[2]!];
    expect(third).toBe(other);
    rig.events.apply([removedBlocks([102]), removedBlocks([102])]);
    expect([rig.depth(a), rig.depth(b)]).toEqual([2, 2]);
  });

  test('a reset of the cache empties the view', () => {
    const a = textPrompt(text(256));
    rig.learn(a.text);
    rig.finish(rig.admit(a));
    tellStored(a, 100);
    rig.drain();
    expect(rig.mirror.size).toBe(4);
    rig.events.apply([{ type: 'cleared' }]);
    rig.drain();
    expect([rig.mirror.size, rig.tree.size]).toEqual([0, 0]);
  });

  test('blocks of a second tier are counted apart', () => {
    const a = textPrompt(text(256));
    rig.learn(a.text);
    rig.admit(a);
    tellStored(a, 100, 0, 4, { medium: 'CPU' });
    tellStored(a, 100, 0, 4, { medium: 'CPU' });
    expect(rig.events.offloadedCount).toBe(4);
    expect(rig.nodesOf(a).every(({ engine }) => engine.state === 'unknown')).toBe(true);
    rig.events.apply([removedBlocks([100, 101], 'CPU'), removedBlocks([100], 'CPU'), removedBlocks([555], 'CPU')]);
    expect(rig.events.offloadedCount).toBe(3);
  });

  test('sliding windows and other groups say nothing of prefixes', () => {
    const a = textPrompt(text(256));
    rig.learn(a.text);
    rig.admit(a);
    tellStored(a, 100, 0, 4, { group: 1, specKind: 'sliding_window' });
    expect(rig.nodesOf(a).every(({ engine }) => engine.state === 'unknown')).toBe(true);
    tellStored(a, 100, 0, 4, { group: 2, specKind: 'full_attention' });
    rig.events.apply([removedBlocks([100, 101, 102, 103], 'GPU', 1)]);
    expect(rig.depth(a)).toBe(4);
    rig.events.apply([removedBlocks([103], 'GPU', 2)]);
    expect(rig.depth(a)).toBe(3);
  });
});

describe('the state of the account', () => {
  test('after a gap, the door’s own account counts until the cache has turned over', () => {
    rig.events.begin(false);
    expect(rig.events.state).toBe('turning');
    expect(rig.events.problem).toMatch(/lost/);
    const ids = (from: number): number[] => Array.from({ length: 512 }, (_, at) => at + from);
    rig.events.apply([storedRun(Array.from({ length: 32 }, (_, at) => at), undefined, ids(0))]);
    expect(rig.events.state).toBe('turning');
    rig.events.apply([storedRun(Array.from({ length: 32 }, (_, at) => at + 32), undefined, ids(512))]);
    expect([rig.events.state, rig.events.problem]).toEqual(['exact', '']);
  });

  test('a reset while turning over leaves nothing that was not heard of', () => {
    rig.events.begin(false);
    rig.events.apply([{ type: 'cleared' }]);
    expect(rig.events.state).toBe('exact');
  });

  test('blocks of another size are another engine’s', () => {
    const a = textPrompt(text(256));
    rig.admit(a);
    rig.events.apply([storedRun([1, 2], undefined, tokenIds(a.text), { blockSize: 32 })]);
    expect(rig.events.state).toBe('failed');
    expect(rig.events.problem).toBe("KV events speak of blocks of 32 tokens, vllm:cache_config_info of 16: is the events' endpoint that of this instance?");
    rig.events.apply([storedRun([3, 4], undefined, tokenIds(a.text), { blockSize: 32 })]);
    expect(rig.warnings).toEqual([rig.events.problem]);
    rig.events.begin(true);
    expect([rig.events.state, rig.events.problem]).toEqual(['exact', '']);
  });

  test('blocks of the right size after others begin a history that has to turn over', () => {
    const a = textPrompt(text(256));
    rig.events.begin(true);
    rig.events.apply([storedRun([1, 2], undefined, tokenIds(a.text), { blockSize: 32 })]);
    rig.events.apply([storedRun([3], undefined, tokenIds(a.text).slice(0, 16))]);
    expect(rig.events.state).toBe('turning');
  });

  test('a restart voids what was heard, unless the new stream was heard before', () => {
    const a = textPrompt(text(256));
    rig.learn(a.text);
    rig.admit(a);
    tellStored(a, 100);
    rig.nowMs = 4000;
    rig.events.restarted();
    expect(rig.events.state).toBe('exact');
    rig.nowMs = 5000;
    rig.events.restarted();
    expect(rig.events.state).toBe('silent');
    expect(rig.nodesOf(a).every(({ engine }) => engine.state === 'unknown' && engine.blocks.length === 0)).toBe(true);
    rig.events.fail('cannot be followed');
    rig.events.restarted();
    expect([rig.events.state, rig.events.problem]).toEqual(['failed', 'cannot be followed']);
  });
});
