import type { Chart as ChartType, ChartDataset } from "chart.js";

import { bits, digits } from "../numbers";
import { axis, BASE, bitColour, Chart, colour, floorOf, powerTick, tooltip } from "./look";

export interface LayerBar {
  name: string;
  bits: number;
  /** Expected increase of the loss at these bits. */
  loss: number | null;
  reason: string;
}

const FLOAT_HEIGHT = 10;

/** Bits of every layer over the network's depth, and beneath what they cost. */
export class LayerChart {
  private readonly chart: ChartType<"bar">;
  private bars: readonly LayerBar[];

  constructor(canvas: HTMLCanvasElement, bars: readonly LayerBar[], floor: number, onPoint?: (index: number) => void) {
    this.bars = bars;
    this.chart = new Chart<"bar">(canvas, {
      type: "bar",
      data: { labels: bars.map((bar) => bar.name), datasets: [set("bits"), { ...set("loss"), backgroundColor: colour("line-1") }] },
      options: {
        ...(BASE as object),
        interaction: { mode: "index", intersect: false },
        onHover: (_, active) => active[0] && onPoint?.(active[0].index),
        scales: {
          x: { ...(axis("layers, from input to output") as object), ticks: { display: false }, grid: { display: false } },
          loss: {
            ...(axis("loss") as object),
            type: "logarithmic",
            stack: "both",
            stackWeight: 1,
            min: floor,
            ticks: { color: colour("quiet"), callback: powerTick },
          },
          bits: {
            ...(axis("bits") as object),
            stack: "both",
            stackWeight: 1,
            min: 0,
            max: FLOAT_HEIGHT,
            ticks: { color: colour("quiet"), stepSize: 2, callback: (value) => (value === FLOAT_HEIGHT ? "float" : value) },
          },
        },
        plugins: {
          legend: { display: false },
          tooltip: {
            ...tooltip(),
            filter: (item) => item.datasetIndex === 0,
            callbacks: { label: (item) => this.describe(item.dataIndex) },
          },
        },
      },
    });
    this.show(bars, floor);
  }

  /** Draw another plan of the same layers. */
  show(bars: readonly LayerBar[], floor: number): void {
    this.bars = bars;
    const [widths, losses] = this.chart.data.datasets as [ChartDataset<"bar">, ChartDataset<"bar">];
    widths.data = bars.map((bar) => (bar.bits === 32 ? FLOAT_HEIGHT : bar.bits));
    widths.backgroundColor = bars.map((bar) => bitColour(bar.bits));
    losses.data = bars.map((bar) => Math.max(bar.loss ?? floor, floor));
    this.chart.update("none");
  }

  destroy(): void {
    this.chart.destroy();
  }

  private describe(index: number): string[] {
    const bar = this.bars[index];
    if (!bar) return [];
    const loss = bar.loss === null ? "" : `, expected loss ${bar.loss < 0 ? "" : "+"}${digits(bar.loss)}`;
    return [`${bits(bar.bits)}${bar.bits === 32 ? "" : " bits"}${loss}`, ...wrapped(bar.reason, 60)];
  }
}

function set(scale: string): ChartDataset<"bar"> {
  return { data: [], yAxisID: scale, grouped: false, barPercentage: 0.95, categoryPercentage: 1, maxBarThickness: 40 };
}

function wrapped(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const line = lines.at(-1);
    if (line !== undefined && line.length + word.length < width) lines[lines.length - 1] = `${line} ${word}`;
    else lines.push(word);
  }
  return lines;
}

/** The least loss that a chart of these tables shows. */
export function lossFloor(tables: Iterable<Record<string, number> | null>): number {
  const values: number[] = [];
  for (const table of tables) values.push(...Object.values(table ?? {}));
  return floorOf(values);
}
