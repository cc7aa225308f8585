import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CheckpointError, KloopError, UnsupportedModelError } from '../util/errors.js';
import { parseModelConfig } from './parse-config.js';

const llama = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_size: 64,
  intermediate_size: 128,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 256,
  max_position_embeddings: 128,
  rms_norm_eps: 1e-5,
  torch_dtype: 'bfloat16',
};
const as = (architecture: string, fields: object = {}): object => ({
  ...llama,
  architectures: [architecture],
  ...fields,
});
const parse = (json: unknown) => parseModelConfig(json, 'm', 'm/config.json');
/** The error of a config, which must be one of ours and name the file. */
function errorOf(json: unknown): KloopError {
  try {
    parse(json);
  } catch (error) {
    if (error instanceof KloopError) {
      expect(error.message).toContain('m/config.json: ');
      return error;
    }
    throw error;
  }
  throw new Error('was accepted');
}

describe('RoPE', () => {
  const rope = (fields: object) => parse({ ...llama, ...fields }).rope;
  const llama3 = { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 };

  it('reads both spellings alike', () => {
    expect(rope({})).toEqual({ theta: 10_000, scaling: { kind: 'none' } });
    expect(rope({ rope_theta: 5e5, rope_scaling: null })).toEqual({ theta: 5e5, scaling: { kind: 'none' } });
    expect(rope({ rope_parameters: { rope_theta: 1e12, rope_type: 'default' } })).toEqual({
      theta: 1e12,
      scaling: { kind: 'none' },
    });
    const linear = { theta: 10_000, scaling: { kind: 'linear', factor: 4 } };
    expect(rope({ rope_scaling: { type: 'linear', factor: 4 } })).toEqual(linear);
    expect(rope({ rope_parameters: { rope_type: 'linear', factor: 4, rope_theta: 10_000 } })).toEqual(linear);
    const scaled = {
      theta: 5e5,
      scaling: { kind: 'llama3', factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalContext: 8192 },
    };
    expect(rope({ rope_theta: 5e5, rope_scaling: { rope_type: 'llama3', ...llama3 } })).toEqual(scaled);
    expect(rope({ rope_parameters: { rope_theta: 5e5, rope_type: 'llama3', ...llama3 } })).toEqual(scaled);
  });

  it('takes the base that stands beside the scaling, wherever that is', () => {
    const plain = { theta: 1e6, scaling: { kind: 'none' } };
    expect(rope({ rope_scaling: { rope_type: 'default', rope_theta: 1e6 } })).toEqual(plain);
    expect(rope({ rope_theta: 1e6, rope_parameters: { rope_type: 'default' } })).toEqual(plain);
    const both = { rope_type: 'linear', factor: 4, rope_theta: 1e6 };
    expect(rope({ rope_parameters: both, rope_scaling: both })).toMatchObject({ theta: 1e6, scaling: { factor: 4 } });
  });

  it.each(['yarn', 'longrope', 'dynamic', 'mrope'])('refuses %s by name', (type) => {
    const error = errorOf({ ...llama, rope_scaling: { type, factor: 4 } });
    expect(error).toBeInstanceOf(UnsupportedModelError);
    expect(error.message).toContain(`rope scaling "${type}"`);
  });

  it('refuses incomplete, contradictory and per-layer-type settings', () => {
    expect(errorOf({ ...llama, rope_scaling: { type: 'linear' } }).message).toContain('lacks factor');
    const equal = { rope_type: 'llama3', ...llama3, high_freq_factor: 1 };
    expect(errorOf({ ...llama, rope_scaling: equal }).message).toContain('high_freq_factor is 1, must be above');
    const nested = { full_attention: { rope_type: 'default', rope_theta: 1e6 } };
    expect(errorOf({ ...llama, rope_parameters: nested }).message).toContain('per layer type');
    expect(errorOf({ ...llama, rope_scaling: { factor: 4 } }).message).toContain('a factor 4 and no rope_type');
    const other = {
      rope_parameters: { rope_type: 'default', rope_theta: 1e6 },
      rope_scaling: { type: 'linear', factor: 4 },
    };
    expect(errorOf({ ...llama, ...other }).message).toContain('rope_parameters and rope_scaling differ');
    expect(errorOf({ ...llama, partial_rotary_factor: 0.5 }).message).toContain('partial_rotary_factor 0.5');
  });
});

