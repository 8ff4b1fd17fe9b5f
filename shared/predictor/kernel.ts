import { FEATURE_COUNT } from '../features.ts';
import { KERNEL_WASM_BASE64 } from './kernel-wasm.ts';
import {
  clampResiduals,
  HEAD_COUNT,
  type NetScorer,
  normaliseRows,
  type ResidualNet,
  typedArrayScorer,
} from './net.ts';

// The WebAssembly API as far as it is used: Node's types carry it only with the DOM library.
interface WasmApi {
  Memory: new (descriptor: { initial: number }) => { buffer: ArrayBuffer };
  Module: new (bytes: Uint8Array) => object;
  Instance: new (
    module: object,
    imports: Record<string, Record<string, unknown>>,
  ) => { exports: Record<string, unknown> };
  validate(bytes: Uint8Array): boolean;
}
const wasm = (globalThis as unknown as { WebAssembly?: WasmApi }).WebAssembly;

type Dense = (
  from: number,
  n: number,
  inputs: number,
  weights: number,
  bias: number,
  into: number,
  outputs: number,
  relu: number,
) => void;

const PAGE_BYTES = 65_536;
/** Start of our layout: below lies what the compiled module may use for itself. */
const HEAP_START = 1024;

let compiled: object | null | undefined;

/** The compiled kernel, or null where WebAssembly SIMD is missing. */
function kernelModule(): object | null {
  if (compiled === undefined) {
    const bytes = Buffer.from(KERNEL_WASM_BASE64, 'base64');
    compiled = wasm?.validate(bytes) ? new wasm.Module(bytes) : null;
  }
  return compiled;
}

/** Scorer for up to `maxRows` rows a call: the SIMD kernel where it runs, typed arrays elsewhere. */
export function makeScorer(net: ResidualNet, maxRows: number): NetScorer {
  const module = kernelModule();
  return module && wasm ? simdScorer(net, maxRows, module, wasm) : typedArrayScorer(net, maxRows);
}

function simdScorer(net: ResidualNet, maxRows: number, module: object, api: WasmApi): NetScorer {
  const width = Math.max(FEATURE_COUNT, ...net.layers.map((layer) => layer.outputs));
  const parameters = net.layers.reduce((sum, layer) => sum + layer.weights.length + layer.bias.length, 0);
  const bytes = HEAP_START + 4 * (parameters + 2 * maxRows * width);
  const memory = new api.Memory({ initial: Math.ceil(bytes / PAGE_BYTES) });
  const instance = new api.Instance(module, { env: { memory } });
  const dense = instance.exports['dense'] as Dense;
  const floats = new Float32Array(memory.buffer);

  let next = HEAP_START / 4;
  const place = (values: Float32Array): number => {
    floats.set(values, next);
    next += values.length;
    return (next - values.length) * 4;
  };
  const layers = net.layers.map((layer) => ({ ...layer, weightsAt: place(layer.weights), biasAt: place(layer.bias) }));
  const bufferA = next;
  const bufferB = next + maxRows * width;
  const input = floats.subarray(bufferA, bufferA + maxRows * FEATURE_COUNT);
  const last = layers.length % 2 === 0 ? bufferA : bufferB;
  const output = floats.subarray(last, last + maxRows * HEAD_COUNT);

  return {
    kind: 'simd',
    score(rows, n, out) {
      normaliseRows(net, rows, n, input);
      let from = bufferA;
      let into = bufferB;
      for (let index = 0; index < layers.length; index++) {
        const layer = layers[index] as (typeof layers)[number];
        dense(
          from * 4,
          n,
          layer.inputs,
          layer.weightsAt,
          layer.biasAt,
          into * 4,
          layer.outputs,
          index < layers.length - 1 ? 1 : 0,
        );
        [from, into] = [into, from];
      }
      clampResiduals(output, n, out);
    },
  };
}
