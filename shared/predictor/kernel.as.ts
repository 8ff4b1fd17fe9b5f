// Dense layer on WebAssembly SIMD (AssemblyScript). Compiled by `npm run kernel` into kernel-wasm.ts.
// All pointers are byte offsets into the module's memory, which the caller lays out; outputs is a multiple of 4.

/** out[row][o] = relu?(bias[o] + Σ_i in[row][i]·weights[i][o]) for n rows. */
export function dense(inPtr: usize, n: i32, inputs: i32, weights: usize, bias: usize, outPtr: usize, outputs: i32, relu: i32): void {
  const zero = f32x4.splat(0);
  const stride = <usize>outputs << 2;
  for (let row = 0; row < n; row++) {
    const x0 = inPtr + ((<usize>row * <usize>inputs) << 2);
    const y0 = outPtr + <usize>row * stride;
    let o: i32 = 0;
    // Sixteen outputs at a time keep four accumulators in registers.
    for (; o + 16 <= outputs; o += 16) {
      const column = <usize>o << 2;
      let a = v128.load(bias + column);
      let b = v128.load(bias + column, 16);
      let c = v128.load(bias + column, 32);
      let d = v128.load(bias + column, 48);
      let w = weights + column;
      let x = x0;
      for (let i = 0; i < inputs; i++) {
        const s = v128.load32_splat(x);
        a = f32x4.add(a, f32x4.mul(s, v128.load(w)));
        b = f32x4.add(b, f32x4.mul(s, v128.load(w, 16)));
        c = f32x4.add(c, f32x4.mul(s, v128.load(w, 32)));
        d = f32x4.add(d, f32x4.mul(s, v128.load(w, 48)));
        w += stride;
        x += 4;
      }
      if (relu) {
        a = f32x4.max(a, zero);
        b = f32x4.max(b, zero);
        c = f32x4.max(c, zero);
        d = f32x4.max(d, zero);
      }
      const y = y0 + column;
      v128.store(y, a);
      v128.store(y, b, 16);
      v128.store(y, c, 32);
      v128.store(y, d, 48);
    }
    for (; o < outputs; o += 4) {
      const column = <usize>o << 2;
      let a = v128.load(bias + column);
      let w = weights + column;
      let x = x0;
      for (let i = 0; i < inputs; i++) {
        a = f32x4.add(a, f32x4.mul(v128.load32_splat(x), v128.load(w)));
        w += stride;
        x += 4;
      }
      v128.store(y0 + column, relu ? f32x4.max(a, zero) : a);
    }
  }
}
