/**
 * A part of a kernel on a machine, as tasks: every operator is divided into tiles; a tile is loaded, then worked on.
 *
 *   near memory   [ tile 0 ][ tile 1 ][ tile 2 ] ...          in the order of use, as far ahead as the buffer allows
 *   operator            [ work 0 ]-latency->[ work 1 ] ...    when its tile is there, and what it reads is made
 *
 * A load waits until the tile that had its place has been worked on; on a machine that loads nothing for the next iteration
 * of a loop, until the iteration before is done, too. An operator that needs another's whole result waits
 * for its last tile; one that streams follows tile by tile, at most `streamBufferTiles` behind.
 */
import { assert, defined } from '../util/assert.js';
import type { ServiceOrder, Task, TaskGraph } from './engine.js';
import type { Machine } from './machine.js';
import { microsecondsToPs, picoseconds, timesOf, type NodeTimes } from './node-times.js';
import type { WorkInput, WorkNode, WorkPart } from './workload.js';

/** Tiles between two operators of which the second follows the first. */
const streamBufferTiles = 4;
/** A part is simulated in about this many tiles at most, however large it is: more would show nothing new. */
const maxTilesPerPart = 48;
/** Tiles of an operator that only follows others. */
const followerTiles = 8;

export interface PartGraph extends TaskGraph {
  readonly names: readonly string[];
  /** Of the tasks of one iteration; those of iteration i are `i * perIteration ..`, all in the same order. */
  readonly about: readonly TaskAbout[];
  readonly perIteration: number;
  readonly nearMemory: number;
  readonly farMemory: number;
  /** Iterations over which tasks can wait for each other directly. */
  readonly reach: number;
}

export interface TaskAbout {
  readonly kind: 'load' | 'work' | 'join';
  readonly node: number;
  readonly tile: number;
  readonly bytes: number;
}

export interface PartOptions {
  readonly iterations: number;
  /** Part of the bytes that lies in the far memory. */
  readonly farShare: number;
}

export function buildPartGraph(part: WorkPart, machine: Machine, options: PartOptions): PartGraph {
  return new PartBuilder(part, machine, options).build();
}

interface PlannedNode {
  readonly node: WorkNode;
  readonly times: NodeTimes;
  readonly tiles: number;
  readonly resource: number;
  /** Index, within an iteration, of its join and of its first work task. */
  readonly join: number;
  readonly work: number;
  /** Number of its first loaded tile, among those of an iteration. */
  readonly firstLoad: number;
  /** Per tile, the work task of the iteration that it waits for because the buffer behind it is full. */
  readonly heldBy: (number | undefined)[];
}

class PartBuilder {
  private readonly resources: ServiceOrder[] = ['rank', 'rank', 'rank', 'rank'];
  private readonly names = ['memory', 'far memory', 'link', 'control'];
  private readonly planned: PlannedNode[] = [];
  private readonly perIteration: number;
  private readonly loadsPerTile: number;
  private readonly tasks: Task[] = [];
  private readonly about: TaskAbout[] = [];
  /** Loads of one iteration in order: end of each tile in bytes, and the work task that frees its place. */
  private readonly tileEnds: number[] = [];
  private readonly tileWork: number[] = [];
  private readonly iterationBytes: number;
  private readonly ahead: number;
  /** Nodes of which the next iteration reads the results. */
  private readonly carried: readonly number[];
  private readonly places: readonly number[];

  constructor(
    private readonly part: WorkPart,
    private readonly machine: Machine,
    private readonly options: PartOptions,
  ) {
    this.loadsPerTile = options.farShare > 0 ? 2 : 1;
    const ahead = part.ahead === 'machine' ? machine.onChip.capacity.value / 4 : part.ahead;
    const inputs = part.nodes.flatMap((node) => node.inputs);
    this.carried = [...new Set(inputs.filter(({ distance }) => distance === 1).map(({ node }) => node))];
    this.perIteration = this.planNodes();
    this.iterationBytes = this.tileEnds.at(-1) ?? 0;
    const largest = Math.max(0, ...this.tileEnds.map((end, index) => end - (this.tileEnds[index - 1] ?? 0)));
    // The tile being worked on and the next one fit always.
    this.ahead = Math.max(ahead, 2 * largest);
    this.places = this.planPlaces();
  }

  build(): PartGraph {
    for (let iteration = 0; iteration < this.options.iterations; iteration++) {
      this.planned.forEach((_, index) => this.addNode(index, iteration * this.perIteration));
    }
    assert(this.tasks.length === this.perIteration * this.options.iterations, 'tasks of an iteration');
    const { tasks, resources, names, about, perIteration } = this;
    const reach = 1 + (this.iterationBytes > 0 ? Math.ceil(this.ahead / this.iterationBytes) : 0);
    return { tasks, resources, names, about, perIteration, nearMemory: 0, farMemory: 1, reach };
  }

