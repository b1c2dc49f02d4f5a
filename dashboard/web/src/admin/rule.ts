// Alert rules as schemas/src/alert_rule.rs reads them, and how they are read aloud.

import * as format from '../format';
import { isName, isPattern, type Errors, type Goal } from './site';
import { admin } from './strings';

const words = admin.alerts;

export const MAX_RULES = 50;
export const MAX_WEBHOOKS = 5;
export type Kind = 'threshold' | 'change' | 'silence';
/** The longest window of each kind, in minutes. */
export const LONGEST: Readonly<Record<Kind, number>> = { threshold: 29, change: 14, silence: 25 };
const MAX_COOLDOWN = 1_440;
const COOLDOWN = 5;

/** As the node tells and takes it. */
export interface WrittenRule {
  name: string;
  kind: Kind;
  minutes: number;
  measure?: 'views' | 'events';
  page?: string;
  event?: string;
  at_least?: number;
  factor?: number;
  min?: number;
  cooldown_minutes?: number;
}

/** What the form holds. Numbers are text until they are sent. */
export interface RuleDraft {
  name: string;
  kind: Kind;
  subject: 'views' | 'events' | 'page' | 'event';
  /** The page's pattern or the event's name. */
  value: string;
  atLeast: string;
  factor: string;
  min: string;
  minutes: string;
  cooldown: string;
}

const BLANK: RuleDraft = {
  name: '',
  kind: 'threshold',
  subject: 'views',
  value: '',
  atLeast: '',
  factor: '',
  min: '',
  minutes: '5',
  cooldown: String(COOLDOWN),
};

export const PRESETS = ['spike', 'drop', 'notFound', 'silence', 'goal'] as const;
export type Preset = (typeof PRESETS)[number];

/** What a preset starts with; every number may be changed. */
export function presetDraft(preset: Preset, goals: readonly Goal[]): RuleDraft {
  const named = { ...BLANK, name: words.presets[preset].name };
  switch (preset) {
    case 'spike':
      return { ...named, kind: 'change', factor: '3', min: '100' };
    case 'drop':
      return { ...named, kind: 'change', factor: '0.3', min: '100', minutes: '10' };
    case 'notFound':
      return { ...named, subject: 'page', value: '/404', atLeast: '50' };
    case 'silence':
      return { ...named, kind: 'silence', subject: 'events', minutes: '10' };
    case 'goal':
      return { ...named, ...ofGoal(goals[0]), atLeast: '1' };
  }
}

/** What reaches a goal, as a rule counts it. */
export function ofGoal(goal: Goal | undefined): Pick<RuleDraft, 'subject' | 'value'> & { name?: string } {
  if (!goal) return { subject: 'event', value: '' };
  const name = words.ofGoal(goal.name);
  return goal.page === undefined ? { name, subject: 'event', value: goal.event ?? '' } : { name, subject: 'page', value: goal.page };
}

/** Which preset a rule looks like; `null`: a number of something that is no goal. */
export function presetOf(rule: WrittenRule, goals: readonly Goal[]): Preset | null {
  if (rule.kind === 'silence') return 'silence';
  if (rule.kind === 'change') return (rule.factor ?? 0) > 1 ? 'spike' : 'drop';
  const isGoal = goals.some(({ event, page }) => (event ?? null) === (rule.event ?? null) && (page ?? null) === (rule.page ?? null));
  if (isGoal && (rule.event ?? rule.page) !== undefined) return 'goal';
  return /404|not-?found/i.test(rule.page ?? '') ? 'notFound' : null;
}

export function ruleDraft(rule: WrittenRule): RuleDraft {
  const number = (value: number | undefined) => (value === undefined ? '' : String(value));
  const measure = rule.measure ?? (rule.kind === 'silence' ? 'events' : 'views');
  return {
    name: rule.name,
    kind: rule.kind,
    subject: rule.page !== undefined ? 'page' : rule.event !== undefined ? 'event' : measure,
    value: rule.page ?? rule.event ?? '',
    atLeast: number(rule.at_least),
    factor: number(rule.factor),
    min: number(rule.min),
    minutes: number(rule.minutes),
    cooldown: number(rule.cooldown_minutes ?? COOLDOWN),
  };
}

