import type { AddressInfo, Server } from 'node:net';
import { errorMessage, LodestarError } from './errors.ts';

/** What `listen` needs of a Fastify server. */
export interface Listener {
  listen(options: { host: string; port: number }): Promise<unknown>;
  readonly server: Pick<Server, 'address'>;
}

/**
 * Listens and returns the port, which is another than the one asked for where that is 0. Error: CONFIG_INVALID with the
 * keys of the section to change.
 */
export async function listen(app: Listener, section: 'agent' | 'brain', host: string, port: number): Promise<number> {
  try {
    await app.listen({ host, port });
  } catch (error) {
    const fix = `set ${section}.host and ${section}.port to an address that is free (port 0: any)`;
    throw new LodestarError('CONFIG_INVALID', `cannot listen on ${host}:${port}: ${errorMessage(error)}; ${fix}`, {
      cause: error,
    });
  }
  return (app.server.address() as AddressInfo).port;
}
