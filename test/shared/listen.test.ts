import Fastify, { type FastifyInstance } from 'fastify';
import { afterEach, expect, test } from 'vitest';
import { listen } from '../../shared/listen.ts';

const apps: FastifyInstance[] = [];
const app = (): FastifyInstance => {
  const made = Fastify();
  apps.push(made);
  return made;
};
afterEach(() => Promise.all(apps.splice(0).map((one) => one.close())));

test('tells the port it got, and names the keys when an address is taken or not there', async () => {
  const port = await listen(app(), 'agent', '127.0.0.1', 0);
  expect(port).toBeGreaterThan(0);
  for (const section of ['agent', 'brain'] as const) {
    const taken = listen(app(), section, '127.0.0.1', port);
    await expect(taken).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    await expect(taken).rejects.toThrow(`cannot listen on 127.0.0.1:${port}: listen EADDRINUSE`);
    await expect(taken).rejects.toThrow(`set ${section}.host and ${section}.port to an address that is free`);
  }
  await expect(listen(app(), 'agent', '192.0.2.1', 0)).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
});
