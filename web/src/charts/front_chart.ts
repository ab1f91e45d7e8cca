import type { Chart as ChartType, ChartDataset, Plugin } from "chart.js";

import { bytes, digits } from "../numbers";
import { errorBars, type Measured, whisker, type Whisker } from "./error_bars";
import { axis, BASE, Chart, colour, faded, legend, lineColour, lineDash, scaledAxis, tooltip } from "./look";
import { Scale } from "./scale";

export interface Curve {
  name: string;
  /** Bytes, predicted loss and its standard error, by size. */
  points: Measured[];
  /** Plans that were measured. */
  measured: (Measured & { name: string })[];
}

export interface FrontData {
  curves: Curve[];
  budget: number | null;
  /** The plan that stands out. */
  choice?: { x: number; y: number };
}

type Place = Measured & { name?: string; loss: number };
type Set = ChartDataset<"scatter"> & { whiskers?: (Whisker | null)[]; role?: string };

/** Predicted and measured loss against bytes, with a point that follows the budget. */
export class FrontChart {
  private readonly chart: Chart<"scatter">;
  private readonly scale: Scale;

  /**
   * @param onPick Told the bytes under the pointer while it is dragged; leave out for a chart without a choice.
   * @param onLetGo Told when dragging ends.
   */
  constructor(canvas: HTMLCanvasElement, data: FrontData, onPick?: (bytes: number) => void, onLetGo?: () => void) {
    const all = data.curves.flatMap((curve) => [...curve.points, ...curve.measured]);
    // With every layer in float nothing is lost; that one zero at the end must not cost the logarithmic axis.
    this.scale = Scale.fit(all.filter((point) => point.y !== 0).flatMap((point) => [point.y, point.y + (point.error ?? 0)]));
    const sizes = all.map((point) => point.x).concat(data.budget ?? []);
    const [least, most] = sizes.reduce(([a, b], size) => [Math.min(a, size), Math.max(b, size)], [Infinity, -Infinity]);
    const room = 0.03 * (most - least) || 1;
    this.chart = new Chart<"scatter">(canvas, {
      type: "scatter",
      data: { datasets: this.sets(data) },
      plugins: [errorBars, ...(data.budget === null ? [] : [budgetLine(data.budget)])],
      options: {
        ...(BASE as object),
        interaction: { mode: "nearest", intersect: false, axis: "xy" },
        scales: {
          x: {
            ...axis("size of the file"),
            min: least - room,
            max: most + room,
            ticks: { color: colour("quiet"), includeBounds: false, padding: 6, maxRotation: 0, callback: (value) => bytes(Number(value)) },
          },
          y: scaledAxis("increase of the loss", this.scale),
        },
        plugins: {
          legend: legend(true),
          tooltip: {
            ...tooltip(),
            filter: (item) => (item.dataset as Set).role !== "band",
            callbacks: { label: (item) => describe(item.raw as Place) },
          },
        },
      },
    });
    if (data.choice) this.select(data.choice.x, data.choice.y);
    if (onPick) this.listen(canvas, onPick);
    if (onLetGo) canvas.addEventListener("pointerup", onLetGo);
  }

  /** Move the chosen point; nothing else is drawn anew. */
  select(x: number, y: number): void {
    const set = this.chart.data.datasets.find((entry) => (entry as Set).role === "choice");
    if (!set) return;
    set.data = [this.at({ x, y, error: null, name: "this plan" })];
    this.chart.update("none");
  }

  destroy(): void {
    this.chart.destroy();
  }

  private at(point: Measured & { name?: string }): Place {
    return { ...point, loss: point.y, y: this.scale.place(point.y) };
  }

  private sets(data: FrontData): Set[] {
    const alone = data.curves.length === 1;
    const sets: Set[] = [choiceSet(alone)];
    data.curves.forEach((curve, index) => {
      const ink = lineColour(index);
      const band = { role: "band", label: "", showLine: true, pointRadius: 0, borderWidth: 0, stepped: "before" as const };
      const known = curve.points.filter((point) => point.error !== null);
      const edge = (sign: number) =>
        known.map((point) => ({ x: point.x, y: Math.max(this.scale.place(point.y + sign * point.error!), this.scale.ends[0]) }));
      sets.push(
        {
          label: alone ? (curve.measured.length ? "measured" : "") : "",
          whiskers: curve.measured.map((point) => whisker(point.y, point.error, this.scale)),
          pointRadius: 5,
          pointHoverRadius: 6,
          pointStyle: "rectRot",
          borderColor: colour("ink"),
          backgroundColor: ink,
          data: curve.measured.map((point) => this.at(point)),
        },
        {
          label: alone ? "predicted, with one standard error" : curve.name,
          showLine: true,
          stepped: "before",
          pointRadius: 0,
          pointHitRadius: 6,
          pointStyle: "line",
          borderColor: ink,
          borderDash: lineDash(index),
          borderWidth: 2,
          data: curve.points.map((point) => this.at(point)),
        },
        { ...band, data: edge(1) },
        { ...band, data: edge(-1), fill: "-1", backgroundColor: faded(ink, 0.16) },
      );
    });
    return sets;
  }

  private listen(canvas: HTMLCanvasElement, onPick: (bytes: number) => void): void {
    const pick = (event: PointerEvent) => {
      const scale = this.chart.scales["x"];
      if (scale) onPick(scale.getValueForPixel(event.offsetX) ?? 0);
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pick(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons === 1) pick(event);
    });
  }
}

function choiceSet(shown: boolean): Set {
  return {
    label: shown ? "this plan" : "",
    role: "choice",
    pointRadius: 8,
    pointHoverRadius: 9,
    borderWidth: 2,
    borderColor: colour("paper"),
    backgroundColor: colour("accent"),
    data: [],
  };
}

/** A dashed line at the budget, with its name beside it. */
function budgetLine(budget: number): Plugin<"scatter"> {
  return {
    id: "budgetLine",
    afterDatasetsDraw(chart: ChartType<"scatter">) {
      const { ctx, chartArea, scales } = chart;
      const x = scales["x"]!.getPixelForValue(budget);
      ctx.save();
      ctx.strokeStyle = ctx.fillStyle = colour("accent");
      ctx.setLineDash([4, 4]);
      ctx.lineWidth = 1.5;
      ctx.beginPath();
      ctx.moveTo(x, chartArea.top);
      ctx.lineTo(x, chartArea.bottom);
      ctx.stroke();
      ctx.font = "13px system-ui, sans-serif";
      const text = `budget ${bytes(budget)}`;
      const fits = x + 8 + ctx.measureText(text).width < chartArea.right;
      ctx.textAlign = fits ? "left" : "right";
      ctx.fillText(text, x + (fits ? 8 : -8), chartArea.top + 14);
      ctx.restore();
    },
  };
}

function describe(point: Place): string {
  const error = point.error ? ` ± ${digits(point.error)}` : "";
  const name = point.name ? `${point.name}: ` : "";
  return `${name}${bytes(point.x)}, loss ${point.loss < 0 ? "" : "+"}${digits(point.loss)}${error}`;
}
