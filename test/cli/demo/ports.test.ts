import { createServer, type AddressInfo } from 'node:net';
import { expect, it } from 'vitest';
import { portOrAny } from '../../../cli/demo/ports.ts';

it('keeps a free port and gives up a busy one for any', async () => {
  const holder = createServer();
  await new Promise<void>((done) => holder.listen(0, '127.0.0.1', done));
  const { port } = holder.address() as AddressInfo;
  expect(await portOrAny(port)).toBe(0);
  await new Promise((done) => holder.close(done));
  expect(await portOrAny(port)).toBe(port);
});
