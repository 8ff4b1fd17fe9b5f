import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { Agent as HttpAgent } from 'undici';
import type { AgentConfig } from '../shared/config/index.ts';
import type { Env } from '../shared/env.ts';
import { listen } from '../shared/listen.ts';
import { packageVersion } from '../shared/package-root.ts';
import { openTable, type RoutingTable } from '../shared/table.ts';
import { BrainLink } from './link/brain-link.ts';
import { type Collectors, makeCollectors } from './door/collectors/index.ts';
import { type AgentContext, applyTable, makeContext } from './entry/context.ts';
import { DoorInstance } from './door/door-instance.ts';
import { EntryWatch } from './door/life/entry-watch.ts';
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
  /** Its instances get no new requests; it stops when the running ones, and then those that it routed elsewhere, have ended, or after drainTimeoutMs. */
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
  const open = new OpenAttempts();
  const doors = new Map(config.instances.map((instance) => [instance.id, makeDoor(config, instance, identity.epoch, advertised, collectors, open, env)]));
  const context = makeContext(config, token, env, identity.epoch, [...doors.values()]);
  context.metrics.addProcessFigures();
  const runtime: { link?: BrainLink; telemetry?: Telemetry } = {};
  const entries = new EntryWatch(env.clock, open);
  const app = makeServer(context, { byId: doors, open, entries }, {
    collectors,
    brain: () => ({ url: config.brainUrl, connected: runtime.link?.connected ?? false, lastError: runtime.link?.connected ? undefined : runtime.link?.lastError }),
  });

  const onTable = (table: RoutingTable): void => applyTable(context, doors, table);
  const kept = store.load();
  if (kept) {
    context.salt = kept.salt;
    onTable(kept.table);
    env.log.info({ version: kept.table.version }, 'routing on the table from disk until the brain is there');
  }
  const release = async (): Promise<void> => {
    context.watchdog.close();
    await app.close();
    await Promise.all([context.instances.close(), http.destroy(), ...[...doors.values()].map((door) => door.upstream.close())]);
  };
  app.server.on('connection', (socket: Socket) => socket.setKeepAlive(true, TCP_KEEPALIVE_MS));
  const port = await listen(app, 'agent', config.host, config.port).catch(async (error: unknown) => {
    await release();
    throw error;
  });
  // Port 0 asks for any free port: what is advertised must name the real one.
  if (config.port === 0) advertised.url = advertised.url.replace(/:0$/, `:${port}`);
  collectors.start();
  for (const door of doors.values()) door.life.start();

  const sink = {
    sendReports: (reports: Parameters<BrainLink['sendReports']>[0]) => runtime.link?.sendReports(reports),
    sendBlocks: (message: Parameters<BrainLink['sendBlocks']>[0]) => runtime.link?.sendBlocks(message),
  };
  runtime.telemetry = new Telemetry([...doors.values()], context.instances, env.clock, config.telemetryMinMs, sink, () => context.draining);
  if (config.brainUrl) runtime.link = linkToBrain(context, { ...identity, doorUrl: advertised.url }, store, onTable, runtime);
  const refresh = new ReportRefresh(context.instances, env.clock, token, config.reportRefreshMs, () => runtime.link?.connected ?? false);
  const links = new LinkWatch(context);

  const close = async (): Promise<void> => {
    collectors.stop();
    for (const door of doors.values()) {
      door.kvEvents?.stop();
      door.life.stop();
    }
    runtime.telemetry?.close();
    refresh.close();
    links.close();
    entries.close();
    runtime.link?.close();
    app.server.closeAllConnections();
    await release();
  };
  return { url: advertised.url, port, context, close, drain: () => drain(context, doors, runtime, () => app.server.close(), close) };
}

function linkToBrain(
  context: AgentContext,
  { epoch, credential, doorUrl }: Identity & { doorUrl: string },
  store: TableStore,
  onTable: (table: RoutingTable) => void,
  runtime: { link?: BrainLink; telemetry?: Telemetry },
): BrainLink {
  const { config, token, env, samples } = context;
  return new BrainLink({
    url: config.brainUrl,
    token,
    hello: { agent: config.id, epoch, credential, version: packageVersion, doorUrl },
    env,
    samples,
    onMessage: makeBrainReader(context, {
      open: openTable,
      onTable,
      keep: (sealed) => store.save(sealed, context.salt),
      resync: (instances) => runtime.link?.resync(instances),
      resend: () => runtime.telemetry?.resend(),
      resendBlocks: (instance) => runtime.telemetry?.resendBlocks(instance),
    }),
  });
}

function makeDoor(
  config: AgentConfig,
  instance: AgentConfig['instances'][number],
  epoch: number,
  advertised: { url: string },
  collectors: Collectors,
  open: OpenAttempts,
  env: Env,
): DoorInstance {
  return new DoorInstance({
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
}

async function drain(
  context: AgentContext,
  doors: ReadonlyMap<string, DoorInstance>,
  runtime: { link?: BrainLink },
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
  // While its own instances finish, clients are still served, by the others. Then no new connection is taken, and idle ones close.
  await idle(() => [...doors.values()].some((door) => door.ledger.inFlight > 0));
  stopListening();
  await idle(() => context.inFlight > 0);
  runtime.link?.flushSamples();
  await close();
}