export function writtenRule(draft: RuleDraft): WrittenRule {
  const { kind, subject } = draft;
  const value = draft.value.trim();
  return {
    name: draft.name.trim(),
    kind,
    minutes: Number(draft.minutes),
    ...(subject === 'page' ? { page: value } : subject === 'event' ? { event: value } : { measure: subject }),
    ...(kind === 'threshold' ? { at_least: Number(draft.atLeast) } : {}),
    ...(kind === 'change' ? { factor: Number(draft.factor), min: Number(draft.min) } : {}),
    cooldown_minutes: Number(draft.cooldown),
  };
}

/** `others`: names of the site's other rules. */
export function ruleErrors(draft: RuleDraft, others: readonly string[]): Errors {
  const errors: Errors = {};
  const isCount = (text: string, most = Number.MAX_SAFE_INTEGER) => /^\d+$/.test(text.trim()) && Number(text) >= 1 && Number(text) <= most;
  if (!isName(draft.name)) errors.name = admin.invalid.name;
  else if (others.includes(draft.name.trim())) errors.name = admin.invalid.ruleTwice;
  if (draft.subject === 'page' && !isPattern(draft.value.trim())) errors.page = admin.invalid.pattern;
  if (draft.subject === 'event' && draft.value.trim() === '') errors.event = admin.invalid.event;
  if (draft.kind === 'threshold' && !isCount(draft.atLeast)) errors.at_least = admin.invalid.atLeast;
  if (draft.kind === 'change') {
    const factor = Number(draft.factor);
    if (draft.factor.trim() === '' || !(factor >= 0 && factor <= 1_000) || factor === 1) errors.factor = admin.invalid.factor;
    if (!isCount(draft.min)) errors.min = admin.invalid.min;
  }
  const longest = LONGEST[draft.kind];
  if (!isCount(draft.minutes, longest)) errors.minutes = admin.invalid.minutes(longest);
  if (!isCount(draft.cooldown, MAX_COOLDOWN)) errors.cooldown_minutes = admin.invalid.cooldown(MAX_COOLDOWN);
  return errors;
}

/** Two sentences: when it fires, and when it is over. */
export function sentenceOf(rule: WrittenRule): string {
  const said = words.sentence;
  const what = rule.page !== undefined ? said.page(rule.page) : rule.event !== undefined ? said.event(rule.event) : said[ruleDraft(rule).subject as 'views' | 'events'];
  const within = said.minutes(rule.minutes);
  const over = said.over(said.minutes(rule.cooldown_minutes ?? COOLDOWN));
  switch (rule.kind) {
    case 'threshold':
      return `${said.threshold(format.count(rule.at_least ?? 0), what, within)} ${over}`;
    case 'change': {
      const factor = rule.factor ?? 0;
      const min = format.count(rule.min ?? 0);
      const change = factor > 1 ? said.rise(what, within, times(factor), min) : factor > 0 ? said.fall(what, within, share(factor), min) : said.gone(what, within, min);
      return `${change} ${over}`;
    }
    case 'silence':
      return `${said.silence(what, within)} ${over}`;
  }
}

const times = (factor: number): string => (Number.isInteger(factor) ? format.count(factor) : format.decimal(factor));
const share = (factor: number): string => `${format.decimal(factor * 100)} %`;

/** Which input of a rule's form an error of the node belongs to: `alert "Spike": minutes: 30 is not 1 to 29`. */
export function ruleField(detail: string, name: string): string {
  const [, rule, field] = /alert "(.*)": ([a-z_]+(?: \/ [a-z_]+)*): /.exec(detail) ?? [];
  if (rule !== name || field === undefined) return 'alerts';
  return field.startsWith('measure') ? 'measure' : field;
}
