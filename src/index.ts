/**
 * The public API. `loadModel` gives a model, `model.session()` a conversation with a cache of its own, and
 * `session.generate(...)` text as it is made:
 *
 * ```ts
 * const model = await loadModel('demo');
 * const session = model.session();
 * for await (const { text } of session.generate('Once upon a time', { maxTokens: 100 })) process.stdout.write(text);
 * await model.close();
 * ```
 */
export { loadModel, type LoadOptions } from './runtime/load-model.js';
export { Model } from './runtime/model.js';
export { Session, type GenerateOptions, type Prompt } from './runtime/session.js';
export { Generation, type FinishReason, type GenerationResult, type Piece } from './runtime/generation.js';
export { SessionPool, type PoolRequest } from './runtime/session-pool.js';
export type { Likelihood, LogprobOptions, TokenLogprob } from './runtime/logprobs.js';
export type { SamplingOptions } from './runtime/sampling.js';
export type { Grammar } from './text/grammar.js';
export type { GrammarSource } from './text/grammar-thread.js';
export type { ChatOptions } from './runtime/chat-format.js';
export type { Usage } from './runtime/usage.js';
export { metricsOf, type Metrics } from './runtime/metrics.js';
export type { ChatMessage } from './text/chat-template.js';
export type { Tokenizer } from './text/tokenizer.js';

export { pullModel, type PullOptions, type PullProgress } from './checkpoint/hub/pull.js';
export { writeSynthetic, type SynthOptions } from './checkpoint/synth.js';

export type { ModelConfig } from './models/model-config.js';
export { findPreset, presets, type Preset } from './models/presets.js';
export { schedules, type DType, type Limits, type Program, type Schedule } from './ir/program.js';
export { compileModel, type CompiledModel, type CompileOptions } from './passes/pipeline.js';
export { callsPerToken, explainProgram, type CallCounts } from './passes/explain.js';
export type { Refusal, RefusalReason, Report } from './passes/pass.js';
export type {
  Backend,
  Capabilities,
  Counters,
  Executable,
  ExecutionPlan,
  Progress,
  WeightsMemory,
} from './backends/backend.js';
export { chooseBackend } from './backends/registry.js';

export {
  AbortedError,
  CheckpointError,
  ContextOverflowError,
  DownloadError,
  KloopError,
  OverloadedError,
  StorageError,
  TemplateError,
  ToolchainError,
  UnsupportedModelError,
  UsageError,
} from './util/errors.js';
