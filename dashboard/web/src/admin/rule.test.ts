import { createHmac } from 'node:crypto';
import { expect, it } from 'vitest';
import { PRESETS, presetDraft, presetOf, ruleDraft, ruleErrors, ruleField, sentenceOf, writtenRule, type RuleDraft, type WrittenRule } from './rule';
import type { Goal } from './site';
import { admin } from './strings';

const GOALS: Goal[] = [{ name: 'Signed up', event: 'signup' }, { name: 'Thanks', page: '/thanks/**' }];
const rule = (more: Partial<WrittenRule>): WrittenRule => ({ name: 'a', kind: 'threshold', minutes: 5, cooldown_minutes: 5, ...more });

it.each<[Partial<WrittenRule>, string]>([
  [{ at_least: 50, page: '/404' }, 'Fires when there are at least 50 views of /404 within 5 minutes. It is over once that has not held for 5 minutes.'],
  [{ at_least: 1, event: 'signup', minutes: 1 }, 'Fires when there are at least 1 “signup” events within 1 minute.'],
  [{ kind: 'change', factor: 3, min: 100, measure: 'views' }, 'Fires when page views within 5 minutes are at least 3 times what the half hour before lets expect, and at least 100.'],
  [{ kind: 'change', factor: 0.3, min: 100 }, 'Fires when page views within 5 minutes fall to 30 % or less of what the half hour before lets expect, if that was at least 100.'],
  [{ kind: 'change', factor: 0, min: 7, measure: 'events' }, 'Fires when no events come within 5 minutes, if the half hour before let expect at least 7.'],
  [{ kind: 'silence', minutes: 10, cooldown_minutes: 1 }, 'Fires when no events have come for 10 minutes, after some in the half hour. It is over once that has not held for 1 minute.'],
  [{ kind: 'silence', measure: 'views' }, 'Fires when no page views have come for 5 minutes'],
])('%j reads aloud', (more, says) => expect(sentenceOf(rule(more))).toContain(says));

it.each(PRESETS)('a rule from the preset %s is right, goes through the form unchanged, and is told as that preset', (preset) => {
  const draft = presetDraft(preset, GOALS);
  expect(ruleErrors(draft, [])).toEqual({});
  const written = writtenRule(draft);
  expect(writtenRule(ruleDraft(written))).toEqual(written);
  expect(presetOf(written, GOALS)).toBe(preset);
});

it('a goal is counted by what reaches it', () => {
  expect(writtenRule(presetDraft('goal', GOALS))).toMatchObject({ name: 'Goal: Signed up', event: 'signup', at_least: 1 });
  expect(writtenRule(presetDraft('goal', GOALS.slice(1)))).toMatchObject({ page: '/thanks/**' });
  expect(ruleErrors(presetDraft('goal', []), [])).toHaveProperty('event');
});

it('only what a kind takes is written', () => {
  const filled: RuleDraft = { name: ' a ', kind: 'silence', subject: 'events', value: '/left', atLeast: '3', factor: '2', min: '9', minutes: '10', cooldown: '5' };
  expect(writtenRule(filled)).toEqual({ name: 'a', kind: 'silence', minutes: 10, measure: 'events', cooldown_minutes: 5 });
  expect(writtenRule({ ...filled, kind: 'change' })).toEqual({ name: 'a', kind: 'change', minutes: 10, measure: 'events', factor: 2, min: 9, cooldown_minutes: 5 });
});

// As schemas/src/alert_rule.rs refuses them.
it.each<[Partial<RuleDraft>, string]>([
  [{ name: ' ' }, 'name'],
  [{ name: 'x'.repeat(65) }, 'name'],
  [{ name: 'two\nlines' }, 'name'],
  [{ name: 'taken' }, 'name'],
  [{ subject: 'page', value: '404' }, 'page'],
  [{ subject: 'event', value: ' ' }, 'event'],
  [{ atLeast: '0' }, 'at_least'],
  [{ atLeast: '1.5' }, 'at_least'],
  [{ kind: 'change', factor: '1', min: '5' }, 'factor'],
  [{ kind: 'change', factor: '', min: '5' }, 'factor'],
  [{ kind: 'change', factor: '-2', min: '5' }, 'factor'],
  [{ kind: 'change', factor: '1001', min: '5' }, 'factor'],
  [{ kind: 'change', factor: '2', min: '0' }, 'min'],
  [{ minutes: '30' }, 'minutes'],
  [{ kind: 'change', factor: '2', min: '5', minutes: '15' }, 'minutes'],
  [{ kind: 'silence', minutes: '26' }, 'minutes'],
  [{ minutes: '0' }, 'minutes'],
  [{ cooldown: '0' }, 'cooldown_minutes'],
  [{ cooldown: '1441' }, 'cooldown_minutes'],
])('%j is told at its field', (wrong, field) => {
  const right: RuleDraft = { name: 'a', kind: 'threshold', subject: 'views', value: '', atLeast: '9', factor: '', min: '', minutes: '5', cooldown: '5' };
  expect(ruleErrors(right, ['taken'])).toEqual({});
  expect(Object.keys(ruleErrors({ ...right, ...wrong }, ['taken']))).toEqual([field]);
});

it.each([
  ['alert "a": minutes: 30 is not 1 to 29', 'minutes'],
  ['alert "a": measure / page / event: give one of them, or none', 'measure'],
  ['alert "b": minutes: 30 is not 1 to 29', 'alerts'],
  ['alerts: 51 rules; a site may have 50', 'alerts'],
])('what the node says (%s) belongs to %s', (detail, field) => expect(ruleField(detail, 'a')).toBe(field));

it('the code that checks a signature takes what aggregator/src/alerts/signature.rs makes, and nothing else', async () => {
  const source = `data:text/javascript,${encodeURIComponent(admin.alerts.verifyCode)}`;
  const { isOurs } = (await import(/* @vite-ignore */ source)) as { isOurs: (header: string, body: string, secret: string, now: number) => boolean };
  const header = 't=1800000000,v1=649346e5ec438bd12370ba13d2af26c5b56b15537632523ceabab903c9cd8c67';
  const [secret, now] = ['0f'.repeat(32), 1_800_000_000_000];
  expect(createHmac('sha256', Buffer.from(secret, 'hex')).update('1800000000.{"a":1}').digest('hex')).toBe(header.slice(-64));
  expect(isOurs(header, '{"a":1}', secret, now)).toBe(true);
  expect(isOurs(header, '{"a":2}', secret, now)).toBe(false);
  expect(isOurs(header, '{"a":1}', '0e'.repeat(32), now)).toBe(false);
  expect(isOurs(header, '{"a":1}', secret, now + 301_000)).toBe(false);
});
