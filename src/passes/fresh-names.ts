/** Names that nothing has yet: `layer`, then `layer_2`, `layer_3`, ... */
import type { Name } from '../ir/program.js';

export class FreshNames {
  private readonly taken: Set<Name>;

  constructor(taken: Iterable<Name>) {
    this.taken = new Set(taken);
  }

  /** A name that nothing has yet. */
  fresh(base: Name): Name {
    let name = base;
    for (let index = 2; this.taken.has(name); index++) name = `${base}_${index}`;
    this.taken.add(name);
    return name;
  }
}
