// Compiles shared/predictor/kernel.as.ts to WebAssembly and writes it as base64 into shared/predictor/kernel-wasm.ts,
// so that running the agent needs no compiler and no file lookup. With --check it only compares.
import { main } from 'assemblyscript/asc';
import { readFileSync, writeFileSync } from 'node:fs';

const source = 'shared/predictor/kernel.as.ts';
const target = 'shared/predictor/kernel-wasm.ts';
let binary;
const { error, stdout, stderr } = await main(
  [
    source,
    '--outFile',
    'kernel.wasm',
    '--runtime',
    'stub',
    '--enable',
    'simd',
    '-O3',
    '--noAssert',
    '--importMemory',
    '--noExportMemory',
  ],
  {
    writeFile: (_name, contents) => {
      binary = contents;
    },
  },
);
if (error) {
  process.stderr.write(stdout.toString() + stderr.toString());
  throw error;
}
const text = `// Generated from kernel.as.ts by \`npm run kernel\`.\nexport const KERNEL_WASM_BASE64 =\n  '${Buffer.from(binary).toString('base64')}';\n`;
if (process.argv.includes('--check')) {
  if (readFileSync(target, 'utf8') !== text) {
    console.error(`${target} is not what ${source} compiles to: run \`npm run kernel\``);
    process.exit(1);
  }
} else writeFileSync(target, text);