  private planNodes(): number {
    const times = timesOf(this.part, this.machine);
    const total = times.reduce((sum, { bytes }) => sum + bytes, 0);
    const tile = Math.max(this.machine.onChip.tile.value, total / maxTilesPerPart);
    const sequential = this.machine.style === 'sequential';
    if (sequential) this.addResource('units');
    let next = 0;
    let loaded = 0;
    this.part.nodes.forEach((node, index) => {
      const own = defined(times[index], 'times');
      const tiles = own.bytes > 0 ? Math.ceil(own.bytes / tile) : this.tilesOfFollower(node);
      const resource = own.onLink ? 2 : sequential ? 4 : this.addResource(node.name);
      const loads = own.bytes > 0 ? this.loadsPerTile : 0;
      const firstLoad = this.tileEnds.length;
      const join = next;
      const work = join + 1 + loads * tiles;
      if (own.bytes > 0) {
        for (let t = 0; t < tiles; t++) {
          this.tileEnds.push(loaded + (own.bytes * (t + 1)) / tiles);
          this.tileWork.push(work + t);
        }
        loaded += own.bytes;
      }
      this.planned.push({ node, times: own, tiles, resource, join, work, firstLoad, heldBy: [] });
      next = work + tiles;
    });
    this.planned.forEach((planned, index) => planned.heldBy.push(...this.holdBack(planned, index)));
    return next;
  }

  private addResource(name: string): number {
    this.names.push(name);
    return this.resources.push('rank') - 1;
  }

  private tilesOfFollower(node: WorkNode): number {
    if (node.collective !== undefined && this.machine.link.collectives === 'alone') return 1;
    const followed = node.inputs.filter((input) => this.follows(input));
    const tiles = followed.map((input) => this.planned[input.node]?.tiles ?? 1);
    return Math.min(followerTiles, Math.max(1, ...tiles));
  }

  private addNode(index: number, base: number): void {
    const planned = defined(this.planned[index], 'node');
    const { node, times, tiles, resource, join, work } = planned;
    const stage = this.crossesStage(planned) ? microsecondsToPs(this.machine.latency.stage.value) : 0;
    this.add(
      { resource: 3, occupy: 0, latency: stage, after: this.wholeInputs(node, base), behind: [] },
      'join',
      index,
      0,
      0,
    );
    const loads = times.bytes > 0 ? this.loadsPerTile : 0;
    for (let t = 0; loads > 0 && t < tiles; t++) this.addLoads(planned, index, t, base);
    for (let t = 0; t < tiles; t++) {
      const after = [base + join];
      for (let load = 0; load < loads; load++) after.push(base + join + 1 + t * loads + load);
      for (const input of node.inputs) this.followInput(input, planned, t, base, after);
      const held = planned.heldBy[t];
      const behind = held === undefined ? [] : [base + held];
      const share = tiledShare(times.work, tiles, t);
      this.add(
        { resource, occupy: share + this.notHidden(planned, t), latency: times.latency, after, behind },
        'work',
        index,
        t,
        times.bytes / tiles,
      );
    }
    assert(this.tasks.length === base + work + tiles, 'tasks of a node');
  }

  /** What loading a tile and working on it do not hide of each other: both take longer by it, so that the longer one counts. */
  private notHidden({ node, times, tiles }: PlannedNode, t: number): number {
    const { overlap: usual, formatOverlaps } = this.machine.compute;
    const overlap = (node.format === undefined ? undefined : formatOverlaps?.[node.format]) ?? usual;
    if (overlap === undefined) return 0;
    return Math.round(
      (1 - overlap.value) * Math.min(this.nearTime(times.bytes / tiles), tiledShare(times.work, tiles, t)),
    );
  }

  private nearTime(bytes: number): number {
    const { bandwidth, efficiency } = this.machine.memory;
    return picoseconds((bytes * (1 - this.options.farShare)) / (bandwidth.value * efficiency.value));
  }

