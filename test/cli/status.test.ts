import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { RunningAgent } from '../../agent/main.ts';
import { status } from '../../cli/status.ts';
import { cacheText } from '../../cli/status-text.ts';
import type { StatusPage } from '../../cli/status-page.ts';
import { MODEL } from '../helpers/fleet.ts';
import { instanceOf, LinkedFleet, urlOf } from '../helpers/linked-fleet.ts';

describe('of a real agent', () => {
  let fleet: LinkedFleet;
  let entry: RunningAgent;
  let door: RunningAgent;
  beforeAll(async () => {
    fleet = new LinkedFleet();
    ({ entry, door } = await fleet.startPair());
    for (let i = 0; i < 4; i++)
      await fleet.during(fleet.complete(entry, 'the north star and how sailors found it '.repeat(20)));
    await fleet.advance(2000);
  });
  afterAll(() => fleet.stop());
  const shown = (flags: { cache?: boolean; json?: boolean } = {}): Promise<string> =>
    fleet.during(status({ url: urlOf(entry), ...flags }));

  test('says who it is, what routes and why, and how each instance is', async () => {
    const [agent, routing, empty, titles, ...rows] = (await shown()).split('\n');
    expect(agent).toMatch(/^agent entry \d+\.\d+\.\d+: 0 in flight; no brain$/);
    expect(routing).toMatch(/^routing by round-robin \(config\), objective ttft, table \d+, \d+ s old$/);
    expect(empty).toBe('');
    expect(titles).toMatch(/^INSTANCE +HEALTH +IN FLIGHT +WAITING +KV IN USE +BREAKER +AGE +LINK +KIND$/);
    expect(rows).toHaveLength(2);
    for (const id of [instanceOf(entry), instanceOf(door)])
      expect(rows.find((row) => row.startsWith(`${id} `))).toMatch(
        new RegExp(` up +0 +0 +0\\.0 % +closed +[\\d.]+ ms +[\\d.]+ ms +${MODEL}\\|`),
      );
  });

  test('says what is known of every cache, here and at its door', async () => {
    const lines = (await shown({ cache: true })).split('\n');
    expect(lines[2]).toMatch(/^index of all caches: \d+ prefix blocks$/);
    const local = lines.find((line) => line.startsWith(`${instanceOf(entry)} `)) as string;
    const [, here, atDoor, source] = local.split(/ {2,}/);
    expect(Number(here)).toBeGreaterThan(0);
    expect(here).toBe(atDoor);
    expect(['events', 'shadow', 'estimate']).toContain(source);
    // Without a brain nobody tells the entry what the other door has.
    const remote = lines.find((line) => line.startsWith(`${instanceOf(door)} `)) as string;
    expect(remote.split(/ {2,}/).slice(1, 3)).toEqual(['0', atDoor]);
  });

  test('prints the page as JSON', async () => {
    const page = JSON.parse(await shown({ json: true })) as {
      agent: string;
      instances: { cache: { blocks: number } }[];
    };
    expect(page.agent).toBe('entry');
    expect(page.instances[0]?.cache.blocks).toBeGreaterThan(0);
  });

  test('has the KV events of its own engine, where they are configured, under the instance and among the collectors', async () => {
    const engine = await fleet.startEngine();
    const endpoint = 'tcp://127.0.0.1:1';
    const agent = await fleet.startAgent('reader', [engine.url], {
      'agent.instances': `[{url: "${engine.url}", kvEvents: {endpoint: "${endpoint}"}}]`,
    });
    const page = JSON.parse(await fleet.during(status({ url: urlOf(agent), json: true }))) as {
      instances: { kvEvents: object | null }[];
      collectors: { name: string; ok: boolean }[];
    };
    expect(page.instances[0]?.kvEvents).toMatchObject({ endpoint, connected: false, history: 'none', events: 0 });
    expect(page.collectors).toContainEqual(expect.objectContaining({ name: `kv-events ${endpoint}`, ok: false }));
    const without = JSON.parse(await shown({ json: true })) as typeof page;
    expect(without.instances[0]?.kvEvents).toBeNull();
    expect(without.collectors.some(({ name }) => name.startsWith('kv-events'))).toBe(false);
  });

  test('its metrics say where the view of its own engine comes from, how large and how right it is', async () => {
    const text = await entry.context.metrics.registry.metrics();
    const instance = instanceOf(entry);
    expect(text).toMatch(new RegExp(`lodestar_agent_cache_view_blocks\\{instance="${instance}"\\} [1-9]`));
    expect(text).toMatch(new RegExp(`lodestar_agent_cache_view_accuracy_ratio\\{instance="${instance}"\\} [\\d.]+`));
    const sources = [...text.matchAll(/cache_view_source\{instance="(.*)",source="(.*)"\} (\d)/g)].map(
      ([, of, source, value]) => `${of} ${source} ${value}`,
    );
    expect(sources.map((one) => one.split(' ')[1])).toEqual(['events', 'shadow', 'estimate']);
    expect(sources.filter((one) => one.startsWith(`${instance} `) && one.endsWith(' 1'))).toHaveLength(1);
  });
});

