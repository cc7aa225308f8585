/** siluMul: y = silu(gate) * up, silu(x) = x / (1 + exp(-x)): the SwiGLU of the Llama family. */
import { gated } from './gated.js';

export const siluMul = gated('siluMul', 4, (x) => x / (1 + Math.exp(-x)));
