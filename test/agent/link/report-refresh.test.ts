import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ReportRefresh } from '../../../agent/link/report-refresh.ts';
import { encode } from '../../../shared/codec.ts';
import { silentLog } from '../../../shared/env.ts';
import { FaultLog } from '../../../shared/fault-log.ts';
import { Entry } from '../../helpers/entry.ts';
import { reportOf } from '../../helpers/reports.ts';

let entry: Entry;
let server: Server;
let url: string;
let body: () => Buffer;
let asked: number;
let faults: FaultLog;
let refresh: ReportRefresh;

beforeEach(async () => {
  entry = new Entry();
  asked = 0;
  body = () => encode([]);
  server = createServer((_request, response) => {
    asked += 1;
    response.end(body());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  faults = new FaultLog(silentLog);
  refresh = new ReportRefresh(entry.instances, entry.clock, 'token', 250, faults, () => false);
});
afterEach(async () => {
  refresh.close();
  await entry.instances.close();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

async function until(done: () => boolean): Promise<void> {
  while (!done()) await entry.clock.advanceWithIo(10, 1);
}

const linkMs = (id: string): number => entry.instances.views.get(id)?.linkMs ?? -1;

test('the link to a door is that of all its instances', async () => {
  for (const id of ['a', 'b', 'c']) entry.instances.applyReport(reportOf(id, { doorUrl: url }));
  entry.instances.applyReport(reportOf('elsewhere', { doorUrl: 'http://127.0.0.1:9' }));
  await until(() => linkMs('a') > 0);
  expect(linkMs('b')).toBe(linkMs('a'));
  expect(linkMs('c')).toBe(linkMs('a'));
  expect(linkMs('elsewhere')).toBe(0);
});

test('a door whose reports are bad in part refreshes the others', async () => {
  for (const id of ['a', 'b']) entry.instances.applyReport(reportOf(id, { doorUrl: url }));
  body = () =>
    encode([
      { ...reportOf('a', { doorUrl: url, seq: 2 }), ageMs: Number.NaN },
      reportOf('b', { doorUrl: url, seq: 2 }),
    ]);
  await until(() => entry.instances.views.get('b')?.report?.seq === 2);
  expect(entry.instances.views.get('a')?.report?.seq).toBe(1);
  expect(faults.status()).toMatchObject({ newest: [{ from: url, instance: 'a' }] });
});

test('a report without models leaves those that are known', async () => {
  entry.instances.applyReport(reportOf('a', { doorUrl: url, models: ['m', 'n'] }));
  body = () => encode([{ ...reportOf('a', { doorUrl: url, seq: 2 }), models: null }]);
  await until(() => entry.instances.views.get('a')?.report?.seq === 2);
  expect(entry.instances.views.get('a')?.report?.models).toEqual(['m', 'n']);
});

test('doors that have left are asked no more, and forgotten', async () => {
  entry.instances.applyReport(reportOf('a', { doorUrl: url }));
  await until(() => asked > 0);
  entry.instances.remove('a');
  await entry.clock.advanceWithIo(200, 50);
  const before = asked;
  await entry.clock.advanceWithIo(20_000, 1000);
  expect(asked).toBe(before);
  expect(Reflect.get(refresh, 'askedMs')).toEqual(new Map());
});
