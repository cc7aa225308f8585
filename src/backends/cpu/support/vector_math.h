/* exp, tanh and the gate activations on vectors. exp: 2^n times a polynomial on [-ln2/2, ln2/2], within 2 units in the last place. */
#pragma once

/* Arguments below -87.3 give 2^-126: next to nothing, and never a denormal. */
static inline v16 v16_exp(v16 x) {
  const v16 bounded = v16_min(v16_max(x, v16_set(-87.3f)), v16_set(88.3f));
  const v16 n = v16_round(v16_mul(bounded, v16_set(1.44269504088896341f)));
  /* ln 2 in two parts, so that the remainder is exact enough. */
  v16 r = v16_fma(n, v16_set(-0.693359375f), bounded);
  r = v16_fma(n, v16_set(2.12194440e-4f), r);
  v16 p = v16_set(1.9875691500e-4f);
  p = v16_fma(p, r, v16_set(1.3981999507e-3f));
  p = v16_fma(p, r, v16_set(8.3334519073e-3f));
  p = v16_fma(p, r, v16_set(4.1665795894e-2f));
  p = v16_fma(p, r, v16_set(1.6666665459e-1f));
  p = v16_fma(p, r, v16_set(5.0000001201e-1f));
  p = v16_fma(v16_mul(p, r), r, v16_add(r, v16_set(1.0f)));
  return v16_scale2(p, n);
}

static inline v16 v16_sigmoid(v16 x) {
  const v16 one = v16_set(1.0f);
  return v16_div(one, v16_add(one, v16_exp(v16_sub(v16_zero(), x))));
}

/* 2 sigmoid(2x) - 1. */
static inline v16 v16_tanh(v16 x) {
  return v16_sub(v16_mul(v16_set(2.0f), v16_sigmoid(v16_add(x, x))), v16_set(1.0f));
}

static inline v16 v16_silu(v16 x) { return v16_mul(x, v16_sigmoid(x)); }

/* x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2 = x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)). */
static inline v16 v16_gelu(v16 x) {
  const v16 inner = v16_fma(v16_mul(v16_mul(x, x), x), v16_set(0.044715f), x);
  return v16_mul(x, v16_sigmoid(v16_mul(inner, v16_set(1.5957691216057308f))));
}
