import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { findGpu, loadGpus } from '../../../sim/engine/gpus.ts';
import { parseCluster, readCluster } from '../../../sim/fleet/cluster.ts';

const FULL = `
gpus:
  A30: {c0: 30, kvTokens: 50000}
  H900: {c0: 5, c1: 0.02, c2: 1.0e-6, c3: 0.01, c4: 3.0e-5, kvTokens: 900000, T0: 120, c5: 1.0e-5}
instances:
  - {gpu: A30, count: 2}
  - {gpu: H900, maxNumSeqs: 64, maxBatchedTokens: 8192, kvTokens: 100000}
network: {hopMs: 1}
frontEndMs: 5
stepLaw: roofline
events:
  - {atS: 60, kind: throttle, instance: 1, factor: 0.5}
  - {atS: 30, kind: die, instance: 0, restart: 10}
  - {atS: 45, kind: join, instance: 2}
  - {atS: 90, kind: clear-cache, instance: 1}
  - {atS: 95, kind: swap, instance: 0, gpu: H900}
`;

describe('cluster file', () => {
  it('is read with its GPUs, instances and events', () => {
    const cluster = parseCluster(FULL, 'c.yaml');
    expect(
      cluster.instances.map(({ id, gpu, maxNumSeqs, maxBatchedTokens, kvTokens }) => [
        id,
        gpu.key,
        gpu.c0,
        maxNumSeqs,
        maxBatchedTokens,
        kvTokens,
      ]),
    ).toEqual([
      ['i0', 'A30', 30, 256, 2048, 50_000],
      ['i1', 'A30', 30, 256, 2048, 50_000],
      ['i2', 'H900', 5, 64, 8192, 100_000],
    ]);
    expect(cluster.instances[0]?.gpu.c1).toBe(findGpu(loadGpus(), 'A30').c1);
    expect(cluster.instances[2]?.gpu).toMatchObject({ T0: 120, c5: 1e-5, hardware: { name: 'Emulated H900' } });
    expect(cluster).toMatchObject({ network: { hopMs: 1, brainMs: 0.5 }, frontEndMs: 5, stepLaw: 'roofline' });
    expect(cluster.events).toEqual([
      { atS: 30, kind: 'die', instance: 0, restart: 10 },
      { atS: 45, kind: 'join', instance: 2 },
      { atS: 60, kind: 'throttle', instance: 1, factor: 2 },
      { atS: 90, kind: 'clear-cache', instance: 1 },
      { atS: 95, kind: 'swap', instance: 0, gpu: cluster.instances[2]?.gpu },
    ]);
  });

  it('needs instances only, in YAML or JSON', () => {
    const cluster = parseCluster('{"instances": [{"gpu": "L20", "count": 8}]}', 'c.json');
    expect(cluster.instances).toHaveLength(8);
    expect(cluster).toMatchObject({
      network: { hopMs: 0.3, brainMs: 0.5 },
      frontEndMs: 8,
      stepLaw: 'rough',
      events: [],
    });
  });

  it('takes an entry copied from the catalogue', () => {
    const { A100 } = JSON.parse(JSON.stringify(Object.fromEntries(loadGpus()))) as Record<string, object>;
    const { key: _key, ...entry } = A100 as Record<string, unknown>;
    expect(
      parseCluster(JSON.stringify({ gpus: { B: entry }, instances: [{ gpu: 'B' }] }), 'c').instances[0]?.gpu.c0,
    ).toBe(10.4);
  });

  it('is read from a file', () => {
    const dir = mkdtempSync(join(tmpdir(), 'lodestar-cluster-'));
    try {
      writeFileSync(join(dir, 'c.yaml'), FULL);
      expect(readCluster(join(dir, 'c.yaml')).instances).toHaveLength(3);
      expect(() => readCluster(join(dir, 'none.yaml'))).toThrow(/cannot read the cluster file .*none\.yaml/);
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });

  it.each([
    ['', 'cluster file c.yaml: instances: '],
    ['instances: []', 'instances: '],
    ['instances: [{gpu: A30', 'c.yaml line 1: is not YAML'],
    [
      'instances: [{gpu: H900}]',
      "instances[0].gpu: unknown GPU 'H900'; known are A30, V100, L20, A100, and `gpus:` adds others",
    ],
    ['instances: [{gpu: A30, count: 0}]', 'instances[0].count: '],
    ['instances: [{gpu: A30, cuont: 2}]', 'instances[0]: unknown field `cuont`; known here: gpu, count'],
    ['gpus: {H900: {c0: 1}}\ninstances: [{gpu: H900}]', 'gpus.H900: c1, c2, c3, c4, kvTokens missing'],
    ['gpus: {A30: {C0: 1}}\ninstances: [{gpu: A30}]', 'gpus.A30: unknown field `C0`; known here: c0, c1'],
    ['gpus: {A30: {c0: -1}}\ninstances: [{gpu: A30}]', 'gpus.A30.c0: '],
    ['instances: [{gpu: A30}]\nstepLaw: quadratic', 'stepLaw: '],
    [
      'instances: [{gpu: A30}]\nevents: [{atS: 1, kind: explode, instance: 0}]',
      'events[0].kind: must be one of die, join, throttle, swap, clear-cache',
    ],
    [
      'instances: [{gpu: A30}]\nevents: [{atS: 1, kind: swap, instance: 0, gpu: H900}]',
      "events[0].gpu: unknown GPU 'H900'",
    ],
    ['instances: [{gpu: A30}]\nevents: [{atS: 1, kind: throttle, instance: 0}]', 'events[0].factor: '],
    [
      'instances: [{gpu: A30, count: 2}]\nevents: [{atS: 1, kind: die, instance: 2}]',
      'events[0].instance: there is no instance 2; the cluster has 0 to 1',
    ],
  ])('says what is wrong: %j', (text, message) => {
    expect(() => parseCluster(text, 'c.yaml')).toThrow(message);
  });
});
