/** Messages and tools of a request, as chat templates want them. */
import type { ChatMessage } from '../text/chat-template.js';
import { badRequest } from './api-error.js';
import type { WireMessage, WireTool } from './schemas.js';

/**
 * Templates know objects where the API has JSON in strings, and the name of the tool that an answer comes from. Throws
 * ApiError for an answer to no call.
 */
export function chatMessages(messages: readonly WireMessage[]): ChatMessage[] {
  /** Names of the tools that were called, by the id of the call. */
  const called = new Map<string, string>();
  return messages.map((message, i): ChatMessage => {
    const content = textOf(message.content);
    const name = message.name ?? undefined;
    switch (message.role) {
      case 'assistant': {
        const calls = message.tool_calls ?? [];
        for (const { id, function: made } of calls) called.set(id, made.name);
        return {
          role: 'assistant',
          content,
          ...named(name),
          ...(calls.length === 0 ? {} : { tool_calls: calls.map(templateCall) }),
        };
      }
      case 'tool': {
        const tool = called.get(message.tool_call_id);
        if (tool === undefined) {
          throw badRequest(
            `messages.${i}: there is no call ${JSON.stringify(message.tool_call_id)} before it`,
            `messages.${i}.tool_call_id`,
          );
        }
        return { role: 'tool', content, tool_call_id: message.tool_call_id, name: tool };
      }
      default:
        // `developer` is the newer name of the same role; templates know the older one.
        return { role: message.role === 'developer' ? 'system' : message.role, content, ...named(name) };
    }
  });
}

/** All text of a conversation: what will have to be tokenized at least. */
export function textsOf(messages: readonly WireMessage[]): string[] {
  return messages.flatMap((message) => [
    textOf(message.content),
    ...(message.role === 'assistant' ? (message.tool_calls ?? []).map((call) => call.function.arguments) : []),
  ]);
}

/** Descriptions of tools in the form of Hugging Face. */
export function templateTools(tools: readonly WireTool[]): object[] {
  return tools.map(({ type, function: { name, description, parameters } }) => ({
    type,
    function: { name, description: description ?? '', parameters: parameters ?? emptyParameters },
  }));
}

/** Of a tool that says nothing of them. */
export const emptyParameters = { type: 'object', properties: {} };

function templateCall({ id, type, function: { name, arguments: text } }: WireCall): object {
  let args: unknown = text;
  try {
    args = text.trim() === '' ? {} : JSON.parse(text);
  } catch {
    // A model may have written it; it is shown as it was.
  }
  return { id, type, function: { name, arguments: args } };
}
type WireCall = NonNullable<Extract<WireMessage, { role: 'assistant' }>['tool_calls']>[number];

function textOf(content: WireMessage['content']): string {
  if (content === null || content === undefined) return '';
  return typeof content === 'string' ? content : content.map(({ text }) => text).join('');
}

function named(name: string | undefined): { readonly name?: string } {
  return name === undefined ? {} : { name };
}
