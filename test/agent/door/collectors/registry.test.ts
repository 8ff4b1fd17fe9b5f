import { Agent } from 'undici';
import { afterEach, expect, it, vi } from 'vitest';
import {
  hostCollectors,
  instanceCollectors,
  makeCollectors,
  type CollectorContext,
} from '../../../../agent/door/collectors/index.ts';
import { defaultConfig, loadConfig } from '../../../../shared/config/index.ts';
import { silentLog } from '../../../../shared/env.ts';
import { VirtualClock } from '../../../helpers/virtual-clock.ts';

const token = 'a-token-of-sixteen-or-more';
const dispatcher = new Agent();
/** Nothing listens on port 1 and no executable has that path, so every collector that can fail does. */
const broken = loadConfig({
  env: {},
  overrides: {
    token,
    agent: { instances: [{ url: 'http://127.0.0.1:1' }], nvidiaSmiPath: '/nowhere/at/all/nvidia-smi' },
  },
}).agent;
const [instance] = broken.instances;
const stops: (() => void)[] = [];
afterEach(() => {
  for (const stop of stops.splice(0)) stop();
});

function context(): CollectorContext {
  return { config: broken, env: { clock: new VirtualClock(), log: silentLog }, dispatcher };
}

const makers = [
  ...Object.entries(hostCollectors).map(([name, make]) => ({ name, make: () => make(context()) })),
  ...Object.entries(instanceCollectors).map(([name, make]) => ({
    name,
    make: () => make(context(), instance ?? expect.unreachable()),
  })),
];

it.each(makers)('$name keeps the contract', async ({ make, name }) => {
  const collector = make();
  stops.push(() => collector.stop());
  expect(collector.latest()).toBeUndefined();
  expect(collector.status()).toMatchObject({ name: collector.name, ok: false, lastOkMs: undefined, error: undefined });
  collector.start();
  collector.start();
  await vi.waitFor(() => expect(collector.status().ok || collector.status().error !== undefined).toBe(true), {
    timeout: 30_000,
    interval: 5,
  });
  if (name === 'host') {
    const ratios = Object.values(collector.latest()?.value ?? {});
    expect(ratios).toHaveLength(2);
    for (const ratio of ratios) expect(ratio).toSatisfy((value: number) => value >= 0 && value <= 1);
  } else {
    expect(collector.status().ok).toBe(false);
    expect(collector.latest()).toBeUndefined();
  }
  collector.stop();
  collector.stop();
});

it('makes the collectors of the host once and those of every instance', () => {
  const collectors = makeCollectors(context());
  expect(collectors.statuses()).toHaveLength(makers.length);
  expect([...collectors.instances.keys()]).toEqual([instance?.id]);
  expect(makeCollectors({ ...context(), config: defaultConfig(token).agent }).statuses()).toHaveLength(
    Object.keys(hostCollectors).length,
  );
});
