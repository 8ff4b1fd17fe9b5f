import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { AgentContext } from '../../../agent/entry/context.ts';
import { LINK_DOWN, type InstanceView } from '../../../agent/entry/instances.ts';
import { type RunningAttempt, RunningAttempts } from '../../../agent/entry/running-attempts.ts';
import { LinkWatch } from '../../../agent/link/link-watch.ts';
import { encodeAttempts, type HeldAttempt } from '../../../agent/wire/attempt-list.ts';
import type { AttemptFailure } from '../../../agent/wire/ending.ts';
import { logSpy } from '../../helpers/log-spy.ts';
import { VirtualClock } from '../../helpers/virtual-clock.ts';

const TOKEN = 'token-of-the-tests';

/** A door that names the attempts that it holds, or answers as the test says. */
class Door {
  held: HeldAttempt[] = [];
  asked: string[] = [];
  /** undefined: it does not answer */
  answer: ((response: ServerResponse) => void) | undefined = (response) => void response.end(encodeAttempts(this.held));
  private readonly server: Server = createServer((request, response) => {
    this.asked.push(`${request.url ?? ''} ${request.headers.authorization ?? ''}`);
    this.answer?.(response);
  });

  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  close(): Promise<void> {
    this.server.closeAllConnections();
    return new Promise((resolve) => this.server.close(() => resolve()));
  }
}

interface Attempt extends RunningAttempt {
  lastByteMs: number;
  paused: boolean;
  failures: string[];
}

let clock: VirtualClock;
let door: Door;
let view: InstanceView;
let views: Map<string, InstanceView>;
let running: RunningAttempts;
let watch: LinkWatch;
let spy: ReturnType<typeof logSpy>;
beforeEach(async () => {
  clock = new VirtualClock();
  door = new Door();
  view = { id: 'i', local: undefined, doorUrl: await door.listen(), linkMissing: 0 } as InstanceView;
  views = new Map([['i', view]]);
  running = new RunningAttempts();
  spy = logSpy();
  const context = {
    env: { clock, rng: () => 0.5, log: spy.log },
    config: { id: 'me', connectTimeoutMs: 1000 },
    epoch: 7,
    token: TOKEN,
    running,
    instances: { views },
  };
  watch = new LinkWatch(context as unknown as AgentContext);
});
afterEach(async () => {
  watch.close();
  await door.close();
});

function send(seq: number): Attempt {
  const failures: string[] = [];
  const one: Attempt = {
    view,
    seq,
    sentMs: clock.nowMs(),
    lastByteMs: clock.nowMs(),
    paused: false,
    failures,
    end: ({ failure }: AttemptFailure) => {
      running.remove(one);
      failures.push(failure);
    },
  };
  running.add(one);
  return one;
}

/** Seconds of virtual time, with the door's answers read in each. */
async function seconds(count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const asked = door.asked.length;
    clock.advance(1000);
    for (let turn = 0; turn < 300 && (turn < 50 || door.asked.length === asked); turn++)
      await new Promise((resolve) => setImmediate(resolve));
  }
}

it('asks once a second, with its name, its boot and the token of the fleet, while it has attempts there', async () => {
  await seconds(3);
  expect(door.asked).toEqual([]);
  const one = send(1);
  door.held = [['i', 1, 0]];
  await seconds(3);
  expect(door.asked).toEqual(Array.from({ length: 3 }, () => `/lodestar/attempts?entry=me&epoch=7 Bearer ${TOKEN}`));
  running.remove(one);
  await seconds(3);
  expect(door.asked).toHaveLength(3);
  expect(one.failures).toEqual([]);
});

describe('an attempt that the door does not hold', () => {
  it('ends after two of its answers', async () => {
    const [held, unheld] = [send(1), send(2)];
    door.held = [['i', 1, -1]];
    await seconds(1);
    expect(unheld.failures).toEqual([]);
    await seconds(1);
    expect(unheld.failures).toEqual(['link']);
    await seconds(30);
    expect(held.failures).toEqual([]);
  });

  it('ends where bytes that the door has had do not arrive', async () => {
    const one = send(1);
    door.held = [['i', 1, 0]];
    await seconds(4);
    expect(one.failures).toEqual([]);
    await seconds(2);
    expect(one.failures).toEqual(['link']);
  });

  it('lives where a byte came in between', async () => {
    const one = send(1);
    for (let i = 0; i < 10; i++) {
      await seconds(1);
      one.lastByteMs = clock.nowMs();
    }
    expect(one.failures).toEqual([]);
  });

  it('lives while its client does not read', async () => {
    const one = send(1);
    one.paused = true;
    await seconds(10);
    expect(one.failures).toEqual([]);
  });
});

describe('a door that does not answer', () => {
  const refusals: [string, Door['answer']][] = [
    ['at all', undefined],
    ['with a list', (response) => void response.end('<html>')],
    ['but breaks the connection', (response) => void response.destroy()],
  ];
  it.each(refusals)('%s: after three questions all attempts there end', async (_, answer) => {
    const [one, two] = [send(1), send(2)];
    door.answer = answer;
    await seconds(2);
    expect(view.linkMissing).toBeGreaterThan(0);
    expect(one.failures).toEqual([]);
    await seconds(2);
    expect(view.linkMissing).toBeGreaterThanOrEqual(LINK_DOWN);
    expect([one, two].map((attempt) => attempt.failures)).toEqual([['link'], ['link']]);
  });

  it('is asked on until it answers, and is then as before', async () => {
    send(1);
    door.answer = undefined;
    await seconds(10);
    expect(view.linkMissing).toBeGreaterThanOrEqual(LINK_DOWN);
    door.answer = (response) => void response.end(encodeAttempts([]));
    await seconds(3);
    expect(view.linkMissing).toBe(0);
    const asked = door.asked.length;
    await seconds(5);
    expect(door.asked.length).toBe(asked);
    expect(spy.lines.map((line) => line.msg)).toEqual([
      expect.stringContaining('its link is down'),
      'the link to the door works again',
    ]);
  });

  it('is forgotten where the fleet has', async () => {
    send(1);
    door.answer = undefined;
    await seconds(5);
    views.clear();
    await seconds(2);
    const asked = door.asked.length;
    await seconds(5);
    expect(door.asked.length).toBe(asked);
  });
});

it('an agent of an earlier version, which does not know the question, is there', async () => {
  const one = send(1);
  door.answer = (response) => void response.writeHead(404).end();
  await seconds(10);
  expect(view.linkMissing).toBe(0);
  expect(one.failures).toEqual([]);
});

it('attempts at engines of its own are not asked for', async () => {
  view = { ...view, local: {} } as InstanceView;
  send(1);
  await seconds(3);
  expect(door.asked).toEqual([]);
});
