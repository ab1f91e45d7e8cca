import {
  BarController, BarElement, CategoryScale, Chart, Filler, Legend, LinearScale, LineController, LineElement,
  PointElement, ScatterController, Tooltip,
} from "chart.js";
import type { ChartOptions, ScaleOptionsByType } from "chart.js";

import type { Scale } from "./scale";

Chart.register(
  BarController, BarElement, CategoryScale, Filler, Legend, LinearScale, LineController, LineElement,
  PointElement, ScatterController, Tooltip,
);
Chart.defaults.font.family = "system-ui, sans-serif";
Chart.defaults.font.size = 13;

export { Chart };

type LinearOptions = Partial<ScaleOptionsByType<"linear">>;

/** The page's colours as the style sheet has them now; charts are drawn anew when the theme changes. */
export function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Colours of a family of lines, in order. */
export function lineColour(index: number): string {
  return colour(`line-${index % 6}`);
}

/** Dashes of a family of lines: they are told apart without colours, and where they lie upon each other. */
export function lineDash(index: number): number[] {
  return [[], [7, 4], [2, 3], [10, 3, 2, 3]][index % 4]!;
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

export function axis(title: string): LinearOptions {
  return {
    title: { display: title !== "", text: title, color: colour("quiet") },
    ticks: { color: colour("quiet"), includeBounds: false },
    grid: { color: colour("grid"), drawTicks: false },
    border: { color: colour("hairline") },
  } as LinearOptions;
}

/** An axis of places on a scale, labelled with the values that stand there; `room` is the share of it left free at both ends. */
export function scaledAxis(title: string, scale: Scale, room = 0): LinearOptions {
  const plain = axis(title);
  const free = room * (scale.ends[1] - scale.ends[0]);
  const labels = new Map(scale.ticks.map((tick) => [tick.place, tick.label]));
  return {
    ...plain,
    min: scale.ends[0] - free,
    max: scale.ends[1] + free,
    afterBuildTicks: (built: { ticks: { value: number }[] }) => {
      built.ticks = scale.ticks.map((tick) => ({ value: tick.place }));
    },
    ticks: { ...plain.ticks, autoSkip: false, padding: 6, callback: (value: number | string) => labels.get(Number(value)) ?? "" },
  } as unknown as LinearOptions;
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

export function legend(show: boolean) {
  return {
    display: show,
    align: "start" as const,
    labels: {
      color: colour("ink"),
      usePointStyle: true,
      boxHeight: 9,
      padding: 14,
      filter: (item: { text: string }) => item.text !== "",
    },
    onClick: () => undefined,
  };
}

/** Break text into lines for a tooltip. */
export function wrapped(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const line = lines.at(-1);
    if (line !== undefined && line.length + word.length < width) lines[lines.length - 1] = `${line} ${word}`;
    else lines.push(word);
  }
  return lines;
}
