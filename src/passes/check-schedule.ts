/**
 * checkSchedule: a static certificate that a planned program is safe to run by several workers at once: no deadlock, no
 * race, and no buffer overwritten before its last read, over all iterations. The proof needs no unrolling: stages of all
 * workers are ordered by (iteration, stage), a hand-off orders stages of different workers, and storage repeats with the
 * number of copies, so that looking `copies + 1` iterations ahead covers every pair that can ever meet.
 */
import { createHash } from 'node:crypto';
import { inferRegion, loopScope } from '../ir/infer.js';
import type { HandOff, Limits, Loop, Name, Program, Region, Stage, Tensor } from '../ir/program.js';
import { statementsByStage } from '../ir/visit.js';
import { assert } from '../util/assert.js';
import { cutTiles, wrongReplicas } from './check-division.js';
import { readsAfterOverwrite, wrongBuffers, wrongStream } from './check-pipeline.js';
import { visibleInLoop } from './plan-stages.js';
import { accessesOf, meet, type StageAccess } from './stage-accesses.js';

export interface Violation {
  readonly kind: 'race' | 'early-overwrite' | 'deadlock' | 'malformed';
  /** Kernel, and the loops inside it, where it is: `decoder/layer`. */
  readonly where: string;
  readonly detail: string;
}

/** A program together with the proof that it may run. */
export interface CheckedProgram extends Program {
  readonly certificate: Certificate;
}

export interface Certificate {
  /** SHA-256 of the program that was checked. */
  readonly digest: string;
  /** Pairs of accesses that were proven to be ordered. */
  readonly orderedPairs: number;
}

/** The planned program violates a rule: a bug of a pass. */
export class ScheduleError extends Error {
  override readonly name = 'ScheduleError';
  constructor(readonly violations: readonly Violation[]) {
    super(violations.map(({ kind, where, detail }) => `${kind} in ${where}: ${detail}`).join('; '));
  }
}

/** @throws ScheduleError with everything that is wrong. */
export function checkSchedule(program: Program): CheckedProgram {
  const { violations, orderedPairs } = findViolations(program);
  if (violations.length > 0) throw new ScheduleError(violations);
  return { ...program, certificate: { digest: digestOf(program), orderedPairs } };
}

/** Refuses a program that was changed after it was checked. */
export function assertChecked({ certificate, ...program }: CheckedProgram): void {
  assert(certificate.digest === digestOf(program), 'the program is not the one that was certified');
}

function digestOf(program: Program): string {
  return createHash('sha256').update(JSON.stringify(program)).digest('hex');
}

export function findViolations(program: Program): { violations: Violation[]; orderedPairs: number } {
  const checker = new Checker(program.limits);
  for (const kernel of program.kernels) {
    const types = new Map(kernel.params.map(({ name, tensor }) => [name, tensor]));
    checker.checkRegion(kernel.body, types, new Set(types.keys()), kernel.name);
  }
  return { violations: checker.violations, orderedPairs: checker.orderedPairs };
}

/** Moments are (iteration, stage); a worker goes through them in this order. */
interface Moment {
  readonly iteration: number;
  readonly stage: number;
}

function notAfter(a: Moment, b: Moment): boolean {
  return a.iteration < b.iteration || (a.iteration === b.iteration && a.stage <= b.stage);
}

/**
 * Has every worker finished `earlier` before any starts `later`? One hand-off is enough, since it waits for all workers:
 * `earlier` comes before its start and its end comes before `later` in each worker's own order.
 */
function ordered(earlier: Moment, later: Moment, handOffs: readonly HandOff[]): boolean {
  return handOffs.some(({ from, to, distance }) => {
    const iteration = earlier.stage <= from ? earlier.iteration : earlier.iteration + 1;
    return notAfter({ iteration: iteration + distance, stage: to }, later);
  });
}

class Checker {
  readonly violations: Violation[] = [];
  orderedPairs = 0;

