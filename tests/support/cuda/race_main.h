/* A program that runs one kernel three times, for sanitizers. Words in capitals are replaced before it is compiled. */
int main() {
  uint8_t *arena = (uint8_t *)aligned_alloc(256, (ARENA_BYTES + 255) / 256 * 256);
  uint8_t *weights = (uint8_t *)aligned_alloc(256, WEIGHT_BYTES);
  uint8_t *own = (uint8_t *)aligned_alloc(256, (OWN_BYTES * 3 + 255) / 256 * 256);
  struct counters counters = {};
  struct mailbox mailbox = {};
  static int32_t tokens[4 * 32];
  memset(arena, 0, ARENA_BYTES);
  for (int i = 0; i < WEIGHT_BYTES / 4; ++i) ((float *)weights)[i] = (float)(i % 7 - 3) * 0.05f;
  for (uint32_t number = 0; number < 3; ++number) {
    /* Few rows, and as many as tensor cores want. */
    const int rows = number == 1 ? 18 : 2;
    /* Positions from 9 on in four slots, so that attention has several spans. */
    for (int row = 0; row < rows; ++row) {
      ((int32_t *)(arena + POSITIONS))[row] = 9 + row;
      ((int32_t *)(arena + SLOTS))[row] = row % 4;
      ((int32_t *)(arena + INDEX))[row] = row;
      ((int32_t *)(arena + REMAINING))[row] = 2 + row;
      /* Greedy; drawn from few; and with all that can be said of a choice. */
      static const float ways[3][SETTINGS] = {
          {0, 0, 1, 0, 1}, {0.8f, 0, 0.9f, 0, 1}, {0.8f, 5, 0.9f, 0.05f, 1.3f, 0.5f, 0.25f, 2, 2, 1}};
      memcpy((float *)(arena + SETTINGS_AT) + row * SETTINGS, ways[row % 3], sizeof ways[0]);
      ((int32_t *)(arena + BIASED_AT))[row * BIASED_TOKENS] = 7;
      memset((uint32_t *)(arena + ALLOWED_AT) + row * ALLOWED_WORDS, 0xff, 4 * ALLOWED_WORDS);
    }
    struct launch launch = {arena, weights, own, &counters, &mailbox, tokens, rows, rows, number, 0};
    char error[1024];
    const int outcome = kloop_run((void *)KERNEL_NAME, &launch, 3, BLOCK_THREADS, SHARED_BYTES, 11 * number + 1, 0, nullptr, nullptr, error,
                                  sizeof error);
    if (outcome != 0) {
      fprintf(stderr, "outcome %d: %s\n", outcome, error);
      return 1;
    }
  }
  puts("ended");
  return 0;
}
