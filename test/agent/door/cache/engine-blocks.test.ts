import { beforeEach, describe, expect, test } from 'vitest';
import { CacheRig, removedBlocks, storedRun, textPrompt, tokenIds, uniqueText } from '../../../helpers/cache-rig.ts';

let rig: CacheRig;

beforeEach(() => {
  rig = new CacheRig();
  rig.events.begin(true);
});

describe('what is held', () => {
  test('copies are counted: the last one decides', () => {
    const a = textPrompt(uniqueText(256));
    rig.learn(a.text);
    rig.admit(a);
    rig.tellStored(a, 100);
    rig.tellStored(a, 100);
    rig.events.apply([removedBlocks([103])]);
    expect(rig.depth(a)).toBe(4);
    rig.events.apply([removedBlocks([103])]);
    expect(rig.depth(a)).toBe(3);
    // Once more is once too often, and does not count.
    rig.events.apply([removedBlocks([103])]);
    rig.tellStored(a, 100, 3, 4);
    expect(rig.depth(a)).toBe(4);
  });

  test('an engine block that ends in the byte blocks of two prompts is gone for both', () => {
    const common = uniqueText(200);
    const [a, b] = [textPrompt(common + uniqueText(120, 'x')), textPrompt(common + uniqueText(120, 'y'))];
    for (const { text: bytes } of [a, b]) rig.learn(bytes);
    // Half a token a byte block more than there is: the shared engine block 2 ends behind the place where they part.
    for (const prompt of [a, b]) {
      rig.admit({ ...prompt, tokensPerBlock: 16 });
      rig.tellStored(prompt, 100, 0, 3);
    }
    const [third, other] = [rig.nodesOf(a)[2]!, rig.nodesOf(b)[2]!];
    expect(third).toBe(other);
    rig.events.apply([removedBlocks([102]), removedBlocks([102])]);
    expect([rig.depth(a), rig.depth(b)]).toEqual([2, 2]);
  });

  test('a reset of the cache empties the view', () => {
    const a = textPrompt(uniqueText(256));
    rig.learn(a.text);
    rig.finish(rig.admit(a));
    rig.tellStored(a, 100);
    rig.drain();
    expect(rig.mirror.size).toBe(4);
    rig.events.apply([{ type: 'cleared' }]);
    rig.drain();
    expect([rig.mirror.size, rig.tree.size]).toEqual([0, 0]);
  });

  test('blocks of a second tier are counted apart', () => {
    const a = textPrompt(uniqueText(256));
    rig.learn(a.text);
    rig.admit(a);
    rig.tellStored(a, 100, 0, 4, { medium: 'CPU' });
    rig.tellStored(a, 100, 0, 4, { medium: 'CPU' });
    expect(rig.events.offloadedCount).toBe(4);
    expect(rig.nodesOf(a).every(({ engine }) => engine.state === 'unknown')).toBe(true);
    rig.events.apply([removedBlocks([100, 101], 'CPU'), removedBlocks([100], 'CPU'), removedBlocks([555], 'CPU')]);
    expect(rig.events.offloadedCount).toBe(3);
  });

  test('sliding windows and other groups say nothing of prefixes', () => {
    const a = textPrompt(uniqueText(256));
    rig.learn(a.text);
    rig.admit(a);
    rig.tellStored(a, 100, 0, 4, { group: 1, specKind: 'sliding_window' });
    expect(rig.nodesOf(a).every(({ engine }) => engine.state === 'unknown')).toBe(true);
    rig.tellStored(a, 100, 0, 4, { group: 2, specKind: 'full_attention' });
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
    rig.events.apply([
      storedRun(
        Array.from({ length: 32 }, (_, at) => at),
        undefined,
        ids(0),
      ),
    ]);
    expect(rig.events.state).toBe('turning');
    rig.events.apply([
      storedRun(
        Array.from({ length: 32 }, (_, at) => at + 32),
        undefined,
        ids(512),
      ),
    ]);
    expect([rig.events.state, rig.events.problem]).toEqual(['exact', '']);
  });

  test('a reset while turning over leaves nothing that was not heard of', () => {
    rig.events.begin(false);
    rig.events.apply([{ type: 'cleared' }]);
    expect(rig.events.state).toBe('exact');
  });

  test('blocks of another size are another engine’s', () => {
    const a = textPrompt(uniqueText(256));
    rig.admit(a);
    rig.events.apply([storedRun([1, 2], undefined, tokenIds(a.text), { blockSize: 32 })]);
    expect(rig.events.state).toBe('failed');
    expect(rig.events.problem).toBe(
      "KV events speak of blocks of 32 tokens, vllm:cache_config_info of 16: is the events' endpoint that of this instance?",
    );
    rig.events.apply([storedRun([3, 4], undefined, tokenIds(a.text), { blockSize: 32 })]);
    expect(rig.warnings).toEqual([rig.events.problem]);
    rig.events.begin(true);
    expect([rig.events.state, rig.events.problem]).toEqual(['exact', '']);
  });

  test('blocks of the right size after others begin a history that has to turn over', () => {
    const a = textPrompt(uniqueText(256));
    rig.events.begin(true);
    rig.events.apply([storedRun([1, 2], undefined, tokenIds(a.text), { blockSize: 32 })]);
    rig.events.apply([storedRun([3], undefined, tokenIds(a.text).slice(0, 16))]);
    expect(rig.events.state).toBe('turning');
  });

  test('a restart voids what was heard, unless the new stream was heard before', () => {
    const a = textPrompt(uniqueText(256));
    rig.learn(a.text);
    rig.admit(a);
    rig.tellStored(a, 100);
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
