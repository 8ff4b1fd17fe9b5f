import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { parseBody } from './api-error.ts';
import type { Emulator } from './emulator.ts';

const faultBody = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('die') }),
  z.object({ kind: z.literal('engine-death') }),
  z.object({ kind: z.literal('hang'), scope: z.enum(['server', 'engine']).default('server') }),
  z.object({ kind: z.literal('slow'), factor: z.number().positive() }),
  z.object({ kind: z.literal('drop-after-chunks'), chunks: z.number().int().min(1) }),
  z.object({ kind: z.literal('status'), status: z.union([z.literal(500), z.literal(503)]) }),
  z.object({ kind: z.literal('clear') }),
]);

type Fault = z.infer<typeof faultBody>;

export const FAULTS_PATH = '/emulator/faults';
/** vLLM's own watchdog ends the process about this long after its engine core died. */
const EXIT_AFTER_DEATH_MS = 5000;

/** `POST /emulator/faults` puts a fault in force, `GET` shows what is. Not part of vLLM. */
export function addFaultRoutes(app: FastifyInstance, emulator: Emulator): void {
  const { engine, faults } = emulator;
  const inForce = (): object => ({
    isServerHung: faults.isServerHung,
    isEngineDead: engine.isDead,
    slowFactor: engine.slowFactor,
    dropAfterChunks: faults.dropAfterChunks ?? null,
    status: faults.status ?? null,
  });
  app.get(FAULTS_PATH, (_request, reply) => reply.send(inForce()));
  app.post(FAULTS_PATH, (request, reply) => {
    apply(emulator, parseBody(faultBody, request.body));
    void reply.send(inForce());
  });
}

function apply(emulator: Emulator, fault: Fault): void {
  const { engine, faults, clock } = emulator;
  switch (fault.kind) {
    case 'die':
      // After this request's answer has left.
      clock.after(10, () => emulator.exit());
      break;
    case 'engine-death':
      engine.die();
      clock.after(EXIT_AFTER_DEATH_MS, () => emulator.exit());
      break;
    case 'hang':
      engine.setHung(true);
      faults.isServerHung = fault.scope === 'server';
      break;
    case 'slow':
      engine.slowFactor = fault.factor;
      break;
    case 'drop-after-chunks':
      faults.dropAfterChunks = fault.chunks;
      break;
    case 'status':
      faults.status = fault.status;
      break;
    case 'clear':
      faults.clear();
      engine.slowFactor = 1;
      engine.setHung(false);
      break;
  }
}
