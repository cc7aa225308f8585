/** The page: a conversation on one side, and on the other what it costs in kernel calls. */
import { ApiError, inspect, listModels, useKey, type Inspection } from './api.js';
import { drawBoundaries } from './boundaries.js';
import { Conversation } from './conversation.js';
import { byId, h } from './dom.js';
import { Ledger } from './ledger.js';
import { Settings } from './settings.js';

const model = byId('model', HTMLSelectElement);
const about = byId('about', HTMLElement);
const status = byId('status', HTMLElement);
const prompt = byId('prompt', HTMLTextAreaElement);
const [send, stop, clear] = ['send', 'stop', 'clear'].map((id) => byId(id, HTMLButtonElement)) as [
  HTMLButtonElement,
  HTMLButtonElement,
  HTMLButtonElement,
];
const keyForm = byId('key-form', HTMLFormElement);
const settings = new Settings(byId('settings', HTMLElement));
const conversation = new Conversation(byId('messages', HTMLElement));

interface Ready {
  readonly inspection: Inspection;
  readonly ledger: Ledger;
}

let ready: Ready | undefined;
let running: AbortController | undefined;

function say(text: string, isError = false): void {
  status.textContent = text;
  status.classList.toggle('error', isError);
}

/** Runs something, and says what went wrong. */
async function attempt(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) {
      keyForm.hidden = false;
      byId('key', HTMLInputElement).focus();
    }
    say(error instanceof Error ? error.message : String(error), true);
  }
}

async function open(): Promise<void> {
  const names = await listModels();
  model.replaceChildren(...names.map((name) => h('option', { value: name }, name)));
  model.disabled = names.length < 2;
  keyForm.hidden = true;
  await choose();
}

async function choose(): Promise<void> {
  send.disabled = true;
  ready = undefined;
  conversation.clear();
  say('');
  const inspection = await inspect(model.value);
  const { quant, backend, schedule, layers, context, chat } = inspection;
  about.textContent = `${quant}, ${layers} layers, ${backend}, schedule ${schedule}, context ${context}`;
  prompt.placeholder = chat ? 'Ask something' : 'Once upon a time';
  ready = { inspection, ledger: new Ledger(byId('ledger', HTMLElement), inspection) };
  drawBoundaries(byId('boundaries', HTMLElement), inspection);
  send.disabled = false;
}

const endings: Readonly<Record<string, string>> = {
  stop: 'Done.',
  length: 'Ended at the limit of tokens.',
  abort: 'Stopped.',
  unanswered: 'Stopped before an answer.',
};

async function ask(): Promise<void> {
  const text = prompt.value;
  if (ready === undefined || running !== undefined || text === '') return;
  const { inspection, ledger } = ready;
  running = new AbortController();
  [send.disabled, stop.disabled, clear.disabled, model.disabled] = [true, false, true, true];
  prompt.value = '';
  say('Answering…');
  try {
    await ledger.begin();
    const end = await conversation.ask(text, inspection, settings.values, running.signal);
    say(endings[end] ?? `Ended: ${end}.`);
    if (end === 'unanswered') prompt.value ||= text;
  } catch (error) {
    prompt.value ||= text;
    // That it cannot count either says less than why there is no answer.
    void ledger.end().catch(() => undefined);
    throw error;
  } finally {
    running = undefined;
    [send.disabled, stop.disabled, clear.disabled] = [false, true, false];
    model.disabled = model.options.length < 2;
  }
  await ledger.end();
}

byId('ask', HTMLFormElement).addEventListener('submit', (event) => {
  event.preventDefault();
  void attempt(ask);
});
prompt.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  void attempt(ask);
});
stop.addEventListener('click', () => {
  running?.abort();
  prompt.focus();
});
clear.addEventListener('click', () => {
  conversation.clear();
  say('');
  prompt.focus();
});
model.addEventListener('change', () => void attempt(choose));
keyForm.addEventListener('submit', (event) => {
  event.preventDefault();
  useKey(byId('key', HTMLInputElement).value);
  say('');
  void attempt(open);
});
void attempt(open);
