import { spawn } from 'node:child_process';
import { mkdtempSync, openSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { request } from 'undici';
import { startAgent } from '../../agent/main.ts';
import { loadConfig } from '../../shared/config/index.ts';
import { realClock, seededRng, silentLog } from '../../shared/env.ts';
import { bundledTrace, pace, planRequests, readMooncake, runLoad } from '../../sim/workloads/index.ts';
import { freePort } from './free-port.ts';
import { rigFolder, rigScripts } from './server.ts';

const VOCAB = 'hello world this is a tiny tokenizer for router tests'.split(' ');
const OTHER = 'the quick brown fox jumps over lazy dogs while seventeen engineers debug {"json": [1, 2, 3]} and write code; return x + y;'.split(' ');

const rng = seededRng(Number(process.argv[3] ?? 7));
const words = (n: number, dense: number): string => Array.from({ length: n }, () => (rng() < dense ? OTHER[Math.floor(rng() * OTHER.length)] : VOCAB[Math.floor(rng() * VOCAB.length)])).join(' ');
const sleep = (ms: number): Promise<void> => new Promise((r) => setTimeout(r, ms));

async function main(): Promise<void> {
  const blocks = Number(process.env['BLOCKS'] ?? 600);
  const port = await freePort();
  const events = await freePort();
  const replay = await freePort();
  const folder = mkdtempSync(join(tmpdir(), 'acc-'));
  const log = openSync(join(folder, 'log'), 'w');
  const child = spawn('bash', [join(rigScripts, 'serve.sh'), '--num-gpu-blocks-override', String(blocks), '--max-num-seqs', '32', '--max-num-batched-tokens', '2048', '--max-model-len', String(Math.min(8000, blocks * 16 - 32))], {
    detached: true, stdio: ['ignore', log, log],
    env: { ...process.env, PYTHON: join(rigFolder, 'bin/python'), MODEL_DIR: join(folder, 'm'), PORT: String(port), FAKE_COEFF: '10.4,0.05005,3.2e-6,0.03898,8.317e-5', ...(process.env['EVENTS'] ? { EVENTS_PORT: String(events), REPLAY_PORT: String(replay) } : {}) },
  });
  process.once('exit', () => child.pid && process.kill(-child.pid, 'SIGKILL'));
  for (;;) {
    try { const { statusCode, body } = await request(`http://127.0.0.1:${port}/health`); await body.dump(); if (statusCode === 200) break; } catch { /* not yet */ }
    await sleep(300);
  }
  const kv = process.env['EVENTS'] ? { kvEvents: { endpoint: `tcp://127.0.0.1:${events}`, replayEndpoint: `tcp://127.0.0.1:${replay}` } } : {};
  const config = loadConfig({ env: { LODESTAR_TOKEN: 'x'.repeat(32) }, sets: ['agent.id=a', 'agent.port=0', 'agent.advertiseUrl=http://127.0.0.1:0', `agent.stateDir=${join(folder, 's')}`, 'agent.brainUrl=', 'agent.nvidiaSmiPath=/nonexistent'], overrides: { agent: { instances: [{ url: `http://127.0.0.1:${port}`, maxNumSeqs: 32, ...kv }] } } as never });
  const agent = await startAgent(config.agent, 'x'.repeat(32), { clock: realClock, rng: seededRng(1), log: process.env['LOG'] ? (console as never) : silentLog });
  await sleep(2500);
  const door = [...agent.context.instances.views.values()][0]?.local;
  if (!door) throw new Error('no door');
  // Record door predictions.
  const rows: { kind: string; door: number; entry: number; real: number; waited: boolean; prompt: number; est: number; siblings: number }[] = [];
  const ledger = door.ledger;
  const open = ledger.open.bind(ledger);
  const close = ledger.close.bind(ledger);
  const at = new Map<object, { waited: boolean; inFlight: number; dbg: string }>();
  ledger.open = (p) => { const dbg: string[] = []; for (const h of p.hashes) { const n = (door.cache as never as {tree: {get(h: number): {events: string; shadowHeld: boolean; from: number; to: number; engine: ({copies: number; index: number}|undefined)[]}|undefined}}).tree.get(h); if (!n) break; dbg.push(`${n.events[0]}${n.shadowHeld ? 'S' : '-'}${n.from}-${n.to}[${[...n.engine].map((e) => e ? `${e.copies}${e.index}` : '_').join(',')}]`); if (dbg.length > 12) break; } const r = open(p); at.set(r, { dbg: dbg.join(' '), waited: r.sequence === undefined, inFlight: ledger.inFlight }); return r; };
  ledger.close = (r, o, c) => { if (process.env['DBG'] && !r.closed && o?.cachedTokens !== undefined && r.hitTokens - o.cachedTokens > 90) { const nodes = (at.get(r) as never as {dbg: string}).dbg; console.log('MIS', r.hitTokens, o.cachedTokens, nodes); } if (!r.closed && o?.cachedTokens !== undefined) { const a = at.get(r); rows.push({ kind: (r.prompt as never as { text: Buffer }).text[0] === 1 ? 'chat' : 'compl', door: r.hitTokens, entry: -1, real: o.cachedTokens, waited: a?.waited ?? false, prompt: o.promptTokens ?? 0, est: r.promptTokens, siblings: a?.inFlight ?? 0, info: `depth ${r.look.hit ? [...r.prompt.hashes].indexOf(r.look.hit.hash) + 1 : 0} tok ${r.look.hit?.tokens.toFixed(0)} tail ${r.look.hit?.tail.toFixed(0)} ${r.look.hit?.exact ? 'exact' : ''} next ${JSON.stringify((r.prompt as never as { text: Buffer }).text.subarray(64 * (r.look.hit ? [...r.prompt.hashes].indexOf(r.look.hit.hash) + 1 : 0) - 40).toString('utf8').slice(0, 100))}` } as never); } at.delete(r); close(r, o, c); };
  const systems = [words(60, 0.3), words(200, 0), words(150, 1), words(30, 0.5)];
  const url = `http://127.0.0.1:${agent.port}`;
  const post = async (path: string, body: unknown): Promise<string> => {
    const { body: answer } = await request(`${url}${path}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body), headersTimeout: 0, bodyTimeout: 0 });
    let text = '';
    for (const line of (await answer.text()).split('\n\n')) {
      if (!line.startsWith('data: {')) continue;
      const j = JSON.parse(line.slice(6)) as { choices: { text?: string; delta?: { content?: string } }[] };
      text += j.choices[0]?.text ?? j.choices[0]?.delta?.content ?? '';
    }
    return text;
  };
  const endMs = Date.now() + Number(process.argv[2] ?? 60) * 1000;
  const chatUser = async (i: number): Promise<void> => {
    while (Date.now() < endMs) {
      const messages = [{ role: 'system', content: systems[i % 4] as string }];
      const turns = 2 + Math.floor(rng() * 5);
      for (let t = 0; t < turns && Date.now() < endMs; t++) {
        messages.push({ role: 'user', content: words(10 + Math.floor(rng() * 80), rng() < 0.5 ? 0.2 : 0.8) });
        const answer = await post('/v1/chat/completions', { model: 'tiny', messages, max_tokens: 5 + Math.floor(rng() * 60), stream: true, ignore_eos: true });
        messages.push({ role: 'assistant', content: answer });
        await sleep(200 + rng() * 2500);
      }
    }
  };
  const completionsUser = async (): Promise<void> => {
    while (Date.now() < endMs) {
      // documents with questions: shared up to anywhere
      const doc = systems[Math.floor(rng() * 4)] as string;
      const cut = doc.slice(0, Math.floor(doc.length * (0.3 + 0.7 * rng())));
      await post('/v1/completions', { model: 'tiny', prompt: `${cut} ${words(20 + Math.floor(rng() * 60), 0.3)}`, max_tokens: 3 + Math.floor(rng() * 30), stream: true, ignore_eos: true });
      await sleep(rng() * 1500);
    }
  };
  if (process.env['TRACE']) {
    const scale = Number(process.env['SCALE'] ?? 0.125);
    const trace = readMooncake(bundledTrace, { seed: 3, lengthScale: scale, outputScale: 0.25, maxPromptTokens: 2500 });
    const some = pace(trace.requests.slice(0, 400), { rate: Number(process.env['RATE'] ?? 5) });
    const planned = planRequests(some, scale).map((one) => ({ ...one, prompt: () => (process.env['TRACE'] === 'words' ? one.prompt().split(' ').map((w) => VOCAB[(w.charCodeAt(0) * 7 + (w.charCodeAt(1) || 0) * 3 + (w.charCodeAt(2) || 0)) % 10]).join(' ') : one.prompt()) }));
    await runLoad({ urls: [url], requests: planned, api: 'completions', model: 'tiny', clock: realClock } as never);
  } else await Promise.all([...Array.from({ length: Number(process.env['CHATS'] ?? 14) }, (_, i) => chatUser(i)), ...Array.from({ length: 4 }, () => completionsUser())]);
  for (const kind of ['chat', 'compl']) {
    for (const [name, pick] of [['all', () => true], ['second half', (_: unknown, i: number, all: unknown[]) => i > all.length / 2]] as const) {
      const some = rows.filter((r) => r.kind === kind).filter(pick as never);
      const ok = some.filter((r) => Math.abs(r.door - r.real) <= 16);
      console.log(kind, name, some.length, 'door within a block', (ok.length / some.length).toFixed(3), 'waited', some.filter((r) => r.waited).length, 'hit ratio', (some.reduce((s, r) => s + r.real, 0) / some.reduce((s, r) => s + r.prompt, 0)).toFixed(3));
      if (name === 'second half') console.log(some.filter((r) => Math.abs(r.door - r.real) > 16).slice(-25).map((r) => `${r.door}/${r.real} of ${r.est}/${r.prompt}${r.waited ? 'w' : ''} s${r.siblings} `  + (r as never as {info: string}).info).join('\n'));
    }
  }
  console.log(door.cache.figures(), 'probes', (door.cache as never as { probe: { asked: number } }).probe.asked);
  await agent.close();
  process.exit(0);
}
await main();
