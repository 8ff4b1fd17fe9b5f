/** A line or a row of bars with its name; colours come from the page's style sheet by `index`. */
export interface Series {
  name: string;
  index: number;
  /** null points break the line */
  points: readonly { x: number; y: number | null }[];
}

export interface Axis {
  label: string;
  /** writes a tick */
  tick: (value: number) => string;
  log?: boolean;
  min?: number;
  max?: number;
}

const WIDTH = 640;
const HEIGHT = 300;
const LEFT = 62;
const RIGHT = 28;
const TOP = 12;
const BOTTOM = 44;
const TICKS = 5;
const MAX_LOG_TICKS = 9;
/** 1, 2 and 5 × the powers of ten from 0.001 to 10⁹: where log axes begin, end and have ticks. */
const LADDER: readonly number[] = Array.from({ length: 39 }, (_, at) =>
  Number(`${[1, 2, 5][at % 3]}e${Math.floor(at / 3) - 3}`),
);

/** Escapes text for HTML and SVG, in content and in quoted attributes. */
export function escapeHtml(raw: string): string {
  return raw
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll("'", '&#39;');
}

/** A line chart as SVG; `title` is read out by screen readers. Without a point: a note that there is none. */
export function lineChart(title: string, x: Axis, y: Axis, series: readonly Series[]): string {
  const shown = series.map((one) => ({
    ...one,
    points: one.points.map((point) => ({
      x: point.x,
      y: drawable(point.y, y) && drawable(point.x, x) ? point.y : null,
    })),
  }));
  const points = shown.flatMap((one) => one.points.filter((point) => point.y !== null));
  if (points.length === 0) return '<p class="none">nothing to show</p>';
  const xs = scale(
    points.map((point) => point.x),
    x,
    LEFT,
    WIDTH - RIGHT,
  );
  const ys = scale(
    points.map((point) => point.y as number),
    y,
    HEIGHT - BOTTOM,
    TOP,
  );
  const lines = shown.map(
    (one) =>
      `<path class="line s${one.index}" d="${path(one, xs.place, ys.place)}"><title>${escapeHtml(one.name)}</title></path>`,
  );
  return svg(title, frame(x, y, xs, ys) + lines.join(''));
}

/** Grouped bars as SVG: one group for each name of `groups`, in it one bar a series (`points[i].y` of group i). */
export function barChart(title: string, groups: readonly string[], y: Axis, series: readonly Series[]): string {
  const values = series.flatMap((one) => one.points.map((point) => point.y ?? 0));
  if (values.length === 0) return '<p class="none">nothing to show</p>';
  const ys = scale([0, ...values], { ...y, min: 0 }, HEIGHT - BOTTOM, TOP);
  const groupWidth = (WIDTH - LEFT - RIGHT) / groups.length;
  const barWidth = (groupWidth * 0.8) / series.length;
  const bars = series.flatMap((one, at) =>
    one.points.map(({ y: value }, group) => {
      const left = LEFT + group * groupWidth + groupWidth * 0.1 + at * barWidth;
      const top = ys.place(value ?? 0);
      const hint = `${one.name}, ${groups[group] ?? ''}: ${value === null ? '-' : y.tick(value)}`;
      return `<rect class="bar s${one.index}" x="${round(left)}" y="${round(top)}" width="${round(Math.max(0.5, barWidth - 0.5))}" height="${round(HEIGHT - BOTTOM - top)}"><title>${escapeHtml(hint)}</title></rect>`;
    }),
  );
  // Names that would run into each other are left out.
  const every = Math.ceil(groups.length / 16);
  const names = groups.map((name, at) =>
    at % every === 0 ? text(LEFT + (at + 0.5) * groupWidth, HEIGHT - BOTTOM + 16, 'middle', name) : '',
  );
  return svg(title, yAxis(y, ys) + bars.join('') + names.join(''));
}

interface Scale {
  place: (value: number) => number;
  ticks: number[];
}

function drawable(value: number | null, axis: Axis): boolean {
  return value !== null && Number.isFinite(value) && (!axis.log || value > 0);
}

function scale(values: readonly number[], { log, min, max }: Axis, from: number, to: number): Scale {
  const low = min ?? values.reduce((least, value) => Math.min(least, value), Infinity);
  const high = max ?? values.reduce((most, value) => Math.max(most, value), -Infinity);
  if (log) {
    const ladder = LADDER.filter((_, at) => (LADDER[at + 1] ?? Infinity) > low && (LADDER[at - 1] ?? 0) < high);
    const [first, last] = [Math.log10(ladder[0] as number), Math.log10(ladder.at(-1) as number)];
    const ticks = ladder.length <= MAX_LOG_TICKS ? ladder : ladder.filter((rung) => Number.isInteger(Math.log10(rung)));
    return { place: (value) => from + ((Math.log10(value) - first) / (last - first || 1)) * (to - from), ticks };
  }
  const step = niceStep((high - low || Math.abs(high) || 1) / TICKS);
  const bottom = Math.floor(low / step + 1e-9) * step;
  const top = Math.max(bottom + step, Math.ceil(high / step - 1e-9) * step);
  const ticks = Array.from({ length: Math.round((top - bottom) / step) + 1 }, (_, at) => bottom + at * step);
  return { place: (value) => from + ((value - bottom) / (top - bottom)) * (to - from), ticks };
}

/** The next of 1, 2, 5 × a power of ten. */
function niceStep(rough: number): number {
  const power = 10 ** Math.floor(Math.log10(rough));
  const factor = rough / power;
  return (factor <= 1 ? 1 : factor <= 2 ? 2 : factor <= 5 ? 5 : 10) * power;
}

function path({ points }: Series, x: (value: number) => number, y: (value: number) => number): string {
  let pen = 'M';
  let drawn = '';
  for (const point of points) {
    if (point.y === null) {
      pen = 'M';
      continue;
    }
    drawn += `${pen}${round(x(point.x))} ${round(y(point.y))}`;
    pen = 'L';
  }
  return drawn;
}

function frame(x: Axis, y: Axis, xs: Scale, ys: Scale): string {
  const ticks = xs.ticks.map((value) => {
    const at = round(xs.place(value));
    return `<path class="grid" d="M${at} ${TOP}V${HEIGHT - BOTTOM}"/>${text(xs.place(value), HEIGHT - BOTTOM + 16, 'middle', x.tick(value))}`;
  });
  return `${ticks.join('')}${text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, 'middle', x.label, 'label')}${yAxis(y, ys)}`;
}

function yAxis(y: Axis, ys: Scale): string {
  const ticks = ys.ticks.map((value) => {
    const at = round(ys.place(value));
    return `<path class="grid" d="M${LEFT} ${at}H${WIDTH - RIGHT}"/>${text(LEFT - 6, ys.place(value) + 4, 'end', y.tick(value))}`;
  });
  const middle = (TOP + HEIGHT - BOTTOM) / 2;
  return `${ticks.join('')}<text class="label" text-anchor="middle" transform="translate(14 ${middle}) rotate(-90)">${escapeHtml(y.label)}</text>`;
}

function text(x: number, y: number, anchor: string, content: string, kind = 'tick'): string {
  return `<text class="${kind}" x="${round(x)}" y="${round(y)}" text-anchor="${anchor}">${escapeHtml(content)}</text>`;
}

function svg(title: string, content: string): string {
  return `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escapeHtml(title)}">${content}</svg>`;
}

function round(value: number): string {
  return String(Math.round(value * 10) / 10);
}
