import { describe, expect, it } from 'vitest';
import { SseScanner } from '../../../sim/workloads/sse-scanner.ts';
import { doneEvent, tokenEvent, usageEvent } from './sse-server.ts';

const stream = tokenEvent('a') + tokenEvent(' "error" \\ data: {"error"') + usageEvent(50, 2, 48) + doneEvent;

describe('scanner', () => {
  it.each([1, 2, 7, 64, 10_000])('reads a stream in pieces of %i bytes', (size) => {
    const scanner = new SseScanner();
    const bytes = Buffer.from(stream);
    for (let at = 0; at < bytes.length; at += size) scanner.push(bytes.subarray(at, at + size), at);
    expect(scanner).toMatchObject({
      firstMs: expect.any(Number) as number,
      done: true,
      error: undefined,
      usage: { promptTokens: 50, completionTokens: 2, cachedTokens: 48 },
    });
    expect(scanner.lastMs).toBeGreaterThanOrEqual(scanner.firstMs ?? Infinity);
    expect(scanner.lastMs).toBeLessThan(bytes.length - doneEvent.length);
  });

  it('sees an error inside the stream', () => {
    const scanner = new SseScanner();
    scanner.push(
      Buffer.from(`${tokenEvent('a')}data: {"error":{"message":"EngineCore died","code":500}}\n\n${doneEvent}`),
      1,
    );
    expect(scanner.error).toContain('EngineCore died');
  });

  it('does without cached tokens, and refuses nonsense', () => {
    const scanner = new SseScanner();
    scanner.push(Buffer.from(`: comment\nevent: x\n${usageEvent(5, 1)}`), 1);
    expect(scanner.usage).toEqual({ promptTokens: 5, completionTokens: 1, cachedTokens: undefined });
    scanner.push(Buffer.from('data: {"choices":[]}\n\n'), 2);
    expect(scanner.error).toContain('usage');
    const endless = new SseScanner();
    endless.push(Buffer.alloc(5 * 1024 * 1024, 97), 1);
    expect(endless.error).toContain('a line of more than');
  });
});
