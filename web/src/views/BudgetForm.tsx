import { useState } from "preact/hooks";

import type { Preflight } from "../api/types";
import { bits, bytes, digits, percent } from "../numbers";
import { descends, type Draft, hasOutliers, type LatencyTable, latencyRange, ROUNDINGS, WIDTHS } from "./draft";

interface Props {
  draft: Draft;
  onDraft: (draft: Draft) => void;
  preflight: Preflight | null;
}

/** Budgets, candidate widths and the way weights are rounded. */
export function BudgetForm({ draft, onDraft, preflight }: Props) {
  const set = (changes: Partial<Draft>) => onDraft({ ...draft, ...changes });
  const use = (changes: Partial<Draft["budgets"]>) => set({ budgets: { ...draft.budgets, ...changes } });
  const floatBytes = Number(preflight?.["float_bytes"] ?? 0);
  const least = floatBytes ? Number(preflight?.["smallest_bytes"] ?? 0) / floatBytes : 0.05;
  const low = Math.ceil(1000 * least) / 1000;
  const ratio = Math.max(draft.ratio, low);
  const toggle = (width: number) =>
    set({
      widths: draft.widths.includes(width)
        ? draft.widths.filter((other) => other !== width)
        : [...draft.widths, width].sort((a, b) => a - b),
    });
  return (
    <section class="card" aria-labelledby="budget-title">
      <h2 id="budget-title">What it may cost</h2>
      <p class="quiet">Every budget that is ticked is kept. With a drop of accuracy alone, the smallest file within it is sought.</p>
      <Budget name="Size" on={draft.budgets.size} onToggle={(size) => use({ size })} said={`${percent(ratio)} of the float file${floatBytes > 0 ? `, ${bytes(Math.round(ratio * floatBytes))}` : ""}`}>
        <input
          type="range"
          aria-label="Size"
          min={low}
          max={1}
          step={0.005}
          value={ratio}
          disabled={!draft.budgets.size}
          aria-valuetext={`${percent(ratio)} of the float file`}
          onInput={(event) => set({ ratio: Number(event.currentTarget.value) })}
        />
      </Budget>
      <Budget name="Drop of accuracy" on={draft.budgets.drop} onToggle={(drop) => use({ drop })} said={`at most ${draft.dropPercent} percentage points`}>
        <input
          type="range"
          aria-label="Drop of accuracy"
          min={0.1}
          max={5}
          step={0.1}
          value={draft.dropPercent}
          disabled={!draft.budgets.drop}
          aria-valuetext={`${draft.dropPercent} percentage points`}
          onInput={(event) => set({ dropPercent: Number(event.currentTarget.value) })}
        />
      </Budget>
      <LatencyBudget draft={draft} set={set} />
      <fieldset>
        <legend>Bits that weights may get</legend>
        <div class="row tight">
          {WIDTHS.map((width) => (
            <label class="inline" key={width}>
              <input type="checkbox" checked={draft.widths.includes(width)} onChange={() => toggle(width)} />
              {bits(width)}
            </label>
          ))}
        </div>
      </fieldset>
      <fieldset>
        <legend>How</legend>
        <div class="row how">
          <label>
            Rounding
            <select value={draft.rounding} onChange={(event) => set({ rounding: event.currentTarget.value })}>
              {ROUNDINGS.map(([value, said]) => (
                <option value={value} key={value}>
                  {said}
                </option>
              ))}
            </select>
          </label>
          <label class="inline">
            <input
              type="checkbox"
              checked={draft.descent && descends(draft.rounding)}
              disabled={!descends(draft.rounding)}
              onChange={(event) => set({ descent: event.currentTarget.checked })}
            />
            improve the rounding weight by weight
          </label>
          <label class="inline">
            <input
              type="checkbox"
              checked={draft.sparse && hasOutliers(draft.rounding)}
              disabled={!hasOutliers(draft.rounding)}
              onChange={(event) => set({ sparse: event.currentTarget.checked })}
            />
            keep outliers apart (takes longer)
          </label>
          <label class="inline">
            <input
              type="checkbox"
              checked={draft.activationFloat}
              onChange={(event) => set({ activationFloat: event.currentTarget.checked })}
            />
            float activations (small file, float speed)
          </label>
          <label class="inline">
            <input type="checkbox" checked={draft.spectrum} onChange={(event) => set({ spectrum: event.currentTarget.checked })} />
            eigenvalue density as well (takes longer)
          </label>
        </div>
      </fieldset>
    </section>
  );
}

interface BudgetProps {
  name: string;
  on: boolean;
  said: string;
  onToggle: (on: boolean) => void;
  disabled?: boolean;
  children: preact.ComponentChildren;
}

function Budget({ name, on, said, onToggle, disabled, children }: BudgetProps) {
  return (
    <div class={`budget ${on ? "" : "budget-off"}`}>
      <label class="inline">
        <input
          type="checkbox"
          aria-label={`Budget: ${name}`}
          checked={on}
          disabled={disabled}
          onChange={(event) => onToggle(event.currentTarget.checked)}
        />
        {name}
      </label>
      {children}
      <output>{on ? said : "no limit"}</output>
    </div>
  );
}

/** A budget that needs a table of times: it can be ticked once there is one. */
function LatencyBudget({ draft, set }: { draft: Draft; set: (changes: Partial<Draft>) => void }) {
  const [wrong, setWrong] = useState("");
  const table = draft.latencyTable;
  const [low, high] = table ? latencyRange(table) : [0, 1];
  const take = async (file: File | undefined) => {
    setWrong("");
    if (!file) return;
    try {
      const read = JSON.parse(await file.text()) as LatencyTable;
      const [, longest] = latencyRange(read);
      if (!Number.isFinite(longest)) throw new Error("no times");
      set({ latencyTable: read, latencyMs: longest, budgets: { ...draft.budgets, latency: true } });
    } catch {
      setWrong(`${file.name} is no table of bitwright profile.`);
    }
  };
  return (
    <>
      <Budget
        name="Latency of the layers"
        on={draft.budgets.latency}
        disabled={!table}
        onToggle={(latency) => set({ budgets: { ...draft.budgets, latency } })}
        said={`at most ${digits(draft.latencyMs)} ms`}
      >
        <input
          type="range"
          aria-label="Latency of the layers"
          min={low}
          max={high}
          step="any"
          value={draft.latencyMs}
          disabled={!draft.budgets.latency}
          aria-valuetext={`${digits(draft.latencyMs)} ms`}
          onInput={(event) => set({ latencyMs: Number(event.currentTarget.value) })}
        />
      </Budget>
      <label class="latency-file">
        <span class="quiet">
          {table ? `Times of ${table.layers.length} layers are known; another table:` : "For a latency budget, give the table that"}{" "}
          {!table && <code>bitwright profile</code>} {!table && "measured on the machine in question:"}
        </span>
        <input
          type="file"
          accept=".json,application/json"
          aria-label="Latency table"
          onChange={(event) => take(event.currentTarget.files?.[0])}
        />
      </label>
      {wrong && (
        <p class="problem" role="alert">
          {wrong}
        </p>
      )}
    </>
  );
}
