import { defineConfig } from 'vitest/config';

/**
 * Tests against real vLLM servers (docs/real-vllm.md): real time, one worker, servers shared by all tests of a file.
 */
export default defineConfig({
  test: {
    include: ['test/vllm/**/*.test.ts'],
    testTimeout: 90_000,
    hookTimeout: 240_000,
    pool: 'forks',
    maxWorkers: 1,
    fileParallelism: false,
  },
});
