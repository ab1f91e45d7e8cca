import { useMemo, useState } from "preact/hooks";

import type { Report } from "../api/types";
import type { LayerBar } from "../charts/layer_chart";
import { bits, count, digits, percent } from "../numbers";

/** What the layer chart shows, in figures, and what the file that was made adds to it. */
export function LayerTable({ bars, report }: { bars: LayerBar[]; report: Report }) {
  const known = useMemo(() => new Map(report.layers.map((layer) => [layer.name, layer])), [report]);
  const [open, setOpen] = useState(false);
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>As a table</summary>
      {/* Hundreds of rows need not follow a dragged point unseen. */}
      {open && <div class="scroll tall" tabIndex={0} role="region" aria-label="Layers">
        <table>
          <thead>
            <tr>
              <th scope="col">Layer</th>
              <th scope="col">Operator</th>
              <th scope="col" class="number">
                Parameters
              </th>
              <th scope="col" class="number">
                Bits
              </th>
              <th scope="col" class="number">
                Loss
              </th>
              <th scope="col">Why</th>
              <th scope="col">Ran as</th>
              <th scope="col" class="number">
                Signal to noise: alone
              </th>
              <th scope="col" class="number">
                up to here
              </th>
            </tr>
          </thead>
          <tbody>
            {bars.map((bar) => {
              const layer = known.get(bar.name);
              const made = layer?.weight_bits === bar.bits ? layer : undefined;
              return (
                <tr key={bar.name}>
                  <th scope="row">{bar.name}</th>
                  <td>{layer?.op}</td>
                  <td class="number">{layer && count(layer.parameters)}</td>
                  <td class="number">
                    {bits(bar.bits)}
                    {made?.trellis && <small>trellis codes</small>}
                    {made?.narrow_bits != null && (
                      <small>
                        {made.narrow_bits} for {percent(made.narrow_share ?? 0, 0)} of the channels
                      </small>
                    )}
                  </td>
                  <td class="number">{bar.loss === null ? "" : digits(bar.loss)}</td>
                  <td>{bar.reason}</td>
                  <td>{made?.kernel}</td>
                  <td class="number">{made?.own_sqnr_db != null && `${digits(made.own_sqnr_db)} dB`}</td>
                  <td class="number">{made?.sqnr_db != null && `${digits(made.sqnr_db)} dB`}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>}
    </details>
  );
}
