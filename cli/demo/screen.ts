import { plainLine, viewLines } from './view.ts';
import type { DemoState } from './state.ts';

const REDRAW_MS = 250;
const PLAIN_MS = 5000;
const DEFAULT_COLUMNS = 80;
const DEFAULT_ROWS = 24;

/** Where the view is drawn. */
export type Terminal = Pick<NodeJS.WriteStream, 'write' | 'on' | 'off'> &
  Partial<Pick<NodeJS.WriteStream, 'isTTY' | 'columns' | 'rows'>>;

/** Shows the state until it is closed: redrawn in place on a terminal, a line each five seconds elsewhere. */
export class Screen {
  private readonly out: Terminal;
  private readonly read: () => DemoState;
  private readonly timer: NodeJS.Timeout;
  private height = 0;
  private closed = false;

  constructor(out: Terminal, read: () => DemoState) {
    this.out = out;
    this.read = read;
    if (out.isTTY) {
      out.write('\u001b[?25l');
      out.on('resize', this.clear);
    }
    this.draw();
    this.timer = setInterval(() => this.draw(), out.isTTY ? REDRAW_MS : PLAIN_MS);
  }

  /** Draws a last time and gives the terminal back, the cursor below the view. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    clearInterval(this.timer);
    this.draw();
    if (!this.out.isTTY) return;
    this.out.off('resize', this.clear);
    this.out.write('\n\u001b[?25h');
  }

  private draw(): void {
    const { out } = this;
    const state = this.read();
    if (!out.isTTY) {
      out.write(`${plainLine(state)}\n`);
      return;
    }
    const lines = viewLines(state, out.columns ?? DEFAULT_COLUMNS).slice(0, (out.rows ?? DEFAULT_ROWS) - 1);
    const up = this.height > 1 ? `\u001b[${this.height - 1}A` : '';
    this.height = lines.length;
    // One write inside a synchronised update: a terminal that knows it shows whole pictures only.
    out.write(`\u001b[?2026h\r${up}${lines.map((line) => `${line}\u001b[K`).join('\n')}\u001b[J\u001b[?2026l`);
  }

  /** A narrower terminal has wrapped what is there: begin on a clean page. */
  private readonly clear = (): void => {
    this.out.write('\u001b[2J\u001b[H');
    this.height = 0;
    this.draw();
  };
}