describe('families', () => {
  it('take the sizes, and the dtype in both spellings', () => {
    expect(parse(llama)).toMatchObject({
      name: 'm',
      family: 'llama',
      headDim: 16,
      kvHeads: 2,
      tied: false,
      dtype: 'bf16',
    });
    expect(parse({ ...llama, torch_dtype: undefined, dtype: 'float16' }).dtype).toBe('f16');
    expect(parse({ ...llama, torch_dtype: undefined }).dtype).toBe('f32');
    expect(parse({ ...llama, num_key_value_heads: undefined }).kvHeads).toBe(4);
    expect(parse({ ...llama, architectures: undefined }).family).toBe('llama');
  });

  it('reads sliding windows as each family means them', () => {
    const windows = (json: object) => parse(json).windows;
    expect(windows(as('MistralForCausalLM', { sliding_window: 32 }))).toEqual([32, 32]);
    expect(windows(as('MistralForCausalLM', { sliding_window: null }))).toEqual([0, 0]);
    const qwen = { sliding_window: 32, max_window_layers: 1 };
    expect(windows(as('Qwen2ForCausalLM', { ...qwen, use_sliding_window: false }))).toEqual([0, 0]);
    expect(windows(as('Qwen2ForCausalLM', { ...qwen, use_sliding_window: true }))).toEqual([0, 32]);
    const absent = { max_window_layers: 1, use_sliding_window: true };
    expect(windows(as('Qwen2ForCausalLM', absent))).toEqual([0, 4096]);
    expect(windows(as('Qwen3ForCausalLM', { ...absent, sliding_window: null }))).toEqual([0, 0]);
    const types = ['full_attention', 'sliding_attention'];
    expect(windows(as('Gemma2ForCausalLM', { sliding_window: 32 }))).toEqual([32, 0]);
    expect(windows(as('Gemma2ForCausalLM', { sliding_window: 32, layer_types: types }))).toEqual([0, 32]);
    expect(errorOf(as('Gemma2ForCausalLM', { layer_types: types.slice(1) })).message).toContain('1 entries');
    expect(errorOf(as('Gemma2ForCausalLM', { layer_types: ['linear_attention', 'full_attention'] })).message).toContain(
      'layer type "linear_attention"',
    );
    expect(errorOf(as('Qwen2ForCausalLM', { layer_types: types })).message).toContain('no sliding_window');
    expect(errorOf({ ...llama, layer_types: types }).message).toContain('sliding attention');
  });

  it('reads the rest of Gemma 2, null meaning off', () => {
    expect(parse(as('Gemma2ForCausalLM', { query_pre_attn_scalar: 144 }))).toMatchObject({
      activation: 'gelu',
      postNorms: true,
      normOffset: 1,
      embeddingScale: 8,
      attentionScale: 1 / 12,
      attentionSoftcap: 50,
      logitSoftcap: 30,
      headDim: 256,
      tied: true,
    });
    const off = { attn_logit_softcapping: null, final_logit_softcapping: null, head_dim: 32 };
    expect(parse(as('Gemma2ForCausalLM', off))).toMatchObject({ attentionSoftcap: 0, logitSoftcap: 0, headDim: 32 });
  });
});

