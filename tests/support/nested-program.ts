/**
 * One small program with everything that the grammar has: a loop over layers in a loop over tokens, all kinds of bindings,
 * a plan, a pipeline, stacks, and two calls of a kernel beside them. In its text form, so that tests can change words.
 */
export const nestedText = `program "nested \\"\\u2028 model\\"" schedule response sockets 1
limits rows 4 samples 4 slots 4 context 16

input tokens: i32[samples] index
input positions: i32[samples] index
input slots: i32[samples] index
input index: i32[samples] index
input remaining: i32[samples] index
input done: i32[samples] index
input stop_tokens: i32[16] index
input seeds: i32[samples, 2] index
input settings: f32[samples, 10] index
checkpoint table: f32[11, 8] weight = "table; \\"quoted\\""
checkpoint w_a.0: f32[8, 8] weight = "a" rows 0 count 8 shard axis 0 parts 1 replicas 1 place 0 bytes 256 rows
checkpoint w_a.1: f32[8, 8] weight = "a" rows 8 count 8
constant frequencies: f32[2] weight = [1, 0.5]
state history: i32[4, 16] state
state keys.0: f32[4, 2, 16, 4] state
state keys.1: f32[4, 2, 16, 4] state
state values.0: f32[4, 2, 16, 4] state
state values.1: f32[4, 2, 16, 4] state
temporary t.0: f32[11, 8] activation
temporary t.1: f32[11, 8] activation
temporary last_tokens: i32[samples] index
temporary last_positions: i32[samples] index
temporary last_remaining: i32[samples] index
temporary last_done: i32[samples] index
temporary emitted: i32[3, samples] index

kernel twice (
  read a: f32[11, 8] activation,
  write b: f32[11, 8] activation,
) {
  @segment twice
  b = add(a, a) // f32[11, 8]
}

kernel from_table (
  read table: f32[11, 8] weight,
  write t: f32[11, 8] activation,
) {
  @segment from_table
  t = softcap(table; cap 2) // f32[11, 8]
}

kernel response (
  read tokens: i32[samples] index,
  read positions: i32[samples] index,
  read slots: i32[samples] index,
  read index: i32[samples] index,
  read remaining: i32[samples] index,
  read done: i32[samples] index,
  read stop_tokens: i32[16] index,
  read seeds: i32[samples, 2] index,
  read settings: f32[samples, 10] index,
  read table: f32[11, 8] weight,
  read frequencies: f32[2] weight,
  update history: i32[4, 16] state,
  read w_a: f32[2, 8, 8] weight,
  update keys: f32[2, 4, 2, 16, 4] state,
  update values: f32[2, 4, 2, 16, 4] state,
  write last_tokens: i32[samples] index,
  write last_positions: i32[samples] index,
  write last_remaining: i32[samples] index,
  write last_done: i32[samples] index,
  write emitted: i32[3, samples] index,
) {
  @segment response
  for token in 3 (
    carried tokens = tokens then next_tokens into last_tokens,
    carried positions = positions then next_positions into last_positions,
    carried remaining = remaining then next_remaining into last_remaining,
    carried done = done then next_done into last_done,
    invariant read slots = slots,
    invariant read index = index,
    invariant read stop_tokens = stop_tokens,
    invariant read seeds = seeds,
    invariant read settings = settings,
    invariant read table = table,
    invariant read frequencies = frequencies,
    invariant update history = history,
    invariant read w_a = w_a,
    invariant update keys = keys,
    invariant update values = values,
    stacked write emitted = emitted[token],
  ) until next_done
  {
    @segment embed
    history <- appendToken(tokens, slots, positions)
    x_in = embed(tokens, table; scale 1.5) // f32[samples, 8]
    rope = ropeTable(positions, frequencies) // f32[samples, 4]
    @segment layers
    for layer in 2 (
      carried x = x_in then y into x_out,
      invariant read rope = rope,
      invariant read slots = slots,
      invariant read positions = positions,
      stacked read w_a = w_a[layer],
      stacked update keys = keys[layer],
      stacked update values = values[layer],
    ) pipeline (
      tile 64 depth 2 slots 4,
      buffer x copies 2 bytes 128 in "L2 \\"cache\\"",
      stream w_a stage 0 bytes 256,
    )
    {
      @plan
      @replicated r
      @hand_off 0 -> 1 distance 0
      @hand_off 1 -> 0 distance 1
      @segment project
      @stage project features
      h = linear(x, w_a) // f32[samples, 8]
      @segment attend
      @stage attend heads
      r = rope(h, rope; headDim 4, pairing "halves") // f32[samples, 8]
      keys, values <- appendKv(r, h, slots, positions)
      a = attention(r, keys, values, slots, positions; heads 2, scale 0.5, softcap 0, window 0) // f32[samples, 8]
      y = add(x, a) // f32[samples, 8]
    }
    @segment head
    logits = linear(x_out, table) // f32[samples, 11]
    token = sample(logits, index, slots, positions, history, settings, seeds) // i32[samples]
    next_tokens, next_positions, next_remaining, next_done, emitted = advance(token, index, positions, remaining, done, stop_tokens) // i32[samples], i32[samples], i32[samples], i32[samples], i32[samples]
  }
}

call from_table(table, t.0)
call twice(t.0, t.1) layer 3
call response(tokens, positions, slots, index, remaining, done, stop_tokens, seeds, settings, table, frequencies, history, [w_a.0, w_a.1], [keys.0, keys.1], [values.0, values.1], last_tokens, last_positions, last_remaining, last_done, emitted)

output emitted
output t.1
recur last_tokens -> tokens
recur last_positions -> positions
recur last_remaining -> remaining
recur last_done -> done
`;
