import { KvPublisher } from '../../sim/engine/kv-publisher.ts';
import { BLOCK_TOKENS, eventsOf, type Order, PROMPTS, tokensOf } from './kv-flow-load.ts';

/**
 * The engine's side of `kv-flow`, a process of its own: publishes steps by order of its parent, and tells it the
 * endpoints first.
 */
const TICK_MS = 1;
const tokens = Array.from({ length: PROMPTS }, (_, prompt) => tokensOf(prompt));
const publisher = await KvPublisher.start({
  host: '127.0.0.1',
  port: 0,
  replayPort: 0,
  blockSize: BLOCK_TOKENS,
  wallMs: () => Date.now(),
});
let order: Order = { kind: 'granted', steps: 0 };
let step = 0;

process.on('message', (message: Order) => {
  order = message;
});
process.on('disconnect', () => process.exit(0));
process.send?.({ endpoint: publisher.endpoint, replayEndpoint: publisher.replayEndpoint });

function due(): number {
  if (order.kind === 'granted') return order.steps;
  return Math.min(order.steps, Math.floor((Date.now() - order.fromWallMs) / order.stepMs));
}

for (;;) {
  if (step < due()) publisher.publish(eventsOf(step++, tokens));
  // The socket sends between steps.
  await new Promise((resolve) => (step < due() ? setImmediate(resolve) : setTimeout(resolve, TICK_MS)));
}
