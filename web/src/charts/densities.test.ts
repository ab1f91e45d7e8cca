import { expect, it } from "vitest";

import { density, type SpectrumEntry } from "./densities";

function made(values: number[], weights: number[]): SpectrumEntry {
  const finite = values.every(Number.isFinite);
  const [smallest, largest] = finite ? [Math.min(...values), Math.max(...values)] : [null, null];
  return { name: "net", parameters: 10, values: [values], weights: [weights], smallest, largest, trace: 0, frobenius: 0 };
}

it("peaks where the eigenvalues lie, as high as their share of the mass", () => {
  const { points } = density(made([0, 5], [0.9, 0.1]))!;
  const highest = points.reduce((best, point) => (point.y > best.y ? point : best));
  // The curve is 1 % of the range wide: 0.9 / (0.05 sqrt(2 pi)) and a ninth of it.
  expect(highest.x).toBeCloseTo(0, 1);
  expect(highest.y / (0.9 / (0.05 * Math.sqrt(2 * Math.PI)))).toBeCloseTo(1, 1);
  const near = points.filter((point) => Math.abs(point.x - 5) < 0.01)[0]!;
  expect(highest.y / near.y).toBeCloseTo(9, 0);
});

it("has mass one, however many probes there are", () => {
  const entry = { ...made([0, 1, 4], [0.2, 0.5, 0.3]), values: [[0, 1, 4], [0.5, 2, 3]], weights: [[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]] };
  const { points } = density(entry)!;
  const mass = points.reduce((sum, point) => sum + point.y, 0) * (points[1]!.x - points[0]!.x);
  expect(mass).toBeCloseTo(1, 3);
});

it("draws nothing of nothing", () => {
  expect(density(made([NaN, NaN], [NaN, NaN]))).toBeNull();
  expect(density(made([2], [1]))).toBeNull();
});
