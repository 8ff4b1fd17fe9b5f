import { describe, expect, it } from 'vitest';
import { bundledTrace, readTrace, simPrompt } from '../../../sim/workloads/index.ts';

describe('simulated prompt', () => {
  const a = simPrompt({ hashIds: [0, 7, 8], inputTokens: 160, blockTokens: 64 }, 1);

  it('shares exactly the blocks whose ids are shared', () => {
    const b = simPrompt({ hashIds: [0, 7, 9], inputTokens: 190, blockTokens: 64 }, 1);
    expect(b.subarray(0, 128)).toEqual(a.subarray(0, 128));
    for (let at = 128; at < 160; at++) expect(b[at]).not.toBe(a[at]);
    expect(simPrompt({ hashIds: [0, 7, 8], inputTokens: 160, blockTokens: 64 }, 1)).toEqual(a);
    expect(simPrompt({ hashIds: [0, 7, 8], inputTokens: 160, blockTokens: 64 }, 2)).not.toEqual(a);
  });

  it('has the length asked for, blocks of odd sizes included, and ids of 31 bits', () => {
    for (const lengthScale of [1, 0.125, 0.1, 0.001]) {
      for (const request of readTrace(bundledTrace, { seed: 1, lengthScale, outputScale: 1, maxRequests: 100 })
        .requests) {
        const tokens = simPrompt(request, 1);
        expect(tokens).toHaveLength(request.inputTokens);
        expect(tokens.every((token) => token >= 0)).toBe(true);
      }
    }
    const odd = { inputTokens: 100, blockTokens: 51.2 };
    const [x, y] = [simPrompt({ ...odd, hashIds: [1, 2] }, 1), simPrompt({ ...odd, hashIds: [1, 3] }, 1)];
    expect(x.subarray(0, 51)).toEqual(y.subarray(0, 51));
    expect(x[51]).not.toBe(y[51]);
  });

  it('gives different ids different tokens, whatever the ids', () => {
    const ids = [
      ...Array.from({ length: 5000 }, (_, id) => id),
      2 ** 31 - 1,
      2 ** 31,
      2 ** 31 + 5,
      2 ** 32,
      2 ** 40,
      2 ** 52,
      -1,
      -2,
    ];
    const blocks = ids.map((id) => simPrompt({ hashIds: [id], inputTokens: 16, blockTokens: 16 }, 1));
    expect(new Set(blocks.map((tokens) => tokens.join())).size).toBe(ids.length);
    expect(new Set(blocks.slice(0, 5000).map((tokens) => tokens[9])).size).toBe(5000);
  });
});
