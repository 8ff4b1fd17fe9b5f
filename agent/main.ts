import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { Agent as HttpAgent } from 'undici';
import type { AgentConfig } from '../shared/config/index.ts';
import type { Env } from '../shared/env.ts';
import { FaultLog } from '../shared/fault-log.ts';
import { listen } from '../shared/listen.ts';
import { packageVersion } from '../shared/package-root.ts';
import { openTable } from '../shared/table.ts';
import { BrainLink } from './link/brain-link.ts';
import { type Collectors, makeCollectors } from './door/collectors/index.ts';
import { type AgentContext, applyTable, makeContext } from './entry/context.ts';
import { DoorInstance } from './door/door-instance.ts';
import { EntryWatch } from './door/life/entry-watch.ts';
import type { LocalDoors } from './door/local-doors.ts';
import { OpenAttempts } from './door/open-attempts.ts';
import { makeBrainReader } from './link/brain-reader.ts';
import { ReportRefresh } from './link/report-refresh.ts';
import { makeServer } from './server.ts';
import { LinkWatch } from './link/link-watch.ts';
import { type Identity, TableStore } from './link/table-store.ts';
import { Telemetry } from './link/telemetry.ts';

const DRAIN_POLL_MS = 20;
/** A client whose host has gone is found by the system's own probes from then on. */
const TCP_KEEPALIVE_MS = 15_000;

/** A running agent. */
export interface RunningAgent {
  /** as advertised to the fleet */
  url: string;
  port: number;
  context: AgentContext;
  local: LocalDoors;
  /**
   * Its instances get no new requests; it stops when the running ones, and then those that it routed elsewhere, have
   * ended, or after drainTimeoutMs.
   */
  drain(): Promise<void>;
  /** Stops at once. */
  close(): Promise<void>;
}

/** Starts an agent: door of the configured instances and entry to the fleet. Error: CONFIG_INVALID. */
export async function startAgent(config: AgentConfig, token: string, env: Env): Promise<RunningAgent> {
  const store = new TableStore(config.stateDir, env.log);
  const identity = store.boot(env.clock, () => randomBytes(32).toString('hex'));
  const http = new HttpAgent({ connect: { timeout: config.connectTimeoutMs }, keepAliveTimeout: 4000 });
  const collectors = makeCollectors({ config, env, dispatcher: http });
  // The door's URL is known only once the listener has a port; nothing reads it before.
  const advertised = { url: config.advertiseUrl };
  const local = makeDoors(config, identity.epoch, advertised, collectors, env);
  const doors = [...local.byId.values()];
  const context = makeContext(config, token, env, identity.epoch, doors);
  context.metrics.addProcessFigures();
  const faults = new FaultLog(env.log);
  const links: Links = {};
  const app = makeServer(context, local, { collectors, faults, brain: () => brainStatus(config, links) });
  const release = async (): Promise<void> => {
    context.watchdog.close();
    local.entries.close();
    await app.close();
    const ends = doors.map((door) => door.upstream.close());
    await Promise.all([store.saved(), context.instances.close(), http.destroy(), ...ends]);
  };
  useKeptTable(context, local, store);
  app.server.on('connection', (socket: Socket) => socket.setKeepAlive(true, TCP_KEEPALIVE_MS));
  const port = await listen(app, 'agent', config.host, config.port).catch(async (error: unknown) => {
    await release();
    throw error;
  });
  // Port 0 asks for any free port: what is advertised must name the real one.
  if (config.port === 0) advertised.url = advertised.url.replace(/:0$/, `:${port}`);
  collectors.start();
  for (const door of doors) door.life.start();
  openLinks(links, context, local, store, faults, { ...identity, doorUrl: advertised.url });
  const close = async (): Promise<void> => {
    collectors.stop();
    for (const door of doors) {
      door.kvEvents?.stop();
      door.life.stop();
    }
    for (const link of Object.values(links)) link.close();
    app.server.closeAllConnections();
    await release();
  };
  return {
    url: advertised.url,
    port,
    context,
    local,
    close,
    drain: () => drain(context, doors, links, () => app.server.close(), close),
  };
}

