import type { Front, FrontPoint, LayerSensitivity, Sensitivity } from "./api/types";
import type { LayerBar } from "./charts/layer_chart";

/** Index of the largest plan of the front that fits; -1 where even the smallest does not. */
export function fitting(points: readonly FrontPoint[], budget: number): number {
  let low = 0;
  let high = points.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle]!.bytes <= budget) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** At most `most` indices, evenly spread, with both ends. */
export function thinned(length: number, most: number): number[] {
  if (length <= most) return Array.from({ length }, (_, index) => index);
  return Array.from({ length: most }, (_, k) => Math.round((k * (length - 1)) / (most - 1)));
}

/** Standard error of a plan's predicted loss: its layers' errors, taken as independent, in quadrature. */
export function predictedError(front: Front, point: FrontPoint, table: Sensitivity): number | null {
  const rows = new Map(table.layers.map((layer) => [layer.name, layer]));
  let sum = 0;
  for (let index = 0; index < front.layers.length; index += 1) {
    const width = point.bits[index]!;
    if (width === 32) continue;
    const error = rows.get(front.layers[index]!)?.sensitivity_stderr?.[String(width)];
    if (error == null) return null;
    sum += error * error;
  }
  return Math.sqrt(sum);
}

/** What the next width up would save of the loss for each byte, in words. */
export function nextStep(
  front: Front,
  sizes: Record<string, number> | undefined,
  table: Sensitivity,
  layer: string,
  width: number,
): string {
  const row = table.layers.find((entry) => entry.name === layer);
  const losses = row?.sensitivity;
  const choices = sizes ? Object.keys(sizes).map(Number).sort((a, b) => a - b) : [];
  const next = choices.find((choice) => choice > width);
  if (!front.layers.includes(layer) || !losses || !sizes) return "";
  const here = losses[String(width)];
  if (next === undefined || here === undefined) return "the most bits allowed";
  const there = losses[String(next)] ?? 0;
  const cost = sizes[String(next)]! - sizes[String(width)]!;
  return `${next === 32 ? "float" : `${next} bits`} would save ${(here - there).toExponential(1)} of the loss for ${Math.abs(cost)} bytes ${cost < 0 ? "less" : "more"}`;
}

/** What the chart shows of one layer at a width. */
export function barOf(name: string, op: string, width: number, reason: string, row: LayerSensitivity | undefined): LayerBar {
  const of = (losses: Record<string, number> | null | undefined) => losses?.[String(width)] ?? null;
  return {
    name,
    op,
    bits: width,
    loss: width === 32 ? 0 : of(row?.sensitivity),
    lossError: width === 32 ? null : of(row?.sensitivity_stderr),
    trace: row?.trace ?? null,
    traceError: row?.trace_stderr ?? null,
    reason,
  };
}
