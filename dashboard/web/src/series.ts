// From columns of numbers to what a chart draws. Pure, so that no bucket can go missing unseen.

import type { Day, DaySeries } from './api';

/** A `curve` begins where it is told; a `line` where it rises. */
export type Kind = 'bars' | 'line' | 'curve';

/** One drawn series: null where it draws nothing. */
export type Column = (number | null)[];

export interface Drawn {
  starts: number[];
  /** One for each line. */
  whole: Column[];
  /** The bucket that still runs, once more for each line: pale bars, single points. */
  open: Column[];
}

/** `columns`: starts, then one column for each of `kinds`. With `running` the last bucket is not over. */
export function drawn(columns: Column[], kinds: Kind[], running: boolean): Drawn {
  const [times = [], ...values] = columns;
  const starts = times.map(Number);
  const last = running ? starts.length - 1 : starts.length;
  const whole = values.map((column, n) => {
    const over = column.map((value, at) => (at < last ? value : null));
    return kinds[n] === 'line' ? fromFirst(over) : over;
  });
  return { starts, whole, open: running ? values.map((column) => column.map((value, at) => (at === last ? value : null))) : [] };
}

/** A line along the bottom would say that nobody came before anything was counted: it begins where it rises. */
function fromFirst(column: Column): Column {
  const first = column.findIndex((value) => value !== null && value > 0);
  return column.map((value, at) => (first >= 0 && at >= first - 1 ? value : null));
}

/** Of a line, the buckets that no segment leads to or from: they are drawn as points. */
export function alone(column: readonly (number | null | undefined)[]): number[] {
  const told = (at: number) => (column[at] ?? null) !== null;
  return [...column.keys()].filter((at) => told(at) && !told(at - 1) && !told(at + 1));
}

/** In the order in which they are drawn: today lies over the others. */
export const DAY_LABELS = ['last_week', 'yesterday', 'today'] as const satisfies DaySeries['label'][];

/** Starts (s since 1970) of today's intervals, then a column for each of the days: the n-th interval of each lies under the n-th. */
export function dayColumns({ stepMs, series }: Day): Column[] {
  const of = (label: DaySeries['label']) => series.find((one) => one.label === label);
  const intervals = Math.max(0, ...series.map(({ points }) => points.length));
  const from = of('today')?.from ?? 0;
  const starts = Array.from({ length: intervals }, (_, n) => (from + n * stepMs) / 1_000);
  return [starts, ...DAY_LABELS.map((label) => starts.map((_, n) => of(label)?.points[n] ?? null))];
}
