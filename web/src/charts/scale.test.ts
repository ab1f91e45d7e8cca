import { describe, expect, it } from "vitest";

import { Scale } from "./scale";

describe("Scale", () => {
  it("puts positive values at their logarithms, with powers of ten as ticks", () => {
    const scale = Scale.fit([1e-6, 0.3]);
    expect(scale.place(1e-3)).toBeCloseTo(-3);
    expect(scale.ticks.map((tick) => tick.label)).toContain("10⁻⁵");
    expect(scale.ticks.length).toBeGreaterThanOrEqual(3);
  });

  it("is logarithmic far from zero and the same on both sides of it once a value falls below", () => {
    const scale = Scale.fit([-1e-4, 10]);
    expect(scale.place(10) - scale.place(1)).toBeCloseTo(1, 3);
    expect(scale.place(-1e-4)).toBeCloseTo(-scale.place(1e-4));
    expect(scale.ticks.map((tick) => tick.label)).toContain("0");
  });

  it("has ticks within one power of ten, for one value, for zeros and for nothing", () => {
    for (const values of [[0.011, 0.019], [-0.3, -0.2], [5], [0, 0], []]) {
      expect(Scale.fit(values).ticks.length).toBeGreaterThan(0);
    }
  });

  it("keeps the order, and everything stays on the axis", () => {
    let state = 1;
    const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
    for (let round = 0; round < 300; round += 1) {
      const values = Array.from({ length: 1 + Math.floor(8 * random()) }, () => (random() - 0.3) * 10 ** (24 * random() - 12));
      const scale = Scale.fit(values);
      const places = values.sort((a, b) => a - b).map((value) => scale.place(value));
      expect(places).toEqual([...places].sort((a, b) => a - b));
      for (const place of [...places, ...scale.ticks.map((tick) => tick.place)]) {
        expect(place).toBeGreaterThanOrEqual(scale.ends[0]);
        expect(place).toBeLessThanOrEqual(scale.ends[1]);
      }
      expect(scale.ticks.length).toBeLessThanOrEqual(7);
    }
  });
});
