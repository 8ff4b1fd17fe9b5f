import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, describe, expect, it } from 'vitest';
import { csvCells } from '../../../brain/fit/csv.ts';
import { readRequestLog } from '../../../brain/fit/log-reader.ts';
import { countedCsv, serve, TIMED_HEADER, timedCsv } from './synthetic-log.ts';

const dir = mkdtempSync(join(tmpdir(), 'lodestar-fit-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function file(content: string | Uint8Array): string {
  const path = join(dir, 'log.csv');
  writeFileSync(path, content);
  return path;
}

describe('cells of a line', () => {
  it('reads quoted cells with commas and doubled quotes', () => {
    expect(csvCells('a,"b,""c""",,d')).toEqual(['a', 'b,"c"', '', 'd']);
    expect(csvCells('"a",')).toEqual(['a', '']);
  });

  it('knows a quote that does not end', () => {
    expect(csvCells('a,"b')).toBeNull();
  });
});

describe('request logs', () => {
  it('reads the format with times, plain and gzip', () => {
    const text = timedCsv(serve(20));
    const log = readRequestLog(file(text));
    expect(log).toMatchObject({ format: 'timed', failed: 0, instances: ['10.0.0.1', '10.0.0.2', '10.0.0.3'] });
    expect(log.requests).toHaveLength(20);
    expect(readRequestLog(file(gzipSync(text)))).toEqual(log);
  });

  it('reads the format with counts in order of arrival, though its rows are in order of completion', () => {
    const { served } = serve(50);
    const log = readRequestLog(file(countedCsv({ served, instances: 3 })));
    expect(log).toMatchObject({ format: 'counted', instances: ['pod_0', 'pod_1', 'pod_2'] });
    expect(log.requests.map(({ ttftMs }) => ttftMs)).toEqual(served.map(({ ttftMs }) => ttftMs));
  });

  it('drops and counts requests that failed', () => {
    const text = timedCsv(serve(5));
    const failed = '9,0,0,10.0.0.1,0,0,0,0,0,0,0,0,0,0,0,0,{},{},{},{},{}';
    expect(readRequestLog(file(`${text}${failed}\n`))).toMatchObject({ failed: 1, requests: { length: 5 } });
  });

  it.each([
    ['request_id,latency\n1,2\n', /line 1: neither column start_us nor selected_pod/],
    [`${TIMED_HEADER.replace('ttft_ms', 'first_token')}\n`, /line 1: column ttft_ms is missing/],
    [`${TIMED_HEADER}\n1,2\n`, /line 2: 2 cells, but line 1 names 21 columns/],
    [`${TIMED_HEADER}\n1,"2\n`, /line 2: a quoted cell does not end/],
    [timedCsv(serve(3)).replace(/^1,[^,]+/m, '1,soon'), /line 3, column start_us: "soon" must be a number/],
    [timedCsv(serve(3)).replace(/,10\.0\.0\.\d,/, ',,'), /line 2, column pod: "" must name the chosen instance/],
    [
      timedCsv(serve(3)).replace(/,40,(\d|\.)+,(\d|\.)+,/, ',40,1,1,'),
      /line 2, column e2e_ms: "1" must not be below ttft_ms of the line, \d+/,
    ],
    [
      countedCsv(serve(3)).replace(/,pod_\d,/, ',pod_9,'),
      /line 2, column selected_pod: "pod_9" must be one of the instances of line 1: pod_0, pod_1, pod_2/,
    ],
  ])('says where a log is wrong and what is needed (%#)', (text, message) => {
    expect(() => readRequestLog(file(text))).toThrow(
      expect.objectContaining({ code: 'LOG_INVALID', message: expect.stringMatching(message) }),
    );
  });

  it('names a file that cannot be read', () => {
    expect(() => readRequestLog(join(dir, 'none.csv'))).toThrow(/none.csv: cannot be read/);
  });
});
