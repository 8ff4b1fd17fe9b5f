import { WebSocket } from 'ws';
import { decode, encode } from '../../shared/codec.ts';
import type { Env, Timer } from '../../shared/env.ts';
import type { FaultLog } from '../../shared/fault-log.ts';
import { errorMessage, LodestarError } from '../../shared/errors.ts';
import { FEATURE_SCHEMA } from '../../shared/features.ts';
import {
  type AgentMessage,
  type BrainMessage,
  MAX_FRAME_BYTES,
  parseBrainMessage,
  PROTOCOL_OLDEST,
  PROTOCOL_VERSION,
} from '../../shared/protocol.ts';
import { NAME_BOUNDS, NARROW_NAME_BOUNDS, narrowReport } from '../../shared/report.ts';
import { framesOf } from '../../shared/report-frames.ts';
import type { SampleQueue } from '../entry/samples.ts';
import type { TelemetrySink } from './telemetry.ts';

export const AGENT_PATH = '/lodestar/agent';

const BACKOFF_MIN_MS = 200;
const BACKOFF_MAX_MS = 10_000;
/**
 * A link that lasted this long has worked: the next attempt after it comes soon. One that breaks sooner, again and
 * again, is tried ever less often.
 */
const STEADY_MS = 10_000;
/** A refusal does not go away by asking again soon. */
const REFUSED_BACKOFF_MS = 30_000;
const SAMPLES_PERIOD_MS = 100;
/** The brain pings every 5 s: a link that has been silent for longer than this is dead. */
const SILENCE_MS = 15_000;
/** While this much is unsent, telemetry is left out: the next report carries the same news. */
const MAX_BUFFERED_BYTES = 4 * 1024 * 1024;
/**
 * While this much is unsent, block deltas are left out, and the whole view follows once it is sent: as much as the
 * largest caches have.
 */
const MAX_BUFFERED_BLOCK_BYTES = 16 * 1024 * 1024;

export interface BrainLinkOptions {
  url: string;
  token: string;
  hello: { agent: string; epoch: number; credential: string; version: string; doorUrl: string };
  env: Env;
  samples: SampleQueue;
  /** hears what the brain sends that does not fit */
  faults: FaultLog;
  /** every validated message except `refuse` and `ack` */
  onMessage(message: BrainMessage): void;
}

/**
 * The WebSocket to the brain: reconnects with jittered backoff, sends samples until they are acknowledged. Routing
 * never waits for it.
 */
export class BrainLink implements TelemetrySink {
  connected = false;
  lastError = 'not connected yet';
  private readonly options: BrainLinkOptions;
  private socket: WebSocket | undefined;
  private retry: Timer | undefined;
  private readonly ticker: Timer;
  private attempts = 0;
  private refused = false;
  private telemetrySeq = 0;
  private heardMs = 0;
  private welcomeMs = 0;
  /** the last link broke soon after its welcome: neither the end nor the return of another that does is news */
  private flaps = false;
  private protocol = PROTOCOL_VERSION;
  private closed = false;
  /** instances of which a delta was left out */
  private readonly blocksOwed = new Set<string>();
  /** the failure that was last logged: the same one again is no news */
  private loggedError = '';

  constructor(options: BrainLinkOptions) {
    this.options = options;
    this.ticker = options.env.clock.every(SAMPLES_PERIOD_MS, () => this.tick());
    this.connect();
  }

  close(): void {
    this.closed = true;
    this.ticker.cancel();
    this.retry?.cancel();
    this.socket?.terminate();
  }

  sendReports(reports: Extract<AgentMessage, { t: 'telemetry' }>['reports']): void {
    if (this.buffered > MAX_BUFFERED_BYTES) return;
    const bounds = this.protocol < PROTOCOL_VERSION ? NARROW_NAME_BOUNDS : NAME_BOUNDS;
    for (const frame of framesOf(reports.map((report) => narrowReport(report, bounds))))
      this.send({ t: 'telemetry', seq: this.telemetrySeq++, reports: frame });
  }

  sendBlocks(message: Extract<AgentMessage, { t: 'blocks' }>): void {
    if (message.reset) this.blocksOwed.delete(message.instance);
    if (this.buffered > MAX_BUFFERED_BLOCK_BYTES) this.blocksOwed.add(message.instance);
    if (!this.blocksOwed.has(message.instance)) this.send(message);
  }

  resync(blocks: string[]): void {
    this.send({ t: 'resync', blocks });
  }

  /** Sends what waits; called by the timer, and once more before the agent stops. */
  flushSamples(): void {
    if (!this.connected) return;
    for (let batch = this.options.samples.take(); batch; batch = this.options.samples.take()) {
      this.send({ t: 'samples', ...batch, dropped: this.options.samples.dropped });
    }
  }

  private get buffered(): number {
    return this.socket?.bufferedAmount ?? 0;
  }