  constructor(private readonly limits: Limits) {}

  /** @param visible names that exist once for all workers, since somebody outside sees them */
  checkRegion(
    region: Region,
    types: ReadonlyMap<Name, Tensor>,
    visible: ReadonlySet<Name>,
    where: string,
    loop?: Loop,
  ): void {
    const { plan } = region;
    if (plan === undefined) {
      this.violate('malformed', where, 'the region has no plan; run planStages first');
      return;
    }
    if (!this.stagesFit(plan.stages, region, where)) return;
    this.checkHandOffs(plan.handOffs, plan.stages, where, loop !== undefined);
    const all = inferRegion(region, types);
    for (const detail of wrongReplicas(region, plan, visible)) this.violate('race', where, detail);
    for (const detail of cutTiles(region, plan, all)) this.violate('race', where, detail);
    if (loop !== undefined) this.checkPipeline(loop, all, where);
    const accesses = accessesOf(region, plan, all);
    this.checkAccesses(accesses, plan.handOffs, where, loop);
    if (loop?.until !== undefined) this.checkUntil(loop, loop.until, accesses, plan.handOffs, where);
    for (const statement of region.statements) {
      if (statement.kind !== 'loop') continue;
      const inner = `${where}/${statement.over}`;
      this.checkRegion(statement.body, loopScope(statement, all), visibleInLoop(statement), inner, statement);
    }
  }

  private stagesFit(stages: readonly Stage[], region: Region, where: string): boolean {
    const planned = stages.reduce((sum, stage) => sum + stage.statements, 0);
    if (planned !== region.statements.length || !stages.every(({ statements }) => statements >= 1)) {
      this.violate('malformed', where, `stages cover ${planned} of ${region.statements.length} statements`);
      return false;
    }
    // What loops do inside is checked for each on its own, as if nothing else went on meanwhile.
    return statementsByStage(region, stages).every((inside, index) => {
      if (inside.length === 1 || !inside.some(({ kind }) => kind === 'loop')) return true;
      const beside = `stage ${stages[index]!.name} has a loop, and ${inside.length - 1} statements beside it`;
      this.violate('malformed', where, beside);
      return false;
    });
  }

  private checkHandOffs(handOffs: readonly HandOff[], stages: readonly Stage[], where: string, isLoop: boolean): void {
    for (const { from, to, distance } of handOffs) {
      if (stages[from] === undefined || stages[to] === undefined || (!isLoop && distance !== 0)) {
        this.violate('malformed', where, `hand-off ${from} -> ${to} at distance ${distance} names no stage`);
      } else if (distance < 0 || (distance === 0 && to <= from)) {
        this.violate(
          'deadlock',
          where,
          `${stages[to].name} waits for ${stages[from].name}, which every worker reaches only after it`,
        );
      }
    }
  }

  private checkPipeline(loop: Loop, types: ReadonlyMap<Name, Tensor>, where: string): void {
    const { pipeline } = loop;
    if (pipeline === undefined) {
      this.violate('malformed', where, 'the loop has no pipeline; run pipelineLoops first');
      return;
    }
    // Tile t + depth is on its way while tile t is consumed, so that they must not share a slot.
    if (pipeline.depth >= pipeline.slots) {
      const detail = `a ring of ${pipeline.slots} tiles cannot hold ${pipeline.depth} tiles ahead of the one being read`;
      this.violate('early-overwrite', where, detail);
    }
    for (const detail of wrongBuffers(loop, pipeline, types, this.limits)) this.violate('malformed', where, detail);
    for (const detail of wrongStream(loop, pipeline)) this.violate('malformed', where, detail);
    for (const detail of readsAfterOverwrite(loop, pipeline)) this.violate('early-overwrite', where, detail);
  }

