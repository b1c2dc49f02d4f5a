import { MAX_BATCH_BYTES, MAX_BATCH_EVENTS } from "./protocol";

/** An event that is not settled. Its stream, sequence and (once sent) token never change, however often it is sent. */
export interface Entry {
  stream: string;
  seq: number;
  /** Visitor token that it was first sent with; empty before. */
  token: string;
  at: number;
  json: string;
  /** Bytes of `json`. */
  size: number;
  /** Sent on the present connection and not answered. */
  flying?: boolean;
  /** Times that a frame with it was refused as a whole. */
  faults?: number;
  /** Storage key that holds a copy. */
  home?: string;
}

export interface Counts {
  /** Events handed to a transport, resends included. */
  sent: number;
  acked: number;
  refused: number;
  evicted: number;
}

/** Events until they are settled, oldest first. Full: the oldest is evicted and counted. */
export interface Outbox {
  readonly counts: Counts;
  /** Evictions that no node has heard of. */
  unreported(): number;
  list(): Entry[];
  flying(): Entry[];
  add(entry: Entry): void;
  /** Counts events that are given up. */
  evict(count: number): void;
  /** How many left. */
  remove(gone: (entry: Entry) => boolean): number;
  /** From here on the events without a token belong to the visitor of `token`. */
  stamp(token: string): void;
  /** The next batch, now in flight: consecutive events of one stream and one token. Empty when all are in flight. */
  take(token: string, maxEvents?: number, maxBytes?: number): Entry[];
  /** Evictions to tell with the next batch; told again when that batch is not answered. */
  report(): number;
  /** Events `first..=upto` are settled, `refused` of them without being stored. */
  settle(stream: string, first: number, upto: number, refused: number): void;
  /** Events `first..=upto` of `stream`, or all, are to be sent again. */
  release(stream?: string, first?: number, upto?: number): void;
  /**
   * What is in flight was refused as a whole, without saying what of it: it is sent again, apart from all else, and
   * given up the third time. How many events were given up.
   */
  fault(): number;
  /** Whether some event has been part of a refused frame: while it has, one batch at a time tells which. */
  suspect(): boolean;
  /** Refuses all there is and all that comes. */
  shut(): void;
}

/** A frame that is refused this often would be refused for ever. */
const MAX_FAULTS = 3;

/** The default bounds keep what is written to storage under 400 KB of the 5 MB that a site has. */
export function createOutbox(maxEvents = 1_000, maxBytes = 256_000): Outbox {
  const counts: Counts = { sent: 0, acked: 0, refused: 0, evicted: 0 };
  let entries: Entry[] = [];
  let bytes = 0;
  let unreported = 0;
  /** Evictions told in a batch that is not answered yet. */
  let told = 0;
  let open = true;

  const within =
    (stream?: string, first = 0, upto = Infinity) =>
    (entry: Entry) =>
      (!stream || entry.stream === stream) && entry.seq >= first && entry.seq <= upto;

  const evict = (count: number) => {
    counts.evicted += count;
    unreported += count;
  };
  const remove = (gone: (entry: Entry) => boolean) => {
    const before = entries.length;
    entries = entries.filter((entry) => !gone(entry) || ((bytes -= entry.size), false));
    return before - entries.length;
  };
  const stamp = (token: string) => entries.forEach((entry) => (entry.token ||= token));

  return {
    counts,
    unreported: () => unreported,
    list: () => entries,
    flying: () => entries.filter((entry) => entry.flying),
    add(entry) {
      if (!open) {
        counts.refused++;
        return;
      }
      entries.push(entry);
      bytes += entry.size;
      while (entries.length > maxEvents || bytes > maxBytes) {
        const oldest = entries[0];
        evict(remove((each) => each === oldest));
      }
    },
    evict,
    remove,
    stamp,
    take(token, maxEvents = MAX_BATCH_EVENTS, maxBytes = MAX_BATCH_BYTES) {
      const run: Entry[] = [];
      let last: Entry | undefined;
      stamp(token);
      for (const entry of entries) {
        maxBytes -= entry.flying ? 0 : entry.size + 1;
        if (
          last &&
          (entry.flying ||
            entry.stream !== last.stream ||
            entry.seq !== last.seq + 1 ||
            entry.token !== last.token ||
            entry.faults !== last.faults ||
            run.length >= maxEvents ||
            maxBytes < 0)
        )
          break;
        if (!entry.flying) run.push((last = entry));
      }
      for (const entry of run) entry.flying = true;
      counts.sent += run.length;
      return run;
    },
    report: () => (told ? 0 : (told = unreported)),
    settle(stream, first, upto, refused) {
      // A resend is acked twice: only the first ack finds the entries and counts.
      const settled = remove(within(stream, first, upto));
      refused = Math.min(refused, settled);
      counts.refused += refused;
      counts.acked += settled - refused;
      unreported -= told;
      told = 0;
    },
    release(stream, first, upto) {
      for (const entry of entries.filter(within(stream, first, upto))) entry.flying = false;
      told = 0;
    },
    fault() {
      for (const entry of entries) {
        if (entry.flying) entry.faults = (entry.faults ?? 0) + 1;
        entry.flying = false;
      }
      told = 0;
      const given = remove(({ faults }) => faults === MAX_FAULTS);
      counts.refused += given;
      return given;
    },
    suspect: () => entries.some(({ faults }) => faults),
    shut() {
      open = false;
      counts.refused += remove(() => true);
    },
  };
}
