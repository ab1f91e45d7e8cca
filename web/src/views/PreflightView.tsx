import type { Preflight, Rule } from "../api/types";
import { bits, bytes, count, percent } from "../numbers";
import { ACTIVATIONS, activationsOf, pinOf, WIDTHS, withActivations, withPin } from "./draft";

interface Weight {
  name: string;
  parameters: number;
  reason: string;
}

interface Props {
  preflight: Preflight;
  rules: readonly Rule[];
  onRules: (rules: Rule[]) => void;
}

/** What the model holds, what of it can be quantized, and rules for single layers. */
export function PreflightView({ preflight, rules, onRules }: Props) {
  const floatBytes = Number(preflight["float_bytes"]);
  const smallest = Number(preflight["smallest_bytes"]);
  const unsupported = (preflight["unsupported_operators"] as string[] | undefined) ?? [];
  const parts = (preflight["quantized_parts"] as { name: string; op: string; form: string }[] | undefined) ?? [];
  const floats = (preflight["float_weights"] as Weight[] | undefined) ?? [];
  const batch = preflight["batch"] as { handling: string; reason: string | null } | undefined;
  const parameters = preflight.layers.reduce((sum, layer) => sum + layer.parameters, 0);
  return (
    <section class="card" aria-labelledby="preflight-title">
      <h2 id="preflight-title">What the model holds</h2>
      <dl class="facts">
        <Fact name="Layers">{preflight.layers.length}</Fact>
        <Fact name="Parameters in them">{count(parameters)}</Fact>
        <Fact name="Float file">{bytes(floatBytes)}</Fact>
        <Fact name="Smallest reachable">
          {bytes(smallest)}, {percent(smallest / floatBytes)}
        </Fact>
        <Fact name="Opset">{String(preflight["opset"])}</Fact>
        {batch && <Fact name="Batch">{batch.reason ? `${batch.handling}: ${batch.reason}` : batch.handling}</Fact>}
      </dl>
      {unsupported.length > 0 && (
        <p class="problem" role="alert">
          These operators cannot be run, and a job would be refused: {unsupported.join(", ")}.
        </p>
      )}
      {parts.length > 0 && (
        <p class="problem" role="alert">
          {parts.length} parts are quantized already, {parts[0]!.name} among them. A job refuses the model unless it is asked to
          keep them.
        </p>
      )}
      {floats.length > 0 && (
        <details>
          <summary>{floats.length} weights stay float</summary>
          <ul>
            {floats.map((weight) => (
              <li key={weight.name}>
                <code>{weight.name}</code> ({count(weight.parameters)}): {weight.reason}
              </li>
            ))}
          </ul>
        </details>
      )}
      <h3>Layers</h3>
      <p class="quiet">Choose a width to pin a layer; the others are decided by the budget. Activations of 16 bits or in float make a layer run in float.</p>
      <div class="scroll tall" tabIndex={0} role="region" aria-label="Layers and their rules">
        <table class="pinning">
          <thead>
            <tr>
              <th scope="col">Layer</th>
              <th scope="col">Operator</th>
              <th scope="col" class="number">
                Parameters
              </th>
              <th scope="col" class="number">
                MACs
              </th>
              <th scope="col">Bits</th>
              <th scope="col">Activations</th>
            </tr>
          </thead>
          <tbody>
            {preflight.layers.map((layer) => (
              <tr key={layer.name}>
                <th scope="row">{layer.name}</th>
                <td>{layer.op}</td>
                <td class="number" data-heading="parameters">
                  {count(layer.parameters)}
                </td>
                <td class="number" data-heading="MACs">
                  {layer.macs === null ? "" : count(layer.macs)}
                </td>
                <td data-heading="Bits">
                  <select
                    aria-label={`Bits of ${layer.name}`}
                    value={pinOf(rules, layer.name)}
                    onChange={(event) => onRules(withPin(rules, layer.name, Number(event.currentTarget.value)))}
                  >
                    <option value={0}>by budget</option>
                    {WIDTHS.map((width) => (
                      <option value={width} key={width}>
                        {bits(width)}
                      </option>
                    ))}
                  </select>
                </td>
                <td data-heading="Activations">
                  {layer.op !== "Gather" && pinOf(rules, layer.name) !== 32 && (
                    <select
                      aria-label={`Activations of ${layer.name}`}
                      value={activationsOf(rules, layer.name)}
                      onChange={(event) => onRules(withActivations(rules, layer.name, Number(event.currentTarget.value)))}
                    >
                      <option value={0}>as the rest</option>
                      {ACTIVATIONS.map((width) => (
                        <option value={width} key={width}>
                          {bits(width)}
                        </option>
                      ))}
                    </select>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function Fact({ name, children }: { name: string; children: preact.ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}