/** What runs between this agent, the brain and other doors, once it listens. */
interface Links {
  brain?: BrainLink;
  telemetry?: Telemetry;
  refresh?: ReportRefresh;
  doors?: LinkWatch;
}

function brainStatus(
  { brainUrl }: AgentConfig,
  { brain }: Links,
): { url: string; connected: boolean; lastError: string | undefined } {
  const connected = brain?.connected ?? false;
  return { url: brainUrl, connected, lastError: connected ? undefined : brain?.lastError };
}

function useKeptTable(context: AgentContext, local: LocalDoors, store: TableStore): void {
  const kept = store.load();
  if (!kept) return;
  context.salt = kept.salt;
  applyTable(context, local.byId, kept.table);
  context.env.log.info({ version: kept.table.version }, 'routing on the table from disk until the brain is there');
}

function openLinks(
  links: Links,
  context: AgentContext,
  local: LocalDoors,
  store: TableStore,
  faults: FaultLog,
  identity: Identity & { doorUrl: string },
): void {
  const { config, env, instances, token } = context;
  const sink = {
    sendReports: (reports: Parameters<BrainLink['sendReports']>[0]) => links.brain?.sendReports(reports),
    sendBlocks: (message: Parameters<BrainLink['sendBlocks']>[0]) => links.brain?.sendBlocks(message),
  };
  links.telemetry = new Telemetry(
    [...local.byId.values()],
    instances,
    env.clock,
    config.telemetryMinMs,
    sink,
    () => context.draining,
  );
  if (config.brainUrl) links.brain = linkToBrain(links, context, local, store, faults, identity);
  links.refresh = new ReportRefresh(
    instances,
    env.clock,
    token,
    config.reportRefreshMs,
    faults,
    () => links.brain?.connected ?? false,
  );
  links.doors = new LinkWatch(context);
}

function linkToBrain(
  links: Links,
  context: AgentContext,
  local: LocalDoors,
  store: TableStore,
  faults: FaultLog,
  { epoch, credential, doorUrl }: Identity & { doorUrl: string },
): BrainLink {
  const { config, token, env, samples } = context;
  return new BrainLink({
    url: config.brainUrl,
    token,
    hello: { agent: config.id, epoch, credential, version: packageVersion, doorUrl },
    env,
    samples,
    faults,
    onMessage: makeBrainReader(context, {
      open: (sealed) => openTable(sealed, (fault) => faults.note(config.brainUrl, fault)),
      onTable: (table) => applyTable(context, local.byId, table),
      keep: (sealed) => store.save(sealed, context.salt),
      resync: (instances) => links.brain?.resync(instances),
      resend: () => links.telemetry?.resend(),
      resendBlocks: (instance) => links.telemetry?.resendBlocks(instance),
    }),
  });
}

function makeDoors(
  config: AgentConfig,
  epoch: number,
  advertised: { url: string },
  collectors: Collectors,
  env: Env,
): LocalDoors {
  const open = new OpenAttempts();
  const made = config.instances.map((instance) => {
    const door = new DoorInstance({
      config: instance,
      agentId: config.id,
      epoch,
      get doorUrl() {
        return advertised.url;
      },
      connectTimeoutMs: config.connectTimeoutMs,
      open,
      limits: config,
      collectors,
      env,
    });
    return [instance.id, door] as const;
  });
  return { byId: new Map(made), open, hops: new Set(), entries: new EntryWatch(env.clock, open) };
}

async function drain(
  context: AgentContext,
  doors: readonly DoorInstance[],
  links: Links,
  stopListening: () => void,
  close: () => Promise<void>,
): Promise<void> {
  context.draining = true;
  const { clock } = context.env;
  const endMs = clock.nowMs() + context.config.drainTimeoutMs;
  const idle = (isBusy: () => boolean): Promise<void> =>
    new Promise((resolve) => {
      const timer = clock.every(DRAIN_POLL_MS, () => {
        if (isBusy() && clock.nowMs() < endMs) return;
        timer.cancel();
        resolve();
      });
    });
  // While its own instances finish, clients are still served, by the others. Then no new connection is taken, and idle
  // ones close.
  await idle(() => doors.some((door) => door.ledger.inFlight > 0));
  stopListening();
  await idle(() => context.inFlight > 0);
  links.brain?.flushSamples();
  await close();
}
