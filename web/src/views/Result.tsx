import { useMemo, useRef, useState } from "preact/hooks";

import { api, download } from "../api/client";
import type { Front, Job, Plan, Report, Rule, Sensitivity } from "../api/types";
import { FrontChart, type Curve } from "../charts/front_chart";
import { LayerChart, lossScale, type LayerBar } from "../charts/layer_chart";
import { useLoad } from "../load";
import { bits, bytes, digits, percent } from "../numbers";
import { Canvas } from "../parts/Canvas";
import { CopyBox } from "../parts/CopyBox";
import { ProblemBox } from "../parts/ProblemBox";
import { barOf, fitting, nextStep, predictedError, thinned } from "../plans";
import { recipes, shortSpec } from "../recipes";
import { go } from "../router";
import { BeforeAfter } from "./BeforeAfter";
import { pinOf, withPin } from "./draft";
import { LayerTable } from "./LayerTable";
import { Pins } from "./Pins";
import { Spectrum } from "./Spectrum";

const CURVE_POINTS = 400;

interface Costs {
  layers: { name: string; bytes: Record<string, number> }[];
}

interface Found {
  report: Report;
  front: Front;
  table: Sensitivity;
  costs: Costs;
}

/** What came out of a job, and every other plan that was to be had. */
export function Result({ job }: { job: Job }) {
  const found = useLoad<Found>(
    async (signal) => {
      const [report, front, table, costs] = await Promise.all([
        api.report(job.id, signal),
        api.front(job.id, signal),
        api.sensitivity(job.id, signal),
        api.file<Costs>(job.id, "costs.json", signal),
      ]);
      return { report, front, table, costs };
    },
    [job.id],
  );
  if (found.error !== null) return <ProblemBox error={found.error} />;
  if (found.value === null) return <p role="status">Loading the result</p>;
  return (
    <>
      {found.value.report.warnings.length > 0 && (
        <section class="card warnings" aria-label="Warnings">
          <ul>
            {found.value.report.warnings.map((warning) => (
              <li key={warning}>{warning}</li>
            ))}
          </ul>
        </section>
      )}
      <BeforeAfter report={found.value.report} />
      <div class="row">
        <button type="button" class="main" onClick={() => download(`jobs/${job.id}/model?redirect=false`, outName(job))}>
          Download the model
        </button>
        <button type="button" onClick={() => download(`jobs/${job.id}/report`, "report.html", "text/html")}>
          Report
        </button>
        <button type="button" onClick={() => save("plan.json", found.value!.report.plan)}>
          Plan
        </button>
      </div>
      <Chooser job={job} found={found.value} />
      {job.spec["spectrum"] === true && <Spectrum job={job} />}
    </>
  );
}

