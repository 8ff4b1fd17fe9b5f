import type { RunDone } from './job.ts';
import type { RunPlots } from './plots.ts';
import type { PolicySummary } from './summary.ts';
import { type Axis, barChart, escapeHtml, lineChart, type Series } from './svg.ts';

/** What a page shows beside the plots. */
export interface PageInput {
  /** names of settings and their values, in order */
  facts: readonly (readonly [name: string, value: string])[];
  summary: Record<string, PolicySummary>;
  runs: readonly RunDone[];
}

/**
 * Colours that people with any colour vision can tell apart (Okabe and Ito), then darker or lighter ones of the same.
 */
const COLOURS = [
  '#0072b2',
  '#d55e00',
  '#009e73',
  '#cc79a7',
  '#e69f00',
  '#56b4e9',
  '#8c6d31',
  '#7f7f7f',
  '#6a3d9a',
  '#b2182b',
  '#4d9221',
  '#c51b7d',
  '#01665e',
  '#8c510a',
  '#5e4fa2',
  '#878787',
  '#35978f',
];

const STYLE = `
:root{color-scheme:light dark;--ink:#1c1e21;--soft:#5f6670;--line:#dde1e6;--page:#fff;--card:#f7f8fa}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--soft:#9aa3ad;--line:#343a41;--page:#15181b;--card:#1d2125}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1400px;padding:24px;background:var(--page);color:var(--ink);font:14px/1.5 system-ui,sans-serif}
h1{font-size:22px;margin:0 0 4px}h2{font-size:15px;margin:0 0 6px}dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:12px 0 20px}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}.scroll{overflow-x:auto;margin-bottom:20px}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:5px 10px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}th:first-child,td:first-child{text-align:left}th{color:var(--soft);font-weight:600}
td.best{font-weight:700}.legend{display:flex;flex-wrap:wrap;gap:4px 18px;margin:0 0 16px;padding:0;list-style:none;position:sticky;top:0;background:var(--page);padding:8px 0}
.legend i,td i{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:6px;vertical-align:-1px}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:16px}figure{margin:0;padding:14px;background:var(--card);border:1px solid var(--line);border-radius:8px}
figcaption{color:var(--soft);font-size:12px;margin-top:4px}svg{width:100%;height:auto;display:block}.grid{stroke:var(--line);stroke-width:1;fill:none}
.line{fill:none;stroke-width:1.8;stroke-linejoin:round}.tick{fill:var(--soft);font-size:11px}.label{fill:var(--soft);font-size:12px}.none{color:var(--soft)}
${COLOURS.map((colour, at) => `.line.s${at}{stroke:${colour}}.bar.s${at}{fill:${colour}}i.s${at}{background:${colour}}`).join('\n')}
`;

const timeAxis: Axis = { label: 'time of arrival (s)', tick: plain, min: 0 };
const latencyAxis: Axis = { label: 'TTFT (ms, log scale)', tick: plain, log: true };
const shareAxis: Axis = { label: 'share of requests', tick: asPercent, min: 0, max: 1 };

/**
 * The report of a simulation as one page that needs nothing else: a table, and plots as inline SVG. Everything that
 * comes from input is escaped.
 */
export function simPage({ facts, summary, runs }: PageInput): string {
  const names = Object.keys(summary);
  const index = new Map(names.map((name, at) => [name, at % COLOURS.length]));
  const plotted = runs.flatMap(({ plots, result }) =>
    plots ? [{ plots, result, index: index.get(result.policy) ?? 0 }] : [],
  );
  const over = (take: (plots: RunPlots) => readonly (number | null)[]): Series[] =>
    plotted.map(({ plots, result, index: at }) => ({
      name: result.policy,
      index: at,
      points: plots.atS.map((x, bin) => ({ x, y: take(plots)[bin] ?? null })),
    }));
  const cdf = (take: (plots: RunPlots) => readonly number[]): Series[] =>
    plotted.map(({ plots, result, index: at }) => ({
      name: result.policy,
      index: at,
      points: take(plots).map((x, i, all) => ({ x, y: i / Math.max(1, all.length - 1) })),
    }));
  const instances = plotted[0]?.result.perInstance.map(({ id, gpu }) => `${id} ${gpu}`) ?? [];
  const shares = plotted.map(({ result, index: at }): Series => ({
    name: result.policy,
    index: at,
    points: result.perInstance.map(({ share }, x) => ({ x, y: share })),
  }));
  const plots = [
    figure('TTFT over time', 'Mean of the requests that arrived in each fortieth of the run.', (title) =>
      lineChart(
        title,
        timeAxis,
        latencyAxis,
        over((one) => one.ttftMeanMs),
      ),
    ),
    figure('TTFT over time, 99th percentile', 'Of the same requests.', (title) =>
      lineChart(
        title,
        timeAxis,
        { ...latencyAxis, label: 'P99 TTFT (ms, log scale)' },
        over((one) => one.ttftP99Ms),
      ),
    ),
    figure('Distribution of TTFT', 'Share of requests with their first token within this time.', (title) =>
      lineChart(
        title,
        latencyAxis,
        shareAxis,
        cdf((one) => one.ttftCdfMs),
      ),
    ),
    figure('Distribution of E2E', 'Share of requests that are done within this time.', (title) =>
      lineChart(
        title,
        { ...latencyAxis, label: 'E2E (ms, log scale)' },
        shareAxis,
        cdf((one) => one.e2eCdfMs),
      ),
    ),
    figure('Requests per instance', 'Share of all completed requests.', (title) =>
      barChart(title, instances, { label: 'share of requests', tick: asPercent }, shares),
    ),
    figure(
      'Prediction error over time',
      'Median of |predicted − seen| / seen of TTFT, of requests that `learned` placed.',
      (title) =>
        lineChart(
          title,
          timeAxis,
          { label: 'absolute error', tick: asPercent, min: 0 },
          over((one) => one.medianApe),
        ),
    ),
    figure('Hit ratio over time', 'Prompt tokens found in a cache / all prompt tokens.', (title) =>
      lineChart(
        title,
        timeAxis,
        { label: 'KV hit ratio', tick: asPercent, min: 0, max: 1 },
        over((one) => one.kvHitRatio),
      ),
    ),
  ];
  return pageOf(facts, names, index, summaryTable(summary, index), plots);
}

