import { join } from 'node:path';
import type { Ledger } from '../../agent/door/ledger.ts';
import type { RunningAgent } from '../../agent/main.ts';
import { TableStore } from '../../agent/link/table-store.ts';
import { silentLog } from '../../shared/env.ts';
import { sealTable } from '../../shared/table.ts';
import type { RunningEmulator } from '../../sim/engine/server.ts';
import { MODEL, TestFleet, type VllmServer } from './fleet.ts';
import { type HttpAnswer, type HttpOptions, send } from './http.ts';
import { tableOf } from './tables.ts';

export const COMPLETIONS = '/v1/completions';
export const CHAT = '/v1/chat/completions';
const SALT = 'b'.repeat(64);
/** A real answer may take many turns of the loop, in each of which virtual time moves on. */
const MAX_WAIT_MS = 200_000;

export interface Pair {
  /** engine of `entry`, and engine of `door` */
  near: RunningEmulator;
  far: RunningEmulator;
  entry: RunningAgent;
  door: RunningAgent;
}

/** A fleet without a brain: agents know each other from the routing table on their disks. */
export class LinkedFleet extends TestFleet {
  async startLinked(
    id: string,
    engines: VllmServer[],
    knows: RunningAgent[],
    sets: Record<string, string | number> = {},
  ): Promise<RunningAgent> {
    const roster = knows.flatMap((agent) =>
      localViews(agent).map((view) => ({
        instance: view.id,
        agent: agent.context.config.id,
        doorUrl: urlOf(agent),
        models: [MODEL],
        kind: 'k',
      })),
    );
    const store = new TableStore(join(this.dir, id), silentLog);
    store.save(sealTable(tableOf({ roster })), SALT);
    await store.saved();
    return this.startAgent(id, engines, { 'agent.policy': 'round-robin', ...sets });
  }

  /** Two engines, each behind an agent; `entry` knows both, and takes them in turn. */
  async startPair(sets: Record<string, string | number> = {}): Promise<Pair> {
    const near = await this.startEngine();
    const far = await this.startEngine();
    const door = await this.startLinked('door', [far.url], [], sets);
    const entry = await this.startLinked('entry', [near.url], [door], sets);
    await this.until('both are up', () => upCount(entry) === 2 && upCount(door) === 1);
    return { near, far, entry, door };
  }

  call(url: string, options: HttpOptions = {}): Promise<HttpAnswer> {
    return this.during(send(url, options), MAX_WAIT_MS);
  }

  /** Opens a completion and does not wait for its answer. */
  open(agent: RunningAgent, changes: object = {}, options: HttpOptions = {}): Promise<HttpAnswer> {
    return send(urlOf(agent) + COMPLETIONS, { body: JSON.stringify(completion(changes)), ...options });
  }
}

/** A completion of six tokens, with what the test changes. */
export function completion(changes: object = {}): object {
  return { model: MODEL, prompt: 'Once upon a time', max_tokens: 6, ignore_eos: true, ...changes };
}

export function urlOf(agent: RunningAgent): string {
  return `http://127.0.0.1:${agent.port}`;
}

/** Instances that an agent sees up. */
export function upCount({ context }: RunningAgent): number {
  context.instances.readLocal(false);
  return [...context.instances.views.values()].filter((view) => view.report?.health === 'up').length;
}

/** Name of the agent's own instance. */
export function instanceOf(agent: RunningAgent): string {
  return localViews(agent)[0]?.id ?? 'none';
}

/** Ledger of the agent's own instance. */
export function ledgerOf(agent: RunningAgent): Ledger {
  return localViews(agent)[0]!.local!.ledger;
}

function localViews({ context }: RunningAgent) {
  return [...context.instances.views.values()].filter((view) => view.local);
}