describe('where no agent is', () => {
  let server: Server | undefined;
  afterEach(async () => {
    server?.closeAllConnections();
    await new Promise((resolve) => (server ? server.close(resolve) : resolve(undefined)));
    server = undefined;
  });
  const answering = async (code: number, text: string): Promise<string> => {
    const made = createServer((_request, response) => response.writeHead(code).end(text));
    server = made;
    await new Promise<void>((resolve) => made.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(made.address() as AddressInfo).port}`;
  };
  const remedy = 'name the address of an agent with --url, or start one with `lodestar agent`';

  test('nothing listens', async () => {
    const url = await answering(200, '');
    await new Promise((resolve) => server?.close(resolve));
    server = undefined;
    await expect(status({ url })).rejects.toThrow(`no agent answers at ${url} (connection refused): ${remedy}`);
  });

  test('the URL is none', async () => {
    await expect(status({ url: 'host1' })).rejects.toThrow(`no agent answers at host1 (Invalid URL): ${remedy}`);
  });

  test.each([
    [404, '{}', `is no agent (HTTP 404 for /lodestar/status): ${remedy}`],
    [401, '{}', `is no agent (HTTP 401 for /lodestar/status; a brain asks for the token there): ${remedy}`],
    [200, '<html>', `is no agent (its answer is not JSON): ${remedy}`],
    [200, '{"agent":7}', 'is not the status page of an agent of this version (agent:'],
  ])('something else answers: %i %s', async (code, text, message) => {
    await expect(answering(code, text).then((url) => status({ url }))).rejects.toThrow(message);
  });
});

test('a cache of which nothing is told, and one with a problem', () => {
  const instance = {
    health: 'up',
    draining: false,
    breaker: 'closed',
    ageMs: 1,
    linkMs: 0,
    kind: 'k',
    limits: null,
    ledger: null,
  };
  const page: StatusPage = {
    agent: 'a',
    version: '1',
    draining: true,
    inFlight: 2,
    brain: { url: 'ws://b', connected: false, lastError: 'refused' },
    routing: { policy: 'learned', reason: 'no-table', objective: 'ttft', tableVersion: null, tableAgeMs: null },
    cacheIndexBlocks: 1_234_567,
    instances: [
      {
        ...instance,
        instance: 'x',
        cachedBlocks: 12_345,
        cache: {
          source: 'shadow',
          problem: 'no events endpoint is configured',
          blocks: 12_400,
          offloadedBlocks: 7,
          hitRatio: 0.5,
          accuracyRatio: 0.934,
          checked: 210,
        },
      },
      { ...instance, instance: 'old', cachedBlocks: 0, cache: null },
    ],
  };
  expect(cacheText(page).split('\n')).toEqual([
    'agent a 1, draining: 2 in flight; brain ws://b not connected: refused',
    'routing by learned (no-table), objective ttft, no table',
    'index of all caches: 1,234,567 prefix blocks',
    '',
    'INSTANCE  BLOCKS HERE  AT ITS DOOR  SOURCE   HIT RATIO  ACCURACY  CHECKED  2ND TIER',
    'x         12,345       12,400       shadow   50.0 %     93.4 %    210      7',
    'old       0            -            unknown  -          -         -        -',
    '',
    'x: shadow, since no events endpoint is configured',
    'old: its door has told nothing of its cache yet, or is of an earlier version',
  ]);
});
