import type { ChartDataset } from "chart.js";

import { bytes, digits } from "../numbers";
import { errorBars, type Measured } from "./error_bars";
import { axis, BASE, Chart, colour, faded, floorOf, lineColour, powerTick, tooltip } from "./look";

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
}

type Set = ChartDataset<"scatter"> & { errorBars?: boolean; role?: string };

/** Predicted and measured loss against bytes, with a point that follows the budget. */
export class FrontChart {
  private readonly chart: Chart<"scatter">;
  private readonly floor: number;

  /**
   * @param onPick Told the bytes under the pointer while it is dragged; leave out for a chart without a choice.
   */
  constructor(canvas: HTMLCanvasElement, data: FrontData, onPick?: (bytes: number) => void) {
    const values = data.curves.flatMap((curve) => [...curve.points, ...curve.measured].map((point) => point.y));
    this.floor = floorOf(values);
    this.chart = new Chart<"scatter">(canvas, {
      type: "scatter",
      data: { datasets: this.sets(data) },
      plugins: [errorBars],
      options: {
        ...(BASE as object),
        interaction: { mode: "nearest", intersect: false, axis: "xy" },
        scales: {
          x: { ...axis("bytes of the file"), ticks: { color: colour("quiet"), callback: (value) => bytes(Number(value)) } },
          y: {
            ...(axis("increase of the loss") as object),
            type: "logarithmic",
            min: this.floor,
            ticks: { color: colour("quiet"), callback: powerTick },
          },
        },
        plugins: {
          legend: { display: data.curves.length > 1, labels: { color: colour("ink"), filter: (item) => !!item.text } },
          tooltip: {
            ...tooltip(),
            filter: (item) => (item.dataset as Set).role !== "band",
            callbacks: { label: (item) => describe(item.raw as Measured & { name?: string }) },
          },
        },
      },
    });
    if (onPick) this.listen(canvas, onPick);
  }

  /** Move the chosen point; nothing else is drawn anew. */
  select(x: number, y: number): void {
    const set = this.chart.data.datasets.find((entry) => (entry as Set).role === "choice");
    if (!set) return;
    set.data = [{ x, y: Math.max(y, this.floor) }];
    this.chart.update("none");
  }

  destroy(): void {
    this.chart.destroy();
  }

  private sets(data: FrontData): Set[] {
    const clamp = (y: number) => Math.max(y, this.floor);
    const sets: Set[] = [];
    if (data.budget !== null) {
      const high = Math.max(...data.curves.flatMap((curve) => curve.points.map((point) => point.y)), this.floor);
      sets.push({
        label: "",
        role: "band",
        showLine: true,
        pointRadius: 0,
        borderColor: colour("accent"),
        borderDash: [3, 3],
        borderWidth: 1,
        data: [{ x: data.budget, y: this.floor }, { x: data.budget, y: high }],
      });
    }
    data.curves.forEach((curve, index) => {
      const ink = lineColour(index);
      const common = { role: "band", label: "", showLine: true, pointRadius: 0, borderWidth: 0, stepped: "before" as const };
      const known = curve.points.filter((point) => point.error !== null);
      sets.push(
        {
          label: curve.name,
          showLine: true,
          stepped: "before",
          pointRadius: 0,
          pointHitRadius: 6,
          borderColor: ink,
          borderWidth: 2,
          data: curve.points.map((point) => ({ ...point, y: clamp(point.y) })),
        },
        { ...common, data: known.map((point) => ({ x: point.x, y: clamp(point.y + (point.error ?? 0)) })) },
        {
          ...common,
          data: known.map((point) => ({ x: point.x, y: clamp(point.y - (point.error ?? 0)) })),
          fill: "-1",
          backgroundColor: faded(ink, 0.16),
        },
        {
          label: "",
          errorBars: true,
          pointRadius: 4,
          pointStyle: "rectRot",
          borderColor: colour("ink"),
          backgroundColor: ink,
          data: curve.measured.map((point) => ({ ...point, y: clamp(point.y) })),
        },
      );
    });
    sets.push({
      label: "",
      role: "choice",
      pointRadius: 7,
      pointHoverRadius: 8,
      borderWidth: 2,
      borderColor: colour("paper"),
      backgroundColor: colour("accent"),
      data: [],
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

function describe(point: Measured & { name?: string }): string {
  const error = point.error ? ` ± ${digits(point.error)}` : "";
  return `${point.name ? `${point.name}, measured: ` : ""}${bytes(point.x)}, loss +${digits(point.y)}${error}`;
}
