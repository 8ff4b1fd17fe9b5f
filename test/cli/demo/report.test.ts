import { expect, it } from 'vitest';
import { hintLines } from '../../../cli/demo/hints.ts';
import { reportLines, type Report } from '../../../cli/demo/report.ts';
import { brain, INSTANCES, phaseResult } from './demo-state.ts';

function report(change: Partial<Report> = {}): Report {
  const nodes = INSTANCES.map(({ id, gpu }) => ({ instance: id, gpu }));
  return {
    phases: [phaseResult('prefix-load', 600, 50), phaseResult('learned', 300, 20)],
    nodes,
    floorTtftMs: 100,
    fastestGpu: 'A100',
    trustedAfterMs: 12_000,
    ...change,
  };
}

it('sets both phases side by side, with the ratio and what bounds it', () => {
  const text = reportLines(report()).join('\n');
  expect(text).toMatch(/^TTFT mean ms +600 +300 +2\.00x$/m);
  expect(text).toMatch(/^E2E mean ms +2000 +2000 +1\.00x$/m);
  expect(text).toMatch(/^cache hits +20\.0 % +20\.0 %$/m);
  expect(text).toMatch(/^failed +0 +0$/m);
  expect(text).toMatch(/^a30-1 +A30 +50 % +200 ms +20 % +200 ms$/m);
  expect(text).toMatch(/100 ms on average, so no router could gain more\nthan 6\.0x here/);
  expect(text).toContain('earned trust 12 s after');
  expect(text).toContain('1 request of phase 2 was sent');
  expect(text).not.toContain('fallback');
  expect(text).not.toContain('short of CPU');
  expect(text).not.toContain('did not know');
});

it('says what went wrong: failures, fallback, a machine that was too slow', () => {
  const learned = phaseResult('learned', 300, 20);
  learned.load = {
    ...learned.load,
    failed: 2,
    failures: { 'status 503': 2 },
    examples: { 'status 503': 'no instance' },
  };
  learned.counters.policies = { learned: 25, 'prefix-load': 75 };
  learned.usage.hostBusyCores = 1.9;
  learned.brain = brain;
  const text = reportLines(
    report({ phases: [phaseResult('prefix-load', 600, 50), learned], trustedAfterMs: undefined }),
  ).join('\n');
  expect(text).toContain('earned no trust');
  expect(text).toContain('The brain did not know a30-1 to be up at the end of learned');
  expect(text).toContain('learned made 25.0 % of the decisions');
  expect(text).toContain('short of CPU during learned (1.9 of 2 cores busy');
  expect(text).toContain('learned: 2 failed by status 503, for example: no instance');
});

it('gives what a user can paste, with the real ports', () => {
  const nodes = [
    { instance: 'a100', gpu: 'A100', agentUrl: 'http://127.0.0.1:45001', engineUrl: 'http://127.0.0.1:45002' },
  ];
  const text = hintLines({ nodes, brainUrl: 'http://127.0.0.1:45003', token: 'secret', model: 'm' }).join('\n');
  expect(text).toContain("curl http://127.0.0.1:45001/v1/chat/completions -H 'content-type: application/json'");
  expect(text).toContain('OpenAI(base_url="http://127.0.0.1:45001/v1"');
  expect(text).toContain("authorization: Bearer secret' http://127.0.0.1:45003/lodestar/status");
});
