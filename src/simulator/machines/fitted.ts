/** Written by scripts/fit-machines.mjs from the calibration figures (marked C) alone; not edited by hand. */
export const fittedSn40l = {
  callUs: 49.39,
  'call.hostRoundTrip': 425.7,
  'memory.efficiency': 0.9423,
} as const;

export const fittedH100 = {
  'call.launch': 0.9038,
  'call.syncPerDoubling': 1.404,
  'compute.rowBandwidth': 23440000000,
  'latency.attention': 2.371,
  'latency.elementwise': 2.619,
  'latency.linear': 2.611,
  'latency.sampling': 711.5,
  'link.latency': 4.159,
  'link.perPeer': 0.4771,
  'memory.efficiency': 0.9556,
} as const;
