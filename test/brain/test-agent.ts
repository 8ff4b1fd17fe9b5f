import { WebSocket } from 'ws';
import { decode, encode } from '../../shared/codec.ts';
import { type AgentMessage, type BrainMessage, MAX_FRAME_BYTES, parseBrainMessage } from '../../shared/protocol.ts';
import { TOKEN } from './fixtures.ts';

type Of<T extends BrainMessage['t']> = Extract<BrainMessage, { t: T }>;

/** The agent's end of the wire, over a real socket. */
export class TestAgent {
  readonly socket: WebSocket;
  readonly closed: Promise<{ code: number; reason: string }>;
  readonly messages: BrainMessage[] = [];
  private readonly waiting = new Set<() => void>();
  private taken = new Set<BrainMessage>();

  private constructor(socket: WebSocket) {
    this.socket = socket;
    this.closed = new Promise((resolve) =>
      socket.on('close', (code, reason) => resolve({ code, reason: reason.toString() })),
    );
    socket.on('message', (data: Buffer) => {
      this.messages.push(parseBrainMessage(decode(data, MAX_FRAME_BYTES)));
      for (const wake of this.waiting) wake();
    });
    socket.on('error', () => {});
  }

  /** Opens a connection to a brain at an http:// URL. Rejects with the HTTP status when the upgrade is refused. */
  static connect(url: string, token: string = TOKEN): Promise<TestAgent> {
    const socket = new WebSocket(`${url.replace('http', 'ws')}/lodestar/agent`, {
      headers: { authorization: `Bearer ${token}` },
      perMessageDeflate: false,
    });
    const agent = new TestAgent(socket);
    return new Promise((resolve, reject) => {
      socket.on('open', () => resolve(agent));
      socket.on('unexpected-response', (_request, response) => {
        response.resume();
        reject(new Error(`HTTP ${response.statusCode}`));
      });
    });
  }

  /** Connects and is welcomed. */
  static async join(url: string, message: AgentMessage): Promise<TestAgent> {
    const agent = await TestAgent.connect(url);
    agent.send(message);
    await agent.next('welcome');
    return agent;
  }

  send(message: AgentMessage): void {
    this.socket.send(encode(message));
  }

  /** The next message of a type that was not returned yet and fits; waits for it. */
  async next<T extends BrainMessage['t']>(type: T, fits: (message: Of<T>) => boolean = () => true): Promise<Of<T>> {
    for (;;) {
      const found = this.messages.find(
        (message): message is Of<T> => message.t === type && !this.taken.has(message) && fits(message as Of<T>),
      );
      if (found) {
        this.taken.add(found);
        return found;
      }
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          this.waiting.delete(wake);
          resolve();
        };
        this.waiting.add(wake);
      });
    }
  }

  close(): void {
    this.socket.terminate();
  }
}
