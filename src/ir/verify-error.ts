/** How a broken rule of the intermediate representation is reported: what, and where. */
import type { Name } from './program.js';

export interface Where {
  readonly kernel?: Name;
  readonly value?: Name;
  readonly param?: Name;
  /** Index of the call in the program. */
  readonly call?: number;
  /** Index of the statement in its region, after those of the loops it stands in. */
  readonly statement?: readonly number[];
}

/** A program breaks a rule of the intermediate representation. */
export class VerifyError extends Error {
  override readonly name = 'VerifyError';

  constructor(
    readonly where: Where,
    readonly detail: string,
  ) {
    const places = [
      where.call === undefined ? '' : `call ${where.call}`,
      where.kernel === undefined ? '' : `kernel ${where.kernel}`,
      where.statement === undefined || where.statement.length === 0 ? '' : `statement ${where.statement.join('.')}`,
      where.param === undefined ? '' : `parameter ${where.param}`,
      where.value === undefined ? '' : `value ${where.value}`,
    ].filter((place) => place !== '');
    super(`${places.length === 0 ? 'program' : places.join(', ')}: ${detail}`);
  }
}

export function rule(holds: boolean, where: Where, detail: string): asserts holds {
  if (!holds) throw new VerifyError(where, detail);
}
