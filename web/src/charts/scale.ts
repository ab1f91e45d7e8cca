// Where a value of unknown magnitude stands on an axis: logarithmic, and around zero linear where needed.

const MOST_TICKS = 6;
const FEWEST_TICKS = 3;
const LARGEST_POWER = 40;
/** How many powers of ten below the largest value are told apart from zero on a signed scale. */
const DECADES_BELOW = 4;
const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

export interface Tick {
  place: number;
  label: string;
}

/**
 * A logarithmic axis, or a signed one that is linear around zero.
 *
 * Positive values stand at log10(v). Once a value is zero or negative, all stand at asinh(v / 2c) / ln 10, which is
 * log10(v / c) far from zero; c is the size of the most negative value, the noise of the estimates.
 */
export class Scale {
  /** Both ends of the axis, with room around the values. */
  readonly ends: readonly [number, number];
  readonly ticks: readonly Tick[];

  private constructor(
    low: number,
    high: number,
    /** The c of a signed axis; 0 for a logarithmic one. */
    private readonly linear: number,
  ) {
    const from = linear ? this.place(low) : Math.log10(low);
    const to = linear ? this.place(high) : Math.log10(high);
    const room = Math.max(0.08 * (to - from), 0.15);
    this.ends = [from - room, to + room];
    this.ticks = this.chosenTicks();
  }

  /** The scale that holds these values: signed where one is below zero; zeros alone stand at a logarithmic one's end. */
  static fit(values: Iterable<number>): Scale {
    const held = [...values].filter(Number.isFinite);
    if (held.length === 0) return new Scale(1, 1, 0);
    let [low, high] = [Infinity, -Infinity];
    for (const value of held) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    if (low > 0) return new Scale(low, high, 0);
    const largest = Math.max(Math.abs(low), Math.abs(high)) || 1;
    return new Scale(Math.min(low, 0), Math.max(high, 0), Math.max(-low, largest * 10 ** -DECADES_BELOW));
  }

  /** Coordinate of a value; on a logarithmic axis, what is not positive stands at the lower end. */
  place(value: number): number {
    if (this.linear) return Math.asinh(value / (2 * this.linear)) / Math.LN10;
    return value > 0 ? Math.max(Math.log10(value), this.ends[0]) : this.ends[0];
  }

  private chosenTicks(): Tick[] {
    const [low, high] = this.ends;
    const chosen = this.linear ? [0] : [];
    // Powers of ten, the largest first; fives and twos only where there are too few.
    for (const factor of [1, 5, 2]) {
      if (chosen.length >= FEWEST_TICKS) break;
      for (let power = LARGEST_POWER; power > -LARGEST_POWER; power -= 1) {
        for (const tick of this.linear ? [factor * 10 ** power, -factor * 10 ** power] : [factor * 10 ** power]) {
          const place = this.linear ? this.place(tick) : Math.log10(tick);
          const apart = chosen.every((other) => Math.abs(place - this.place(other)) > (high - low) / MOST_TICKS);
          if (low <= place && place <= high && apart) chosen.push(tick);
        }
      }
    }
    const powers = chosen.some((tick) => Math.abs(powerOf(tick)) > 3);
    return chosen.sort((a, b) => a - b).map((tick) => ({ place: this.place(tick), label: label(tick, powers) }));
  }
}

function powerOf(value: number): number {
  return value === 0 ? 0 : Math.floor(Math.log10(Math.abs(value)) + 1e-9);
}

function label(value: number, powers: boolean): string {
  const power = powerOf(value);
  const sign = value < 0 ? "−" : "";
  const size = Math.abs(value);
  if (!powers || power === 0) return sign + String(Number(size.toPrecision(6)));
  const factor = Math.round(size / 10 ** power);
  const digits = [...String(Math.abs(power))].map((digit) => SUPERSCRIPTS[Number(digit)]).join("");
  return `${sign}${factor === 1 ? "" : `${factor}×`}10${power < 0 ? "⁻" : ""}${power === 1 ? "" : digits}`;
}