function pageOf(
  facts: readonly (readonly [string, string])[],
  names: readonly string[],
  index: ReadonlyMap<string, number>,
  table: string,
  plots: readonly string[],
): string {
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Lodestar simulation</title><style>${STYLE}</style></head>
<body><h1>Lodestar simulation</h1>
<dl>${facts.map(([name, value]) => `<dt>${escapeHtml(name)}</dt><dd>${escapeHtml(value)}</dd>`).join('')}</dl>
<div class="scroll">${table}</div>
<ul class="legend">${names.map((name) => `<li>${swatch(index.get(name))}${escapeHtml(name)}</li>`).join('')}</ul>
<div class="plots">${plots.join('')}</div>
</body></html>
`;
}

function summaryTable(summary: Record<string, PolicySummary>, index: ReadonlyMap<string, number>): string {
  const columns: readonly (readonly [
    string,
    (one: PolicySummary) => number | null,
    (value: number) => string,
    best: 'least' | 'most' | null,
  ])[] = [
    ['TTFT mean (ms)', (one) => one.ttftMs.mean, plain, 'least'],
    ['± 95 %', (one) => one.ci95, plain, null],
    ['P50', (one) => one.ttftMs.p50, plain, 'least'],
    ['P90', (one) => one.ttftMs.p90, plain, 'least'],
    ['P99', (one) => one.ttftMs.p99, plain, 'least'],
    ['TPOT (ms)', (one) => one.tpotMs.mean, plain, 'least'],
    ['E2E (ms)', (one) => one.e2eMs.mean, plain, 'least'],
    ['hit ratio', (one) => one.kvHitRatio, asPercent, 'most'],
    ['goodput', (one) => one.goodput, asPercent, 'most'],
    ['regret (ms)', (one) => one.regretMs, plain, 'least'],
    ['prediction error', (one) => one.medianApe, asPercent, null],
    ['trusted after (s)', (one) => one.firstTrustedAtS, plain, null],
    ['failed', (one) => one.failed, plain, null],
  ];
  const rows = Object.entries(summary);
  // The oracle is a yardstick, not a rival.
  const bests = columns.map(([, value, , best]) => {
    const values = rows
      .flatMap(([name, one]) => (name === 'oracle' ? [] : [value(one) ?? NaN]))
      .filter(Number.isFinite);
    return best === null || values.length === 0 ? null : best === 'least' ? Math.min(...values) : Math.max(...values);
  });
  const body = rows.map(([name, one]) => {
    const cells = columns.map(([, value, write], at) => {
      const found = value(one);
      return `<td${found !== null && found === bests[at] ? ' class="best"' : ''}>${found === null ? '–' : escapeHtml(write(found))}</td>`;
    });
    return `<tr><td>${swatch(index.get(name))}${escapeHtml(name)}</td>${cells.join('')}</tr>`;
  });
  return `<table><thead><tr><th>policy</th>${columns.map(([name]) => `<th>${escapeHtml(name)}</th>`).join('')}</tr></thead><tbody>${body.join('')}</tbody></table>`;
}

function figure(title: string, caption: string, draw: (title: string) => string): string {
  return `<figure><h2>${escapeHtml(title)}</h2>${draw(title)}<figcaption>${escapeHtml(caption)}</figcaption></figure>`;
}

function swatch(index: number | undefined): string {
  return `<i class="s${index ?? 0}"></i>`;
}

function plain(value: number): string {
  const decimals = Math.abs(value) >= 100 || Number.isInteger(value) ? 0 : 1;
  return value.toLocaleString('en-US', { maximumFractionDigits: Math.abs(value) < 1 ? 2 : decimals });
}

function asPercent(value: number): string {
  return `${(100 * value).toFixed(value > 0 && value < 0.1 ? 1 : 0)} %`;
}
