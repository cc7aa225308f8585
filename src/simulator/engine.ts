/**
 * The event engine: tasks with dependencies on serial resources. A task occupies its resource, and is done `latency`
 * after it has left it. Time is whole picoseconds in doubles, so that sums are exact and runs are equal bit for bit.
 *
 * A free resource takes the ready task that is first by (ready time, rank), or by rank alone, and never idles while one is
 * ready. All that ends at one time is noted before anything starts at that time, so that results do not depend on the
 * order in which tasks were added.
 */
import { assert, defined } from '../util/assert.js';

export type ServiceOrder = 'ready' | 'rank';

export interface Task {
  readonly resource: number;
  /** Unique among the tasks of a resource. */
  readonly rank: number;
  readonly occupy: number;
  readonly latency: number;
  /** Indices of the tasks that must be done before. */
  readonly after: readonly number[];
  /** Indices of the tasks that must have left their resource before. */
  readonly behind: readonly number[];
}

export interface TaskGraph {
  readonly resources: readonly ServiceOrder[];
  readonly tasks: readonly Task[];
}

/** Per task, in picoseconds. `left` is when it leaves its resource, `done` when others may build on it. */
export interface Timing {
  readonly start: Float64Array;
  readonly left: Float64Array;
  readonly done: Float64Array;
  readonly end: number;
}

/** @throws on a graph that cannot finish (a cycle): a bug of who made it */
export function runTasks(graph: TaskGraph): Timing {
  return new Engine(graph).run();
}

class Engine {
  private readonly waiting: Int32Array;
  private readonly ready: Float64Array;
  private readonly start: Float64Array;
  private readonly left: Float64Array;
  private readonly done: Float64Array;
  private readonly afterDone: readonly (readonly number[])[];
  private readonly afterLeft: readonly (readonly number[])[];
  private readonly queues: readonly Heap[];
  private readonly freeAt: Float64Array;
  /** Events by their time, and these times: 2 x task when it leaves its resource, one more when it is done. */
  private readonly due = new Map<number, number[]>();
  private readonly times = new Heap((time) => time);
  private now = 0;

  constructor(private readonly graph: TaskGraph) {
    const { tasks, resources } = graph;
    const n = tasks.length;
    this.waiting = new Int32Array(n);
    this.ready = new Float64Array(n);
    this.start = new Float64Array(n).fill(NaN);
    this.left = new Float64Array(n).fill(NaN);
    this.done = new Float64Array(n).fill(NaN);
    this.freeAt = new Float64Array(resources.length);
    const afterDone: number[][] = Array.from({ length: n }, () => []);
    const afterLeft: number[][] = Array.from({ length: n }, () => []);
    tasks.forEach(({ after, behind }, index) => {
      this.waiting[index] = after.length + behind.length;
      for (const before of after) afterDone[before]!.push(index);
      for (const before of behind) afterLeft[before]!.push(index);
    });
    this.afterDone = afterDone;
    this.afterLeft = afterLeft;
    this.queues = resources.map((order) => this.queueOf(order));
  }

  private queueOf(order: ServiceOrder): Heap {
    const rank = (task: number): number => this.graph.tasks[task]!.rank;
    return order === 'rank' ? new Heap(rank) : new Heap((task) => this.ready[task]!, rank);
  }

  run(): Timing {
    const { tasks, resources } = this.graph;
    tasks.forEach((task, index) => {
      if (this.waiting[index] === 0) this.queues[task.resource]!.push(index);
    });
    let touched = new Set(resources.keys());
    let finished = 0;
    let end = 0;
    for (;;) {
      for (const resource of touched) this.dispatch(resource);
      const now = this.times.pop();
      if (now === undefined) break;
      this.now = now;
      touched = new Set();
      const ended = defined(this.due.get(now), 'events');
      this.due.delete(now);
      for (const event of ended) {
        const task = event >> 1;
        if (event % 2 === 0) {
          touched.add(tasks[task]!.resource);
          this.release(this.afterLeft[task]!, touched);
        } else {
          finished++;
          end = now;
          this.release(this.afterDone[task]!, touched);
        }
      }
    }
    assert(finished === tasks.length, `simulation stuck: ${finished} of ${tasks.length} tasks done`);
    const { start, left, done } = this;
    return { start, left, done, end };
  }

  private release(followers: readonly number[], touched: Set<number>): void {
    for (const follower of followers) {
      if (--this.waiting[follower]! > 0) continue;
      this.ready[follower] = this.now;
      const { resource } = this.graph.tasks[follower]!;
      this.queues[resource]!.push(follower);
      touched.add(resource);
    }
  }

  private dispatch(resource: number): void {
    const { now } = this;
    const queue = this.queues[resource]!;
    while (this.freeAt[resource]! <= now) {
      const task = queue.pop();
      if (task === undefined) return;
      const { occupy, latency } = this.graph.tasks[task]!;
      this.start[task] = now;
      this.left[task] = now + occupy;
      this.done[task] = now + occupy + latency;
      this.freeAt[resource] = now + occupy;
      this.schedule(now + occupy, 2 * task);
      this.schedule(now + occupy + latency, 2 * task + 1);
    }
  }

  private schedule(time: number, event: number): void {
    const events = this.due.get(time);
    if (events !== undefined) events.push(event);
    else {
      this.due.set(time, [event]);
      this.times.push(time);
    }
  }
}

/** A binary heap of numbers, the least (key, second key) first. */
class Heap {
  private readonly items: number[] = [];

  constructor(
    private readonly key: (item: number) => number,
    private readonly second: (item: number) => number = () => 0,
  ) {}

  private before(a: number, b: number): boolean {
    const difference = this.key(a) - this.key(b);
    return difference === 0 ? this.second(a) < this.second(b) : difference < 0;
  }

  push(item: number): void {
    const { items } = this;
    let at = items.length;
    items.push(item);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.before(item, items[parent]!)) break;
      items[at] = items[parent]!;
      at = parent;
    }
    items[at] = item;
  }

  pop(): number | undefined {
    const { items } = this;
    const first = items[0];
    const last = items.pop();
    if (first === undefined || last === undefined || items.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= items.length) break;
      if (child + 1 < items.length && this.before(items[child + 1]!, items[child]!)) child++;
      if (!this.before(items[child]!, last)) break;
      items[at] = items[child]!;
      at = child;
    }
    items[at] = last;
    return first;
  }
}
