/**
 * Checks what the documents refer to: relative links and their anchors, files of the repository named in `code`, and
 * documents named in comments of the source. Prints every reference that leads nowhere, and exits with 1 if there is one.
 *
 *   node scripts/check-docs.mjs
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const skipped = new Set(['node_modules', 'dist', '.git', 'fixtures', 'golden']);
/** Where a path in `code` is meant to be a file of ours. */
const ownPath = /^(?:src|tests|docs|scripts|bench|examples|demo)\/[\w./-]+$/;

function* filesBelow(directory) {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    if (skipped.has(entry.name)) continue;
    const path = join(directory, entry.name);
    if (entry.isDirectory()) yield* filesBelow(path);
    else if (entry.isFile()) yield path;
  }
}

const lineOf = (text, index) => text.slice(0, index).split('\n').length;

/** The text with its fenced blocks emptied; lines stay where they are. */
function withoutFences(text) {
  return text.replace(/^[ \t]*```[\s\S]*?^[ \t]*```/gm, (block) => block.replace(/[^\n]/g, ''));
}

/** Anchors of the headings, as GitHub makes them. */
function anchorsOf(text) {
  const seen = new Map();
  return withoutFences(text)
    .split('\n')
    .flatMap((line) => /^#{1,6}\s+(.*)$/.exec(line)?.[1] ?? [])
    .map((heading) => {
      const plain = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').toLowerCase();
      const slug = plain.replace(/[^\p{L}\p{N}\s_-]/gu, '').replace(/\s/g, '-');
      const count = seen.get(slug) ?? 0;
      seen.set(slug, count + 1);
      return count === 0 ? slug : `${slug}-${count}`;
    });
}

/** What is wrong with a link of the document at `file`; undefined for a good one and for one that leads outside. */
function wrongLink(file, target) {
  if (/^[a-z][a-z+.-]*:/i.test(target)) return undefined;
  const [path, anchor] = target.split('#');
  const to = path === '' ? file : resolve(dirname(file), decodeURIComponent(path));
  if (relative(root, to).startsWith('..')) return 'leads out of the repository';
  if (!existsSync(to)) return 'leads nowhere';
  if (anchor === undefined || !to.endsWith('.md')) return undefined;
  return anchorsOf(readFileSync(to, 'utf8')).includes(anchor) ? undefined : 'names no heading';
}

function problemsOfDocument(file) {
  const text = withoutFences(readFileSync(file, 'utf8'));
  const links = [...text.matchAll(/\]\(([^()\s]+)\)/g)].flatMap(({ 1: target, index }) => {
    const problem = wrongLink(file, target);
    return problem === undefined ? [] : [{ line: lineOf(text, index), target, problem }];
  });
  const paths = [...text.matchAll(/`([^`\s]+)`/g)].flatMap(({ 1: target, index }) =>
    ownPath.test(target) && !existsSync(join(root, target))
      ? [{ line: lineOf(text, index), target, problem: 'is no file of the repository' }]
      : [],
  );
  return [...links, ...paths];
}

/** `docs/adr/0004` stands for the decision of that number. */
function documentExists(path) {
  if (existsSync(join(root, path))) return true;
  const [directory, number] = [dirname(path), /\/(\d{4})$/.exec(path)?.[1]];
  if (number === undefined || !existsSync(join(root, directory))) return false;
  return readdirSync(join(root, directory)).some((name) => name.startsWith(`${number}-`));
}

function problemsOfSource(file) {
  const text = readFileSync(file, 'utf8');
  return [...text.matchAll(/(?<![\w/.-])docs\/[\w/-]+(?:\.md)?/g)]
    .filter(({ 0: path }) => !documentExists(path))
    .map(({ 0: path, index }) => ({ line: lineOf(text, index), target: path, problem: 'is no document' }));
}

let problems = 0;
let documents = 0;
for (const file of filesBelow(root)) {
  const isDocument = file.endsWith('.md');
  const isSource = /\.(?:ts|mjs|py|h|c)$/.test(file) && file !== fileURLToPath(import.meta.url);
  if (!isDocument && !isSource) continue;
  if (isDocument) documents++;
  for (const { line, target, problem } of isDocument ? problemsOfDocument(file) : problemsOfSource(file)) {
    problems++;
    console.error(`${relative(root, file)}:${line}: ${target} ${problem}`);
  }
}
if (problems > 0) process.exitCode = 1;
else console.log(`${documents} documents, all references lead somewhere`);
