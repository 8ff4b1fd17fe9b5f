import { expect, test } from 'vitest';
import { loadConfig, retiredKeys } from '../../../shared/config/index.ts';

test('keys without effect are accepted, and each is said once with what takes its place', () => {
  const load = (agent: object) => loadConfig({ env: {}, overrides: { token: 'x'.repeat(16), agent } });
  expect(retiredKeys(load({}))).toEqual([]);
  const warnings = retiredKeys(load({ firstByteTimeoutMs: 1000, idleTimeoutMs: 2000 }));
  expect(warnings).toHaveLength(2);
  expect(warnings[0]).toMatch(/^agent\.firstByteTimeoutMs has no effect any more: .*agent\.requestTimeoutMs/);
  expect(warnings[1]).toMatch(/^agent\.idleTimeoutMs has no effect any more: .*agent\.slowClientTimeoutMs/);
});
