// Numbers, times and names in the reader's own locale.

const locales = typeof navigator === 'undefined' ? ['en'] : [...navigator.languages];

const whole = new Intl.NumberFormat(locales, { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat(locales, { notation: 'compact', maximumFractionDigits: 1 });
const tenths = new Intl.NumberFormat(locales, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const seconds = new Intl.NumberFormat(locales, { style: 'unit', unit: 'second', unitDisplay: 'narrow', maximumFractionDigits: 0 });
const minutes = new Intl.NumberFormat(locales, { style: 'unit', unit: 'minute', unitDisplay: 'short', maximumFractionDigits: 0 });
const milliseconds = new Intl.NumberFormat(locales, { style: 'unit', unit: 'millisecond', unitDisplay: 'short', maximumFractionDigits: 0 });
const tenthsOfSecond = new Intl.NumberFormat(locales, { style: 'unit', unit: 'second', unitDisplay: 'short', maximumFractionDigits: 1 });
const percents = new Intl.NumberFormat(locales, { style: 'percent', maximumFractionDigits: 0 });
const hours = new Intl.NumberFormat(locales, { style: 'unit', unit: 'hour', unitDisplay: 'short', maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat(locales, { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const minuteClock = new Intl.DateTimeFormat(locales, { hour: '2-digit', minute: '2-digit' });
const dayClock = new Intl.DateTimeFormat(locales, { weekday: 'short', hour: '2-digit', minute: '2-digit' });
const regions = new Intl.DisplayNames(locales, { type: 'region', fallback: 'code' });

export const count = (value: number): string => whole.format(value);
/** For axes, where room is short. */
export const compact = (value: number): string => (Number.isInteger(value) || value >= 100 ? short.format(value) : tenths.format(value));
export const rate = (value: number): string => (value === 0 || value >= 100 ? whole.format(value) : tenths.format(value));
export const time = (ms: number): string => clock.format(ms);
export const timeOfMinute = (ms: number): string => minuteClock.format(ms);
export const timeOfDay = (ms: number): string => dayClock.format(ms);

/** How long something takes: milliseconds below a second. */
export const latency = (ms: number): string => (ms < 1_000 ? milliseconds.format(Math.round(ms)) : tenthsOfSecond.format(ms / 1_000));
/** `share`: 0 to 1. */
export const percent = (share: number): string => percents.format(share);
export const perHundred = (value: number): string => (value > 0 && value < 10 ? tenths : whole).format(value);

/** How long somebody stayed: `42s`, `3 min 05s`. */
export function duration(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1_000));
  return s < 60 ? seconds.format(s) : `${minutes.format(Math.floor(s / 60))} ${seconds.format(s % 60)}`;
}

export function age(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1_000));
  if (s < 120) return seconds.format(s);
  if (s < 7_200) return minutes.format(Math.floor(s / 60));
  return hours.format(Math.floor(s / 3_600));
}

/** The country's name, or what was given when it is no country's code. */
export function country(code: string): string {
  try {
    return regions.of(code) ?? code;
  } catch {
    return code;
  }
}

/** The flag of a country as two regional indicators; empty when it is no two-letter code. */
export function flag(code: string): string {
  if (!/^[A-Z]{2}$/.test(code)) return '';
  return String.fromCodePoint(...[...code].map((letter) => 0x1f1e6 + letter.charCodeAt(0) - 65));
}

/** Whether this system's fonts draw flags: where they do not, two indicators stand side by side as letters or boxes. */
export function drawsFlags(): boolean {
  const canvas = document.createElement('canvas').getContext('2d');
  if (!canvas) return false;
  canvas.font = '32px sans-serif';
  return canvas.measureText(flag('DE')).width < canvas.measureText(flag('DE').slice(0, 2)).width * 1.5;
}

/** A link that may be followed: http or https, else `null`. */
export function safeLink(url: string | null | undefined): string | null {
  if (!url) return null;
  try {
    const { protocol, href } = new URL(url, typeof location === 'undefined' ? undefined : location.href);
    return protocol === 'http:' || protocol === 'https:' ? href : null;
  } catch {
    return null;
  }
}

const decimals = new Intl.NumberFormat(locales, { maximumFractionDigits: 2 });
const dayAndTime = new Intl.DateTimeFormat(locales, { dateStyle: 'medium', timeStyle: 'short' });
const day = new Intl.DateTimeFormat(locales, { dateStyle: 'medium' });

export const decimal = (value: number): string => decimals.format(value);
export const dateTime = (ms: number): string => dayAndTime.format(ms);
export const date = (ms: number): string => day.format(ms);
