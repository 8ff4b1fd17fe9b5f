import { errorMessage, LodestarError } from '../../shared/errors.ts';
import type { BrainMessage } from '../../shared/protocol.ts';
import { openTable, type RoutingTable, type SealedTable } from '../../shared/table.ts';
import type { BrainLink } from './brain-link.ts';
import type { AgentContext } from '../entry/context.ts';
import type { TableStore } from './table-store.ts';
import type { Telemetry } from './telemetry.ts';

/** As long as the brain itself keeps an instance whose agent is gone. */
const HEARD_OF_LATELY_MS = 30_000;

/** Makes the handler of what the brain sends: tables, the state of the fleet, block deltas. Gaps in either stream are asked for again. */
export function makeBrainReader(
  context: AgentContext,
  store: TableStore,
  onTable: (table: RoutingTable) => void,
  runtime: { link?: BrainLink; telemetry?: Telemetry },
): (message: BrainMessage) => void {
  let stateSeq = -1;
  return (message) => {
    if (message.t === 'welcome') {
      context.salt = message.salt;
      if (message.table) takeTable(message.table, context, store, onTable);
      runtime.telemetry?.resend();
    } else if (message.t === 'table') takeTable(message.table, context, store, onTable);
    else if (message.t === 'state') {
      if (!message.full && message.seq !== stateSeq + 1) runtime.link?.resync([]);
      stateSeq = message.seq;
      takeState(message, context);
    } else if (message.t === 'blocks') {
      if (!context.instances.applyBlocks(message)) runtime.link?.resync([message.instance]);
    } else if (message.t === 'resend-blocks') runtime.telemetry?.resendBlocks(message.instance);
  };
}

function takeState(message: Extract<BrainMessage, { t: 'state' }>, context: AgentContext): void {
  for (const report of message.reports) context.instances.applyReport(report);
  for (const gone of message.gone) context.instances.remove(gone);
  if (!message.full) return;
  // What the whole state does not name left while this agent was not listening. But a brain that has just started knows only who has come back so far:
  // what its table still lists, or what was heard of lately, stays.
  const named = new Set(message.reports.map((report) => report.instance));
  for (const entry of context.tables.table?.roster ?? []) named.add(entry.instance);
  const nowMs = context.env.clock.nowMs();
  for (const view of context.instances.views.values()) {
    if (!named.has(view.id) && nowMs - view.describesMs > HEARD_OF_LATELY_MS) context.instances.remove(view.id);
  }
}

/** A table that cannot be used changes nothing: the old one stays in force. */
function takeTable(sealed: SealedTable, context: AgentContext, store: TableStore, onTable: (table: RoutingTable) => void): void {
  try {
    onTable(openTable(sealed));
    store.save(sealed, context.salt);
  } catch (error) {
    if (!(error instanceof LodestarError)) throw error;
    context.env.log.warn({ code: error.code, error: errorMessage(error) }, 'a routing table from the brain was not usable; the old one stays');
  }
}