/** The curve and the layers, joined by the budget. */
function Chooser({ job, found }: { job: Job; found: Found }) {
  const { report, front, table, costs } = found;
  const points = front.points;
  const [budget, setBudget] = useState(report.plan.predicted_bytes);
  const [plan, setPlan] = useState<Plan>(report.plan);
  const [error, setError] = useState<unknown>(null);
  const [pointed, setPointed] = useState<number | null>(null);
  const curveChart = useRef<FrontChart | null>(null);
  const layerChart = useRef<LayerChart | null>(null);
  const asking = useRef<AbortController | null>(null);
  // What the charts' listeners, made once, need to know as it is now.
  const chosen = useRef(budget);
  const pins = useRef<readonly Rule[]>([]);
  const [pinned, setPinned] = useState<readonly Rule[]>([]);
  const [picked, setPicked] = useState(0);
  const scale = useMemo(() => lossScale(table.layers.map((layer) => layer.sensitivity)), [table]);
  const sizes = useMemo(() => new Map(costs.layers.map((layer) => [layer.name, layer.bytes])), [costs]);
  const rows = useMemo(() => new Map(table.layers.map((layer) => [layer.name, layer])), [table]);
  const ops = useMemo(() => new Map(report.layers.map((layer) => [layer.name, layer.op])), [report]);
  const barsOf = (shown: Plan): LayerBar[] =>
    shown.layers.map((layer) => barOf(layer.name, ops.get(layer.name) ?? "", layer.bits, layer.reason, rows.get(layer.name)));
  const index = fitting(points, budget);
  const bars = barsOf(plan);
  const curve = useMemo<Curve>(
    () => ({
      name: job.model,
      points: thinned(points.length, CURVE_POINTS).map((place) => {
        const point = points[place]!;
        return { x: point.bytes, y: point.predicted_loss, error: predictedError(front, point, table) };
      }),
      measured: report.trials.map((trial) => ({
        name: trial.name,
        x: trial.bytes,
        y: trial.measured_loss,
        error: trial.stderr,
      })),
    }),
    [job, front, table, report],
  );

  /** Repaint at once from the front; the service is asked for the same plan, with its reasons, once the budget stays. */
  const choose = (wanted: number) => {
    const began = performance.now();
    const place = Math.max(0, fitting(points, wanted));
    const point = points[place];
    if (!point) return;
    asking.current?.abort();
    const quick = planOf(front, point, table, sizes, pins.current);
    chosen.current = point.bytes;
    setBudget(point.bytes);
    setPlan(quick);
    curveChart.current?.select(point.bytes, point.predicted_loss);
    layerChart.current?.show(barsOf(quick));
    performance.measure("repaint", { start: began });
  };
  const settle = async () => {
    asking.current?.abort();
    const controller = new AbortController();
    asking.current = controller;
    try {
      const solved = await api.plan(job.id, { size: chosen.current, rules: pins.current }, controller.signal);
      if (controller.signal.aborted) return;
      setPlan(solved);
      setError(null);
      curveChart.current?.select(solved.predicted_bytes, solved.predicted_loss);
      layerChart.current?.show(barsOf(solved));
    } catch (failure) {
      if (!controller.signal.aborted) setError(failure);
    }
  };
  const pin = (layer: string, width: number) => {
    pins.current = withPin(pins.current, layer, width);
    setPinned(pins.current);
    void settle();
  };
  const spec = { ...job.spec, rules: [...(job.spec.rules ?? []).filter((rule) => !pinned.some((own) => own.match === rule.match)), ...pinned] };
  const make = async () => {
    try {
      const next = await api.again(job.id, shortSpec(spec, budget));
      go(`/jobs/${next.id}`);
    } catch (failure) {
      setError(failure);
    }
  };
  const shown = pointed === null ? null : bars[pointed];
  return (
    <>
      <section class="card" aria-labelledby="curve-title">
        <h2 id="curve-title">Every best plan by size</h2>
        <p class="quiet">
          Predicted and measured increase of the loss: {report.loss}. Drag the point or the slider to another budget.
        </p>
        <Canvas
          label={`Pareto curve of ${points.length} plans from ${bytes(points[0]?.bytes ?? 0)} to ${bytes(points.at(-1)?.bytes ?? 0)}; the slider below chooses among them`}
          height={340}
          draw={(canvas) =>
            new FrontChart(canvas, { curves: [curve], budget: report.plan.budget_bytes }, choose, settle)
          }
          inputs={[curve]}
          onDrawn={(drawing) => {
            curveChart.current = drawing;
            const point = points[Math.max(0, index)];
            if (point) drawing?.select(budget, plan.predicted_loss);
          }}
        />
        <label class="slider">
          Budget
          <input
            type="range"
            min={0}
            max={points.length - 1}
            value={Math.max(0, index)}
            aria-valuetext={`${bytes(budget)}, predicted loss ${digits(plan.predicted_loss)}`}
            onInput={(event) => choose(points[Number(event.currentTarget.value)]!.bytes)}
            onChange={settle}
            onPointerUp={settle}
          />
          <output>
            {bytes(budget)}, {percent(budget / report.model.float_bytes)} of float, predicted loss +{digits(plan.predicted_loss)}
          </output>
        </label>
        <div class="row">
          <button type="button" class="main" id="make" onClick={make}>
            Make this one
          </button>
          <button type="button" onClick={() => save("plan.json", plan)}>
            Download this plan
          </button>
        </div>
        {error !== null && <ProblemBox error={error} />}
        <CopyBox
          texts={recipes(
            spec,
            { model: job.model, data: job.data },
            new URL(".", location.href).href,
            budget,
          )}
        />
      </section>
      <section class="card" aria-labelledby="layers-title">
        <h2 id="layers-title">Bits of the layers, and what they cost</h2>
        <Canvas
          label={`Bits of ${bars.length} layers from input to output and the expected loss of each; the table below has the figures`}
          height={table.layers.some((layer) => layer.trace !== null) ? 600 : 460}
          draw={(canvas) => new LayerChart(canvas, bars, scale, setPointed, setPicked)}
          inputs={[job.id]}
          onDrawn={(drawing) => {
            layerChart.current = drawing;
          }}
        />
        <p class="reason">
          {shown ? <><strong>{shown.name}</strong>: {bits(shown.bits)}{shown.bits === 32 ? "" : " bits"}. {shown.reason}</> : "Point at a layer to see why it has its bits; click on it to pin it."}
        </p>
        <Pins layers={bars.map((bar) => bar.name)} picked={picked} onPicked={setPicked} rules={pinned} onPin={pin} />
        <LayerTable bars={bars} report={report} />
      </section>
    </>
  );
}

function planOf(
  front: Front,
  point: Front["points"][number],
  table: Sensitivity,
  sizes: Map<string, Record<string, number>>,
  pins: readonly Rule[],
): Plan {
  return {
    layers: front.layers.map((name, place) => {
      const pinned = pinOf(pins, name);
      const width = pinned || point.bits[place]!;
      return { name, bits: width, reason: pinned ? "pinned" : nextStep(front, sizes.get(name), table, name, width) };
    }),
    predicted_loss: point.predicted_loss,
    predicted_bytes: point.bytes,
    budget_bytes: point.bytes,
  };
}

function save(name: string, value: unknown): void {
  const url = URL.createObjectURL(new Blob([JSON.stringify(value, null, 2)], { type: "application/json" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function outName(job: Job): string {
  return job.model.replace(/\.onnx$/, "") + ".quantized.onnx";
}
