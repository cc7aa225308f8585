/*
 * Runs a generated program without the rest of kloop: for sanitizers, and for processors that this machine only emulates.
 * Include path and KLOOP_PROGRAM say which program. Arguments: packed weights, threads, script, output.
 *
 * The script is a list of lines, some of which have bytes behind them:
 *   write OFFSET BYTES   then the bytes
 *   launch PROGRAM CALL ROWS SAMPLES
 *   read OFFSET BYTES    to the output
 */
#include KLOOP_PROGRAM

static void fail(const char *what) {
  fprintf(stderr, "driver: %s\n", what);
  exit(2);
}

static void move(void *engine, FILE *script, FILE *output, uint64_t offset, uint64_t bytes) {
  uint8_t *data = malloc(bytes ? bytes : 1);
  if (!data) fail("out of memory");
  if (output) {
    kloop_read(engine, (double)offset, data, (double)bytes);
    if (fwrite(data, 1, bytes, output) != bytes) fail("cannot write the output");
  } else {
    if (fread(data, 1, bytes, script) != bytes) fail("the script ends early");
    kloop_write(engine, (double)offset, data, (double)bytes);
  }
  free(data);
}

int main(int argc, char **argv) {
  if (argc != 5) fail("weights, threads, script, output");
  char error[256];
  const int threads = atoi(argv[2]);
  /* Copied by an even number of threads, mapped by an odd one. */
  const double weights[] = {0, (double)KLOOP_WEIGHT_BYTES};
  void *engine = kloop_open(argv[1], threads, NULL, weights, threads % 2 == 0 ? 1 : 0, threads % 2, error, sizeof error);
  if (!engine) fail(error);
  FILE *script = fopen(argv[3], "rb"), *output = fopen(argv[4], "wb");
  if (!script || !output) fail("cannot open script or output");
  char line[128];
  while (fgets(line, sizeof line, script)) {
    unsigned long long offset, bytes;
    int program, call, rows, samples;
    if (sscanf(line, "write %llu %llu", &offset, &bytes) == 2) move(engine, script, NULL, offset, bytes);
    else if (sscanf(line, "read %llu %llu", &offset, &bytes) == 2) move(engine, script, output, offset, bytes);
    else if (sscanf(line, "launch %d %d %d %d", &program, &call, &rows, &samples) == 4)
      kloop_launch(engine, program, call, rows, samples);
    else fail(line);
  }
  double counters[4];
  kloop_counters(engine, counters);
  if (counters[0] < 1) fail("nothing was launched");
  kloop_close(engine);
  fclose(script);
  return fclose(output) == 0 ? 0 : 2;
}