  private addLoads(planned: PlannedNode, index: number, t: number, base: number): void {
    const { node, times, tiles, join, firstLoad } = planned;
    const { memory, farMemory } = this.machine;
    const after = node.addressed === true ? [base + join] : [];
    if (this.machine.onChip.nextIteration === 'nothing') after.push(...this.lastResults(base));
    const freed = base + defined(this.places[firstLoad + t], 'place');
    const behind = freed >= 0 ? [freed] : [];
    const bytes = times.bytes / tiles;
    const latency = microsecondsToPs(memory.latency.value);
    const near = bytes * (1 - this.options.farShare);
    const occupy = this.nearTime(bytes) + this.notHidden(planned, t);
    this.add({ resource: 0, occupy, latency, after, behind }, 'load', index, t, near);
    if (this.loadsPerTile === 1) return;
    const far = bytes - near;
    const farRate = defined(farMemory, 'far memory').bandwidth.value;
    this.add({ resource: 1, occupy: picoseconds(far / farRate), latency, after, behind }, 'load', index, t, far);
  }

  /** The last tiles of what the iteration before hands on. */
  private lastResults(base: number): number[] {
    const from = base - this.perIteration;
    if (from < 0) return [];
    return this.carried.map((maker) => {
      const { work, tiles } = defined(this.planned[maker], 'maker');
      return from + work + tiles - 1;
    });
  }

  /**
   * Per loaded tile, the work task that frees its place, relative to the first task of its iteration: that of the tile
   * which ends `ahead` bytes before it. The distance is the same in all iterations.
   */
  private planPlaces(): number[] {
    const { tileEnds, tileWork, iterationBytes } = this;
    return tileEnds.map((end) => {
      const limit = end - this.ahead;
      const back = Math.floor(limit / iterationBytes);
      const rest = limit - back * iterationBytes;
      const tile = Math.max(
        0,
        tileEnds.findIndex((tileEnd) => tileEnd >= rest),
      );
      return back * this.perIteration + defined(tileWork[tile], 'tile');
    });
  }

  private crossesStage({ node }: PlannedNode): boolean {
    return node.inputs.some((input) => {
      const maker = this.planned[input.node];
      return (
        input.mode === 'whole' && (input.distance === 1 || (maker !== undefined && maker.node.stage !== node.stage))
      );
    });
  }

  /** Tile by tile. Where operators take turns on the same units, each waits for the one before. */
  private follows({ mode, distance }: WorkInput): boolean {
    return mode === 'stream' && distance === 0 && this.machine.style === 'dataflow';
  }

  private wholeInputs(node: WorkNode, base: number): number[] {
    const alone = node.collective !== undefined && this.machine.link.collectives === 'alone';
    const after = new Set<number>();
    for (const input of node.inputs) {
      const { node: maker, distance } = input;
      const from = base - distance * this.perIteration;
      if (from < 0 || (this.follows(input) && !alone)) continue;
      const { work, tiles } = defined(this.planned[maker], 'maker');
      for (let t = 0; t < tiles; t++) after.add(from + work + t);
    }
    return [...after];
  }

  private followInput(input: WorkInput, { tiles }: PlannedNode, t: number, base: number, after: number[]): void {
    if (!this.follows(input)) return;
    const maker = defined(this.planned[input.node], 'maker');
    after.push(base + maker.work + neededTile(t, tiles, maker.tiles));
  }

  /** A tile of an operator that exactly one other follows waits until that one has taken the tile some places before. */
  private holdBack({ tiles }: PlannedNode, index: number): (number | undefined)[] {
    const followers = this.planned.filter(({ node }) => node.inputs.some(({ node: maker }) => maker === index));
    const [follower] = followers;
    if (follower === undefined || followers.length > 1 || follower.node.inputs.length > 1) return [];
    // Its loads may need the place of what this one has still to work on.
    if (follower.times.bytes > 0) return [];
    const [input] = follower.node.inputs;
    if (input === undefined || !this.follows(input)) return [];
    return Array.from({ length: tiles }, (_, t) => {
      for (let c = follower.tiles - 1; c >= 0; c--) {
        if (neededTile(c, follower.tiles, tiles) <= t - streamBufferTiles) return follower.work + c;
      }
      return undefined;
    });
  }

  private add(task: Omit<Task, 'rank'>, kind: TaskAbout['kind'], node: number, tile: number, bytes: number): void {
    const { resource, occupy, latency, after, behind } = task;
    this.tasks.push({ resource, rank: this.tasks.length, occupy, latency, after, behind });
    if (this.about.length < this.perIteration) this.about.push({ kind, node, tile, bytes });
  }
}

/** The last tile of the maker (of `made`) that tile t of `tiles` needs. */
function neededTile(t: number, tiles: number, made: number): number {
  return Math.ceil(((t + 1) * made) / tiles) - 1;
}

/** Part t of `total` in `tiles` whole parts that add up to it. */
function tiledShare(total: number, tiles: number, t: number): number {
  return Math.floor((total * (t + 1)) / tiles) - Math.floor((total * t) / tiles);
}
