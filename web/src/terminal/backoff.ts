// When to try again. Apart from the connection, so that its arithmetic can be tested: one that forgets how often it failed is a hammer.

/** Milliseconds before each try; the last goes on for ever. */
const STEPS_MS = [0, 250, 500, 1000, 2000, 5000] as const;

/** A connection that held this long starts from the first step again; one that breaks at once does not. */
const STEADY_MS = 10_000;

export class Backoff {
  private tries = 0;
  private openedAtMs: number | null = null;

  opened(nowMs: number): void {
    this.openedAtMs = nowMs;
  }

  /** The connection broke, or could not be made: how long to wait. `random` is from 0 to 1. */
  wait(nowMs: number, random: number): number {
    if (this.openedAtMs !== null && nowMs - this.openedAtMs >= STEADY_MS) this.tries = 0;
    this.openedAtMs = null;
    const base = STEPS_MS[Math.min(this.tries, STEPS_MS.length - 1)] ?? 0;
    this.tries += 1;
    // Half to all of it, so that a hundred viewers of a restarted server do not come back as one.
    return base / 2 + (random * base) / 2;
  }

  reset(): void {
    this.tries = 0;
  }
}
