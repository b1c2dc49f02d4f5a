import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { strings } from '../strings';
import { adviceOn, deniedOrigin, diagnose, policyFor, scriptOf, type Facts } from './doctor';
import { admin } from './strings';

const NOW = 1_800_000_000_000;
const NOTHING: Facts = { received: 0, accepted: 0, stored: 0, connected: 0, refused: [], lastEventAt: null, origins: ['https://shop.example'] };
const refused = (reason: string, detail = '', count = 1) => ({ reason, count, lastAt: NOW - 1_000, detail });

/** Every reason for which a node refuses or puts off, read where they are defined. */
const source = readFileSync(new URL('../../../../schemas/src/refusal.rs', import.meta.url), 'utf8');
const REASONS = [...source.matchAll(/^ {4}[A-Z]\w+ = "([a-z_0-9]+)", \d{3}\b/gm)].map(([, reason]) => reason ?? '');

it('all reasons are found', () => {
  expect(REASONS).toContain('unknown_site');
  expect(REASONS).toContain('poison_record');
  expect(REASONS).toContain('draining');
  expect(REASONS.length).toBeGreaterThanOrEqual(27);
});

it.each(REASONS)('%s has words and a fix of its own', (reason) => {
  const { title, fix } = adviceOn(reason);
  expect(title).not.toBe(reason);
  expect(fix).not.toBe(admin.doctor.unknownReason);
});

it('no reason has words that no node tells', () => {
  expect(Object.keys(admin.doctor.reasons).filter((reason) => !REASONS.includes(reason))).toEqual([]);
  expect(Object.keys(strings.ledger.reasons).filter((reason) => !REASONS.includes(reason))).toEqual([]);
});

it('a reason of a newer node is shown as it is', () => expect(adviceOn('too_purple').title).toBe('too_purple'));

it('nothing at all: what to look at on the page', () => {
  expect(diagnose(NOTHING, false, NOW)).toEqual({ state: 'waiting', findings: [], nothingComes: true });
});

it('before anything is known it waits, without guessing', () => {
  expect(diagnose(null, false, NOW)).toEqual({ state: 'waiting', findings: [], nothingComes: false });
});

it('the first event turns it green, wherever it is told first', () => {
  expect(diagnose(NOTHING, true, NOW).state).toBe('arriving');
  expect(diagnose({ ...NOTHING, stored: 1 }, false, NOW).state).toBe('arriving');
  expect(diagnose({ ...NOTHING, lastEventAt: NOW - 59 * 60_000 }, false, NOW).state).toBe('arriving');
  expect(diagnose({ ...NOTHING, lastEventAt: NOW - 61 * 60_000 }, false, NOW).state).toBe('quiet');
});

it('what is refused most stands first, and nobody is sent to look at the page', () => {
  const facts = { ...NOTHING, received: 5, refused: [refused('bad_url', '', 1), refused('bad_timestamp', '', 4), refused('too_old', '', 0)] };
  const { findings, nothingComes } = diagnose(facts, false, NOW);
  expect(findings.map(({ id }) => id)).toEqual(['bad_timestamp', 'bad_url']);
  expect(nothingComes).toBe(false);
});

it('taken but not counted, and connected but silent, are told apart', () => {
  expect(diagnose({ ...NOTHING, received: 3, accepted: 3 }, false, NOW).findings.map(({ id }) => id)).toEqual(['behind']);
  expect(diagnose({ ...NOTHING, connected: 2 }, false, NOW).findings.map(({ id }) => id)).toEqual(['silent']);
  expect(diagnose(NOTHING, false, NOW, 4)).toMatchObject({ findings: [{ id: 'retried', count: 4 }], nothingComes: false });
  expect(diagnose({ ...NOTHING, received: 3, accepted: 3, connected: 2 }, true, NOW, 4).findings).toEqual([]);
});

it.each([
  ["origin: https://www.shop.example is not among the site's; add it to `origins` under [[sites]]", 'https://www.shop.example'],
  ["origin: null is not among the site's; add it", null],
  ["origin: * is not among the site's; add it", null],
  ["origin: https://a.example/path is not among the site's; add it", null],
  ['a signed request came from a page', null],
])('%s', (detail, origin) => {
  expect(deniedOrigin(detail)).toBe(origin);
  expect(diagnose({ ...NOTHING, refused: [refused('origin_denied', detail)] }, false, NOW).findings[0]?.origin).toBe(origin);
});

it('the policy names the snippet’s host for the script and the socket', () => {
  const snippet = '<script defer src="https://stats.example:8443/f.js" data-site="shop"></script>';
  expect(policyFor(snippet)).toEqual(['script-src https://stats.example:8443', 'connect-src https://stats.example:8443 wss://stats.example:8443']);
  expect(scriptOf(snippet)).toBe('https://stats.example:8443/f.js');
  expect(policyFor('<script defer src="/stats/s.js"></script>')).toBeNull();
  expect(scriptOf('<script src="javascript:alert(1)"></script>')).toBeNull();
});
