import { errorMessage, LodestarError } from '../../shared/errors.ts';
import type { BrainMessage } from '../../shared/protocol.ts';
import type { RoutingTable, SealedTable } from '../../shared/table.ts';
import type { AgentContext } from '../entry/context.ts';

/** As long as the brain itself keeps an instance whose agent is gone. */
const HEARD_OF_LATELY_MS = 30_000;

/** Where the reader of the brain's messages passes them on to. */
export interface BrainReaderPorts {
  /** the table in a sealed one. Error: TABLE_INVALID if it cannot be used */
  open(sealed: SealedTable): RoutingTable;
  /** a usable table has come: it is in force once this returns */
  onTable(table: RoutingTable): void;
  /** keeps the table that was put in force */
  keep(sealed: SealedTable): void;
  /** asks the brain for its whole state, and for all blocks of these instances */
  resync(instances: string[]): void;
  /** sends all reports and views again */
  resend(): void;
  resendBlocks(instance: string): void;
}

/**
 * Makes the handler of what the brain sends: tables, the state of the fleet, block deltas. Gaps in either stream are
 * asked for again.
 */
export function makeBrainReader(context: AgentContext, ports: BrainReaderPorts): (message: BrainMessage) => void {
  let stateSeq = -1;
  let whole: WholeState = { seq: -1, next: 0, named: new Set() };
  return (message) => {
    if (message.t === 'welcome') {
      context.salt = message.salt;
      if (message.table) takeTable(message.table, context, ports);
      ports.resend();
    } else if (message.t === 'table') takeTable(message.table, context, ports);
    else if (message.t === 'state') {
      if (!message.full && message.seq !== stateSeq + 1) ports.resync([]);
      stateSeq = message.seq;
      takeReports(message, context);
      if (!message.full) return;
      if (message.part === 0) whole = { seq: message.seq, next: 0, named: new Set() };
      if (isNextPart(whole, message) && message.part === message.parts - 1) removeUnnamed(whole.named, context);
    } else if (message.t === 'blocks') {
      if (!context.instances.applyBlocks(message)) ports.resync([message.instance]);
    } else if (message.t === 'resend-blocks') ports.resendBlocks(message.instance);
  };
}

type StateMessage = Extract<BrainMessage, { t: 'state' }>;

/** What the parts of a whole state have named so far. */
interface WholeState {
  readonly seq: number;
  /** the part that is due */
  next: number;
  readonly named: Set<string>;
}

function takeReports(message: StateMessage, context: AgentContext): void {
  for (const report of message.reports) context.instances.applyReport(report);
  for (const gone of message.gone) context.instances.remove(gone);
}

/**
 * Takes down whom a part names. False if it does not follow the parts before it: then nothing can be said of who is
 * missing.
 */
function isNextPart(whole: WholeState, { seq, part, reports }: StateMessage): boolean {
  if (seq !== whole.seq || part !== whole.next) return false;
  whole.next += 1;
  for (const { instance } of reports) whole.named.add(instance);
  return true;
}

/**
 * What the whole state does not name left while this agent was not listening. But a brain that has just started knows
 * only who has come back so far: what its table still lists, or what was heard of lately, stays.
 */
function removeUnnamed(named: Set<string>, context: AgentContext): void {
  for (const entry of context.tables.table?.roster ?? []) named.add(entry.instance);
  const nowMs = context.env.clock.nowMs();
  for (const view of context.instances.views.values()) {
    if (!named.has(view.id) && nowMs - view.describesMs > HEARD_OF_LATELY_MS) context.instances.remove(view.id);
  }
}

/** A table that cannot be used changes nothing: the old one stays in force. */
function takeTable(sealed: SealedTable, context: AgentContext, ports: BrainReaderPorts): void {
  try {
    ports.onTable(ports.open(sealed));
    ports.keep(sealed);
  } catch (error) {
    if (!(error instanceof LodestarError)) throw error;
    context.env.log.warn(
      { code: error.code, error: errorMessage(error) },
      'a routing table from the brain was not usable; the old one stays',
    );
  }
}
