import { connect, createServer, type Server, type Socket } from 'node:net';
import type { AddressInfo } from 'node:net';

/** `up`: from who connects to who listens; `down`: the other way. */
export type Direction = 'up' | 'down';

/**
 * A link that can become half open: it forwards connections to a port of the loopback interface, and a direction that
 * is dropped carries neither bytes nor the end of a connection, while both ends keep their sockets, as behind a
 * firewall that has forgotten them.
 */
export class Link {
  private readonly server: Server;
  private readonly pipes = new Set<Pipe>();
  private dropped: readonly Direction[] = [];

  private constructor(targetPort: number) {
    this.server = createServer({ allowHalfOpen: true }, (client) => {
      const target = connect({ port: targetPort, host: '127.0.0.1', allowHalfOpen: true });
      const up = new Pipe(client, target);
      const down = new Pipe(target, client);
      for (const [direction, pipe] of [
        ['up', up],
        ['down', down],
      ] as const) {
        this.pipes.add(pipe);
        pipe.from.once('close', () => this.pipes.delete(pipe));
        pipe.direction = direction;
        if (this.dropped.includes(direction)) pipe.drop();
      }
    });
  }

  static async start(targetPort: number): Promise<Link> {
    const link = new Link(targetPort);
    await new Promise<void>((resolve) => link.server.listen(0, '127.0.0.1', resolve));
    return link;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** Drops these directions of all connections, those to come included. */
  drop(...directions: Direction[]): void {
    this.dropped = directions;
    this.dropOpen(...directions);
  }

  /** Drops these directions of the connections that are open; new ones work. */
  dropOpen(...directions: Direction[]): void {
    for (const pipe of this.pipes) if (directions.includes(pipe.direction)) pipe.drop();
  }

  /** The link works again; what was held back arrives. */
  restore(): void {
    this.dropped = [];
    for (const pipe of this.pipes) pipe.restore();
  }

  close(): Promise<void> {
    for (const pipe of this.pipes) pipe.from.destroy();
    return new Promise((resolve) => this.server.close(() => resolve()));
  }
}

/** One direction of one connection. */
class Pipe {
  direction: Direction = 'up';
  readonly from: Socket;
  private readonly to: Socket;
  private isDropped = false;
  /** what has happened at the side that sends and was not passed on */
  private missed: 'end' | 'close' | undefined;

  constructor(from: Socket, to: Socket) {
    this.from = from;
    this.to = to;
    from.on('data', (chunk) => {
      if (!to.write(chunk)) from.pause();
    });
    to.on('drain', () => {
      if (!this.isDropped) from.resume();
    });
    from.on('error', () => undefined);
    from.on('end', () => this.pass('end'));
    from.on('close', () => this.pass('close'));
  }

  drop(): void {
    this.isDropped = true;
    this.from.pause();
  }

  restore(): void {
    this.isDropped = false;
    if (this.missed) this.pass(this.missed);
    else this.from.resume();
  }

  private pass(what: 'end' | 'close'): void {
    if (this.isDropped) this.missed = what;
    else if (what === 'end') this.to.end();
    else this.to.destroy();
  }
}
