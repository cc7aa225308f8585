/** The borders of a loop in C: where its names come from in each iteration, and where its results go. */
import type { Loop, LoopBuffer, Name, Tensor } from '../../../ir/program.js';
import { defined } from '../../../util/assert.js';
import { bytesAtLimits } from '../../memory-map.js';
import { cName, elementType, type KernelEmission, type Names } from './names.js';

/** The hand-off that also decides whether this was the last iteration. */
export function untilHandOff(loop: Loop, until: Name, inner: Names, prefix: string): string {
  const count = String(defined(inner.types.get(until)?.shape[0], 'count of samples'));
  const name = inner.c.get(until) ?? `${prefix}${until}`;
  return `hand_off_until(me, ${name}, ${count}, ${loop.over} + 1);`;
}

function bufferOf(loop: Loop, name: Name): LoopBuffer {
  return defined(
    loop.pipeline?.buffers.find((buffer) => buffer.name === name),
    `buffer of carried ${name}`,
  );
}

/** The double buffers of carried names. */
export function emitCopies(
  loop: Loop,
  prefix: string,
  types: ReadonlyMap<Name, Tensor>,
  emission: KernelEmission,
): void {
  for (const binding of loop.bindings) {
    if (binding.kind !== 'carried') continue;
    const buffer = bufferOf(loop, binding.name);
    const tensor = defined(types.get(binding.name), binding.name);
    const places = Array.from({ length: buffer.copies }, () => `scratch(me, ${emission.scratch.take(buffer.bytes)})`);
    const variable = `${prefix}${binding.name}_copies`;
    emission.writer.line(`${elementType(tensor)} *const ${variable}[${buffer.copies}] = {${places.join(', ')}};`);
  }
}

export function emitBinding(
  binding: Loop['bindings'][number],
  loop: Loop,
  prefix: string,
  outer: Names,
  inner: Names,
  emission: KernelEmission,
): void {
  const { writer } = emission;
  const outside = defined(outer.c.get(binding.outer), `C name of ${binding.outer}`);
  const tensor = defined(inner.types.get(binding.name), `type of ${binding.name}`);
  const type = elementType(tensor);
  switch (binding.kind) {
    case 'invariant': {
      inner.c.set(binding.name, outside);
      const stride = outer.strides.get(binding.outer);
      if (stride !== undefined) inner.strides.set(binding.name, stride);
      return;
    }
    case 'stacked': {
      const local = cName(`${prefix}${binding.name}`);
      const stride = outer.strides.get(binding.outer) ?? bytesAtLimits(tensor, emission.program);
      const [constness, bytes] = binding.access === 'read' ? ['const ', 'const uint8_t *'] : ['', 'uint8_t *'];
      writer.line(
        `${constness}${type} *${local} = (${constness}${type} *)((${bytes})${outside} + (size_t)${loop.over} * ${stride});`,
      );
      inner.c.set(binding.name, local);
      inner.steps.set(binding.name, stride);
      return;
    }
    case 'carried': {
      const [now, next] = [`${prefix}${binding.name}`, `${prefix}${binding.next}`];
      const copies = `${now}_copies`;
      const count = bufferOf(loop, binding.name).copies;
      writer.line(`const ${type} *${now} = ${loop.over} == 0 ? ${outside} : ${copies}[${loop.over} % ${count}];`);
      const copy = `${copies}[(${loop.over} + 1) % ${count}]`;
      const final = binding.final === undefined ? undefined : outer.c.get(binding.final);
      // Where the last iteration is known, it writes its result where that belongs.
      const target =
        final === undefined || loop.until !== undefined
          ? copy
          : `${loop.over} == ${loop.trip - 1} ? ${final} : ${copy}`;
      writer.line(`${type} *${next} = ${target};`);
      inner.c.set(binding.name, now);
      inner.c.set(binding.next, next);
      return;
    }
    default:
      binding satisfies never;
  }
}

/** After a loop that can end early, what it carried is copied to where it is read. */
export function emitFinals(
  loop: Loop,
  prefix: string,
  outer: Names,
  types: ReadonlyMap<Name, Tensor>,
  { writer, program }: KernelEmission,
): void {
  if (loop.until === undefined) return;
  const copies = loop.bindings.flatMap((binding) => {
    if (binding.kind !== 'carried' || binding.final === undefined) return [];
    const bytes = bytesAtLimits(defined(types.get(binding.name), binding.name), program);
    const target = defined(outer.c.get(binding.final), binding.final);
    return [
      `memcpy(${target}, ${prefix}${binding.name}_copies[${loop.over} % ${bufferOf(loop, binding.name).copies}], ${bytes});`,
    ];
  });
  if (copies.length === 0) return;
  writer.line('begin_stage(me, 1);');
  writer.block('while (claim(me))', () => copies.forEach((copy) => writer.line(copy)));
  writer.line('hand_off(me);');
}
