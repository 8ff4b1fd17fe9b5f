import { expect, test } from 'vitest';
import { FanOut } from '../../brain/fan-out.ts';
import { decode, encode } from '../../shared/codec.ts';
import type { InstanceReport } from '../../shared/instance.ts';
import { type BrainMessage, MAX_FRAME_BYTES, MAX_REPORTS_PER_FRAME, parseBrainMessage } from '../../shared/protocol.ts';
import { NARROW_NAME_BOUNDS } from '../../shared/report.ts';
import { VirtualClock } from '../helpers/virtual-clock.ts';
import { FakePeer, hello, report } from './fixtures.ts';

const NAMES = Array.from({ length: 1100 }, (_, i) => `lora-${String(i).padStart(40, '0')}`);

function fanOut(reports: InstanceReport[]) {
  const clock = new VirtualClock();
  const sent: BrainMessage[] = [];
  const earlier: BrainMessage[] = [];
  const source = {
    report: (instance: string) => reports.find((one) => one.instance === instance),
    reports: () => reports,
    broadcast: (message: BrainMessage, _owe: unknown, before: BrainMessage) => {
      sent.push(message);
      earlier.push(before);
    },
  };
  return { clock, sent, earlier, out: new FanOut(clock, source) };
}

function states(peer: FakePeer) {
  return peer.frames.map((frame) => {
    expect(frame.byteLength).toBeLessThanOrEqual(MAX_FRAME_BYTES);
    return parseBrainMessage(decode(frame, MAX_FRAME_BYTES)) as Extract<BrainMessage, { t: 'state' }>;
  });
}

test('a whole state above the limit of a frame comes in parts that each fit', () => {
  const reports = Array.from({ length: 256 }, (_, i) => report(`i${i}`, 'a', { models: NAMES }));
  expect(encode(reports).byteLength).toBeGreaterThan(MAX_FRAME_BYTES);
  const peer = Object.assign(new FakePeer('a'), { hello: hello('a', { protocol: 3 }) });
  fanOut(reports).out.sendAll(peer);
  const parts = states(peer);
  expect(parts.length).toBeGreaterThan(1);
  expect(parts.map(({ full, seq, part, parts: of }) => [full, seq, part, of])).toEqual(
    parts.map((_, i) => [true, 0, i, parts.length]),
  );
  expect(parts.flatMap((message) => message.reports)).toEqual(reports);
});

test('an empty fleet is one empty part', () => {
  const peer = new FakePeer('a');
  fanOut([]).out.sendAll(peer);
  expect(states(peer)).toMatchObject([{ full: true, part: 0, parts: 1, reports: [] }]);
});

test('an agent of an earlier protocol gets no more names than it takes', () => {
  const { clock, out, sent, earlier } = fanOut([report('i', 'a', { models: NAMES }), report('j', 'a')]);
  const peer = Object.assign(new FakePeer('old'), { hello: hello('old', { protocol: 2 }) });
  out.sendAll(peer);
  expect(states(peer)[0]?.reports.map(({ models }) => models.length)).toEqual([NARROW_NAME_BOUNDS.names, 1]);
  out.instanceChanged('i');
  out.instanceChanged('j');
  clock.advance(20);
  expect(sent).toMatchObject([{ reports: [{ models: NAMES }, { models: ['m'] }] }]);
  expect(earlier).toMatchObject([
    { reports: [{ models: NAMES.slice(0, NARROW_NAME_BOUNDS.names) }, { models: ['m'] }] },
  ]);
});

test('a batch of changes is divided too, without a gap in its numbers', () => {
  const reports = Array.from({ length: 256 }, (_, i) => report(`i${i}`, 'a', { models: NAMES }));
  const { clock, out, sent } = fanOut(reports);
  for (const { instance } of reports) out.instanceChanged(instance);
  for (let i = 0; i < MAX_REPORTS_PER_FRAME + 5; i++) out.instanceGone(`gone${i}`);
  clock.advance(20);
  const batches = sent.map((message) => message as Extract<BrainMessage, { t: 'state' }>);
  expect(batches.length).toBeGreaterThan(1);
  for (const message of batches) expect(encode(message).byteLength).toBeLessThanOrEqual(MAX_FRAME_BYTES);
  expect(batches.map(({ seq }) => seq)).toEqual(batches.map((_, i) => i + 1));
  expect(batches.flatMap((message) => message.reports)).toHaveLength(256);
  expect(batches.flatMap(({ gone }) => gone)).toHaveLength(MAX_REPORTS_PER_FRAME + 5);
});
