import {
  BarController, BarElement, CategoryScale, Chart, Filler, Legend, LinearScale, LineController, LineElement, LogarithmicScale,
  PointElement, ScatterController, Tooltip,
} from "chart.js";
import type { ChartOptions, ScaleOptionsByType } from "chart.js";

Chart.register(
  BarController, BarElement, CategoryScale, Filler, Legend, LinearScale, LineController, LineElement, LogarithmicScale,
  PointElement, ScatterController, Tooltip,
);

export { Chart };

/** The page's colours as the style sheet has them now; charts are drawn anew when the theme changes. */
export function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Colours of a family of lines, in order. */
export function lineColour(index: number): string {
  return colour(`line-${index % 6}`);
}

export function bitColour(width: number): string {
  return colour(`bits-${width}`) || colour("bits-8");
}

export function faded(hex: string, share: number): string {
  return `color-mix(in srgb, ${hex} ${Math.round(100 * share)}%, transparent)`;
}

export const BASE: ChartOptions = {
  animation: false,
  responsive: true,
  maintainAspectRatio: false,
  normalized: true,
};

export function axis(title: string): Partial<ScaleOptionsByType<"linear">> {
  return {
    title: { display: true, text: title, color: colour("quiet") },
    ticks: { color: colour("quiet") },
    grid: { color: colour("hairline") },
    border: { color: colour("hairline") },
  } as Partial<ScaleOptionsByType<"linear">>;
}

export function tooltip() {
  return {
    backgroundColor: colour("ink"),
    titleColor: colour("paper"),
    bodyColor: colour("paper"),
    displayColors: false,
    padding: 10,
    caretSize: 4,
  };
}

/** Ticks of a logarithmic axis: powers of ten alone, however few fit between them. */
export function powerTick(value: number | string): string {
  const exponent = Math.log10(Number(value));
  return Math.abs(exponent - Math.round(exponent)) < 1e-6 ? `1e${Math.round(exponent)}` : "";
}

/** The least that a logarithmic axis shows: estimates at or below zero are drawn there. */
export function floorOf(values: Iterable<number>): number {
  let least = Infinity;
  for (const value of values) if (value > 0 && value < least) least = value;
  return Number.isFinite(least) ? least / 3 : 1e-9;
}