describe('what is not compiled', () => {
  it.each([
    ['attention_bias', { attention_bias: true }],
    ['mlp_bias', { mlp_bias: true }],
    ['mixture of experts (num_local_experts 8)', { num_local_experts: 8 }],
    ['quant_method "gptq"', { quantization_config: { quant_method: 'gptq' } }],
    ['hidden_act "relu"', { hidden_act: 'relu' }],
    ['dtype "float8_e4m3fn"', { torch_dtype: 'float8_e4m3fn' }],
  ])('names %s', (feature, fields) => {
    const error = errorOf({ ...llama, ...fields });
    expect(error).toBeInstanceOf(UnsupportedModelError);
    expect(error.message).toContain(feature);
  });

  it('names an unknown architecture and the known ones, whatever else the file holds', () => {
    const error = errorOf({ architectures: ['MixtralForCausalLM'] });
    expect(error).toBeInstanceOf(UnsupportedModelError);
    expect(error.message).toMatch(/"MixtralForCausalLM".*known are LlamaForCausalLM, .*Gemma2ForCausalLM/);
    expect(errorOf({ model_type: 'gpt2' }).message).toContain('"gpt2"');
    expect(errorOf({}).message).toContain('neither architectures nor model_type');
  });
});

describe('absurd values', () => {
  it.each([
    [{ num_hidden_layers: 0 }, 'num_hidden_layers is 0, must be a whole number from 1 to 1000'],
    [{ num_hidden_layers: 1001 }, 'num_hidden_layers is 1001'],
    [{ num_hidden_layers: 1.5 }, 'num_hidden_layers is 1.5'],
    [{ num_hidden_layers: '2' }, 'num_hidden_layers is "2"'],
    [{ num_attention_heads: 1e9 }, 'num_attention_heads is 1000000000, must be a whole number from 1 to 1024'],
    [{ hidden_size: 131_073 }, 'hidden_size is 131073'],
    [{ hidden_size: -64 }, 'hidden_size is -64'],
    [{ hidden_size: undefined }, 'hidden_size is missing'],
    [{ vocab_size: 4_000_001 }, 'vocab_size is 4000001, must be a whole number from 1 to 4000000'],
    [{ num_key_value_heads: 3 }, 'num_attention_heads 4 is not a multiple of num_key_value_heads 3'],
    [{ num_attention_heads: 3, num_key_value_heads: 3 }, 'head_dim is 21.3'],
    [{ head_dim: 15 }, 'head_dim is 15, must be an even'],
    [{ rms_norm_eps: -1e-5 }, 'rms_norm_eps is -0.00001, must be a number above 0 and up to 0.1'],
    [{ rms_norm_eps: NaN }, 'rms_norm_eps is NaN'],
    [{ rope_theta: Infinity }, 'rope_theta is Infinity, must be a number above 0'],
    [{ rope_scaling: { type: 'linear', factor: -1 } }, 'rope_scaling.factor is -1'],
    [{ tie_word_embeddings: 'yes' }, 'tie_word_embeddings is "yes", must be true or false'],
    [
      {
        num_hidden_layers: 1000,
        max_position_embeddings: 2 ** 24,
        head_dim: 1024,
        num_attention_heads: 1024,
        num_key_value_heads: 1024,
      },
      'too large to address',
    ],
  ])('%j', (fields, message) => {
    const error = errorOf({ ...llama, ...fields });
    expect(error).toBeInstanceOf(CheckpointError);
    expect(error.message).toContain(message);
  });

  it('that are not an object', () => {
    for (const json of [null, 3, 'x', [llama]]) expect(errorOf(json).message).toContain('must be a JSON object');
  });

  it('never escape as anything but an error of ours', () => {
    const fields = fc.constantFrom(...Object.keys(llama), 'rope_scaling', 'rope_parameters', 'layer_types', 'head_dim');
    fc.assert(
      fc.property(
        fc.constantFrom('Llama', 'Mistral', 'Qwen2', 'Qwen3', 'Gemma2'),
        fields,
        fc.jsonValue(),
        (family, field, value) => {
          const json = as(`${family}ForCausalLM`, { [field]: value });
          try {
            const config = parse(json);
            expect(config.windows).toHaveLength(config.layers);
          } catch (error) {
            expect(error).toBeInstanceOf(KloopError);
          }
        },
      ),
      { numRuns: 500 },
    );
  });
});