  private checkAccesses(
    accesses: readonly StageAccess[],
    handOffs: readonly HandOff[],
    where: string,
    loop: Loop | undefined,
  ): void {
    const storage = storageOf(loop);
    const horizon = loop === undefined ? 0 : storage.copies + 1;
    for (const first of accesses) {
      for (const second of accesses) {
        if (first.access === 'read' && second.access === 'read') continue;
        for (let iteration = 0; iteration <= horizon; iteration++) {
          const earlier = { iteration: 0, stage: first.stage };
          const later = { iteration, stage: second.stage };
          if (!notAfter(earlier, later) || storage.at(first.name, 0) !== storage.at(second.name, iteration)) continue;
          if (iteration === 0 && first.stage === second.stage && !conflictInStage(first, second)) continue;
          this.require(first, second, earlier, later, handOffs, where);
        }
      }
    }
  }

  /** Every worker looks at `until` when an iteration is complete: as if it did so in the first stage of the next one. */
  private checkUntil(
    loop: Loop,
    until: Name,
    accesses: readonly StageAccess[],
    handOffs: readonly HandOff[],
    where: string,
  ): void {
    const storage = storageOf(loop);
    const test: StageAccess = { stage: 0, name: until, access: 'read', part: 'whole', inLoop: false };
    const looked = { iteration: 1, stage: 0 };
    for (const access of accesses.filter((candidate) => candidate.access !== 'read')) {
      for (let iteration = 0; iteration <= storage.copies + 2; iteration++) {
        if (storage.at(access.name, iteration) !== storage.at(until, 0)) continue;
        const at = { iteration, stage: access.stage };
        if (iteration === 0) this.require(access, test, at, looked, handOffs, where);
        else this.require(test, access, looked, at, handOffs, where);
      }
    }
  }

  private require(
    first: StageAccess,
    second: StageAccess,
    earlier: Moment,
    later: Moment,
    handOffs: readonly HandOff[],
    where: string,
  ): void {
    if (ordered(earlier, later, handOffs)) {
      this.orderedPairs++;
      return;
    }
    const distance = later.iteration === 0 ? '' : ` of ${later.iteration} iteration(s) later`;
    if (first.access === 'read') {
      const detail = `${second.name} is written in stage ${second.stage}${distance} before all have read it in stage ${first.stage}`;
      this.violate('early-overwrite', where, detail);
    } else {
      const detail = `${second.name} is used in stage ${second.stage}${distance} while ${first.name} is written in stage ${first.stage}`;
      this.violate('race', where, detail);
    }
  }

  private violate(kind: Violation['kind'], where: string, detail: string): void {
    this.violations.push({ kind, where, detail });
  }
}

/** Inside a stage only the division keeps workers apart; what a loop does inside is checked on its own. */
function conflictInStage(first: StageAccess, second: StageAccess): boolean {
  return !first.inLoop && meet(first, second);
}

/** Which storage a name means in an iteration: equal texts are equal storage. */
interface Storage {
  readonly copies: number;
  at(name: Name, iteration: number): string;
}

function storageOf(loop: Loop | undefined): Storage {
  if (loop === undefined) return { copies: 1, at: (name) => name };
  const buffers = new Map(loop.pipeline?.buffers.map((buffer) => [buffer.name, buffer.copies]));
  const places = new Map<Name, (iteration: number) => string>();
  for (const binding of loop.bindings) {
    if (binding.kind === 'stacked') places.set(binding.name, (iteration) => `${binding.outer}[${iteration}]`);
    if (binding.kind === 'invariant') places.set(binding.name, () => binding.outer);
    if (binding.kind === 'carried') {
      const copies = buffers.get(binding.name) ?? 1;
      places.set(binding.name, (iteration) => `${binding.name} copy ${iteration % copies}`);
      places.set(binding.next, (iteration) => `${binding.name} copy ${(iteration + 1) % copies}`);
    }
  }
  return {
    copies: Math.max(1, ...buffers.values()),
    at: (name, iteration) => places.get(name)?.(iteration) ?? `local ${name}`,
  };
}
