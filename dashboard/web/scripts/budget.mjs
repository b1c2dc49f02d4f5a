// Prints what the first paint costs and fails the build over the budget.
import { readFileSync, readdirSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const BUDGET_BYTES = 100 * 1024;
const dist = new URL('../dist/', import.meta.url);
const html = readFileSync(new URL('index.html', dist), 'utf8');
const gzipped = (name) => gzipSync(readFileSync(new URL(name, dist)), { level: 9 }).length;
const initial = [...html.matchAll(/(?:src|href)="\/(assets\/[^"]+)"/g)].map((match) => match[1]);
const bytes = (end) => initial.filter((name) => name.endsWith(end)).reduce((sum, name) => sum + gzipped(name), 0);

if (/<script(?![^>]*\ssrc=)|<style|\sstyle="|\son\w+="/i.test(html)) {
  console.error('dist/index.html holds an inline script, style or handler: the page policy forbids it');
  process.exit(1);
}
const kib = (size) => `${(size / 1024).toFixed(1)} KiB`;
const scripts = bytes('.js');
console.log(`initial script ${kib(scripts)} gzip of ${kib(BUDGET_BYTES)}, style ${kib(bytes('.css'))} gzip`);
console.log(`files: ${readdirSync(new URL('assets/', dist)).join(', ')}`);
if (scripts > BUDGET_BYTES) {
  console.error('the initial script is over its budget: load what is not needed at first with import()');
  process.exit(1);
}
