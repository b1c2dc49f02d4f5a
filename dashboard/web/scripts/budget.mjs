// Prints what the first paint costs and fails the build over the budget.
import { readFileSync, readdirSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const BUDGET_BYTES = 100 * 1024;
/** The map comes later, in a file of its own. */
const MAP_BUDGET_BYTES = 60 * 1024;
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
const files = readdirSync(new URL('assets/', dist));
const maps = files.filter((name) => /^WorldMap-.*\.js$/.test(name));
const map = maps.reduce((sum, name) => sum + gzipped(`assets/${name}`), 0);
console.log(`map ${kib(map)} gzip of ${kib(MAP_BUDGET_BYTES)}, loaded when it is looked at`);
console.log(`files: ${files.join(', ')}`);
if (maps.length !== 1 || map > MAP_BUDGET_BYTES) {
  console.error('the map is over its budget, or no file of its own');
  process.exit(1);
}
if (scripts > BUDGET_BYTES) {
  console.error('the initial script is over its budget: load what is not needed at first with import()');
  process.exit(1);
}
