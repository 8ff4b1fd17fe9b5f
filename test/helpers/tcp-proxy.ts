import { connect, createServer, type Server, type Socket } from 'node:net';
import type { AddressInfo } from 'node:net';

/** A link that a test can break: forwards connections to a port of the loopback interface. */
export class TcpProxy {
  private readonly server: Server;
  private readonly pairs = new Set<[Socket, Socket]>();
  private isCut = false;
  private isHeld = false;

  private constructor(targetPort: number) {
    this.server = createServer((client) => {
      if (this.isCut) {
        client.destroy();
        return;
      }
      const target = connect(targetPort, '127.0.0.1');
      const pair: [Socket, Socket] = [client, target];
      this.pairs.add(pair);
      for (const socket of pair) {
        socket.on('error', () => undefined);
        socket.on('close', () => {
          this.pairs.delete(pair);
          client.destroy();
          target.destroy();
        });
      }
      client.pipe(target);
      target.pipe(client);
      if (this.isHeld) this.hold();
    });
  }

  static async start(target: string): Promise<TcpProxy> {
    const proxy = new TcpProxy(Number(target.slice(target.lastIndexOf(':') + 1)));
    await new Promise<void>((resolve) => proxy.server.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get endpoint(): string {
    return `tcp://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** Breaks all connections and refuses new ones. */
  cut(): void {
    this.isCut = true;
    for (const pair of this.pairs) for (const socket of pair) socket.destroy();
  }

  /** Nothing passes any more, though connections stay. */
  hold(): void {
    this.isHeld = true;
    for (const [client, target] of this.pairs) {
      client.unpipe(target);
      target.unpipe(client);
      client.pause();
      target.pause();
    }
  }

  /** The link works again. */
  restore(): void {
    this.isCut = false;
    this.isHeld = false;
    for (const [client, target] of this.pairs) {
      client.pipe(target);
      target.pipe(client);
    }
  }

  close(): Promise<void> {
    this.cut();
    return new Promise((resolve) => this.server.close(() => resolve()));
  }
}
