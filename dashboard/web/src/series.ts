// From columns of numbers to what a chart draws. Pure, so that no bucket can go missing unseen.

export type Kind = 'bars' | 'line';

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
export function drawn(columns: number[][], kinds: Kind[], running: boolean): Drawn {
  const [starts = [], ...values] = columns;
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
