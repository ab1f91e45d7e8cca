import type { Preflight } from "../api/types";
import { bits, bytes, percent } from "../numbers";
import { type Draft, WIDTHS } from "./draft";

const LATENCY_NOTE = "A latency budget needs a table measured by `bitwright profile`.";

interface Props {
  draft: Draft;
  onDraft: (draft: Draft) => void;
  preflight: Preflight | null;
}

/** Budgets, candidate widths and the way weights are rounded. */
export function BudgetForm({ draft, onDraft, preflight }: Props) {
  const set = (changes: Partial<Draft>) => onDraft({ ...draft, ...changes });
  const floatBytes = Number(preflight?.["float_bytes"] ?? 0);
  const least = floatBytes ? Number(preflight?.["smallest_bytes"] ?? 0) / floatBytes : 0.05;
  const low = Math.ceil(1000 * least) / 1000;
  const toggle = (width: number) =>
    set({
      widths: draft.widths.includes(width)
        ? draft.widths.filter((other) => other !== width)
        : [...draft.widths, width].sort((a, b) => a - b),
    });
  return (
    <section class="card" aria-labelledby="budget-title">
      <h2 id="budget-title">What it may cost</h2>
      <fieldset class="row">
        <legend>Budget</legend>
        {(["size", "drop", "both"] as const).map((kind) => (
          <label class="inline" key={kind}>
            <input type="radio" name="kind" checked={draft.budgetKind === kind} onChange={() => set({ budgetKind: kind })} />
            {{ size: "a size", drop: "a loss of accuracy: the smallest file within it", both: "both" }[kind]}
          </label>
        ))}
      </fieldset>
      {draft.budgetKind !== "drop" && (
        <label class="slider">
          Size
          <input
            type="range"
            min={low}
            max={1}
            step={0.005}
            value={Math.max(draft.ratio, low)}
            aria-valuetext={`${percent(draft.ratio)} of the float file`}
            onInput={(event) => set({ ratio: Number(event.currentTarget.value) })}
          />
          <output>
            {percent(Math.max(draft.ratio, low))} of the float file
            {floatBytes > 0 && `, ${bytes(Math.round(Math.max(draft.ratio, low) * floatBytes))}`}
          </output>
        </label>
      )}
      {draft.budgetKind !== "size" && (
        <label class="slider">
          Largest drop of accuracy
          <input
            type="range"
            min={0.1}
            max={5}
            step={0.1}
            value={draft.dropPercent}
            aria-valuetext={`${draft.dropPercent} percentage points`}
            onInput={(event) => set({ dropPercent: Number(event.currentTarget.value) })}
          />
          <output>{draft.dropPercent} points</output>
        </label>
      )}
      <details>
        <summary>Latency</summary>
        <p class="quiet">{LATENCY_NOTE}</p>
        <div class="row">
          <label>
            Latency table (.json)
            <input
              type="file"
              accept=".json,application/json"
              onChange={async (event) => {
                const file = event.currentTarget.files?.[0];
                set({ latencyTable: file ? (JSON.parse(await file.text()) as unknown) : null });
              }}
            />
          </label>
          <label>
            At most, in ms
            <input
              type="number"
              min={0}
              step="any"
              value={draft.latencyMs}
              disabled={!draft.latencyTable}
              onInput={(event) => set({ latencyMs: event.currentTarget.value })}
            />
          </label>
        </div>
      </details>
      <fieldset class="row">
        <legend>Widths of weights</legend>
        {WIDTHS.map((width) => (
          <label class="inline" key={width}>
            <input type="checkbox" checked={draft.widths.includes(width)} onChange={() => toggle(width)} />
            {bits(width)}
          </label>
        ))}
      </fieldset>
      <div class="row">
        <label>
          Rounding
          <select value={draft.rounding} onChange={(event) => set({ rounding: event.currentTarget.value })}>
            <option value="gptq">GPTQ</option>
            <option value="reconstruction">reconstruction: slower, better at 2 to 4 bits</option>
            <option value="nearest">nearest: fastest</option>
          </select>
        </label>
        <label class="inline">
          <input
            type="checkbox"
            checked={draft.activationFloat}
            onChange={(event) => set({ activationFloat: event.currentTarget.checked })}
          />
          float activations (small file, float speed)
        </label>
      </div>
    </section>
  );
}