  private tick(): void {
    this.flushSamples();
    if (this.blocksOwed.size > 0 && this.buffered === 0) {
      // As the brain would ask when the next delta shows it the gap; but there may be none for long.
      for (const instance of this.blocksOwed) this.options.onMessage({ t: 'resend-blocks', instance });
    }
    if (this.connected && this.options.env.clock.nowMs() - this.heardMs > SILENCE_MS) this.socket?.terminate();
  }

  private connect(): void {
    const { url, token, hello } = this.options;
    const socket = new WebSocket(new URL(AGENT_PATH, url), {
      headers: { authorization: `Bearer ${token}` },
      perMessageDeflate: false,
      maxPayload: MAX_FRAME_BYTES,
      handshakeTimeout: 5000,
    });
    this.socket = socket;
    this.refused = false;
    socket.on('open', () => {
      this.heardMs = this.options.env.clock.nowMs();
      const { agent, epoch, credential, version, doorUrl } = hello;
      this.write({
        t: 'hello',
        protocol: PROTOCOL_VERSION,
        protocolOldest: PROTOCOL_OLDEST,
        featureSchema: FEATURE_SCHEMA,
        agent,
        epoch,
        credential,
        version,
        doorUrl,
        capabilities: [],
      });
    });
    socket.on('ping', () => (this.heardMs = this.options.env.clock.nowMs()));
    socket.on('message', (data, binary) => this.receive(socket, data, binary));
    socket.on('error', (error) => this.failed(explain(error, url)));
    socket.on('close', (code, reason) => this.lost(socket, code, reason.toString()));
  }

  private receive(socket: WebSocket, data: unknown, binary: boolean): void {
    const { env, faults, url } = this.options;
    this.heardMs = env.clock.nowMs();
    let message: BrainMessage;
    try {
      if (!binary || !(data instanceof Buffer)) throw new LodestarError('WIRE_MALFORMED', 'expected a binary frame');
      message = parseBrainMessage(decode(data, MAX_FRAME_BYTES), (fault) => faults.note(url, fault));
    } catch (error) {
      this.failed(`bad frame from the brain: ${errorMessage(error)}`);
      socket.terminate();
      return;
    }
    try {
      this.handle(message);
    } catch (error) {
      env.log.error({ err: error, message: message.t }, 'a message of the brain could not be handled');
    }
  }

  private handle(message: BrainMessage): void {
    if (message.t === 'refuse') {
      this.refused = true;
      this.failed(`the brain refuses this agent (${message.code}): ${message.reason}`);
      return;
    }
    if (message.t === 'ack') return this.options.samples.ack(message.batch);
    if (message.t === 'welcome') {
      this.connected = true;
      this.welcomeMs = this.options.env.clock.nowMs();
      this.protocol = message.protocol;
      if (!this.flaps) {
        this.loggedError = '';
        this.options.env.log.info({ brain: this.options.url, protocol: message.protocol }, 'connected to the brain');
      }
      this.options.onMessage(message);
      for (const batch of this.options.samples.pending())
        this.send({ t: 'samples', ...batch, dropped: this.options.samples.dropped });
      return;
    }
    this.options.onMessage(message);
  }

  /** Retries go on for as long as the brain is away: only a failure that is new is logged. */
  private failed(why: string): void {
    if (this.closed) return;
    this.lastError = why;
    if (why === this.loggedError) return;
    this.loggedError = why;
    this.options.env.log.warn({ brain: this.options.url }, `no link to the brain: ${why}`);
  }

  private lost(socket: WebSocket, code: number, reason: string): void {
    if (this.socket !== socket || this.closed) return;
    const { env, url } = this.options;
    if (this.connected) {
      this.flaps = env.clock.nowMs() - this.welcomeMs < STEADY_MS;
      if (!this.flaps) this.attempts = 0;
      this.lastError = `the link closed with code ${code}${reason === '' ? '' : ` (${reason})`}`;
      if (this.loggedError === '')
        env.log.warn({ brain: url }, `lost the brain: ${this.lastError}; routing goes on with the last table`);
      this.loggedError ||= this.lastError;
    }
    this.connected = false;
    const { clock, rng } = this.options.env;
    const cap = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** this.attempts);
    this.attempts = Math.min(this.attempts + 1, 16);
    // Full jitter: a brain that comes back is not met by all its agents at once.
    const delayMs = this.refused ? REFUSED_BACKOFF_MS : BACKOFF_MIN_MS / 2 + rng() * cap;
    this.retry = clock.after(delayMs, () => this.connect());
  }

  private send(message: AgentMessage): void {
    if (this.connected) this.write(message);
  }

  private write(message: AgentMessage): void {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(encode(message));
  }
}

/** What an operator must know of a failed connection: which key or secret to look at. */
function explain(error: Error & { code?: string }, url: string): string {
  // A name with several addresses fails with an AggregateError, whose message is empty.
  const text = errorMessage(error) || error.code || 'connection failed';
  if (text.endsWith('server response: 401'))
    return 'the brain refuses the fleet token (HTTP 401); agent and brain must have the same `token`';
  if (error.code === 'ECONNREFUSED')
    return `nothing listens at ${url} (connection refused); start the brain there or correct agent.brainUrl`;
  return `${text}; see agent.brainUrl (${url})`;
}
