/** Written by scripts/fit-machines.mjs from the calibration figures (marked C) alone; not edited by hand. */
export const fittedSn40l = {
  callUs: 51.1,
  'call.hostRoundTrip': 421.5,
  'memory.efficiency': 0.9125,
} as const;

export const fittedH100 = {
  'call.launch': 1.037,
  'call.syncPerDoubling': 1.144,
  'compute.rowBandwidth': 23120000000,
  'latency.attention': 2.362,
  'latency.elementwise': 2.608,
  'latency.linear': 2.626,
  'latency.sampling': 711.6,
  'link.latency': 4.143,
  'link.perPeer': 0.4777,
  'memory.efficiency': 0.9587,
} as const;
