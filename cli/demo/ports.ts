import { createServer } from 'node:net';

/**
 * The port if it can be listened on at this address now, else 0, which lets the process that listens take a free one.
 * Who takes the port between this look and that process makes it fail with a message that names the port.
 */
export function portOrAny(port: number, host = '127.0.0.1'): Promise<number> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', () => resolve(0));
    probe.listen({ port, host, exclusive: true }, () => probe.close(() => resolve(port)));
  });
}
