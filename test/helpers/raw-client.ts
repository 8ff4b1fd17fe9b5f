import { connect, type Socket } from 'node:net';

/** A client that writes what the test says, byte for byte, and keeps what comes back. */
export class RawClient {
  /** what the server has answered so far */
  received = '';
  /** the server has closed the connection */
  closed = false;
  readonly socket: Socket;

  constructor(url: string) {
    const { hostname, port } = new URL(url);
    this.socket = connect(Number(port), hostname);
    this.socket.setEncoding('latin1').on('data', (text: string) => (this.received += text));
    this.socket.on('error', () => undefined).on('close', () => (this.closed = true));
  }

  /** Begins a POST whose body is to have `bytes` bytes, with the first of them. */
  begin(path: string, bytes: number, first: string | Buffer, headers: Record<string, string> = {}): this {
    const lines = Object.entries({
      host: 'test',
      'content-type': 'application/json',
      'content-length': String(bytes),
      ...headers,
    }).map(([name, value]) => `${name}: ${value}\r\n`);
    this.socket.write(`POST ${path} HTTP/1.1\r\n${lines.join('')}\r\n`);
    if (first.length > 0) this.socket.write(first);
    return this;
  }

  get status(): number {
    return Number(this.received.slice(9, 12));
  }

  /** the JSON of a whole answer */
  get json(): unknown {
    return JSON.parse(this.received.slice(this.received.indexOf('\r\n\r\n') + 4));
  }
}
