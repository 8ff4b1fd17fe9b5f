import { afterEach, expect, test } from 'vitest';
import type { DoorInstance } from '../../../../agent/door/door-instance.ts';
import type { RunningAgent } from '../../../../agent/main.ts';
import { LodestarError } from '../../../../shared/errors.ts';
import { portOf } from '../../../helpers/kv-events.ts';
import { MODEL } from '../../../helpers/fleet.ts';
import { CHAT, LinkedFleet, urlOf } from '../../../helpers/linked-fleet.ts';

interface Message {
  role: string;
  content: string;
}

let fleet: LinkedFleet;

afterEach(() => fleet.stop());

function doorOf({ context }: RunningAgent): DoorInstance {
  return [...context.instances.views.values()].find((view) => view.local)!.local!;
}

/**
 * One turn of a conversation: its answer goes into `messages`. `expected`: cached tokens that the view saw when it was
 * sent.
 */
async function turn(
  agent: RunningAgent,
  messages: Message[],
): Promise<{ expected: number; cached: number; promptTokens: number }> {
  const { ledger } = doorOf(agent);
  let expected = -1;
  const open = ledger.open.bind(ledger);
  ledger.open = (request) => {
    const entry = open(request);
    expected = entry.hitTokens;
    return entry;
  };
  const answer = await fleet.call(urlOf(agent) + CHAT, {
    body: JSON.stringify({ model: MODEL, messages, max_tokens: 30, ignore_eos: true }),
  });
  ledger.open = open;
  expect(answer.status).toBe(200);
  const { choices, usage } = JSON.parse(answer.body) as {
    choices: { message: { content: string } }[];
    usage: { prompt_tokens: number; prompt_tokens_details: { cached_tokens: number } };
  };
  messages.push({ role: 'assistant', content: choices[0]!.message.content });
  return { expected, cached: usage.prompt_tokens_details.cached_tokens, promptTokens: usage.prompt_tokens };
}

/** Starts the engine again on its ports: one that was just given up is free only a moment later. */
async function restart(port: number, kvEventsPort: number, kvReplayPort: number): Promise<void> {
  for (;;) {
    try {
      await fleet.startEngine(port, undefined, { kvEventsPort, kvReplayPort });
      return;
    } catch (error) {
      if (!(error instanceof LodestarError)) throw error;
      await fleet.advance(5);
    }
  }
}

function question(name: string, n: number): Message {
  return {
    role: 'user',
    content: Array.from({ length: 60 }, (_, at) => `${name}${(n * 131 + at * 7919) % 997}`).join(' '),
  };
}

test('with KV events, a door sees what its engine has cached, its resets and its restarts', async () => {
  fleet = new LinkedFleet();
  const engine = await fleet.startEngine(0, undefined, { kvEventsPort: 0, kvReplayPort: 0 });
  const agent = await fleet.startLinked('door', [{ url: engine.url, kvEvents: engine.kvEvents! }], []);
  const door = doorOf(agent);
  await fleet.until(
    'the instance is up and its cache size known',
    () => door.health === 'up' && door.report(false).limits.kvTokens < 64_001,
  );
  const conversations = ['a', 'b', 'c'].map((name) => ({
    name,
    messages: [{ role: 'system', content: 'You answer briefly. '.repeat(20) }] as Message[],
  }));
  const say = async (which: number, n: number) => {
    const { name, messages } = conversations[which]!;
    messages.push(question(name, n));
    const seen = await turn(agent, messages);
    await fleet.advance(600);
    return seen;
  };
  await say(0, 0);
  await fleet.until('events are in force', () => door.report(false).cache?.source === 'events');
  const turns: { expected: number; cached: number; promptTokens: number }[] = [];
  for (let n = 1; n < 5; n++) for (const which of [0, 1, 2]) turns.push(await say(which, n));
  // The first turns of the second and third have but the system prompt in common with what was sent before.
  const known = turns.filter((_, at) => at === 0 || at > 2);
  expect(known.map(({ expected }) => expected)).toEqual(known.map(({ cached }) => cached));
  expect(known.every(({ cached }) => cached > 100)).toBe(true);
  expect(door.cache.blockCount).toBeGreaterThan(50);

  // vLLM sends events at the end of a step: the next one tells of the reset.
  const blocks = door.cache.blockCount;
  const reset = await fleet.call(`${engine.url}/reset_prefix_cache`, { method: 'POST', body: '{}' });
  expect(reset.status).toBe(200);
  await fleet.call(urlOf(agent) + CHAT, {
    body: JSON.stringify({ model: MODEL, messages: [{ role: 'user', content: 'Hi' }], max_tokens: 1 }),
  });
  await fleet.until('the view is empty', () => door.cache.blockCount < 3);
  const again = await say(0, 5);
  expect([again.expected, again.cached]).toEqual([0, 0]);
  expect(door.cache.blockCount).toBeGreaterThan(10);
  expect(door.cache.blockCount).toBeLessThan(blocks);

  await engine.close();
  await fleet.until('the instance is down', () => door.health !== 'up');
  const port = Number(new URL(engine.url).port);
  const { endpoint, replayEndpoint } = engine.kvEvents!;
  await restart(port, portOf(endpoint), portOf(replayEndpoint!));
  await fleet.until('the view is empty', () => door.health === 'up' && door.cache.blockCount === 0);
  const fresh = await say(1, 6);
  expect([fresh.expected, fresh.cached]).toEqual([0, 0]);
  await fleet.until('events are in force', () => door.report(false).cache?.source === 'events');
  const next = await say(1, 7);
  expect(Math.abs(next.expected - next.cached)).toBeLessThanOrEqual(16);
  expect(next.cached).toBeGreaterThan(100);
});
