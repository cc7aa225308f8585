// Import direction of src/: the order of the pipeline. An arrow never points back, and nothing is circular.
const layers = [
  'util',
  'ir',
  'models',
  'checkpoint',
  'text',
  'passes',
  'simulator',
  'backends',
  'runtime',
  'bench',
  'server',
  'cli',
];

/** `ir` and `ops` are one layer: the grammar, and the meaning of its operators. */
const pattern = (layer) => (layer === 'ir' ? '^src/(ir|ops)/' : `^src/${layer}/`);

module.exports = {
  forbidden: [
    { name: 'no-circular', severity: 'error', from: {}, to: { circular: true } },
    ...layers.map((layer, index) => ({
      name: `${layer}-points-back`,
      severity: 'error',
      from: { path: pattern(layer) },
      to: { path: [...layers.slice(index + 1).map(pattern), '^src/index'] },
    })),
    {
      name: 'runtime-knows-no-target',
      comment: 'the runtime knows the Backend interface; only backends/registry.ts knows the backends',
      severity: 'error',
      from: { path: '^src/runtime/' },
      to: { path: '^src/backends/(reference|cpu|cuda)/' },
    },
    { name: 'no-orphans', severity: 'error', from: { orphan: true, pathNot: '\\.d\\.ts$|\\.test\\.ts$' }, to: {} },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node', 'default'] },
  },
};
