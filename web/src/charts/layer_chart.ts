import type { Chart as ChartType, ChartDataset } from "chart.js";

import { bits, digits } from "../numbers";
import { errorBars, whisker, type Whisker } from "./error_bars";
import { shortName } from "./layer_names";
import { axis, BASE, bitColour, Chart, colour, scaledAxis, tooltip, wrapped } from "./look";
import { Scale } from "./scale";

export interface LayerBar {
  name: string;
  op: string;
  bits: number;
  /** Expected increase of the loss at these bits. */
  loss: number | null;
  lossError: number | null;
  trace: number | null;
  traceError: number | null;
  reason: string;
}

type Points = ChartDataset<"line"> & { whiskers?: (Whisker | null)[] };

const FLOAT_HEIGHT = 10;
/** Axes stand on each other: labels at their ends would touch. */
const ROOM = 0.08;
const MOST_NAMED = 32;
const NARROW = 560;
const DENSE = 80;

/** Bits of every layer over the network's depth, beneath what they cost, and the trace where it was estimated. */
export class LayerChart {
  private readonly chart: ChartType<"bar" | "line">;
  private bars: readonly LayerBar[];

  constructor(
    canvas: HTMLCanvasElement,
    bars: readonly LayerBar[],
    private readonly losses: Scale,
    onPoint?: (index: number) => void,
    onPick?: (index: number) => void,
  ) {
    this.bars = bars;
    const traces = bars.some((bar) => bar.trace !== null) ? traceScale(bars) : null;
    const radius = bars.length > DENSE ? 2 : 4;
    const points = (name: string, ink: string): Points => ({
      type: "line",
      yAxisID: name,
      data: [],
      showLine: false,
      pointRadius: radius,
      pointHoverRadius: radius + 2,
      borderColor: ink,
      backgroundColor: ink,
    });
    const sets: (ChartDataset<"bar"> | Points)[] = [
      { type: "bar", yAxisID: "bits", data: [], grouped: false, barPercentage: bars.length > DENSE ? 1 : 0.86, categoryPercentage: 1, maxBarThickness: 44 },
      points("loss", colour("loss")),
    ];
    if (traces) sets.push({ ...points("trace", colour("trace")), ...placed(bars.map((bar) => [bar.trace, bar.traceError]), traces) });
    const row = { stack: "rows", stackWeight: 1 };
    this.chart = new Chart<"bar" | "line">(canvas, {
      type: "bar",
      data: { labels: bars.map((bar) => bar.name), datasets: sets },
      plugins: [errorBars],
      options: {
        ...(BASE as object),
        interaction: { mode: "index", intersect: false },
        onHover: (_: unknown, active: { index: number }[]) => active[0] && onPoint?.(active[0].index),
        onClick: (_: unknown, active: { index: number }[]) => active[0] && onPick?.(active[0].index),
        scales: {
          x: {
            ...(axis(bars.length > MOST_NAMED ? "layers, from input to output" : "") as object),
            grid: { display: false },
            ticks: {
              color: colour("quiet"),
              maxRotation: 90,
              autoSkip: bars.length > MOST_NAMED,
              callback: (_: unknown, index: number) => this.name(index, canvas.clientWidth),
            },
          },
          // The first stands at the bottom.
          ...(traces && { trace: { ...scaledAxis("trace", traces, ROOM), ...row } }),
          loss: { ...scaledAxis("loss", losses, ROOM), ...row },
          bits: {
            ...axis("bits"),
            ...row,
            stackWeight: 1.3,
            min: 0,
            max: FLOAT_HEIGHT + 0.6,
            ticks: { color: colour("quiet"), stepSize: 2, padding: 6, includeBounds: false, callback: (value: number | string) => bitTick(Number(value)) },
          },
        },
        plugins: {
          legend: { display: false },
          tooltip: {
            ...tooltip(),
            filter: (item: { datasetIndex: number }) => item.datasetIndex === 0,
            callbacks: { label: (item: { dataIndex: number }) => this.describe(item.dataIndex) },
          },
        },
      } as object,
    });
    this.show(bars);
  }

  /** Draw another plan of the same layers. */
  show(bars: readonly LayerBar[]): void {
    this.bars = bars;
    const [widths, losses] = this.chart.data.datasets as [ChartDataset<"bar">, Points];
    widths.data = bars.map((bar) => (bar.bits === 32 ? FLOAT_HEIGHT : bar.bits));
    widths.backgroundColor = bars.map((bar) => bitColour(bar.bits));
    Object.assign(losses, placed(bars.map((bar) => [bar.bits === 32 ? null : bar.loss, bar.lossError]), this.losses));
    this.chart.update("none");
  }

  destroy(): void {
    this.chart.destroy();
  }

  private name(index: number, width: number): string {
    const bar = this.bars[index];
    if (!bar) return "";
    return this.bars.length > MOST_NAMED || width < NARROW ? String(index + 1) : shortName(bar.name, bar.op);
  }

  private describe(index: number): string[] {
    const bar = this.bars[index];
    if (!bar) return [];
    const lines = [bar.bits === 32 ? "float" : `${bits(bar.bits)} bits`];
    if (bar.loss !== null && bar.bits !== 32) lines.push(`expected loss ${bar.loss < 0 ? "" : "+"}${withError(bar.loss, bar.lossError)}`);
    if (bar.trace !== null) lines.push(`trace ${withError(bar.trace, bar.traceError)}`);
    return [...lines, ...(bar.reason ? wrapped(bar.reason, 60) : [])];
  }
}

function bitTick(value: number): string {
  if (value === FLOAT_HEIGHT) return "float";
  return value > 0 && value < FLOAT_HEIGHT ? String(value) : "";
}

function withError(value: number, error: number | null): string {
  return error ? `${digits(value)} ± ${digits(error)}` : digits(value);
}

function placed(values: [number | null, number | null][], scale: Scale): Pick<Points, "data" | "whiskers"> {
  return {
    data: values.map(([value]) => (value === null || !Number.isFinite(value) ? null : scale.place(value))),
    whiskers: values.map(([value, error]) => (value === null ? null : whisker(value, error, scale))),
  };
}

function traceScale(bars: readonly LayerBar[]): Scale {
  return Scale.fit(bars.flatMap((bar) => (bar.trace === null ? [] : [bar.trace, bar.trace + (bar.traceError ?? 0)])));
}

/** A scale of losses for every plan that these tables allow, so that charts of several plans can be compared. */
export function lossScale(tables: Iterable<Record<string, number> | null>): Scale {
  const values: number[] = [];
  for (const table of tables) {
    for (const [width, loss] of Object.entries(table ?? {})) if (width !== "32" && loss !== 0) values.push(loss);
  }
  return Scale.fit(values);
}
