/** geluMul: y = gelu(gate) * up, in the tanh form (`gelu_pytorch_tanh`): the GeGLU of Gemma. */
import { gated } from './gated.js';

const factor = Math.sqrt(2 / Math.PI);

export const geluMul = gated('geluMul', 9, (x) => 0.5 * x * (1 + Math.tanh(factor * (x + 0.044715 * x * x * x))));
